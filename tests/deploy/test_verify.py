"""An exported file is checked again: of the weights that it was made of, whatever these call their classes."""

import errno
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode

from lite_detr_d2.data import register_coco_folder
from lite_detr_d2.deploy.export import export, verify
from lite_detr_d2.deploy.formats import FORMATS, Settings
from lite_detr_d2.deploy.manifest import Manifest
from lite_detr_d2.deploy.predictor import load as load_predictor
from lite_detr_d2.deploy.run import load_trained
from lite_detr_d2.errors import InputError
from tests.data.folders import write_single_file_folder

from .exports import BOUNDS, PICKLED, load, write_run

SETTINGS = Settings(BOUNDS)
NAMES = [f"digit {number}" for number in range(10)]  # of the run's config

pytestmark = pytest.mark.usefixtures("pickled")


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


@pytest.mark.parametrize("requires", [{}, {"onnxruntime": "1.0"}, {"torch": 2}])
def test_a_description_that_does_not_say_what_is_required(
    small_cfg: CfgNode, tmp_path: Path, images: Path, requires: dict[str, Any]
) -> None:
    output = tmp_path / "model.bin"
    export(load(write_run(small_cfg, tmp_path / "run")), "pickled", output, SETTINGS, images)
    replace(Manifest.read(output), requires=requires).write(output)
    for use in (lambda: verify(output, images=images), lambda: load_predictor(output)):
        with pytest.raises(InputError, match=r"model\.bin\.json .* has no usable torch, .* Restore it, or export"):
            use()


def test_what_every_format_requires_is_said() -> None:
    for name, required in {
        "torch": {"torch", "library"},
        "torchscript": {"torch", "library"},
        "aoti": {"torch", "library", "machine", "instructions"},
        "onnx": {"onnxruntime"},
        "onnx-gather": {"onnxruntime"},
        "openvino": {"openvino", "INFERENCE_PRECISION_HINT"},
    }.items():
        assert set(FORMATS[name].requires) == required


def test_a_temporary_folder_that_is_full(
    small_cfg: CfgNode, tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "model.bin"
    export(load(write_run(small_cfg, tmp_path / "run")), "pickled", output, SETTINGS, images)

    def fail(*_: object) -> None:
        raise RuntimeError("unexpected pos 64 vs 0") from OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setitem(FORMATS, "pickled", replace(PICKLED, write=fail))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(InputError, match=rf"{tmp_path}, cannot be written to: No space left on device\. .*TMPDIR"):
        verify(output, images=images)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(InputError, match=r"gone, cannot be written to: No such file or directory\."):
        verify(output, images=images)


def test_a_run_without_its_images(small_cfg: CfgNode, tmp_path: Path) -> None:
    run, data = write_run(small_cfg, tmp_path / "run"), write_single_file_folder(tmp_path / "data")
    register_coco_folder(data, split_folder=run / "dataset")
    output = tmp_path / "model.bin"
    for image in (data / "images").iterdir():
        image.unlink()
    with pytest.raises(InputError, match=r"can be read .*: there is no such file\. Name a folder .*, --images DIR\."):
        export(load(run), "pickled", output, SETTINGS)
    for content in ("[", "[]", "{}", '{"images": [], "annotations": []}'):
        (run / "dataset" / "val.json").write_text(content)
        with pytest.raises(InputError, match=r"^The dataset of the training cannot be used: .*val\.json"):
            export(load(run), "pickled", output, SETTINGS)
