"""Faults planted in what is exported to torch.export's format are seen by the check."""

from pathlib import Path

import pytest
from detectron2.config import CfgNode

from lite_detr_d2.deploy.bounds import fixed
from lite_detr_d2.deploy.export import export, verify
from lite_detr_d2.deploy.formats import FORMATS, Settings
from lite_detr_d2.deploy.manifest import Manifest
from lite_detr_d2.deploy.run import TrainedModel
from lite_detr_d2.deploy.self_check import CheckFailed

from .exports import load, write_images, write_run
from .faults import FAULTS, Fault, with_fault

SETTINGS = Settings(fixed(1, 96, 128))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), number=2)


@pytest.fixture
def trained(small_cfg: CfgNode, tmp_path: Path) -> TrainedModel:
    return load(write_run(small_cfg, tmp_path / "run"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "exported").mkdir()
    return tmp_path / "exported"


def test_a_file_that_computes_the_same(trained: TrainedModel, images: Path, folder: Path) -> None:
    manifest = export(trained, "torch", folder / "model.pt2", SETTINGS, images)
    assert manifest.opset is None
    assert Manifest.read(folder / "model.pt2") == manifest
    assert verify(folder / "model.pt2", images=images).passed


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen_and_nothing_is_left(
    trained: TrainedModel, images: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    monkeypatch.setitem(FORMATS, "torch", with_fault(FORMATS["torch"], fault))
    with pytest.raises(CheckFailed, match=FAULTS[fault]):
        export(trained, "torch", folder / "model.pt2", SETTINGS, images)
    assert not list(folder.iterdir())
