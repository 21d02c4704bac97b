"""DETR's augmentation, and images that cannot be read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetMapper, MapDataset
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from PIL import Image

from lite_detr_d2 import add_lite_detr_config
from lite_detr_d2.data import DetrDatasetMapper
from lite_detr_d2.data.images import read_image
from lite_detr_d2.errors import InputError
from lite_detr_d2.visualization import ComparedImage, draw_predictions
from lite_detr_d2.visualization.detections import made_smaller

from .pictures import PLACES, SIZE, deep_tiff, encoded, gradient, with_orientation, write

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


@pytest.mark.parametrize("flip", ["horizontal", "vertical", "none"])
@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1)])
def test_a_flipped_line_of_pixels_is_an_image(cfg: CfgNode, tmp_path: Path, size: tuple[int, int], flip: str) -> None:
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.RANDOM_FLIP = False, flip
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (1,), 400
    Image.new("RGB", size, (1, 2, 3)).save(tmp_path / "line.png")
    mapper = DetrDatasetMapper(cfg, True)
    for _ in range(10):
        image = mapper({"file_name": str(tmp_path / "line.png"), "image_id": 0})["image"]
        assert image.flatten(1).unique(dim=1).tolist() == [[1], [2], [3]]


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
    with pytest.raises(InputError, match=r"image\.png \(image id 5\): .*correct 'width'.* 200 x 100, not 3 x 100"):
        DetrDatasetMapper(cfg, True)({**record, "width": 3})


def plain(cfg: CfgNode, is_train: bool) -> DetrDatasetMapper:
    """A mapper that resizes nothing, nor crops or flips."""
    cfg.INPUT.CROP.ENABLED = False
    cfg.INPUT.RANDOM_FLIP = "none"
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST = (0,), 0
    return DetrDatasetMapper(cfg, is_train)


def drawn_pixels(record: dict[str, Any], monkeypatch: pytest.MonkeyPatch, max_value: float) -> Any:
    """What the picture of predictions is drawn on."""
    drawn = []

    def recorder(pixels: Any, longest_side: int) -> Any:
        drawn.append(pixels)
        return made_smaller(pixels, longest_side)

    monkeypatch.setattr("lite_detr_d2.visualization.comparison.made_smaller", recorder)
    path = Path(record["file_name"]).parent / "drawn.png"
    draw_predictions([ComparedImage(record["file_name"], [], [], ("", ""))], path, max_value=max_value)
    return drawn[0]


DEEP = np.arange(SIZE[0] * SIZE[1], dtype=np.uint16).reshape(SIZE[::-1]) * 40
DEEP_IMAGES = {
    "I;16 png": encoded(Image.fromarray(DEEP), "PNG"),
    "I;16B tiff": deep_tiff(DEEP, big_endian=True),
    "I tiff": deep_tiff(DEEP.astype(np.int32), big_endian=False),
    "F tiff": deep_tiff(DEEP.astype(np.float32), big_endian=False),
    "F tiff of 0 to 1": deep_tiff((DEEP / 3800).astype(np.float32), big_endian=False),
}


@pytest.mark.parametrize("max_value", [0.0, 60000.0])
@pytest.mark.parametrize("name", DEEP_IMAGES)
def test_deep_images_are_the_same_everywhere(
    cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, max_value: float
) -> None:
    path = write(tmp_path / "image", DEEP_IMAGES[name])
    record = {"file_name": str(path), "image_id": 1, "width": SIZE[0], "height": SIZE[1], "annotations": []}
    cfg.INPUT.MAX_VALUE = max_value
    unit = 3800 if name == "F tiff of 0 to 1" else 1
    limit = max_value or (1 if unit > 1 else 4095)
    expected = DEEP.astype(np.float64) / unit * 255 / limit
    seen = [plain(cfg, is_train)(record)["image"].permute(1, 2, 0).numpy() for is_train in (True, False)]
    seen.append(drawn_pixels(record, monkeypatch, max_value))
    for pixels in seen:
        np.testing.assert_allclose(pixels, np.repeat(expected[..., None], 3, axis=2), atol=0.501)


@pytest.mark.parametrize(("kind", "place"), PLACES)
def test_turned_images_are_the_same_everywhere(
    cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, place: str
) -> None:
    path = write(tmp_path / "image", with_orientation(Image.fromarray(gradient()), kind, place, 6))
    record = {"file_name": str(path), "image_id": 1, "width": SIZE[1], "height": SIZE[0], "annotations": []}
    expected = gradient()[::-1].swapaxes(0, 1)
    seen = [plain(cfg, is_train)(record)["image"].permute(1, 2, 0).numpy() for is_train in (True, False)]
    seen.append(drawn_pixels(record, monkeypatch, 0.0))
    for pixels in seen:
        np.testing.assert_allclose(pixels.astype(int), expected, atol=60 if kind == "JPEG" else 0)


@pytest.mark.parametrize("is_train", [True, False])
@pytest.mark.parametrize(("kind", "place"), PLACES)
def test_a_size_swapped_by_the_orientation_is_said_to_be(
    cfg: CfgNode, tmp_path: Path, kind: str, place: str, is_train: bool
) -> None:
    path = write(tmp_path / "turned", with_orientation(Image.fromarray(gradient()), kind, place, 8))
    record = {"file_name": str(path), "image_id": 7, "width": SIZE[0], "height": SIZE[1], "annotations": []}
    with pytest.raises(
        InputError, match=r"turned \(image id 7\): .*orientation tag.*remove the tag.*exchange 'width' and"
    ) as error:
        DetrDatasetMapper(cfg, is_train)(record)
    assert "it is 8 x 12, not 12 x 8" in str(error.value)


def test_a_swapped_size_without_an_orientation_is_a_wrong_one(cfg: CfgNode, record: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="correct 'width' and 'height'") as error:
        DetrDatasetMapper(cfg, True)({**record, "width": HEIGHT, "height": WIDTH})
    assert "orientation" not in str(error.value)


@pytest.mark.parametrize("size", [(3000, 1), (1, 3000), (1, 1), (3000, 2), (2, 3000), (3, 400), (1, 2)])
@pytest.mark.parametrize("crop", ["absolute_range", "absolute", "relative", "relative_range"])
def test_images_of_any_shape_are_trained_on(
    cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], crop: str
) -> None:
    monkeypatch.setattr("lite_detr_d2.data.augmentation.MAX_PIXELS", 200_000)
    width, height = size
    path = write(tmp_path / "strip.png", encoded(Image.new("RGB", size), "PNG"))
    box = [width // 4, 0, max(width // 2, 1), height]
    annotations = [{"bbox": box, "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}]
    record = {"file_name": str(path), "image_id": 1, "width": width, "height": height, "annotations": annotations}
    cfg.INPUT.CROP.TYPE = crop
    cfg.INPUT.CROP.SIZE = [0.3, 0.3] if "relative" in crop else [40, 60]
    train, boxes = DetrDatasetMapper(cfg, True), 0
    for _ in range(20):
        mapped = train(record)
        found = mapped["instances"].gt_boxes.tensor
        rows, columns = mapped["image"].shape[1:]
        assert min(rows, columns) >= 1
        assert rows * columns <= 200_000
        assert (found >= 0).all()
        assert (found <= torch.tensor([columns, rows] * 2)).all()
        assert (found[:, 2:] > found[:, :2]).all()
        boxes += len(found)
    assert boxes > 0
    shape = DetrDatasetMapper(cfg, False)(record)["image"].shape
    assert min(shape[1:]) >= 1
    assert max(shape[1:]) <= 400


def test_what_is_read_is_detectron2s_for_ordinary_images(cfg: CfgNode, record: dict[str, Any]) -> None:
    cfg.INPUT.CROP.ENABLED = False
    for is_train in (True, False):
        mapped = []
        for kind in (DetrDatasetMapper, DatasetMapper):
            np.random.seed(1)
            mapped.append(kind(cfg, is_train)(record))
        ours, theirs = mapped
        assert ours.keys() == theirs.keys()
        torch.testing.assert_close(ours["image"], theirs["image"], rtol=0, atol=0)
        if is_train:
            torch.testing.assert_close(ours["instances"].gt_boxes.tensor, theirs["instances"].gt_boxes.tensor)


def test_a_mapper_of_keywords_alone(record: dict[str, Any], tmp_path: Path) -> None:
    options = {"augmentations": [T.RandomFlip(prob=1.0)], "image_format": "BGR"}
    mapped = DetrDatasetMapper(is_train=True, **options)(record)
    expected = read_image(record["file_name"], "BGR")[:, ::-1]
    np.testing.assert_array_equal(mapped["image"].permute(1, 2, 0).numpy(), expected)
    assert mapped["instances"].gt_boxes.tensor.tolist() == [[WIDTH - BOX[2], BOX[1], WIDTH - BOX[0], BOX[3]]]
    deep = write(tmp_path / "deep.png", DEEP_IMAGES["I;16 png"])
    mapper = DetrDatasetMapper(is_train=False, max_value=3800.0, **options)
    assert mapper({"file_name": str(deep)})["image"].max() == 255


def test_sizes_that_are_not_stated_are_the_images(cfg: CfgNode, record: dict[str, Any]) -> None:
    mapped = DetrDatasetMapper(cfg, False)({"file_name": record["file_name"]})
    assert (mapped["width"], mapped["height"]) == (WIDTH, HEIGHT)


def test_an_unreadable_image_is_named_by_a_data_loading_process(cfg: CfgNode, record: dict[str, Any]) -> None:
    garble(Path(record["file_name"]))
    data = MapDataset([record], DetrDatasetMapper(cfg, True))
    with pytest.raises(InputError, match=r"image\.png \(image id 5\) cannot be read: .*Restore the file"):
        next(iter(torch.utils.data.DataLoader(data, num_workers=1, batch_size=None)))


def test_a_config_of_detectron2_alone_will_do(record: dict[str, Any]) -> None:
    for is_train in (True, False):
        assert min(DetrDatasetMapper(get_cfg(), is_train)(record)["image"].shape[1:]) > 600
