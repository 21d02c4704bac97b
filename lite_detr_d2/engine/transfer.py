"""What a model takes of a checkpoint with other classes, or of another architecture."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..checkpoint import COUNTER, ClassNames, StateDict, count_classes, modules_of, rows_by_name, select_rows

_NAMES_SHOWN = 10


@dataclass(frozen=True)
class MatchedClasses:
    """A checkpoint's tensors for the classes of a model.

    Attributes:
        state: the tensors.
        new: the model's classes that the checkpoint is known not to have.
        message: what was done, for the log; "" if nothing was.
    """

    state: StateDict
    new: Sequence[str] = ()
    message: str = ""


def match_classes(
    state: StateDict, given: ClassNames | None, model: Mapping[str, Tensor], wanted: Sequence[str] | None
) -> MatchedClasses:
    """Take rows of class heads by the names of the classes.

    Args:
        state: the checkpoint's tensors.
        given: the names of its classes; None if unknown.
        model: the model's tensors, whose rows stay for classes that the checkpoint does not have.
        wanted: the names of the model's classes; None if unknown.
    """
    found, expected = count_classes(state), count_classes(model)
    if found is None or expected is None:
        return MatchedClasses(state)
    if given is None or wanted is None or len(given) != found or len(wanted) != expected:
        if found == expected:
            return MatchedClasses(state)
        unknown = "the model's" if wanted is None and given is not None else "the checkpoint's"
        text = f"it has {found} classes, the model has {expected}, and {unknown} names are not known: none is matched"
        return MatchedClasses(state, message=text)
    if list(given) == list(wanted):
        return MatchedClasses(state)
    rows = rows_by_name(given, wanted)
    kept = [name for name, row in zip(wanted, rows, strict=True) if row is not None]
    new = [name for name, row in zip(wanted, rows, strict=True) if row is None]
    text = f"{len(kept)} classes keep what they learnt ({names_in_short(kept)})"
    text += f", {len(new)} start anew ({names_in_short(new)})" if new else ""
    return MatchedClasses(select_rows(state, rows, model), new, text)


def names_in_short(names: Iterable[str | None]) -> str:
    """The first few names, quoted."""
    quoted = [repr(name) for name in names]
    return ", ".join([*quoted[:_NAMES_SHOWN], *(["..."] if len(quoted) > _NAMES_SHOWN else [])]) or "none"


@dataclass(frozen=True)
class InitReport:
    """What became of the tensors of a checkpoint that a model is started from, and of the model's.

    Attributes:
        taken: names that both have, in the same shape.
        new: names that only the model has, but for the counters of batch normalisation.
        unused: names that only the checkpoint has.
        reshaped: name -> the checkpoint's and the model's shape, where they differ.
    """

    taken: list[str]
    new: list[str]
    unused: list[str]
    reshaped: dict[str, str]

    @classmethod
    def compare(cls, state: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> "InitReport":
        shared = [name for name in model if name in state]
        differing = [name for name in shared if state[name].shape != model[name].shape]
        return cls(
            taken=[name for name in shared if name not in set(differing)],
            new=[name for name in model if name not in state and not name.endswith(COUNTER)],
            unused=[name for name in state if name not in model],
            reshaped={name: f"{tuple(state[name].shape)}, not {tuple(model[name].shape)}" for name in differing},
        )

    def summary(self) -> str:
        """The report in short, by modules; in parentheses how many tensors each has."""
        everything = dict.fromkeys([*self.taken, *self.new, *self.unused, *self.reshaped])
        counts = f"{len(self.taken)} tensors are taken, {len(self.new)} new, {len(self.unused)} unused"
        lines = [f"{counts}, {len(self.reshaped)} of another shape"]
        for title, names in (("new", self.new), ("unused", self.unused), ("of another shape", list(self.reshaped))):
            lines += [f"{title}: {modules_of(names, everything)}"] if names else []
        return "\n  ".join(lines)
