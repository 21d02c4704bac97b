"""Boxes are drawn where they are, in the colours of their classes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, BoxMode, Instances
from PIL import Image

from lite_detr_d2.errors import InputError
from lite_detr_d2.visualization import draw_annotations, draw_beside, draw_detections

NAMES = ["ant", "$bee$", "cat"]


def black(width: int, height: int) -> Any:
    return np.zeros((height, width, 3), np.uint8)


def found(*boxes: tuple[float, float, float, float], scores: list[float], size: tuple[int, int]) -> Instances:
    return Instances(
        size,
        pred_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4)),
        scores=torch.tensor(scores),
        pred_classes=torch.arange(len(boxes)),
    )


def annotated(*boxes: list[float], mode: BoxMode = BoxMode.XYWH_ABS, **more: Any) -> dict[str, Any]:
    records = [{"bbox": box, "bbox_mode": mode, "category_id": number} for number, box in enumerate(boxes)]
    return {"annotations": [{**record, **more} for record in records]}


def assert_drawn_at(corners: tuple[float, ...], picture: Any) -> None:
    """Of a black picture: measured across the box's middle, and down its right end, where no label stands."""
    left, top, right, bottom = map(int, corners)
    columns = np.nonzero(picture[(top + bottom) // 2].max(-1) > 60)[0]
    rows = np.nonzero(picture[:, right - 6].max(-1) > 60)[0]
    found = columns.min(), rows.min(), columns.max(), rows.max()
    assert np.abs(np.array(found) - corners).max() <= 2


@pytest.mark.parametrize(("box", "mode"), [([40, 30, 60, 50], BoxMode.XYWH_ABS), ([40, 30, 100, 80], BoxMode.XYXY_ABS)])
def test_annotations_are_where_they_are(box: list[float], mode: BoxMode) -> None:
    picture = draw_annotations(black(160, 120), annotated(box, mode=mode), NAMES)
    assert picture.shape == (120, 160, 3)
    assert_drawn_at((40, 30, 100, 80), picture)


def test_both_have_the_same_colour() -> None:
    truth = draw_annotations(black(160, 120), annotated([40, 30, 60, 50]), NAMES)
    taken = draw_detections(black(160, 120), found((40, 30, 100, 80), scores=[0.9], size=(120, 160)), NAMES)
    assert np.array_equal(truth[55, 38:43], taken[55, 38:43])
    assert truth[55, 38:43].max() > 60


def test_an_image_without_annotations_stays() -> None:
    for image in ({}, {"annotations": []}):
        assert np.array_equal(draw_annotations(black(40, 30), image, NAMES), black(40, 30))


def test_classes_without_names_are_numbers_and_crowds_are_said() -> None:
    plain = draw_annotations(black(160, 120), annotated([40, 30, 60, 50]), [])
    crowd = draw_annotations(black(160, 120), annotated([40, 30, 60, 50], iscrowd=1), [])
    assert not np.array_equal(plain, crowd)


@pytest.mark.parametrize("factor", [1, 4])
def test_large_images_are_made_smaller(tmp_path: Path, factor: int) -> None:
    Image.fromarray(black(160 * factor, 120 * factor)).save(tmp_path / "0.png")
    image = {"file_name": str(tmp_path / "0.png"), **annotated([40 * factor, 30 * factor, 60 * factor, 50 * factor])}
    scaled = tuple(float(factor * value) for value in (60, 20, 150, 60))
    detections = found(scaled, (0.0, 0.0, 9.0, 9.0), scores=[0.9, 0.1], size=(120 * factor, 160 * factor))
    before = detections.pred_boxes.tensor.clone()
    picture = draw_beside(image, detections, [], longest_side=160)
    assert picture.shape == (120, 320, 3)
    assert_drawn_at((40, 30, 100, 80), picture[:, :160])
    assert_drawn_at((60, 20, 150, 60), picture[:, 160:])
    assert torch.equal(detections.pred_boxes.tensor, before)


def test_a_line_of_pixels_stays_one(tmp_path: Path) -> None:
    Image.fromarray(black(2000, 1)).save(tmp_path / "0.png")
    image = {"file_name": str(tmp_path / "0.png")}
    assert draw_beside(image, found(scores=[], size=(1, 2000)), NAMES).shape == (1, 1280, 3)


def test_too_long_a_side_is_refused() -> None:
    with pytest.raises(InputError, match="65535 pixels at most"):
        draw_annotations(black(2**16, 1), {}, NAMES)
