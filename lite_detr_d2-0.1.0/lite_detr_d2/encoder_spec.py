"""The paper's name of an interleaved encoder, ``HxLy-(A+1)xB``, as a value."""

import re
from dataclasses import dataclass

FUSIONS = ("joint", "sequential", "high_only")
_PATTERN = re.compile(r"H(\d+)L(\d+)-\((\d+)\+1\)x(\d+)")


@dataclass(frozen=True)
class EncoderSpec:
    """An interleaved encoder of B blocks that refine the high-level tokens A times and the low-level ones once.

    Attributes:
        high_levels: x of ``HxLy``, the number of coarse levels that are refined often, at least 1.
        low_levels: y of ``HxLy``, the number of fine levels that are refined once in a block, at least 1.
        refinements: A, how often a block refines the high-level tokens, at least 1.
        blocks: B, at least 1.

    Source: Lite DETR, arXiv 2303.07335, Sec. 3.3 and 4.1.
    """

    high_levels: int
    low_levels: int
    refinements: int
    blocks: int

    def __post_init__(self) -> None:
        for name in ("high_levels", "low_levels", "refinements", "blocks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} of an encoder spec must be at least 1, got {getattr(self, name)}.")

    @classmethod
    def parse(cls, text: str) -> "EncoderSpec":
        """Read a spec such as ``"H3L1-(2+1)x3"``.

        Raises:
            ValueError: when ``text`` is not of the form ``HxLy-(A+1)xB`` or one of its numbers is zero.
        """
        match = _PATTERN.fullmatch(text.replace(" ", ""))
        if match is None:
            raise ValueError(
                f"{text!r} is not an encoder spec. Expected HxLy-(A+1)xB, for example 'H3L1-(2+1)x3': "
                "3 high levels, 1 low level, 2 refinements of the high-level tokens in each of 3 blocks."
            )
        try:
            return cls(*(int(number) for number in match.groups()))
        except ValueError as error:
            raise ValueError(f"{text!r} is not an encoder spec: {error}") from None

    def __str__(self) -> str:
        return f"H{self.high_levels}L{self.low_levels}-({self.refinements}+1)x{self.blocks}"

    @property
    def num_levels(self) -> int:
        """The number of feature levels that the encoder needs, L = x + y."""
        return self.high_levels + self.low_levels

    def block_schedule(self, fusion: str) -> tuple[str, ...]:
        """Which tokens each layer of a block refines: ``"high"``, ``"low"`` or ``"all"``.

        ``joint`` is the released code's reading: A - 1 layers on the high-level tokens, then one on all of them.
        ``sequential`` is the paper's Eq. (1) and (2) to the letter: A layers on the high-level tokens, then one on the
        low-level tokens. ``high_only`` is Table 5's ablation, which leaves the low-level tokens as they are: A layers
        on the high-level tokens.

        Raises:
            ValueError: when ``fusion`` is none of these.
        """
        if fusion == "joint":
            return ("high",) * (self.refinements - 1) + ("all",)
        if fusion == "sequential":
            return ("high",) * self.refinements + ("low",)
        if fusion == "high_only":
            return ("high",) * self.refinements
        raise ValueError(f"fusion must be one of {FUSIONS}, got {fusion!r}.")
