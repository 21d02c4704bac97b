"""An exported file is checked again: of the weights that it was made of, whatever these call their classes."""

from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode

from lite_detr_d2.deploy.export import export, verify
from lite_detr_d2.deploy.formats import FORMATS, Settings
from lite_detr_d2.deploy.run import load_trained
from lite_detr_d2.errors import InputError

from .exports import BOUNDS, PICKLED, load, write_images, write_run

SETTINGS = Settings(BOUNDS)
NAMES = [f"digit {number}" for number in range(10)]  # of the run's config


@pytest.fixture(autouse=True)
def _format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "pickled", PICKLED)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images")


def call_classes(weights: Path, names: list[str]) -> None:
    """Let a checkpoint call its classes so."""
    torch.save({**torch.load(weights), "class_names": names}, weights)


@pytest.mark.parametrize(
    "of_checkpoint",
    [[*NAMES[:-1], "nine"], NAMES[::-1], NAMES],
    ids=["renamed", "swapped", "the same"],
)
def test_a_run_whose_classes_were_renamed(
    small_cfg: CfgNode, tmp_path: Path, images: Path, of_checkpoint: list[str]
) -> None:
    run, output = write_run(small_cfg, tmp_path / "run"), tmp_path / "model.bin"
    call_classes(run / "model_final.pth", of_checkpoint)
    assert export(load(run), "pickled", output, SETTINGS, images).class_names == tuple(NAMES)
    assert verify(output, images=images).passed
    assert verify(output, images=images, weights=run / "model_final.pth").passed


def test_weights_that_go_by_the_names_of_a_config(small_cfg: CfgNode, tmp_path: Path, images: Path) -> None:
    run, output = write_run(small_cfg, tmp_path / "run"), tmp_path / "model.bin"
    weights = run / "model_final.pth"
    call_classes(weights, NAMES[::-1])
    trained = load_trained(config_file=run / "config.yaml", weights=weights, device="cpu")
    export(trained, "pickled", output, SETTINGS, images)
    assert verify(output, images=images).passed
    # Other weights, with rows that fit and with rows that do not.
    for names in (NAMES, [*NAMES[:-1], "nine"]):
        call_classes(weights, names)
        with pytest.raises(InputError, match="was made of other weights than .* are now"):
            verify(output, images=images)
    weights.write_bytes(b"none")
    with pytest.raises(InputError, match=r"model_final\.pth"):
        verify(output, images=images)
