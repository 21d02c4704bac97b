"""Which images an exported file is checked on, and at which sizes."""

import json
from pathlib import Path

import numpy as np
import pytest
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from lite_detr_d2.data import register_coco_folder
from lite_detr_d2.deploy.bounds import Bounds, Range, fixed
from lite_detr_d2.deploy.probes import calibration_batches, find_dataset, find_images, make_batches, read_images
from lite_detr_d2.errors import InputError
from tests.data.folders import coco_content, write_coco_folder

from .exports import write_images


@pytest.fixture
def cfg(small_cfg: CfgNode, tmp_path: Path) -> CfgNode:
    small_cfg.INPUT.MIN_SIZE_TEST, small_cfg.INPUT.MAX_SIZE_TEST = 60, 80
    small_cfg.OUTPUT_DIR = str(tmp_path / "run")
    return small_cfg


def test_those_of_a_folder(cfg: CfgNode, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "photos" / "deeper")
    (folder / "notes.txt").write_text("no image")
    assert find_images(cfg, tmp_path / "photos") == [folder / f"{number}.png" for number in range(3)]


def test_those_that_a_training_was_evaluated_on(cfg: CfgNode, tmp_path: Path) -> None:
    val = coco_content(3)
    val["images"] = val["images"][1:]
    val["annotations"] = [box for box in val["annotations"] if box["image_id"] > 1]
    root = write_coco_folder(tmp_path / "data", coco_content(), val)
    register_coco_folder(root, split_folder=tmp_path / "run" / "dataset")
    assert find_images(cfg, None) == [root / "images" / "1.png", root / "images" / "2.png"]
    trained_on, evaluated_on = (find_dataset(cfg, training=training) for training in (True, False))
    assert trained_on is not None
    assert evaluated_on is not None
    assert trained_on.annotations == tmp_path / "run" / "dataset" / "train.json"
    assert trained_on.images == {key: root / "images" / f"{key - 1}.png" for key in (1, 2, 3, 4)}
    assert evaluated_on.images == {key: root / "images" / f"{key - 1}.png" for key in (2, 3)}


def test_those_of_a_registered_dataset(cfg: CfgNode, tmp_path: Path) -> None:
    folder = register_coco_folder(write_coco_folder(tmp_path / "registered"), split_folder=tmp_path / "elsewhere")
    cfg.DATASETS.TEST = ("not_registered", folder.val)
    cfg.DATASETS.TRAIN = ("not_registered", folder.train)
    try:
        trained_on = find_dataset(cfg, training=True)
        assert trained_on is not None
        assert trained_on.images[1] == tmp_path / "registered" / "images" / "0.png"
        assert find_images(cfg, None)[0] == tmp_path / "registered" / "images" / "0.png"
        Path(MetadataCatalog.get(folder.val).json_file).unlink()
        with pytest.raises(InputError, match="There are no images to check the exported file on"):
            find_images(cfg, None)
    finally:
        for name in (folder.train, folder.val):
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


def test_a_dataset_that_is_not_whole_is_none(cfg: CfgNode, tmp_path: Path) -> None:
    register_coco_folder(write_coco_folder(tmp_path / "data"), split_folder=tmp_path / "run" / "dataset")
    record = tmp_path / "run" / "dataset" / "report.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "key": ""}))
    cfg.DATASETS.TEST = ()
    with pytest.raises(InputError, match="There are no images"):
        find_images(cfg, None)


def test_images_are_chosen_evenly(cfg: CfgNode, tmp_path: Path) -> None:
    paths = sorted(write_images(tmp_path, number=10).iterdir(), key=lambda path: int(path.stem))
    shapes = [image.shape for image in read_images(paths, cfg, number=4)]
    assert shapes == [(120, width, 3) for width in (96, 160, 96, 160)]  # 0, 3, 6 and 9
    assert len(read_images(paths, cfg, number=20)) == 10


def test_int8_is_calibrated_on_some_of_what_was_trained_on(cfg: CfgNode, tmp_path: Path, said: list[str]) -> None:
    root = write_coco_folder(tmp_path / "data", coco_content(9), coco_content(2))
    register_coco_folder(root, split_folder=tmp_path / "run" / "dataset")
    bounds = fixed(2, 80, 80)
    batches = calibration_batches(cfg, bounds, number=3)  # 0, 4 and 8
    assert [batch.shape for batch in batches] == [(2, 80, 80), (2, 80, 80)]
    chosen = make_batches(read_images([root / "images" / f"{number}.png" for number in (0, 4, 8)], cfg), cfg, bounds)
    for batch, expected in zip(batches, chosen, strict=True):
        np.testing.assert_array_equal(batch.images, expected.images)
        np.testing.assert_array_equal(batch.sizes, expected.sizes)
    said.clear()
    (root / "images" / "4.png").write_bytes(b"no image")
    assert len(calibration_batches(cfg, bounds, number=3)) == 1
    assert "1 of 3 images to calibrate on are passed over" in said[0]
    for number in (0, 8):
        (root / "images" / f"{number}.png").unlink()
    with pytest.raises(InputError, match="None of 3 images can be read to calibrate on"):
        calibration_batches(cfg, bounds, number=3)


def images_of(*shapes: tuple[int, int]) -> list[np.ndarray]:  # type: ignore[type-arg]
    return [np.full((*shape, 3), 255, dtype=np.uint8) for shape in shapes]


def test_batches_of_one_size_are_padded_and_filled(cfg: CfgNode) -> None:
    batches = make_batches(images_of((60, 80), (80, 60), (60, 80)), cfg, fixed(2, 80, 80))
    assert [batch.shape for batch in batches] == [(2, 80, 80), (2, 80, 80)]
    assert [batch.sizes.tolist() for batch in batches] == [[[60, 80], [80, 60]], [[60, 80], [60, 80]]]
    for batch in batches:
        assert (batch.images.dtype, batch.sizes.dtype) == (np.uint8, np.int64)
        for image, (height, width) in zip(batch.images, batch.sizes, strict=True):
            assert (image[:, :height, :width] == 255).all()
            assert image.astype(int).sum() == 255 * 3 * height * width


def test_batches_of_any_size_show_the_extremes(cfg: CfgNode) -> None:
    bounds = Bounds(Range(1, 4), Range(32, 100), Range(40, 120))
    batches = make_batches(images_of((60, 80), (80, 60)), cfg, bounds)
    shapes = [batch.shape for batch in batches]
    assert shapes[:2] == [(1, 60, 80), (1, 80, 60)]  # as evaluation has them
    assert shapes[2:4] == [(1, 80, 60), (2, 80, 80)]  # turned, and two sizes
    assert batches[3].sizes.tolist() == [[60, 80], [80, 60]]
    assert shapes[4:] == [(1, 32, 40), (4, 100, 120)]  # the smallest, and the largest


def test_square_images_show_another_shape_too(cfg: CfgNode) -> None:
    batches = make_batches(images_of((80, 80)), cfg, Bounds(Range(1, 1), Range(32, 120), Range(32, 120)))
    shapes = {batch.shape for batch in batches}
    assert any(height < width for _, height, width in shapes)
    assert (1, 60, 60) in shapes  # as evaluation has them


@pytest.mark.parametrize(
    "bounds",
    [
        Bounds(Range(1, 8), Range(64, 800), Range(96, 1333)),  # lying
        Bounds(Range(2, 3), Range(96, 320), Range(64, 160)),  # upright, of several
        Bounds(Range(2, 2), Range(64, 160), Range(64, 64)),  # one batch, and one width
        Bounds(Range(1, 3), Range(80, 80), Range(80, 80)),  # one size
    ],
)
def test_the_extremes_are_exactly_those_of_the_bounds(cfg: CfgNode, bounds: Bounds) -> None:
    *_, smallest, largest = make_batches(images_of((60, 80), (90, 60)), cfg, bounds)
    for batch, shape in ((smallest, bounds.smallest), (largest, bounds.largest)):
        assert list(batch.shape) == shape
        assert batch.sizes[0].tolist() == shape[1:]  # without padding
        for index, (height, width) in enumerate(batch.sizes.tolist()[1:], start=1):
            assert height == shape[1] or width == shape[2]  # as large as fits
            assert height / width == pytest.approx(60 / 80 if index % 2 == 0 else 90 / 60, rel=0.02)
        for image, (height, width) in zip(batch.images, batch.sizes, strict=True):
            assert (image[:, :height, :width] == 255).all()
            assert image.sum(dtype=np.int64) == 255 * 3 * height * width


def test_any_batch_of_one_size(cfg: CfgNode) -> None:
    bounds = Bounds(Range(1, 3), Range(80, 80), Range(80, 80))
    batches = make_batches(images_of((60, 80), (80, 60)), cfg, bounds)
    assert [batch.shape for batch in batches] == [(1, 80, 80), (1, 80, 80), (1, 80, 80), (3, 80, 80)]
