"""What keeps detections from being right, and what each kind of error costs: TIDE.

Source: Bolya et al., TIDE: A General Toolbox for Identifying Object Detection Errors, ECCV 2020, arXiv 2008.08115.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .matches import FOUND, Flags, Floats, ImageMatches, Indices

BACKGROUND = 0.1  # IoU, at most

ERRORS = ("classification", "localisation", "both", "duplicate", "background", "missed")
_NONE = -1
_RECALLS = np.linspace(0, 1, 101)  # that COCO averages precisions over


@dataclass(frozen=True)
class ErrorCost:
    """How often an error happens, and the AP50 (0..100) that is gained where all of its kind are mended, alone."""

    count: int
    ap50_gain: float


@dataclass(frozen=True)
class _Detections:
    """Those of an image, or of all.

    Attributes:
        scores: of each.
        labels: index of the class.
        errors: index in ``ERRORS``; -1 of what is right.
        mended: the class of which it is right once its error is mended; -1 if it is gone then.
    """

    scores: Floats
    labels: Indices
    errors: Indices
    mended: Indices


def error_costs(images: Sequence[ImageMatches], num_classes: int) -> dict[str, ErrorCost]:
    """Count each kind of error, and what it costs.

    A detection that is not right is, in this order: ``localisation``, of its own class, with an IoU from 0.1 to 0.5;
    ``classification``, of another, with 0.5 or more; ``duplicate``, of an object that another detection has found;
    ``background``, with 0.1 or less of anything; else ``both``, wrong in place and class. An object is ``missed`` if
    neither a right detection nor one of the first two errors is about it.

    Mended, the first two become right about their object, if it is not found and no other of them scores higher; all
    others go away. A missed object is no longer to be found; and a class of which that leaves none is found in full.

    Args:
        images: all of them.
        num_classes: of the dataset.

    Returns:
        By the names of ``ERRORS``.
    """
    parts: list[_Detections] = []
    objects, missed = (np.zeros(num_classes, dtype=np.int64) for _ in range(2))
    for image in images:
        detections, is_missed = _errors_in(image)
        parts.append(detections)
        np.add.at(objects, image.objects, 1)
        np.add.at(missed, image.objects[is_missed], 1)
    every = _joined(parts)
    before = ap50_by_class(every.scores, every.labels, every.errors == _NONE, objects)
    costs = {}
    for number, name in enumerate(ERRORS):
        is_mended = every.errors == number
        labels = np.where(is_mended, every.mended, every.labels)
        left = objects - missed if name == "missed" else objects
        after = ap50_by_class(every.scores, labels, (every.errors == _NONE) | is_mended, left)
        after[(objects > 0) & (left == 0)] = 1.0
        count = int(missed.sum()) if name == "missed" else int(is_mended.sum())
        costs[name] = ErrorCost(count, 100 * float((after - before)[objects > 0].mean()) if objects.any() else 0.0)
    return costs


def ap50_by_class(scores: Floats, labels: Indices, is_right: Flags, objects: Indices) -> Floats:
    """COCO's average precision, 0..1, of each class; 0 of one without objects.

    Args:
        scores: (D,) of detections that count; equal ones are taken in their order.
        labels: (D,) index of the class.
        is_right: (D,) whether a detection is.
        objects: (K,) how many there are of each class.
    """
    average = np.zeros(len(objects))
    order = np.argsort(-scores, kind="stable")
    labels, is_right = labels[order], is_right[order]
    for label in np.flatnonzero(objects):
        right = is_right[labels == label].cumsum()
        if right.size:
            precision = right / np.arange(1, len(right) + 1)
            highest = np.maximum.accumulate(precision[::-1])[::-1]
            reached = np.searchsorted(right / objects[label], _RECALLS, side="left")
            average[label] = np.append(highest, 0.0)[reached].mean()
    return average


def _errors_in(image: ImageMatches) -> tuple[_Detections, Flags]:
    """The errors of an image's detections, and which of its objects are missed."""
    number, is_found = len(image.objects), np.isin(np.arange(len(image.objects)), image.found)
    errors = np.full(len(image.scores), _NONE, dtype=np.int64)
    mended = np.full(len(image.scores), _NONE, dtype=np.int64)
    wrong = image.found < 0
    if number == 0:
        errors[wrong] = ERRORS.index("background")
        return _Detections(image.scores, image.labels, errors, mended), ~is_found
    is_own = image.labels[:, None] == image.objects
    own, other = image.ious * is_own, image.ious * ~is_own
    kinds = {
        "localisation": (own.max(axis=1) >= BACKGROUND) & (own.max(axis=1) <= FOUND),
        "classification": other.max(axis=1) >= FOUND,
        "duplicate": (own * is_found).max(axis=1) >= FOUND,
        "background": image.ious.max(axis=1) <= BACKGROUND,
    }
    errors[wrong] = ERRORS.index("both")
    for name, applies in reversed(kinds.items()):
        errors[wrong & applies] = ERRORS.index(name)
    target = np.where(errors == ERRORS.index("localisation"), own.argmax(axis=1), other.argmax(axis=1))
    is_about = np.isin(errors, [ERRORS.index("localisation"), ERRORS.index("classification")]) & ~is_found[target]
    claimed, first = np.unique(target[is_about], return_index=True)  # scores fall
    mended[np.flatnonzero(is_about)[first]] = image.objects[claimed]
    is_missed = ~is_found
    is_missed[claimed] = False
    return _Detections(image.scores, image.labels, errors, mended), is_missed


def _joined(parts: Sequence[_Detections]) -> _Detections:
    return _Detections(
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.errors for part in parts]),
        np.concatenate([part.mended for part in parts]),
    )
