"""What is exported, and where to."""

from pathlib import Path

import pytest
from detectron2.config import CfgNode

from lite_detr_d2.deploy.formats import FORMATS
from lite_detr_d2.deploy.run import TrainedModel

from .exports import PICKLED, load, write_images, write_run


@pytest.fixture
def pickled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A format of that name, which takes no time."""
    monkeypatch.setitem(FORMATS, "pickled", PICKLED)


@pytest.fixture
def run(small_cfg: CfgNode, tmp_path: Path) -> Path:
    return write_run(small_cfg, tmp_path / "run")


@pytest.fixture
def trained(run: Path) -> TrainedModel:
    return load(run)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """To write a file to: nothing else is in it."""
    (tmp_path / "exported").mkdir()
    return tmp_path / "exported"


@pytest.fixture
def output(folder: Path) -> Path:
    return folder / "model.bin"
