"""Faults planted in what is exported to ONNX are seen by the check, in ONNX Runtime."""

from pathlib import Path

import pytest
from detectron2.config import CfgNode

from lite_detr_d2.deploy.bounds import Bounds, Range, fixed
from lite_detr_d2.deploy.export import export, verify
from lite_detr_d2.deploy.formats import Settings
from lite_detr_d2.deploy.manifest import Manifest
from lite_detr_d2.deploy.run import TrainedModel
from tests.deploy.exports import assert_takes_rgb, load, write_run
from tests.deploy.faults import FAULTS, Fault, assert_fault_is_seen
from tests.helpers import choose_detector

SETTINGS = Settings(fixed(1, 96, 128))


def test_a_file_that_computes_the_same(trained: TrainedModel, images: Path, folder: Path) -> None:
    manifest = export(trained, "onnx", folder / "model.onnx", SETTINGS, images)
    assert manifest.opset == 18
    assert Manifest.read(folder / "model.onnx") == manifest
    assert verify(folder / "model.onnx", images=images).passed


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen_and_nothing_is_left(trained: TrainedModel, images: Path, folder: Path, fault: Fault) -> None:
    assert_fault_is_seen(fault, "onnx", trained, folder / "model.onnx", SETTINGS, images)


def test_what_is_computed_of_padding_does_not_count(
    small_cfg: CfgNode, images: Path, folder: Path, tmp_path: Path
) -> None:
    """Deformable DETR's encoding of its position is of angles so large that every runtime rounds them otherwise."""
    small_cfg.MODEL.META_ARCHITECTURE = "DeformableDETR"
    trained = load(write_run(small_cfg, tmp_path / "run"))
    manifest = export(trained, "onnx", folder / "model.onnx", Settings(fixed(1, 224, 288)), images)
    assert manifest.check.token_difference < 1e-4


@pytest.mark.parametrize(
    ("name", "suffix", "bounds"),
    [
        ("onnx", "onnx", Bounds(Range(1, 2), Range(64, 96), Range(64, 128))),
        ("onnx-gather", "onnx", fixed(1, 96, 128)),
        ("openvino", "xml", fixed(1, 96, 128)),
    ],
    ids=["onnx", "onnx-gather", "openvino"],
)
def test_sparse_detr(
    small_cfg: CfgNode, images: Path, folder: Path, tmp_path: Path, name: str, suffix: str, bounds: Bounds
) -> None:
    choose_detector(small_cfg, "sparse_detr")
    trained = load(write_run(small_cfg, tmp_path / "run"))
    assert export(trained, name, folder / f"model.{suffix}", Settings(bounds), images).check.passed


@pytest.mark.parametrize(("name", "suffix"), [("onnx", "onnx"), ("onnx-gather", "onnx"), ("openvino", "xml")])
def test_images_are_rgb_of_every_detector(
    small_cfg: CfgNode, images: Path, folder: Path, name: str, suffix: str
) -> None:
    assert_takes_rgb(small_cfg, name, folder / f"model.{suffix}", images)
