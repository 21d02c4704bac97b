"""DETR's augmentation, and images that cannot be read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data.detection_utils import SizeMismatchError
from detectron2.structures import BoxMode
from PIL import Image

from lite_detr_d2 import add_lite_detr_config
from lite_detr_d2.data import DetrDatasetMapper
from lite_detr_d2.errors import InputError

WIDTH, HEIGHT = 200, 100
BOX = [60, 30, 140, 80]


@pytest.fixture
def cfg() -> CfgNode:
    cfg = get_cfg()
    add_lite_detr_config(cfg)
    cfg.INPUT.FORMAT = "RGB"
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (96,), 400
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 50, 400
    cfg.INPUT.CROP.ENABLED = True
    cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE = "absolute_range", [40, 60]
    cfg.INPUT.CROP.MIN_SIZE_TRAIN = (80,)
    return cfg


@pytest.fixture
def record(tmp_path: Path) -> dict[str, Any]:
    pixels = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    pixels[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 255
    Image.fromarray(pixels).save(tmp_path / "image.png")
    return {
        "file_name": str(tmp_path / "image.png"),
        "image_id": 5,
        "width": WIDTH,
        "height": HEIGHT,
        "annotations": [{"bbox": BOX, "bbox_mode": BoxMode.XYXY_ABS, "category_id": 2}],
    }


def test_half_of_the_images_are_cropped_and_boxes_follow(cfg: CfgNode, record: dict[str, Any]) -> None:
    mapper = DetrDatasetMapper(cfg, True)
    np.random.seed(0)
    cropped = empty = 0
    for _ in range(200):
        mapped = mapper(record)
        image, instances = mapped["image"], mapped["instances"]
        assert min(image.shape[1:]) == 96
        assert instances.gt_boxes.tensor.shape == (len(instances), 4)
        # At 160 x 80, a crop of 40..60 is 1:1.5 at most; the whole image is 2:1.
        cropped += image.shape[2] != 192
        empty += len(instances) == 0
        for box in instances.gt_boxes:
            rows, columns = torch.nonzero(image[0] > 127, as_tuple=True)
            drawn = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            torch.testing.assert_close(box.round(), drawn.to(box), atol=2, rtol=0)
    assert 70 < cropped < 130
    assert 0 < empty < cropped


def test_without_crop_every_image_is_whole(cfg: CfgNode, record: dict[str, Any]) -> None:
    cfg.INPUT.CROP.ENABLED = False
    mapper = DetrDatasetMapper(cfg, True)
    assert {mapper(record)["image"].shape for _ in range(20)} == {(3, 96, 192)}


def test_an_unknown_crop_is_named(cfg: CfgNode) -> None:
    cfg.INPUT.CROP.TYPE = "foo"
    with pytest.raises(InputError, match=r"INPUT\.CROP\.TYPE is 'foo': expected one of absolute, "):
        DetrDatasetMapper(cfg, True)
    DetrDatasetMapper(cfg, False)


def test_evaluation_resizes_only(cfg: CfgNode, record: dict[str, Any]) -> None:
    mapper = DetrDatasetMapper(cfg, False)
    assert {mapper(record)["image"].shape for _ in range(20)} == {(3, 50, 100)}
    assert "instances" not in mapper(record)
    assert "annotations" in record


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-60])


def garble(path: Path) -> None:
    path.write_bytes(b"GIF, or is it?")


def break_last_chunk(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    start, _, rest = path.read_bytes().rpartition(b"IDAT")
    path.write_bytes(start + b"\0\0\0\0" + rest)


@pytest.mark.parametrize("damage", [truncate, garble, break_last_chunk, Path.unlink])
def test_an_unreadable_image_is_named(cfg: CfgNode, record: dict[str, Any], damage: Callable[[Path], None]) -> None:
    damage(Path(record["file_name"]))
    with pytest.raises(InputError, match=r"image\.png \(image id 5\) cannot be read: .*Restore the file"):
        DetrDatasetMapper(cfg, True)(record)


def test_a_wrong_size_is_named(cfg: CfgNode, record: dict[str, Any]) -> None:
    with pytest.raises(SizeMismatchError, match=r"image\.png"):
        DetrDatasetMapper(cfg, True)({**record, "width": 3})
