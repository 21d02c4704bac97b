"""What an annotation lacks is said; what it has instead is used."""

from pathlib import Path
from typing import Any

import pytest

from ..folders import coco_content, write_images
from ..halves import found, normalised, places


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_images(tmp_path / "images", coco_content())
    return tmp_path


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"id": 5, "image_id": 1, "bbox": [1, 2, 3, 4]}, "annotation 5 has no 'category_id'"),
        ({"id": 5, "category_id": 1, "bbox": [1, 2, 3, 4]}, "annotation 5 has no 'image_id'"),
        ({"segments_info": []}, "annotations[8] has no 'image_id' and no 'category_id'"),
        (None, "annotations[8] is None"),
        ("cat", "annotations[8] is 'cat'"),
    ],
)
def test_a_record_that_cannot_be_used_says_what_it_lacks(root: Path, record: Any, said: str) -> None:
    content = coco_content()
    content["annotations"].append(record)
    assert places(normalised(root, train=content), "record-unusable") == (said,)


@pytest.mark.parametrize("bbox", [None, [], [0, 0, 0, 0], [0.0, 0.0, 0.0, 0.0]])
def test_a_box_that_is_only_a_placeholder_is_its_polygons(root: Path, bbox: list[float] | None) -> None:
    content = coco_content()
    content["annotations"][0] |= {"bbox": bbox, "segmentation": [[5, 6, 20, 6, 20, 30]], "area": 0}
    outcome = normalised(root, train=content)
    assert outcome.halves["train"].content["annotations"][0]["bbox"] == [5, 6, 15, 24]
    assert places(outcome, "box-missing") == ("annotation 10",)
    assert found(outcome) == {"box-missing", "area"}


def test_a_placeholder_without_polygons_is_a_box_without_area(root: Path) -> None:
    content = coco_content()
    content["annotations"][0]["bbox"] = [0, 0, 0, 0]
    assert found(normalised(root, train=content)) == {"box-empty"}


@pytest.mark.parametrize(
    ("ids", "message", "places"),
    [
        ([None, 5, None], "missing", ("no id of image 1", "no id of image 2")),
        ([5, 6, 5], "used twice", ("id 5 of image 2",)),
        ([5, -1, "a"], "no positive integers below 2**53", ("id -1 of image 1", "id 'a' of image 2")),
        ([0, 0, 5], "no positive integers below 2**53", ("id 0 of image 1", "id 0 of image 1")),
        ([[1], False, 5], "no positive integers below 2**53", ("id [1] of image 1", "id False of image 1")),
        (
            [None, None, 5, 5, 0],
            "missing (2), used twice (1), no positive integers below 2**53 (1)",
            ("no id of image 1", "id 5 of image 2", "id 0 of image 3", "no id of image 1"),
        ),
    ],
)
def test_what_is_wrong_with_ids_is_said(root: Path, ids: list[Any], message: str, places: tuple[str, ...]) -> None:
    """Which of the reasons applies; of several, how often, and an example of each before the others."""
    content = coco_content()
    content["annotations"] = content["annotations"][: len(ids)]
    for annotation, value in zip(content["annotations"], ids, strict=True):
        annotation["id"] = value
    outcome = normalised(root, train=content)
    (finding,) = (f for f in outcome.report.findings if f.id.startswith("annotation-id"))
    assert (finding.id, finding.severity) == ("annotation-id", "WARNING")
    assert finding.message == f"annotations' 'id' are {message}: all are renumbered"
    assert finding.places == places
    renumbered = [each["id"] for each in outcome.halves["train"].content["annotations"]]
    assert renumbered == list(range(1, len(ids) + 1))


def test_ids_that_start_at_0_are_a_note(root: Path) -> None:
    content = coco_content()
    for number, annotation in enumerate(content["annotations"]):
        annotation["id"] = number
    outcome = normalised(root, train=content)
    assert found(outcome) == set()
    assert places(outcome, "annotation-id-zero") == ("id 0 of image 1",)
    ids = [each["id"] for each in outcome.halves["train"].content["annotations"]]
    assert ids == list(range(1, len(ids) + 1))
