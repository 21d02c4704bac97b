"""Rows of class heads, by the names of the classes."""

import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from torch import Tensor

from ..errors import InputError
from ..wording import in_short
from .names import StateDict

ClassNames: TypeAlias = Sequence[str | None]
"""One name per row; None where a row stands for no class."""

NUM_COCO_IDS = 91  # the published heads have a row for each COCO category id, used or not

_HEAD = re.compile(r"(.*\.)?class_embed\.(weight|bias)")
_LABEL_EMBEDDING = "denoising.label_embed.weight"


def count_classes(state: Mapping[str, Tensor]) -> int | None:
    """How many rows the first class head of ``state`` (our names) has; None if there is no head."""
    return next((len(tensor) for name, tensor in state.items() if _HEAD.fullmatch(name)), None)


def published_class_names(state: Mapping[str, Tensor]) -> list[str | None] | None:
    """Class names of a converted checkpoint: COCO's by category id if it has as many rows, else unknown (None)."""
    if count_classes(state) != NUM_COCO_IDS:
        return None
    by_id = {category["id"]: category["name"] for category in COCO_CATEGORIES if category["isthing"]}
    return [by_id.get(identifier) for identifier in range(NUM_COCO_IDS)]


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
    return keep_rows_of_ids(state, {each["id"]: each["name"] for each in COCO_CATEGORIES if each["isthing"]})


def keep_rows_of_ids(state: Mapping[str, Tensor], names: Mapping[int, str]) -> tuple[StateDict, list[str]]:
    """Keep the rows of some category ids, of heads with a row for each id from 0 on, as published code trains them.

    Args:
        state: our names -> tensors.
        names: category id -> the class's name.

    Returns:
        The state dict, and the names of its classes in the order of their ids.

    Raises:
        InputError: there are no class heads, or an id has no row in them.
    """
    count, ids = count_classes(state), sorted(names)
    if count is None:
        raise InputError("There are no class heads, of which rows could be kept: leave out --classes.")
    beyond = [str(identifier) for identifier in ids if not 0 <= identifier < count]
    if beyond:
        raise InputError(
            f"Of the category ids {in_short(beyond)} have no row in heads of {count}, which are for 0 to {count - 1}: "
            "give the annotations that it was trained on."
        )
    return select_rows(state, ids, state), [names[identifier] for identifier in ids]


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
