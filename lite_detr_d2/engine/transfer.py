"""What a model takes of a checkpoint with other classes, or of another architecture."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..checkpoint import (
    COUNTER,
    ClassNames,
    StateDict,
    count_classes,
    modules_of,
    names_by_place,
    rows_by_name,
    select_rows,
)
from ..errors import InputError
from ..wording import counted, in_short

_NAMES_SHOWN = 10
_CLASS_ROWS = "MODEL.LITE_DETR.CLASS_ROWS"


@dataclass(frozen=True)
class Classes:
    """What is known of a model's classes, in their order.

    Attributes:
        names: their names; None if unknown.
        ids: the dataset's category ids; None if unknown.
        rows: ``MODEL.LITE_DETR.CLASS_ROWS``.
        class_agnostic: whether the encoder's head finds objects of any class; None if unknown.
    """

    names: Sequence[str] | None = None
    ids: Sequence[int] | None = None
    rows: str = "names"
    class_agnostic: bool | None = None


@dataclass(frozen=True)
class MatchedClasses:
    """A checkpoint's tensors for the classes of a model.

    Attributes:
        state: the tensors.
        new: the model's classes that the checkpoint is known not to have.
        message: what was done, or could not be, for the log; "" if there was nothing to do.
        cure: what to do if rows may be for other classes than the model's, and nothing is known of these; "" otherwise.
    """

    state: StateDict
    new: Sequence[str] = ()
    message: str = ""
    cure: str = ""


def match_classes(
    state: StateDict, given: ClassNames | None, model: Mapping[str, Tensor], wanted: Classes
) -> MatchedClasses:
    """Take rows of class heads by the names of the classes; by their ids, if that is asked for and no names are given.

    Args:
        state: the checkpoint's tensors.
        given: the names of its classes; None if unknown.
        model: the model's tensors, whose rows stay for classes that the checkpoint does not have.
        wanted: the model's classes.

    Raises:
        InputError: by ids, a class has none, or one for which there is no row.
    """
    found, expected = count_classes(state), count_classes(model)
    if found is None or expected is None:
        return MatchedClasses(state)
    if given is None and wanted.rows == "ids":
        rows = _rows_by_id(wanted, found, expected)
        text = f"classes are taken from the rows {', '.join(map(str, rows))} of its heads, by {_CLASS_ROWS} ids"
        return MatchedClasses(
            select_rows(state, rows, model, class_agnostic=wanted.class_agnostic),
            message=text,
            cure=_doubt(found, rows),
        )
    names = wanted.names
    if given is None or names is None or len(given) != found or len(names) != expected:
        if found == expected:
            return MatchedClasses(state)
        whose = "the model's" if names is None and given is not None else "the checkpoint's"
        text = (
            f"it has {counted(found, 'class', 'classes')}, the model has {expected}, and {whose} names are not known: "
            "none is matched"
        )
        return MatchedClasses(state, message=text, cure=_cure(found, wanted))
    if list(given) == list(names):
        return MatchedClasses(state)
    rows_by_class = rows_by_name(given, names)
    kept = [name for name, row in zip(names, rows_by_class, strict=True) if row is not None]
    new = [name for name, row in zip(names, rows_by_class, strict=True) if row is None]
    text = f"{counted(len(kept), 'class keeps', 'classes keep')} what was learnt ({names_in_short(kept)})"
    text += f", {counted(len(new), 'starts', 'start')} anew ({names_in_short(new)})" if new else ""
    text += f"; {_CLASS_ROWS} ids is for checkpoints that do not name their classes" if wanted.rows == "ids" else ""
    selected = select_rows(state, rows_by_class, model, class_agnostic=wanted.class_agnostic)
    return MatchedClasses(selected, new, text)


def class_names_by_place(state: StateDict, wanted: Classes) -> ClassNames:
    """The names of rows that are for classes in the order of their ids, where rows by ids are asked for.

    Raises:
        InputError: the dataset does not tell its ids, or the rows are for other classes.
    """
    if wanted.ids is None or wanted.names is None or len(wanted.ids) != len(wanted.names):
        raise InputError(
            f"{_CLASS_ROWS} is 'ids', and the dataset does not tell its category ids and names: set it to 'names'."
        )
    return names_by_place(state, dict(zip(wanted.ids, wanted.names, strict=True)))


def _rows_by_id(wanted: Classes, found: int, expected: int) -> list[int]:
    if wanted.ids is None or len(wanted.ids) != expected:
        raise InputError(f"{_CLASS_ROWS} is 'ids', and the dataset does not tell its category ids: set it to 'names'.")
    beyond = [identifier for identifier in wanted.ids if not 0 <= identifier < found]
    if beyond:
        raise InputError(
            f"{_CLASS_ROWS} is 'ids', and of the dataset's category ids {names_in_short(beyond)} have no row in heads "
            f"of {found}, which are for 0 to {found - 1}. Give the categories the ids that it was trained on; or set "
            "the key to 'names', and training learns the classes anew."
        )
    return list(wanted.ids)


def _doubt(found: int, rows: Sequence[int]) -> str:
    """What to see to where rows by ids leave over the last, whose ids the annotations of the training must have had."""
    if max(rows) + 1 == found:
        return ""
    return (
        f"It has rows for ids up to {found - 1}, and the dataset's end at {max(rows)}: see that its ids are those of "
        "the annotations that it was trained on"
    )


def _cure(found: int, wanted: Classes) -> str:
    if wanted.ids is not None and max(wanted.ids, default=-1) + 1 == found:
        return f"There is a row for each category id of the dataset, 0 to {found - 1}: take them by {_CLASS_ROWS} ids."
    if wanted.names is None:
        return f"A dataset of {counted(found, 'class', 'classes')} takes them all."
    return (
        "To name them, save the file with 'class_names' beside 'model': a list with a name for each row, None where it "
        "is for no class."
    )


def names_in_short(names: Iterable[object]) -> str:
    """The first few names, quoted; or numbers."""
    return in_short([repr(name) for name in names], _NAMES_SHOWN) or "none"


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
        taken = counted(len(self.taken), "tensor is", "tensors are")
        counts = f"{len(self.new)} new, {len(self.unused)} unused, {len(self.reshaped)} of another shape"
        lines = [f"{taken} taken, {counts}"]
        for title, names in (("new", self.new), ("unused", self.unused), ("of another shape", list(self.reshaped))):
            lines += [f"{title}: {modules_of(names, everything)}"] if names else []
        return "\n  ".join(lines)
