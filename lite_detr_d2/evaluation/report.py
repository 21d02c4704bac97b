"""All that is read off the detections of a dataset, as JSON, as text and as pictures."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import Metadata
from detectron2.structures import Boxes, Instances
from pycocotools.cocoeval import COCOeval

from ..deploy.media import make_folder
from ..files import check_output, write_atomically
from ..visualization import draw_confusion, draw_error_costs, draw_predictions
from ..wording import in_short, shortened
from .confusion import Confusion, ImageErrors, confusion_of, most_confused
from .dataset import EvaluationSet
from .errors import ErrorCost, error_costs
from .matches import FOUND, matches_of
from .per_class import ClassScore, class_table, percent, score_classes
from .scoring import evaluate_boxes
from .threshold import Threshold, best_threshold

REPORT, CONFUSION, ERRORS, WORST = "eval_report.json", "confusion.png", "errors.png", "worst.png"

_WORST_LISTED, _WORST_DRAWN = 100, 12
_THRESHOLD = 0.5  # where no detection is right, and so none better than another
_SIZES = ("", "s", "m", "l")
_NO_OBJECT, _MISSED = "(no object)", "(missed)"


@dataclass(frozen=True)
class Report:
    """What an evaluation found.

    Attributes:
        overall: AP and AR by name, 0..100; None of what there is nothing of.
        best: the score from which on detections are best taken.
        threshold: the score from which on they are taken for ``confusion``.
        classes: one by one.
        errors: what each kind costs.
        confusion: of the classes.
    """

    overall: dict[str, float | None]
    best: Threshold
    threshold: float
    classes: list[ClassScore]
    errors: dict[str, ErrorCost]
    confusion: Confusion


def report_on(dataset: EvaluationSet, records: Sequence[dict[str, Any]], threshold: float | None = None) -> Report:
    """Evaluate detections.

    Args:
        dataset: what there is to find.
        records: COCO's list of results.
        threshold: from which score on to take detections for the confusion; None for the best.
    """
    evaluation = evaluate_boxes(dataset.content, records)
    images, num_classes = matches_of(evaluation), len(dataset.class_names)
    best = best_threshold(images, num_classes)
    taken = next(score for score in (threshold, best.score, _THRESHOLD) if score is not None)
    return Report(
        _overall(evaluation),
        best,
        taken,
        score_classes(evaluation, dataset.class_names),
        error_costs(images, num_classes),
        confusion_of(images, num_classes, taken),
    )


def check_folder(folder: Path) -> None:
    """Make the folder of a report, and see that it can be written to, before there is anything to write.

    Raises:
        InputError: it cannot.
    """
    make_folder(folder)
    for name in (REPORT, CONFUSION, ERRORS, WORST):
        check_output(folder / name)


def write_report(
    report: Report, dataset: EvaluationSet, records: Sequence[dict[str, Any]], folder: Path, weights: str
) -> None:
    """Write ``eval_report.json``, and the pictures ``confusion.png``, ``errors.png`` and ``worst.png``.

    Where nothing is wrong there is no ``worst.png``, and one of an earlier evaluation is deleted.

    Args:
        report: what there is to write.
        dataset: that it is of.
        records: the detections that it is of.
        folder: where to, see :func:`check_folder`.
        weights: of the detector.

    Raises:
        InputError: it cannot be written.
    """
    about = {"weights": weights, "dataset": str(dataset.annotations), "images": len(dataset.images)}
    content = json.dumps({**about, **_as_json(report, dataset)}, indent=2, allow_nan=False).encode()
    write_atomically(str(folder / REPORT), lambda file: file.write(content))
    draw_confusion(
        report.confusion.matrix,
        [*dataset.class_names, _NO_OBJECT],
        [*dataset.class_names, _MISSED],
        folder / CONFUSION,
        report.threshold,
    )
    costs = {name: (cost.count, cost.ap50_gain) for name, cost in report.errors.items()}
    draw_error_costs(costs, report.overall["AP50"] or 0.0, folder / ERRORS)
    worst = [image.image_id for image in report.confusion.worst(_WORST_DRAWN)]
    if worst:
        draw_images(report, dataset, records, worst, folder / WORST)
    else:
        (folder / WORST).unlink(missing_ok=True)


def summary(report: Report) -> str:
    """The report in a few lines, and one for each class."""
    names = [shortened(score.name) for score in report.classes]
    errors = [f"{name} {cost.ap50_gain:.1f} ({cost.count})" for name, cost in report.errors.items()]
    pairs = [f"{names[true]} for {names[taken]} ({count})" for true, taken, count in most_confused(report.confusion)]
    figures = ", ".join(f"{name} {value:.2f}" for name, value in report.overall.items() if value is not None)
    lines = [figures, class_table(report.classes)]
    if report.best.score is not None:
        lines.append(f"All classes: F1 is {report.best.f1:.1f} on average from a score of {report.best.score:.3f} on.")
    lines.append(f"AP50 gained by mending all errors of a kind, and how many there are: {', '.join(errors)}.")
    if pairs:
        lines.append(f"Objects taken for another class, by a score from {report.threshold:.3f} on: {in_short(pairs)}")
    return "\n".join(lines)


def _overall(evaluation: COCOeval) -> dict[str, float | None]:
    """AP and AR, by the names that detectron2 and COCO have for them."""
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]
    of_sizes = [percent(precision[:, :, :, size, -1]) for size in range(len(_SIZES))]
    ar_of_sizes = [percent(recall[:, :, size, -1]) for size in range(len(_SIZES))]
    return {
        "AP": of_sizes[0],
        "AP50": percent(precision[0, :, :, 0, -1]),
        "AP75": percent(precision[5, :, :, 0, -1]),
        **{f"AP{size}": value for size, value in zip(_SIZES[1:], of_sizes[1:], strict=True)},
        "AR": ar_of_sizes[0],
        "AR1": percent(recall[:, :, 0, 0]),
        "AR10": percent(recall[:, :, 0, 1]),
        **{f"AR{size}": value for size, value in zip(_SIZES[1:], ar_of_sizes[1:], strict=True)},
    }


def _as_json(report: Report, dataset: EvaluationSet) -> dict[str, Any]:
    files = {image["image_id"]: image["file_name"] for image in dataset.images}
    worst = report.confusion.worst(_WORST_LISTED)
    return {
        "overall": {**report.overall, "best_f1": report.best.f1, "threshold": report.best.score},
        "per_class": [
            {
                "name": score.name,
                "objects": score.objects,
                "AP": score.ap,
                "AP50": score.ap50,
                "best_f1": score.best_f1,
                "threshold": score.threshold,
            }
            for score in report.classes
        ],
        "errors": {name: {"count": cost.count, "AP50_gain": cost.ap50_gain} for name, cost in report.errors.items()},
        "confusion": {
            "threshold": report.threshold,
            "iou": FOUND,
            "rows": [*dataset.class_names, _NO_OBJECT],
            "columns": [*dataset.class_names, _MISSED],
            "matrix": report.confusion.matrix.tolist(),
        },
        "worst": [{"file_name": files[image.image_id], **asdict(image)} for image in worst],
    }


def draw_images(
    report: Report, dataset: EvaluationSet, records: Sequence[dict[str, Any]], chosen: Sequence[Any], path: Path
) -> None:
    """Draw images of these ids, what there is beside what is found from the report's threshold on."""
    images = {image["image_id"]: image for image in dataset.images}
    errors = {image.image_id: image for image in report.confusion.worst(len(images))}
    found: dict[Any, list[dict[str, Any]]] = {identifier: [] for identifier in chosen}
    for record in records:
        if record["image_id"] in found:
            found[record["image_id"]].append(record)
    numbers = {key: number for number, key in enumerate(sorted(each["id"] for each in dataset.content["categories"]))}
    draw_predictions(
        [images[identifier] for identifier in found],
        [_instances(images[identifier], boxes, numbers) for identifier, boxes in found.items()],
        Metadata(thing_classes=dataset.class_names),
        path,
        report.threshold,
        dataset.max_value,
        captions=[f"{Path(images[each]['file_name']).name}\n{_caption(errors.get(each))}" for each in found],
    )


def _caption(image: ImageErrors | None) -> str:
    if image is None:
        return "all right"
    counts = {"missed": image.missed, "of another class": image.confused, "too many": image.false}
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def _instances(image: dict[str, Any], records: Sequence[dict[str, Any]], numbers: dict[Any, int]) -> Instances:
    boxes = np.array([record["bbox"] for record in records], dtype=np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return Instances(
        (image["height"], image["width"]),
        pred_boxes=Boxes(torch.from_numpy(boxes)),
        scores=torch.tensor([record["score"] for record in records], dtype=torch.float64),
        pred_classes=torch.tensor([numbers[record["category_id"]] for record in records], dtype=torch.int64),
    )
