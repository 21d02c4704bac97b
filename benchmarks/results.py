"""What ops.py measured."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import product

from cases import CASES, PASSES
from common import Summary, ratio, summary


@dataclass(frozen=True)
class Cell:
    """What is compared with each other, in the same rounds. ``which`` is one of ``PASSES``."""

    case: str
    which: str
    queries: int
    images: int

    def title(self) -> str:
        images = "" if self.images == 1 else f", {self.images} images"
        return f"{CASES[self.case].title}, {PASSES[self.which]}, Q = {self.queries:,}{images}"


@dataclass(frozen=True)
class Variant:
    """One of those that are compared in a cell."""

    implementation: str
    dtype: str = "float32"
    threads: int = 1


@dataclass(frozen=True)
class Results:
    """All that was measured.

    Attributes:
        times: seconds per call, one for each round.
        peaks: bytes of extra peak memory in a forward + backward call.
    """

    times: dict[Cell, dict[Variant, list[float]]]
    peaks: dict[Cell, dict[Variant, int]]

    def summary(self, cell: Cell, variant: Variant) -> Summary | None:
        """The times of a variant; None if it was not measured."""
        times = self.times.get(cell, {})
        return summary(times[variant]) if variant in times else None

    def ratio(self, cell: Cell, above: Variant, below: Variant) -> Summary | None:
        """The ratio of two variants of a cell; None if one was not measured."""
        times = self.times.get(cell, {})
        return ratio(times[above], times[below]) if above in times and below in times else None

    def over_msda(self, cell: Cell, variant: Variant) -> Summary | None:
        """A cell's median time over that of MSDA, which was measured in the same run, but not in the same rounds."""
        kda, msda = self.summary(cell, variant), self.summary(replace(cell, case="msda"), variant)
        return summary([kda.median / msda.median]) if kda and msda else None


def cells_of(cases: Iterable[str], passes: Iterable[str], sizes: Iterable[int], images: Iterable[int]) -> list[Cell]:
    """Every combination."""
    return [Cell(*key) for key in product(cases, passes, sizes, images)]
