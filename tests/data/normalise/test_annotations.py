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
