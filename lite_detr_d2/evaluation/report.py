"""All that is read off the detections of a dataset, as JSON, as text and as pictures."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pycocotools.cocoeval import COCOeval

from ..deploy.media import make_folder
from ..files import check_output, write_atomically
from ..visualization import draw_confusion, draw_error_costs, draw_predictions
from ..wording import in_short, shortened
from .comparison import compared
from .confusion import Confusion, confusion_of, most_confused
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
_KINDS = {"missed": "missed by all"}  # of errors, where a name alone would be taken for the confusion's
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


def has_no_other_report(folder: Path, dataset: str, weights: str) -> bool:
    """Whether a folder has no report, or one of this dataset and the file of these weights."""
    try:
        there = json.loads((folder / REPORT).read_bytes())
    except (PermissionError, NotADirectoryError, IsADirectoryError, ValueError):  # it is another user's, or damaged
        return False
    except OSError:  # it is not there; or cannot be, as check_folder says
        return True
    return isinstance(there, dict) and (there.get("dataset"), there.get("weights")) == (dataset, _file(weights))


def _file(weights: str) -> str:
    """Weights by the same name from every folder, whatever links lead to them; an address is one."""
    return weights if "://" in weights else os.path.realpath(weights)


def write_report(
    report: Report, dataset: EvaluationSet, records: Sequence[dict[str, Any]], folder: Path, weights: str
) -> list[Path]:
    """Write ``eval_report.json``, and the pictures ``confusion.png``, ``errors.png`` and ``worst.png``.

    Where nothing is wrong there is no ``worst.png``, and one of an earlier evaluation is deleted.

    Args:
        report: what there is to write.
        dataset: that it is of.
        records: the detections that it is of.
        folder: where to, see :func:`check_folder`.
        weights: of the detector.

    Returns:
        The files.

    Raises:
        InputError: it cannot be written.
    """
    about = {"weights": _file(weights), "dataset": dataset.origin, "images": len(dataset.images)}
    content = json.dumps({**about, **_as_json(report, dataset)}, indent=2, allow_nan=False).encode()
    write_atomically(str(folder / REPORT), lambda file: file.write(content))
    draw_confusion(
        report.confusion.matrix,
        [*dataset.class_names, _NO_OBJECT],
        [*dataset.class_names, _MISSED],
        folder / CONFUSION,
        report.threshold,
    )
    costs = {_KINDS.get(name, name): (cost.count, cost.ap50_gain) for name, cost in report.errors.items()}
    classes = [(score.name, score.ap50) for score in report.classes if score.ap50 is not None]
    draw_error_costs(costs, report.overall["AP50"] or 0.0, classes, folder / ERRORS, _remark(report))
    worst = [image.image_id for image in report.confusion.worst(_WORST_DRAWN)]
    written = [folder / name for name in (REPORT, CONFUSION, ERRORS)]
    if not worst:
        (folder / WORST).unlink(missing_ok=True)
        return written
    draw_images(report, dataset, records, worst, folder / WORST)
    return [*written, folder / WORST]


def summary(report: Report) -> str:
    """The report in a few lines, and one for each class."""
    names = [shortened(score.name) for score in report.classes]
    errors = [f"{_KINDS.get(name, name)} {cost.ap50_gain:.1f} ({cost.count})" for name, cost in report.errors.items()]
    pairs = [f"{names[true]} for {names[taken]} ({count})" for true, taken, count in most_confused(report.confusion)]
    figures = ", ".join(f"{name} {value:.2f}" for name, value in report.overall.items() if value is not None)
    lines = [figures, class_table(report.classes)]
    if report.best.score is not None:
        lines.append(f"All classes: F1 is {report.best.f1:.1f} on average from a score of {report.best.score:.3f} on.")
    lines.append(
        "AP50 gained by mending all errors of a kind, and how many there are among all detections, whatever their "
        f"score: {', '.join(errors)}."
    )
    if report.best.score is None:
        lines.append(
            f"Nothing is found right, so that no score is the best: what follows is from {report.threshold:.3f} on."
        )
    totals = report.confusion.totals()
    lines.append(
        f"From a score of {report.threshold:.3f} on: {totals.right} detections are right, {totals.confused} of another "
        f"class, {totals.false} too many; {totals.missed} objects are missed."
    )
    if pairs:
        lines.append(f"There, objects are taken for another class: {in_short(pairs)}")
    return "\n".join(lines)


def _remark(report: Report) -> str:
    """What tells the kinds of errors from the confusion's counts, which have the same names."""
    return (
        "Of all detections, whatever their score. The confusion matrix and the worst images take those from a score of "
        f"{report.threshold:.3g} on:\nthere, {report.confusion.totals().missed:,} objects are missed."
    )


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
    """Draw images of these ids: what there is beside what is found from the report's threshold on.

    Args:
        report: of the dataset and the records.
        dataset: what there is to find.
        records: what was found; those that the report was made of.
        chosen: ids of images.
        path: the picture to write.

    Raises:
        InputError: an image cannot be read, or the picture not be written.
    """
    draw_predictions(
        compared(dataset, records, report.confusion, report.threshold, chosen),
        path,
        title=f"ground truth, and predictions with a score of {report.threshold:.3g} or more",
        max_value=dataset.max_value,
    )
