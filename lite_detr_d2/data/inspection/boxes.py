"""Boxes that a detector can hardly learn, or that nobody meant."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..findings import Check, Finding, Findings, Severity
from .sizes import TrainingSizes
from .table import Floats, HalfTable, Integers

_TINY = 4  # pixels
_WHOLE = 0.95  # of the image's area
_THIN = 20  # times as long as wide
_SAME = 0.95  # intersection over union

BOX_TINY = Check(
    "box-tiny",
    Severity.WARNING,
    f"a box is less than {_TINY} pixels wide or high when its image is resized for training",
    "remove it if it is a slip; else raise INPUT.MIN_SIZE_TRAIN and INPUT.MAX_SIZE_TRAIN, and those of _TEST, or cut "
    "the images into tiles",
)
BOX_DUPLICATE = Check(
    "box-duplicate",
    Severity.WARNING,
    f"a box covers another of its class (intersection over union above {_SAME})",
    "remove one of them: a detector is to find each object once",
)
BOX_WHOLE_IMAGE = Check(
    "box-whole-image",
    Severity.INFO,
    f"a box covers more than {100 * _WHOLE:.0f} % of its image",
    "see whether an object is meant, or the image as a whole",
)
BOX_THIN = Check(
    "box-thin",
    Severity.INFO,
    f"a box is more than {_THIN} times as long as it is wide",
    "see whether it is a line drawn by mistake",
)
IMAGE_CROWDED = Check(
    "image-crowded",
    Severity.WARNING,
    "an image has more boxes than the model has queries, and each finds one object at most",
    "raise MODEL.LITE_DETR.NUM_QUERIES",
)
IMAGE_WITHOUT_BOXES = Check(
    "image-without-boxes",
    Severity.INFO,
    "images have no boxes: they teach what is no object",
    "see whether their objects were forgotten",
)


def box_findings(table: HalfTable, sizes: TrainingSizes) -> Iterator[Finding]:
    """Look at the boxes of a half, and at how many there are in an image."""
    found = Findings(table.name)
    sides = table.boxes[:, 2:]
    scales = sizes.scales(table.sizes)[table.image_of]
    areas, image_areas = sides.prod(axis=1), table.sizes.prod(axis=1)[table.image_of]
    for check, struck in (
        (BOX_TINY, sides.min(axis=1, initial=np.inf) * scales < _TINY),
        (BOX_WHOLE_IMAGE, areas > _WHOLE * image_areas),
        (BOX_THIN, sides.max(axis=1, initial=0) > _THIN * sides.min(axis=1, initial=np.inf)),
    ):
        for box in np.flatnonzero(struck):
            found.add(check, table.place(box))
    for first, second in same_boxes(table.boxes, table.image_of, table.class_of):
        found.add(BOX_DUPLICATE, f"{table.place(second)} (as {table.ids[first]})")
    if sizes.num_queries is not None:
        for image in np.flatnonzero(table.boxes_per_image > sizes.num_queries):
            found.add(IMAGE_CROWDED, f"{table.files[image]} ({table.boxes_per_image[image]})")
    yield from found
    yield from _without_boxes(table)


def _without_boxes(table: HalfTable) -> Iterator[Finding]:
    empty = np.flatnonzero(table.boxes_per_image == 0)
    if 0 < len(empty) < len(table.sizes):  # of a half that has none at all, it is said elsewhere
        share = f"{100 * len(empty) / len(table.sizes):.1f} % of the {IMAGE_WITHOUT_BOXES.message}"
        found = Findings(table.name)
        for image in empty:
            found.add(replace(IMAGE_WITHOUT_BOXES, message=share), table.files[image])
        yield from found


def same_boxes(boxes: Floats, image_of: Integers, class_of: Integers) -> npt.NDArray[np.int64]:
    """Find boxes of the same image and class that cover each other.

    Two such boxes' left edges differ by 1 - 0.95 of the first one's width at most. So it is enough to go through
    each image's boxes from left to right, and to compare each with those that follow closely.

    Args:
        boxes: (N, 4), XYWH with positive sides.
        image_of: (N,).
        class_of: (N,).

    Returns:
        (M, 2), the indices of a box, and of another that covers it. Each box is at most once a second.
    """
    order = np.lexsort((*boxes.T[::-1], class_of, image_of))
    left, width = boxes[order, 0], boxes[order, 2]
    group = np.cumsum((np.diff(image_of[order], prepend=-1) != 0) | (np.diff(class_of[order], prepend=-1) != 0))
    end = np.searchsorted(group, group, side="right")
    # What is found of a box is found of the first that is just like it.
    copies = (np.diff(group, prepend=-1) == 0) & (np.diff(boxes[order], axis=0, prepend=np.nan) == 0).all(axis=1)
    alive, step = np.flatnonzero(~copies), 1
    pairs = [np.empty((0, 2), dtype=np.int64)]
    while True:
        alive = alive[alive + step < end[alive]]
        alive = alive[left[alive + step] - left[alive] < (1 - _SAME) * width[alive]]
        if len(alive) == 0:
            break
        first, second = order[alive], order[alive + step]
        pairs.append(np.stack((first, second), axis=1)[_overlap(boxes[first], boxes[second]) > _SAME])
        step += 1
    together = np.sort(np.concatenate(pairs), axis=1)
    together = together[np.lexsort((together[:, 0], together[:, 1]))]
    return together[np.unique(together[:, 1], return_index=True)[1]]


def _overlap(boxes: Floats, others: Floats) -> Floats:
    """Intersection over union of (N, 4) boxes with (N, 4) others, XYWH, pair by pair."""
    low = np.maximum(boxes[:, :2], others[:, :2])
    high = np.minimum(boxes[:, :2] + boxes[:, 2:], others[:, :2] + others[:, 2:])
    shared: Floats = np.clip(high - low, 0, None).prod(axis=1)
    union: Floats = boxes[:, 2:].prod(axis=1) + others[:, 2:].prod(axis=1) - shared
    return shared / union
