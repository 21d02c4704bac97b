"""Faults planted in what is exported to torch.export's format are seen by the check."""

from pathlib import Path

import pytest
from detectron2.config import CfgNode

from lite_detr_d2.deploy.bounds import fixed
from lite_detr_d2.deploy.export import export, verify
from lite_detr_d2.deploy.formats import Settings
from lite_detr_d2.deploy.manifest import Manifest
from lite_detr_d2.deploy.run import TrainedModel

from .exports import assert_takes_rgb
from .faults import FAULTS, Fault, assert_fault_is_seen

SETTINGS = Settings(fixed(1, 96, 128))


def test_a_file_that_computes_the_same(trained: TrainedModel, images: Path, folder: Path) -> None:
    manifest = export(trained, "torch", folder / "model.pt2", SETTINGS, images)
    assert manifest.opset is None
    assert Manifest.read(folder / "model.pt2") == manifest
    assert verify(folder / "model.pt2", images=images).passed


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen_and_nothing_is_left(trained: TrainedModel, images: Path, folder: Path, fault: Fault) -> None:
    assert_fault_is_seen(fault, "torch", trained, folder / "model.pt2", SETTINGS, images)


def test_images_are_rgb_of_every_detector(small_cfg: CfgNode, images: Path, folder: Path) -> None:
    assert_takes_rgb(small_cfg, "torch", folder / "model.pt2", images)
