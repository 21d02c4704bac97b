"""Predicting from Python: what comes in, and that what comes out is detectron2's."""

import hashlib
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model
from detectron2.structures import Instances
from PIL import Image

import lite_detr_d2
from lite_detr_d2.data import DetrDatasetMapper
from lite_detr_d2.data.images import ImageError
from lite_detr_d2.deploy.bounds import Bounds, Range, fixed
from lite_detr_d2.deploy.formats import FORMATS, Format
from lite_detr_d2.deploy.manifest import Manifest, Resize, SelfCheck, TensorSpec
from lite_detr_d2.deploy.predictor import Predictor
from lite_detr_d2.detector import DetrDetector
from lite_detr_d2.errors import InputError

from .runs import NAMES, write_run

Pixels = npt.NDArray[np.uint8]
# A few lines that stand for 10**9 values.
ALIASES = "\n".join(
    ["A0: &a0 [1]", *(f"A{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)), "SEED: *a9"]
)
SIZES = [(48, 64), (64, 48), (96, 128), (48, 64), (70, 33), (1, 1), (48, 64), (3, 90), (64, 48)]


@pytest.fixture
def cfg(small_cfg: CfgNode) -> CfgNode:
    small_cfg.INPUT.MIN_SIZE_TEST, small_cfg.INPUT.MAX_SIZE_TEST = 64, 96
    small_cfg.MODEL.LITE_DETR.CLASS_NAMES = NAMES
    return small_cfg


@pytest.fixture
def predictor(cfg: CfgNode, tmp_path: Path) -> Predictor:
    write_run(cfg, tmp_path / "run")
    return lite_detr_d2.load(tmp_path / "run", device="cpu")


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def assert_same(found: Instances, expected: Instances, atol: float = 0.0) -> None:
    assert found.image_size == expected.image_size
    assert found.get_fields().keys() == expected.get_fields().keys() == {"pred_boxes", "scores", "pred_classes"}
    assert len(found) == len(expected) > 0
    torch.testing.assert_close(found.pred_boxes.tensor, expected.pred_boxes.tensor, rtol=0, atol=100 * atol)
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=atol)
    assert torch.equal(found.pred_classes, expected.pred_classes)


@pytest.mark.parametrize("input_format", ["RGB", "BGR"])
@pytest.mark.parametrize("size", [(48, 64), (200, 90), (33, 70), (64, 96)])
def test_detections_are_those_of_default_predictor(
    cfg: CfgNode, tmp_path: Path, size: tuple[int, int], input_format: str
) -> None:
    cfg.INPUT.FORMAT = input_format
    write_run(cfg, tmp_path)
    predictor = lite_detr_d2.load(tmp_path, device="cpu")
    bgr = noise(*size)
    expected = DefaultPredictor(predictor.cfg)(bgr)
    found = predictor(bgr, format="BGR")
    assert found.keys() == expected.keys()
    assert_same(found["instances"], expected["instances"], 1e-6)
    rgb = np.ascontiguousarray(bgr[:, :, ::-1])
    for image in (rgb, torch.from_numpy(rgb).permute(2, 0, 1), torch.from_numpy(rgb.transpose(2, 0, 1).copy())):
        assert_same(predictor(image)["instances"], found["instances"])
    assert_same(predictor(torch.from_numpy(bgr).permute(2, 0, 1), format="BGR")["instances"], found["instances"])
    other = predictor(bgr)["instances"]
    assert not torch.equal(other.scores, found["instances"].scores)


def test_attributes(predictor: Predictor) -> None:
    assert predictor.class_names == NAMES
    assert isinstance(predictor.model, DetrDetector)
    assert predictor.cfg.INPUT.MIN_SIZE_TEST == 64


def turned(path: Path) -> Path:
    image = Image.fromarray(noise(60, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(path.with_suffix(".png"), exif=exif)
    return path.with_suffix(".png")


def deep(path: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 4096, (60, 40)).astype(np.uint16)
    Image.fromarray(values).save(path.with_suffix(".png"))
    return path.with_suffix(".png")


def compressed(path: Path) -> Path:
    Image.fromarray(noise(60, 40)).save(path.with_suffix(".jpg"))
    return path.with_suffix(".jpg")


@pytest.mark.parametrize("max_value", [0.0, 2000.0])
@pytest.mark.parametrize("write", [turned, deep, compressed])
def test_files_are_read_as_in_evaluation(
    cfg: CfgNode, tmp_path: Path, write: Callable[[Path], Path], max_value: float
) -> None:
    cfg.INPUT.MAX_VALUE = max_value
    detector = write_run(cfg, tmp_path / "run")
    predictor = lite_detr_d2.load(tmp_path / "run", device="cpu")
    path = write(tmp_path / "image")
    with torch.no_grad():
        (expected,) = detector([DetrDatasetMapper(cfg, False)({"file_name": str(path)})])
    assert_same(predictor(path)["instances"], expected["instances"], 1e-6)
    assert_same(predictor(str(path))["instances"], expected["instances"], 1e-6)
    assert expected["instances"].image_size == ((40, 60) if write is turned else (60, 40))


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
def test_alone_and_in_batches_the_same_is_found(predictor: Predictor, batch: int) -> None:
    images = [noise(*size, seed) for seed, size in enumerate(SIZES)]
    batches = recorded(predictor)
    found = predictor(images, batch=batch)
    assert isinstance(found, list)
    assert len(found) == len(images)
    assert sum(len(images) for images in batches) == len(images)
    assert max(len(images) for images in batches) == min(batch, 4)  # (48, 64) is resized as (96, 128) is
    for image, one in zip(images, found, strict=True):
        assert_same(one["instances"], predictor(image)["instances"], 1e-5)


def never(*_: object) -> Any:
    raise AssertionError("nothing is computed")


@pytest.fixture
def idle(cfg: CfgNode) -> Predictor:
    """One that is not to come to detecting."""
    return Predictor(cfg, NAMES, never)


def recorded(predictor: Predictor) -> list[Pixels]:
    """The batches that are detected in from now on."""
    batches: list[Pixels] = []
    detect = predictor._detect

    def recording(images: Pixels, sizes: npt.NDArray[np.int64]) -> Any:
        batches.append(images)
        return detect(images, sizes)

    predictor._detect = recording
    return batches


def test_it_follows_its_model_to_another_device(cfg: CfgNode) -> None:
    """There is one device here: that of no memory, on which nothing can be computed, tells."""
    model = build_model(cfg).eval()
    predictor = Predictor(cfg, NAMES, model)
    model.to("meta")
    with pytest.raises(NotImplementedError, match="meta"):
        predictor(np.zeros((64, 64, 3), dtype=np.uint8))


def test_few_images_wait_for_others_of_their_size(predictor: Predictor) -> None:
    """However many there are, and however differently they are shaped."""
    batches = recorded(predictor)
    handed_out: list[int] = []
    most = 0

    def images() -> Any:
        nonlocal most
        for number in range(20):
            handed_out.append(number)
            most = max(most, len(handed_out) - sum(map(len, batches)))
            yield noise(64, 64 + number, number)

    found = predictor(images(), batch=2)
    assert [one["instances"].image_size for one in found] == [(64, 64 + number) for number in range(20)]
    assert most <= 9


def test_no_images_have_no_detections(predictor: Predictor) -> None:
    assert predictor([]) == []


def test_a_threshold_leaves_out_what_scores_less(predictor: Predictor) -> None:
    image = noise(48, 64)
    everything = predictor(image)["instances"]
    limit = float(everything.scores[7])
    assert_same(predictor(image, threshold=limit)["instances"], everything[everything.scores >= limit])
    (few,) = predictor([image], threshold=limit)
    assert len(few["instances"]) == 8
    assert len(predictor(image, threshold=1.0)["instances"]) == 0


def test_threads_find_the_same(predictor: Predictor) -> None:
    images = [noise(*size, seed) for seed, size in enumerate(SIZES)]
    expected = [predictor(image)["instances"] for image in images]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(predictor, images * 4))
    for index, one in enumerate(found):
        assert_same(one["instances"], expected[index % len(images)], 1e-5)


def test_bfloat16_differs_a_little(cfg: CfgNode, tmp_path: Path) -> None:
    write_run(cfg, tmp_path)
    exact, rounded = (lite_detr_d2.load(tmp_path, device="cpu", dtype=dtype) for dtype in ("float32", "bfloat16"))
    expected, found = (predictor(noise(48, 64))["instances"] for predictor in (exact, rounded))
    assert found.scores.dtype == found.pred_boxes.tensor.dtype == torch.float32
    assert not torch.equal(found.scores, expected.scores)
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=0.05)
    with ThreadPoolExecutor(2) as pool:  # each of which keeps to its own
        exactly, roughly = (pool.submit(predictor, noise(48, 64)) for predictor in (exact, rounded))
        assert_same(exactly.result()["instances"], expected)
        assert_same(roughly.result()["instances"], found, 1e-5)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (noise(4, 4).astype(np.float32), r"\(4, 4, 3\) of float32: expected an array \(H, W, 3\) of uint8.*Scale"),
        (noise(4, 4).astype(np.uint16), r"of uint16: expected an array"),
        (noise(4, 4)[..., 0], r"\(4, 4\) of uint8: .*Repeat a gray image as three channels"),
        (noise(4, 4)[..., :1], r"\(4, 4, 1\) of uint8: expected an array \(H, W, 3\)"),
        (np.zeros((4, 4, 4), np.uint8), r"Leave the alpha channel out"),
        (np.zeros((3, 4, 5), np.uint8), r"Move the channels"),
        (np.zeros((2, 4, 5, 3), np.uint8), r"Give several images as a list"),
        (np.zeros((0, 5, 3), np.uint8), r"\(0, 5, 3\) of uint8: .*at least one pixel a side"),
        (np.zeros((5, 0, 3), np.uint8), r"at least one pixel a side"),
        (np.zeros(3, np.uint8), r"\(3,\) of uint8"),
        (torch.zeros(3, 4, 5), r"\(3, 4, 5\) of torch\.float32: expected a tensor \(3, H, W\) of torch\.uint8"),
        (torch.zeros(4, 5, 3, dtype=torch.uint8), r"expected a tensor \(3, H, W\).*Move the channels"),
        (torch.zeros(4, 5, dtype=torch.uint8), r"Repeat a gray image"),
        (torch.zeros(2, 3, 4, 5, dtype=torch.uint8), r"Give several images as a list"),
        (torch.zeros(3, 0, 5, dtype=torch.uint8), r"at least one pixel a side"),
        (None, r"is of NoneType: expected a path"),
        (7, r"is of int: expected a path, an array \(H, W, 3\)"),
        (b"photo.jpg", r"The image is of bytes"),
    ],
)
def test_what_is_no_image_is_refused(idle: Predictor, image: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        idle(image)
    with pytest.raises(InputError, match="Image 0 of the list is "):
        idle([image, noise(4, 4)])


def test_a_pillow_image_is_told_from_an_array(idle: Predictor) -> None:
    with pytest.raises(InputError, match=r"The image is of Image: .*numpy\.asarray"):
        idle(Image.fromarray(noise(4, 4)))  # type: ignore[call-overload]


@pytest.mark.parametrize("name", ["gone.png", "broken.png", "."])
def test_a_file_that_cannot_be_read_is_named(idle: Predictor, tmp_path: Path, name: str) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ImageError, match=rf"{tmp_path / name} cannot be read: .+"):
        idle(tmp_path / name)
    with pytest.raises(ImageError, match=f"{tmp_path / name} cannot be read"):
        idle([str(tmp_path / name), noise(4, 4)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": -0.1}, r"threshold is -0\.1: expected a number from 0 to 1"),
        ({"threshold": 50}, r"threshold is 50"),
        *(
            ({"threshold": value}, rf"^threshold is {name}: expected a number from 0 to 1\.$")
            for value, name in (
                (float("nan"), "nan"),
                ("0.5", "'0.5'"),
                (None, "None"),
                (True, "True"),
                ([0], r"\[0\]"),
            )
        ),
        ({"format": "rgb"}, r"format is 'rgb': expected one of RGB, BGR"),
        *(
            ({"format": value}, rf"^format is {name}: expected one of RGB, BGR\.$")
            for value, name in (("", "''"), (5, "5"), (None, "None"), (["RGB"], r"\['RGB'\]"))
        ),
        *(
            ({"batch": value}, rf"^batch is {name}: expected a whole number, at least 1\.$")
            for value, name in ((0, "0"), (1.5, "1.5"), ("2", "'2'"), (None, "None"), (True, "True"), ([1], r"\[1\]"))
        ),
    ],
)
def test_wrong_options_are_refused(idle: Predictor, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        idle(noise(4, 4), **options)


def test_numbers_of_numpy_are_numbers(idle: Predictor) -> None:
    assert idle([], threshold=np.float32(0.5), batch=np.int64(2)) == []  # type: ignore[call-overload]


@pytest.mark.parametrize("dtype", ["float16", "", None, 5, True, ["float32"], torch.float32])
def test_another_dtype_is_refused(tmp_path: Path, dtype: Any) -> None:
    with pytest.raises(InputError, match=r"dtype is .*: expected one of float32, bfloat16\.$"):
        lite_detr_d2.load(tmp_path, dtype=dtype)


@pytest.mark.parametrize("value", ["", 5, float("nan"), True, ["run"], b"run"], ids=repr)
@pytest.mark.parametrize("name", ["run", "config_file", "weights"])
def test_what_is_no_path_is_named(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"^{name} is {re.escape(repr(value))}: expected a path\.$"):
        lite_detr_d2.load(**{name: value})


@pytest.mark.parametrize("value", ["", "gpu", 5, True, ["cpu"]], ids=repr)
def test_what_is_no_device_is_named(tmp_path: Path, value: Any) -> None:
    with pytest.raises(InputError, match=rf"^device is {re.escape(repr(value))}: expected cuda, cuda:1 or the like"):
        lite_detr_d2.load(tmp_path, device=value)


def test_files_of_a_training_are_told_from_exported_ones(cfg: CfgNode, tmp_path: Path) -> None:
    write_run(cfg, tmp_path / "run")
    for name in ("model_final.pth", "config.yaml"):
        file = tmp_path / "run" / name
        with pytest.raises(InputError, match=rf"{name} is a file, .*give that folder alone, {tmp_path / 'run'}; or a "):
            lite_detr_d2.load(file)
    moved = (tmp_path / "run" / "model_final.pth").rename(tmp_path / "moved.pth")
    with pytest.raises(InputError, match=r"moved\.pth is a file, .*give that folder alone; or a config file, and"):
        lite_detr_d2.load(moved)
    (tmp_path / "model.onnx").touch()
    with pytest.raises(InputError, match=r"has no model\.onnx\.json beside it"):
        lite_detr_d2.load(tmp_path / "model.onnx")


@pytest.mark.parametrize("image", [{"image": noise(4, 4)}, b"photo.jpg", 5], ids=["dict", "bytes", "number"])
def test_what_is_neither_an_image_nor_several(cfg: CfgNode, image: Any) -> None:
    with pytest.raises(InputError, match=rf"The image is of {type(image).__name__}: expected a path, an array"):
        Predictor(cfg, NAMES, never)(image)


def test_arrays_are_not_converted_to_other_formats(cfg: CfgNode) -> None:
    cfg.INPUT.FORMAT = "L"
    with pytest.raises(InputError, match=r"INPUT\.FORMAT is 'L', into which arrays are not converted"):
        Predictor(cfg, NAMES, never)(noise(4, 4))


def test_importing_the_package_leaves_the_engine_alone() -> None:
    """And ``load`` is there all the same: it is imported when it is asked for."""
    code = (
        "import sys, lite_detr_d2\n"
        "engine = any(name.startswith('lite_detr_d2.engine') for name in sys.modules)\n"
        "print(engine, 'load' in lite_detr_d2.__all__, lite_detr_d2.load.__module__, hasattr(lite_detr_d2, 'unload'))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["False", "True", "lite_detr_d2.deploy.predictor", "False"]


# --- Runtimes, which take some sizes only.


class Bounded:
    """A runtime that refuses what is out of its bounds, and whose memory is not to be written to.

    It finds the image, with certainty, and its right half, with a score that tells of its pixels.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.calls: list[tuple[Pixels, npt.NDArray[np.int64]]] = []

    def __call__(self, images: npt.NDArray[Any], sizes: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], ...]:
        assert images.dtype == np.uint8 and sizes.dtype == np.int64
        assert images.flags.c_contiguous and sizes.shape == (len(images), 2)
        shape = (len(images), *images.shape[2:])
        for side, limits in zip(shape, (self.bounds.batch, self.bounds.height, self.bounds.width), strict=True):
            assert side in limits, shape
        self.calls.append((images, sizes))
        whole = np.concatenate([np.zeros_like(sizes), sizes[:, ::-1]], axis=1).astype(np.float32)
        boxes = np.stack([whole, whole], axis=1)
        boxes[:, 1, 0] = sizes[:, 1] / 2
        scores = np.stack([np.ones(len(images)), images.mean(axis=(1, 2, 3)) / 255], axis=1).astype(np.float32)
        labels = np.tile(np.array([[3, 7]]), (len(images), 1))
        for output in (boxes, scores, labels):
            output.flags.writeable = False
        return boxes, scores, labels


def bounded(cfg: CfgNode, bounds: Bounds) -> tuple[Predictor, Bounded]:
    runtime = Bounded(bounds)
    return Predictor(cfg, NAMES, runtime, bounds=bounds), runtime


ONE = Range(1, 1)


@pytest.mark.parametrize(
    ("bounds", "image", "size", "padded"),
    [
        (fixed(1, 64, 80), (64, 80), (64, 80), (64, 80)),
        (fixed(1, 64, 80), (128, 160), (64, 80), (64, 80)),
        (fixed(1, 80, 96), (64, 80), (64, 80), (80, 96)),
        (fixed(1, 64, 96), (60, 60), (64, 64), (64, 96)),
        (Bounds(ONE, Range(70, 200), Range(32, 200)), (64, 64), (64, 64), (70, 64)),
        (fixed(1, 48, 96), (64, 80), (48, 60), (48, 96)),
        (fixed(1, 64, 48), (64, 96), (32, 48), (64, 48)),
        (Bounds(ONE, Range(16, 40), Range(16, 48)), (64, 64), (40, 40), (40, 40)),
        (Bounds(ONE, Range(32, 64), Range(32, 64)), (2, 200), (1, 64), (32, 64)),
    ],
)
def test_an_image_is_padded_or_made_smaller(
    cfg: CfgNode,
    said: list[str],
    bounds: Bounds,
    image: tuple[int, int],
    size: tuple[int, int],
    padded: tuple[int, int],
) -> None:
    limited, runtime = bounded(cfg, bounds)
    found = limited(noise(*image))["instances"]
    ((pixels, sizes),) = runtime.calls
    assert pixels.shape == (1, 3, *padded)
    assert sizes.tolist() == [list(size)]
    assert pixels[0, :, : size[0], : size[1]].any(axis=0).all()
    assert not pixels[:, :, size[0] :].any() and not pixels[:, :, :, size[1] :].any()
    assert found.image_size == image
    height, width = image
    assert found.pred_boxes.tensor.tolist() == [[0, 0, width, height], [width / 2, 0, width, height]]
    assert found.pred_classes.tolist() == [3, 7]
    limited(noise(*image))
    shrunk = [message for message in said if message.startswith("Images are made smaller")]
    assert len(shrunk) == (min(size) < 64)
    padding = [message for message in said if message.startswith("Images are padded, such as one of")]
    assert len(padding) == (size != padded and not bounds.is_fixed)
    assert limited.model is runtime


@pytest.mark.parametrize(
    ("batch", "asked", "expected"),
    [
        (Range(4, 4), 1, [4, 4, 4]),
        (Range(1, 2), 8, [2, 2, 2, 2, 1]),
        (Range(2, 8), 1, [2, 2, 2, 2, 2]),
        (Range(1, 100), 100, [9]),
    ],
)
def test_batches_are_of_the_size_that_is_taken(cfg: CfgNode, batch: Range, asked: int, expected: list[int]) -> None:
    limited, runtime = bounded(cfg, Bounds(batch, Range(96, 96), Range(96, 96)))
    images = [noise(*size, seed) // (seed + 1) for seed, size in enumerate(SIZES)]
    found = limited(images, batch=asked)
    assert [len(images) for images, _ in runtime.calls] == expected
    pixels, sizes = runtime.calls[-1]
    surplus = sum(expected) - len(images)
    for row in range(len(pixels) - surplus, len(pixels)):
        assert np.array_equal(pixels[row], pixels[row - 1]) and np.array_equal(sizes[row], sizes[row - 1])
    assert len(found) == len(images)
    single, _ = bounded(cfg, fixed(1, 96, 96))
    for image, one in zip(images, found, strict=True):
        assert_same(one["instances"], single(image)["instances"])


def test_a_single_image_fills_a_fixed_batch(cfg: CfgNode) -> None:
    limited, runtime = bounded(cfg, fixed(3, 64, 64))
    assert limited(noise(64, 64))["instances"].image_size == (64, 64)
    assert runtime.calls[0][0].shape == (3, 3, 64, 64)


def test_the_files_of_a_detector_are_known(predictor: Predictor, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert {run / "config.yaml", run / "model_final.pth"} <= set(predictor.files)
    files = {"config_file": run / "config.yaml", "weights": run / "model_final.pth"}
    assert lite_detr_d2.load(**files, device="cpu").files == list(files.values())


# --- Exported files.


@pytest.fixture
def exported(cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of a format of its own, whose runtime is ``Bounded``."""
    path = tmp_path / "model.fake"
    path.write_bytes(b"weights")

    def runtime(file: Path, requires: Mapping[str, Any]) -> Bounded:
        assert (file, requires) == (path, {"fake": "1.0"})
        return Bounded(Bounds(Range(1, 2), Range(32, 64), Range(32, 64)))

    monkeypatch.setitem(FORMATS, "fake", Format("fake", ".fake", True, ("float32",), never, runtime))
    manifest(cfg).write(path)
    return path


def manifest(cfg: CfgNode, **changes: Any) -> Manifest:
    shape = (Range(1, 2), 3, Range(32, 64), Range(32, 64))
    described = Manifest(
        format="fake",
        dtype="float32",
        opset=None,
        inputs=(TensorSpec("images", "uint8", shape), TensorSpec("sizes", "int64", (Range(1, 2), 2))),
        outputs=(),
        resize=Resize(48, 60),
        class_names=tuple(NAMES),
        requires={"fake": "1.0"},
        versions={},
        weights_sha256="",
        check=SelfCheck(1, ((1, 48, 60),), 1e-4, 0.0, 0.0, 1.0, 100, 1.0, 0.0, True),
        files={"model.fake": hashlib.sha256(b"weights").hexdigest()},
        config=cfg.dump(),
    )
    return replace(described, **changes)


def test_an_exported_file_has_the_same_interface(exported: Path) -> None:
    for predictor in (lite_detr_d2.load(exported), lite_detr_d2.load(str(exported), device="cpu")):
        assert predictor.class_names == NAMES
        assert [predictor.cfg.INPUT.MIN_SIZE_TEST, predictor.cfg.INPUT.MAX_SIZE_TEST] == [48, 60]
        assert predictor.cfg.MODEL.META_ARCHITECTURE == "DINO"
        assert {path.name for path in predictor.files} == {"model.fake", "model.fake.json"}
        assert all(path.is_file() for path in predictor.files)
        first, second = predictor([noise(96, 96), noise(20, 40)], batch=2)
        assert first["instances"].pred_boxes.tensor.tolist() == [[0, 0, 96, 96], [48, 0, 96, 96]]
        assert second["instances"].pred_boxes.tensor.tolist() == [[0, 0, 40, 20], [20, 0, 40, 20]]
        model = predictor.model
        assert isinstance(model, Bounded)
        assert sorted(sizes.tolist() for _, sizes in model.calls) == [[[30, 60]], [[48, 48]]]
        assert {images.shape for images, _ in model.calls} == {(1, 3, 32, 60), (1, 3, 48, 48)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cuda"}, r"The device is 'cuda', and exported files compute on the CPU"),
        ({"device": "gpu"}, r"device is 'gpu': expected cuda"),
        ({"dtype": "bfloat16"}, r"dtype is 'bfloat16', and \S+model\.fake was exported in float32"),
        ({"weights": "model.pth"}, r"model\.fake is a file, which has its own config and weights"),
        ({"config_file": "config.yaml"}, r"model\.fake is a file, which has its own config and weights"),
    ],
)
def test_what_an_exported_file_does_not_take_is_refused(exported: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        lite_detr_d2.load(exported, **options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "caffe"}, r"model\.fake is of the format 'caffe': expected one of .*fake"),
        ({"config": "MODEL: {LITE_DETR: {SPEED: 9}}"}, r"the config in its JSON is not one of this version .*SPEED"),
        ({"config": "MODEL: ["}, r"the config in its JSON is not one of this version"),
        ({"config": "7"}, r"the config in its JSON is not one of this version"),
        ({"config": "SEED: !!python/name:os.system"}, r"not one of this version .*A config holds values, and runs no"),
        ({"config": "SEED: !!binary aGk="}, r"not one of this version .*line 1: '!!binary' is no kind of value"),
        ({"config": "INPUT: {MIN_SIZE_TEST: null}"}, r"not one of this version .*MIN_SIZE_TEST is None: expected"),
        ({"config": "_BASE_: config.yaml"}, r"not one of this version .*_BASE_ is not a key"),
        ({"config": ALIASES}, r"not one of this version .*it has more than 1000000 values"),
    ],
)
def test_a_description_that_is_not_understood_is_an_error(
    cfg: CfgNode, exported: Path, changes: dict[str, Any], message: str
) -> None:
    manifest(cfg, **changes).write(exported)
    with pytest.raises(InputError, match=message) as error:
        lite_detr_d2.load(exported)
    assert "\n" not in str(error.value)
