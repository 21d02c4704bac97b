"""What became of the tensors of a checkpoint, for people."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from ..wording import in_short

_MODULES_SHOWN = 20


@dataclass
class ConversionReport:
    """What became of every tensor.

    Attributes:
        kind: which published implementation the checkpoint is of.
        only_backbone: whether that is a backbone, trained to classify, and no detector.
        mapped: published name -> our names; more than one where a fused tensor was split.
        skipped: published name -> why it was not used.
        missing: names that the model has and the checkpoint does not give.
        mismatched: our name -> the given and the expected shape, where they differ or the model has no such tensor.
    """

    kind: str
    only_backbone: bool = False
    mapped: dict[str, tuple[str, ...]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    mismatched: dict[str, str] = field(default_factory=dict)

    def compare(self, converted: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> None:
        """Note where ``converted`` is not what a model with tensors of the ``expected`` shapes needs."""
        self.missing = [name for name in expected if name not in converted]
        for name, tensor in converted.items():
            if tuple(tensor.shape) != expected.get(name):
                self.mismatched[name] = f"{tuple(tensor.shape)}, expected {expected.get(name, 'no such tensor')}"

    def errors(self) -> list[str]:
        """What keeps the result from being a whole model, one tensor per line."""
        lines = [f"missing  {name}" for name in self.missing]
        return lines + [f"shape    {name}: {text}" for name, text in self.mismatched.items()]

    def counts(self) -> str:
        """The kind, and how many tensors had each fate."""
        counts = f"{len(self.mapped)} mapped, {len(self.skipped)} skipped, {len(self.missing)} missing"
        return f"{self.kind}: {counts}, {len(self.mismatched)} of another shape"

    def lines(self) -> list[str]:
        """The whole report, one tensor per line, and the counts last."""
        lines = [f"mapped   {old} -> {', '.join(new)}" for old, new in self.mapped.items()]
        lines += [f"skipped  {name}: {reason}" for name, reason in self.skipped.items()]
        return [*lines, *self.errors(), self.counts()]

    def summary(self, model: Iterable[str]) -> str:
        """The report in short: the counts, and modules instead of tensors; ``model`` has the names of all of ours."""
        lines = [self.counts()]
        for reason in dict.fromkeys(self.skipped.values()):
            names = [name for name, why in self.skipped.items() if why == reason]
            lines.append(f"skipped, {reason}: {modules_of(names, [*self.mapped, *self.skipped])}")
        if self.missing:
            lines.append(f"missing: {modules_of(self.missing, model)}")
        return "\n  ".join(lines)


def modules_of(names: Iterable[str], everything: Iterable[str]) -> str:
    """Tensors by the modules that hold them and nothing else, with ``*`` for layer numbers and the number of tensors.

    Args:
        names: what to list.
        everything: all the names that there are, those to list included or not.
    """
    names = list(names)
    listed = set(names)
    shared = {prefix for name in everything if name not in listed for prefix in _prefixes(name)}
    modules = [next(prefix for prefix in _prefixes(name) if prefix not in shared) for name in names]
    counts = Counter(re.sub(r"(?<=\.)\d+(?=\.|$)", "*", module) for module in modules)
    return in_short([f"{module} ({count})" for module, count in counts.items()], _MODULES_SHOWN)


def _prefixes(name: str) -> list[str]:
    """The modules around a tensor, outermost first, and the tensor itself."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
