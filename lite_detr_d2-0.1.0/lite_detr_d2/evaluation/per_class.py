"""How well each class is found, and from which score on its detections are best taken."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pycocotools.cocoeval import COCOeval
from tabulate import tabulate

from ..wording import in_short, shortened

_Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ClassScore:
    """How well a class is found. What cannot be measured, because there is nothing to find, is None.

    Attributes:
        name: of the class.
        objects: how many there are to find.
        ap: COCO's average precision, 0..100.
        ap50: of it what counts with an IoU of 0.5 at least.
        best_f1: the highest F1, the harmonic mean of precision and recall, at an IoU of 0.5; 0..100.
        threshold: the score from which on detections are to be taken to have it, 0..1; None where nothing is right.
    """

    name: str
    objects: int
    ap: float | None
    ap50: float | None
    best_f1: float | None
    threshold: float | None


def score_classes(evaluation: COCOeval, class_names: Sequence[str]) -> list[ClassScore]:
    """Read the scores of the classes off COCO's arrays, whose recalls are a hundredth apart.

    Args:
        evaluation: of boxes, accumulated.
        class_names: in the order of its categories' ids.
    """
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # IoU, recall, class; of objects of all sizes
    objects = _count_objects(evaluation)
    scores = []
    for number, name in enumerate(class_names):
        f1, thresholds = _f1(evaluation, number)
        best = int(f1.argmax())
        is_there = objects[number] > 0
        scores.append(
            ClassScore(
                name,
                objects[number],
                percent(precision[:, :, number]),
                percent(precision[0, :, number]),
                100 * float(f1[best]) if is_there else None,
                float(thresholds[best]) if is_there and f1[best] > 0 else None,
            )
        )
    return scores


def percent(values: _Array) -> float | None:
    """The mean of COCO's precisions or recalls, 0..100; None where there is nothing to find, which it calls -1."""
    measured = values[values > -1]
    return 100 * float(measured.mean()) if measured.size else None


def class_table(scores: Sequence[ClassScore]) -> str:
    """The scores as text, a class a line; those of which there is nothing to find are named below."""
    header = ("class", "objects", "AP", "AP50", "best F1", "at score")
    rows = [
        (each.name, each.objects, each.ap, each.ap50, each.best_f1, each.threshold) for each in scores if each.objects
    ]
    formats = ("", "", ".1f", ".1f", ".1f", ".3f")
    sides = ("left", *["right"] * 5)
    table = str(tabulate(rows, header, floatfmt=formats, colalign=sides, missingval="-", disable_numparse=[0]))
    absent = [shortened(each.name) for each in scores if not each.objects]
    return f"{table}\nWithout objects: {len(absent)} ({in_short(absent)})" if absent else table


def _count_objects(evaluation: COCOeval) -> list[int]:
    annotations = evaluation.cocoGt.anns.values()
    counts = Counter(annotation["category_id"] for annotation in annotations if not annotation.get("iscrowd", 0))
    return [counts[category] for category in evaluation.params.catIds]


def _f1(evaluation: COCOeval, number: int) -> tuple[_Array, _Array]:
    """F1 of a class, at an IoU of 0.5, at each of COCO's recalls; and the score at which that recall is reached."""
    precision = evaluation.eval["precision"][0, :, number, 0, -1].clip(min=0)
    recall = evaluation.params.recThrs
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    return f1, evaluation.eval["scores"][0, :, number, 0, -1]
