"""Rows of class heads, by the names of the classes."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from torch import Tensor

from ..errors import InputError
from ..wording import counted, in_short
from .names import StateDict

ClassNames: TypeAlias = Sequence[str | None]
"""One name per row; None where a row stands for no class."""

NUM_COCO_IDS = 91  # the published heads have a row for each COCO category id, used or not
NUM_COCO_CLASSES = 80

_HEAD = re.compile(r"(.*\.)?class_embed\.(weight|bias)")
_LABEL_EMBEDDING = "denoising.label_embed.weight"


def count_classes(state: Mapping[str, Tensor]) -> int | None:
    """How many rows the first class head of ``state`` (our names) has; None if there is no head."""
    return next((len(tensor) for name, tensor in state.items() if _HEAD.fullmatch(name)), None)


def class_names_of(source: str, checkpoint: Mapping[str, Any]) -> ClassNames | None:
    """The names of its classes that a checkpoint keeps; None if it keeps none.

    Args:
        source: where it is from, for the error.
        checkpoint: what a file holds.

    Raises:
        InputError: they are no list of names.
    """
    names = checkpoint.get("class_names")
    if names is None or (isinstance(names, list | tuple) and all(isinstance(name, str | None) for name in names)):
        return names
    raise InputError(f"{source}: its class_names must be a list of names; save it so, or without.")


def published_class_names(state: Mapping[str, Tensor], *, by_id: bool = True) -> list[str | None] | None:
    """Class names of a converted checkpoint: COCO's if it has as many rows as COCO's, else unknown (None).

    Args:
        state: our names -> tensors.
        by_id: whether rows are for category ids, of which COCO has 91; else they are for its 80 classes, in the order
            of their ids.
    """
    by_number = coco_categories()
    names = [by_number.get(identifier) for identifier in (range(NUM_COCO_IDS) if by_id else by_number)]
    return names if count_classes(state) == len(names) else None


def keep_coco_classes(state: Mapping[str, Tensor]) -> tuple[StateDict, list[str]]:
    """Keep the rows of COCO's 80 classes, of heads with a row for each of its 91 category ids.

    Returns:
        The state dict, and the names of its classes in detectron2's order.

    Raises:
        InputError: naming a tensor that has another number of rows.
    """
    for name, tensor in state.items():
        if is_class_tensor(name) and len(tensor) != NUM_COCO_IDS + int(name == _LABEL_EMBEDDING):
            raise InputError(f"--classes coco80 needs heads of {NUM_COCO_IDS} classes: {name} has {len(tensor)} rows.")
    names = coco_categories()
    return select_rows(state, rows_of_categories(state, names), state), [names[each] for each in sorted(names)]


def coco_categories() -> dict[int, str]:
    """COCO's category ids that are used -> the classes' names."""
    return {each["id"]: each["name"] for each in COCO_CATEGORIES if each["isthing"]}


def rows_of_categories(
    state: Mapping[str, Tensor], names: Mapping[int, str], given: ClassNames | None = None
) -> list[int]:
    """The rows of categories in class heads: by their names, if those of the rows are given; else by their ids.

    Args:
        state: our names -> tensors.
        names: category id -> the class's name.
        given: the names of the rows; None of heads with a row for each id from 0 on, as published code trains them.

    Returns:
        A row for each category, in the order of their ids.

    Raises:
        InputError: there are no class heads, they have another number of rows than ``given`` names, or a category has
            no row.
    """
    count, ids = count_classes(state), sorted(names)
    if count is None:
        raise InputError("There are no class heads, of which rows could be kept: leave out --classes.")
    if given is None:
        beyond = [str(identifier) for identifier in ids if not 0 <= identifier < count]
        if beyond:
            raise InputError(
                f"Of the category ids {in_short(beyond)} have no row in heads of {count}, which are for 0 to "
                f"{count - 1}: give the annotations that it was trained on."
            )
        return ids
    if len(given) != count:
        raise InputError(
            f"The checkpoint's class_names are {len(given)}, and its heads have {count} rows: save it with a name for "
            "each row, or without."
        )
    rows = rows_by_name(given, [names[identifier] for identifier in ids])
    absent = [repr(names[identifier]) for identifier, row in zip(ids, rows, strict=True) if row is None]
    if absent:
        known = in_short([repr(name) for name in given if name is not None])
        raise InputError(
            f"The checkpoint names its classes ({known}), and {in_short(absent)} is none of them: give annotations "
            "with categories of these names alone."
        )
    return [row for row in rows if row is not None]


def names_by_place(state: Mapping[str, Tensor], names: Mapping[int, str]) -> ClassNames:
    """The names of rows that are for classes in the order of their ids, without gaps for ids that no class has.

    Args:
        state: our names -> tensors, with class heads.
        names: category id -> the class's name.

    Returns:
        Those of ``names``, if there are as many as rows; else COCO's, if the rows are as many.

    Raises:
        InputError: there are others.
    """
    count = count_classes(state)
    if count == len(names):
        return [names[identifier] for identifier in sorted(names)]
    known = published_class_names(state, by_id=False)
    if known is None:
        raise InputError(
            f"The heads have {count} rows, one for each class and none for other ids, and there are "
            f"{counted(len(names), 'category', 'categories')}: give the annotations that it was trained on, or save it "
            "with 'class_names' beside 'model', a list with a name for each row."
        )
    return known


def rows_by_name(given: ClassNames, wanted: ClassNames) -> list[int | None]:
    """For each wanted class, the row of the given one of the same name, or None."""
    rows = {name: row for row, name in reversed(list(enumerate(given))) if name is not None}
    return [rows.get(name) if name is not None else None for name in wanted]


def select_rows(
    state: Mapping[str, Tensor],
    rows: Sequence[int | None],
    fresh: Mapping[str, Tensor],
    *,
    class_agnostic: bool | None = None,
) -> StateDict:
    """Take rows of every tensor that has one per class; ``None`` takes the row of ``fresh`` at the same place.

    The label embedding also keeps its last row, which is no class. The encoder's head of Deformable DETR and H-DETR is
    trained on class 0 alone, whatever that is: its first row stays first, if it is ``class_agnostic``. Without being
    told, it is taken to tell classes apart where queries are made of the encoder's tokens, as in Sparse DETR. Tensors
    with other rows than the class heads are left as they are, and so are those that ``fresh`` should, and does not,
    have in the resulting shape.
    """
    count = count_classes(state)
    selected = dict(state)
    if class_agnostic is None:
        class_agnostic = makes_content(state)
    for name, tensor in state.items():
        is_label_embedding = name == _LABEL_EMBEDDING
        if not is_class_tensor(name) or count is None or len(tensor) != count + int(is_label_embedding):
            continue
        wanted = list(rows)
        if is_label_embedding:
            wanted.append(count)
        elif name.startswith("query_selection.head.") and class_agnostic:
            wanted[0] = 0
        if None not in wanted:
            selected[name] = tensor[wanted]
        elif name in fresh and fresh[name].shape == (len(wanted), *tensor.shape[1:]):
            selected[name] = fresh[name].detach().to(tensor, copy=True)
            kept = [place for place, row in enumerate(wanted) if row is not None]
            selected[name][kept] = tensor[[row for row in wanted if row is not None]]
    return selected


def makes_content(state: Mapping[str, Tensor]) -> bool:
    """Whether proposals are embedded (our names) as position and content, which is twice as wide as position alone."""
    embedding = state.get("query_selection.proposal_embed.proj.weight")
    return embedding is not None and embedding.shape[0] == embedding.shape[1]


def is_class_tensor(name: str) -> bool:
    """Whether a tensor (our name) has a row for each class."""
    return name == _LABEL_EMBEDDING or _HEAD.fullmatch(name) is not None
