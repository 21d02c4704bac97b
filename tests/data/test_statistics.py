"""What is counted of a dataset."""

from typing import Any

import numpy as np
import pytest
from detectron2.structures import BoxMode

from lite_detr_d2.data.statistics import Statistics


def image(*boxes: tuple[int, float, float], crowds: int = 0, **sizes: int) -> dict[str, Any]:
    """An image of boxes of a class, a width and a height; and of crowds of class 0."""
    annotations = [
        {"bbox": [3, 4, width, height], "bbox_mode": BoxMode.XYWH_ABS, "category_id": number, "iscrowd": 0}
        for number, width, height in boxes
    ]
    crowd = {"bbox": [0, 0, 5, 5], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0, "iscrowd": 1}
    return {"annotations": annotations + crowds * [crowd], **sizes}


def test_every_box_is_counted_once() -> None:
    found = Statistics.of(
        [
            image((1, 10, 20), (1, 30, 40), (0, 5, 5), width=640, height=480),
            image((1, 7, 8), crowds=2, width=320, height=500),
            image(crowds=1, width=400, height=490),
            image(),
            {"width": 330, "height": 600},
        ],
        ["a", "b", "c"],
    )
    assert found.boxes_per_image.tolist() == [3, 1, 0, 0, 0]
    assert found.boxes_per_class.tolist() == [1, 3, 0]
    assert found.images_per_class.tolist() == [1, 2, 0]
    assert found.box_sizes.tolist() == [[10, 20], [30, 40], [5, 5], [7, 8]]
    assert found.areas.tolist() == [200, 1200, 25, 56]
    assert found.crowds == 3
    assert found.class_names == ["a", "b", "c"]
    assert found.image_sizes.tolist() == [[640, 480], [320, 500], [400, 490], [330, 600]]
    assert found.sizes_in_words() == "320 to 640 x 480 to 600 pixels"


@pytest.mark.parametrize("mode", [BoxMode.XYXY_ABS, int(BoxMode.XYXY_ABS)])
def test_boxes_of_corners(mode: Any) -> None:
    box = {"bbox": [3, 4, 13, 24], "bbox_mode": BoxMode(mode), "category_id": 0}
    assert Statistics.of([{"annotations": [box]}], ["a"]).box_sizes.tolist() == [[10, 20]]


def test_sizes_are_cocos() -> None:
    """The limits belong to the larger size."""
    sides = [(0, 31.9, 32.0), (0, 32.0, 32.0), (0, 95.9, 96.0), (0, 96.0, 96.0), (0, 500.0, 500.0)]
    found = Statistics.of([image(*sides)], ["a"])
    assert found.by_size() == pytest.approx({"small": 0.2, "medium": 0.4, "large": 0.4})


def test_classes_without_a_name_are_numbers() -> None:
    assert Statistics.of([image((3, 1, 1))], ["a"]).class_names == ["a", "1", "2", "3"]
    assert Statistics.of([image((3, 1, 1))]).boxes_per_class.tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("images", [[], [{}], [{"annotations": []}]])
def test_nothing_is_counted_as_nothing(images: list[dict[str, Any]]) -> None:
    found = Statistics.of(images, ["a", "b"])
    assert found.boxes_per_class.tolist() == found.images_per_class.tolist() == [0, 0]
    assert found.boxes_per_image.tolist() == [0] * len(images)
    assert found.box_sizes.shape == (0, 2)
    assert found.image_sizes.shape == (0, 2)
    assert found.sizes_in_words() == ""
    assert np.issubdtype(found.boxes_per_class.dtype, np.integer)
