"""What became of the objects and the detections of chosen images, to be drawn."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..visualization import ComparedImage, JudgedBox, Outcome
from ..wording import shortened
from .confusion import Confusion, ImageErrors
from .dataset import EvaluationSet

_LONGEST_NAME = 24  # of a class, beside a box


def compared(
    dataset: EvaluationSet,
    records: Sequence[dict[str, Any]],
    confusion: Confusion,
    threshold: float,
    chosen: Sequence[Any],
) -> list[ComparedImage]:
    """Say of each object and detection of some images what became of it, as the confusion has it.

    Args:
        dataset: what there is to find.
        records: what was found, with the ids that :func:`evaluate_boxes` gives.
        confusion: of both.
        threshold: the confusion's; detections below it are left out.
        chosen: ids of images.
    """
    images = {image["image_id"]: image for image in dataset.images}
    errors = {image.image_id: image for image in confusion.images}
    ordered = sorted(category["id"] for category in dataset.content["categories"])
    names = {key: shortened(name, _LONGEST_NAME) for key, name in zip(ordered, dataset.class_names, strict=True)}
    objects = _by_image(dataset.content["annotations"], chosen)
    found = _by_image([record for record in records if record["score"] >= threshold], chosen)
    return [
        ComparedImage(
            images[key]["file_name"],
            _judged_objects(objects[key], found[key], names, confusion),
            _judged_detections(objects[key], found[key], names, confusion),
            _captions(Path(images[key]["file_name"]).name, errors[key]),
        )
        for key in chosen
    ]


def _by_image(boxes: Sequence[dict[str, Any]], chosen: Sequence[Any]) -> dict[Any, list[dict[str, Any]]]:
    mine: dict[Any, list[dict[str, Any]]] = {key: [] for key in chosen}
    for box in boxes:
        if box["image_id"] in mine:
            mine[box["image_id"]].append(box)
    return mine


def _judged_objects(
    objects: Sequence[dict[str, Any]],
    found: Sequence[dict[str, Any]],
    names: dict[Any, str],
    confusion: Confusion,
) -> list[JudgedBox]:
    taken_for = {confusion.matched.get(record["id"]): record["category_id"] for record in found}
    boxes = []
    for each in objects:
        name, taken = names[each["category_id"]], taken_for.get(each["id"])
        if each.get("iscrowd", 0):
            outcome, label = Outcome.UNCOUNTED, f"{name} (crowd)"
        elif taken is None:
            outcome, label = Outcome.WRONG, f"{name} missed"
        elif taken == each["category_id"]:
            outcome, label = Outcome.RIGHT, name
        else:
            outcome, label = Outcome.CONFUSED, f"{name} as {names[taken]}"
        boxes.append(JudgedBox(_corners(each), label, outcome))
    return boxes


def _judged_detections(
    objects: Sequence[dict[str, Any]],
    found: Sequence[dict[str, Any]],
    names: dict[Any, str],
    confusion: Confusion,
) -> list[JudgedBox]:
    true = {each["id"]: each["category_id"] for each in objects}
    boxes = []
    for record in found:
        label = f"{names[record['category_id']]} {record['score']:.0%}"
        if record["id"] not in confusion.matched:
            outcome = Outcome.UNCOUNTED
        elif (of := confusion.matched[record["id"]]) is None:
            outcome = Outcome.WRONG
        elif true[of] == record["category_id"]:
            outcome = Outcome.RIGHT
        else:
            outcome, label = Outcome.CONFUSED, f"{label}, is {names[true[of]]}"
        boxes.append(JudgedBox(_corners(record), label, outcome))
    return boxes


def _captions(name: str, image: ImageErrors) -> tuple[str, str]:
    """What stands above what is to be found, and above what is found."""
    objects = {"found": image.right, "taken for another class": image.confused, "missed": image.missed}
    detections = {"right": image.right, "of another class": image.confused, "too many": image.false}
    return f"{shortened(name)}\nground truth: {_counted(objects)}", f"predictions: {_counted(detections)}"


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "none"


def _corners(box: dict[str, Any]) -> tuple[float, float, float, float]:
    left, top, width, height = box["bbox"]
    return left, top, left + width, top + height
