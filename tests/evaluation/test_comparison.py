"""What became of each object and detection is said as it is counted."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lite_detr_d2.evaluation.comparison import compared
from lite_detr_d2.evaluation.report import report_on
from lite_detr_d2.visualization import ComparedImage, Outcome

from .boxes import Box, content, found, random_case
from .test_report import dataset

A: Box = (10, 10, 40, 40)
B: Box = (100, 100, 40, 40)
C: Box = (10, 100, 40, 40)
D: Box = (100, 10, 40, 40)
RIGHT, CONFUSED, WRONG, UNCOUNTED = Outcome


def comparison(
    folder: Path, truth: Any, records: Any, threshold: float, chosen: list[int], names: dict[int, str] | None = None
) -> list[ComparedImage]:
    data = dataset(folder, truth, names)
    return compared(data, records, report_on(data, records, threshold).confusion, threshold, chosen)


def judged(boxes: Any) -> list[tuple[str, Outcome]]:
    return [(box.label, box.outcome) for box in boxes]


def test_each_kind(tmp_path: Path) -> None:
    truth = content((1, 10, A), (1, 10, B), (1, 20, C), (2, 20, A), crowds=((1, 20, D),))
    records = found(
        (1, 10, A, 0.9),
        (1, 20, B, 0.8),  # an ant taken for a bee
        (1, 10, A, 0.7),  # once too often
        (1, 30, (150, 150, 9, 9), 0.6),  # nothing
        (1, 20, (110, 20, 10, 10), 0.5),  # in the crowd
        (1, 20, C, 0.2),  # below the threshold
        (2, 20, A, 0.9),
    )
    (image,) = comparison(tmp_path, truth, records, 0.3, [1])
    assert image.file_name == str(tmp_path / "0.png")
    assert judged(image.objects) == [
        ("ant", RIGHT),
        ("ant as bee", CONFUSED),
        ("bee missed", WRONG),
        ("bee (crowd)", UNCOUNTED),
    ]
    assert judged(image.detections) == [
        ("ant 90%", RIGHT),
        ("bee 80%, is ant", CONFUSED),
        ("ant 70%", WRONG),
        ("cat 60%", WRONG),
        ("bee 50%", UNCOUNTED),
    ]
    assert image.objects[1].corners == image.detections[1].corners == (100, 100, 140, 140)
    assert image.captions == (
        "0.png\nground truth: 1 found, 1 taken for another class, 1 missed",
        "predictions: 1 right, 1 of another class, 2 too many",
    )


def test_an_image_with_nothing_and_the_order_that_is_asked_for(tmp_path: Path) -> None:
    truth = content((1, 10, A), images=3)
    last, first = comparison(tmp_path, truth, found((1, 10, A, 0.9)), 0.3, [3, 1])
    assert (last.objects, last.detections) == ([], [])
    assert last.captions == ("2.png\nground truth: none", "predictions: none")
    assert judged(first.objects) == [("ant", RIGHT)]


def test_no_detections(tmp_path: Path) -> None:
    (image,) = comparison(tmp_path, content((1, 10, A), (1, 20, B)), [], 0.3, [1])
    assert judged(image.objects) == [("ant missed", WRONG), ("bee missed", WRONG)]
    assert image.detections == []


def test_names_are_those_of_the_ids_and_long_ones_are_cut(tmp_path: Path) -> None:
    names = {30: "cat", 20: "b" * 300, 10: "$ant$"}
    truth = {**content((1, 10, A), (1, 20, B)), "categories": [{"id": key, "name": names[key]} for key in names]}
    data = dataset(tmp_path, truth, dict(sorted(names.items())))
    confusion = report_on(data, [], 0.3).confusion
    (image,) = compared(data, [], confusion, 0.3, [1])
    assert [box.label for box in image.objects] == ["$ant$ missed", f"{'b' * 21}... missed"]


@pytest.mark.parametrize("seed", range(10))
def test_counts_are_those_of_the_confusion(tmp_path: Path, seed: int) -> None:
    truth, records = random_case(seed)
    data = dataset(tmp_path, truth)
    confusion = report_on(data, records, 0.4).confusion
    images = compared(data, records, confusion, 0.4, [each.image_id for each in confusion.images])
    for image, counts in zip(images, confusion.images, strict=True):
        objects = Counter(box.outcome for box in image.objects)
        detections = Counter(box.outcome for box in image.detections)
        assert (objects[RIGHT], objects[CONFUSED], objects[WRONG]) == (counts.right, counts.confused, counts.missed)
        assert (detections[RIGHT], detections[CONFUSED], detections[WRONG]) == (
            counts.right,
            counts.confused,
            counts.false,
        )
    drawn = sum(len(image.objects) for image in images), sum(len(image.detections) for image in images)
    assert drawn == (len(truth["annotations"]), sum(record["score"] >= 0.4 for record in records))
