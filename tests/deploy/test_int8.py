"""Export in int8: what it is calibrated, checked and scored on, with a format that takes no time."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lite_detr_d2.deploy.bounds import Bounds, fixed
from lite_detr_d2.deploy.export import export, verify
from lite_detr_d2.deploy.formats import FORMATS, Settings, Written
from lite_detr_d2.deploy.manifest import Manifest, manifest_path
from lite_detr_d2.deploy.predictor import load as load_predictor
from lite_detr_d2.deploy.run import TrainedModel
from lite_detr_d2.deploy.self_check import CheckFailed
from lite_detr_d2.errors import InputError

from .annotated import write_dataset
from .exports import BOUNDS, PICKLED, load
from .faults import Fault, assert_fault_is_seen, swapped_weight, wrong_mean

SETTINGS = Settings(BOUNDS, "int8")
given: list[Any] = []


def quantise(
    source: Path, inputs: Sequence[Any], file: Path, twin: Path, change: Callable[[str, Any], Any] | None = None
) -> Written:
    """Round the weights of what was pickled, to far more digits than int8 has."""
    given[:] = inputs
    inspected = torch.load(source, weights_only=False)
    with torch.no_grad():
        for name, parameter in inspected.named_parameters():
            parameter.copy_((parameter * 2**16).round() / 2**16 if change is None else change(name, parameter))
    torch.save(inspected, twin)
    torch.save(inspected.model, file)
    return Written([file], {"torch": torch.__version__})


QUANTISED = dataclasses.replace(PICKLED, dtypes=("float32", "int8"), quantise=quantise)


@pytest.fixture(autouse=True)
def _format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "pickled", QUANTISED)


@pytest.fixture
def trained(run: Path, tmp_path: Path) -> TrainedModel:
    model = load(run)
    write_dataset(model, BOUNDS, tmp_path / "data")
    return model


def test_a_file_of_int8(trained: TrainedModel, output: Path, log: pytest.LogCaptureFixture) -> None:
    manifest = export(trained, "pickled", output, SETTINGS)
    assert sorted(path.name for path in output.parent.iterdir()) == ["model.bin", "model.bin.json"]
    assert manifest.dtype == "int8"
    assert Manifest.read(output) == manifest
    precision = manifest.check.precision
    assert precision is not None
    assert precision.images == 3
    assert precision.before > 50
    assert precision.after == pytest.approx(precision.before, rel=0.02)
    assert manifest.check.tolerance == 0.5
    assert "int8 is calibrated on 4 images of" in log.text
    assert "What is quantised computes what the detector does: on 3 images" in log.text
    assert f"AP is {precision.after:.2f} on 3 images, of {precision.before:.2f}" in log.text
    assert verify(output) == manifest.check
    assert len(load_predictor(output)(np.zeros((96, 128, 3), dtype=np.uint8))["instances"]) == 30


@pytest.mark.parametrize("bounds", [BOUNDS, fixed(1, 96, 128), fixed(3, 128, 128)])
def test_it_is_calibrated_on_what_was_trained_on(trained: TrainedModel, output: Path, bounds: Bounds) -> None:
    export(trained, "pickled", output, Settings(bounds, "int8"))
    images = sum(len(images) for images, _ in given)
    assert images == (6 if bounds.batch.smallest == 3 else 4)
    for images, sizes in given:
        assert images.shape[0] == len(sizes) == bounds.batch.smallest
        assert images.shape[2] in bounds.height
        assert images.shape[3] in bounds.width
        assert images[0].any()


def test_other_types_are_not_scored(trained: TrainedModel, output: Path) -> None:
    assert export(trained, "pickled", output, Settings(BOUNDS)).check.precision is None
    content = json.loads(manifest_path(output).read_text())
    del content["check"]["precision"]  # as before there was int8
    manifest_path(output).write_text(json.dumps(content))
    assert Manifest.read(output).check.precision is None


@pytest.mark.parametrize("fault", [swapped_weight, wrong_mean])  # sampling is not pickled: see tests/export
def test_a_fault_is_seen_before_it_is_rounded(trained: TrainedModel, output: Path, fault: Fault) -> None:
    assert_fault_is_seen(fault, "pickled", trained, output, SETTINGS)


def coarse(name: str, values: Any) -> Any:
    """Two bits are not enough."""
    step = values.abs().max() / 2
    return (values / step).round() * step if values.ndim > 1 else values


def without_classes(name: str, values: Any) -> Any:
    return torch.zeros_like(values) if "class_embed" in name else values


@pytest.mark.parametrize("change", [coarse, without_classes])
def test_what_rounding_breaks_is_seen(
    trained: TrainedModel, output: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[..., Any]
) -> None:
    def broken(*arguments: Any) -> Written:
        return quantise(*arguments, change)

    monkeypatch.setitem(FORMATS, "pickled", dataclasses.replace(QUANTISED, quantise=broken))
    with pytest.raises(CheckFailed):
        export(trained, "pickled", output, SETTINGS)
    assert not list(output.parent.iterdir())


def _no_dataset(folder: Path) -> None:
    shutil.rmtree(folder)


def _evaluated_only(folder: Path) -> None:
    report = json.loads((folder / "report.json").read_text())
    del report["halves"]["train"]
    (folder / "report.json").write_text(json.dumps(report))


def _change_val(change: Callable[[Any], object]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        content = json.loads((folder / "val.json").read_text())
        change(content)
        (folder / "val.json").write_text(json.dumps(content))

    return rewrite


def _move(content: Any) -> None:
    for box in content["annotations"]:
        box["bbox"] = [0.0, 0.0, 1.0, 1.0]


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "no dataset": (_no_dataset, "There are no annotated images"),
    "no training half": (_evaluated_only, "There are no images to calibrate int8 on"),
    "no list of annotations": (_change_val(lambda content: content.pop("annotations")), "Nothing is annotated in 3 im"),
    "no annotations": (_change_val(lambda content: content["annotations"].clear()), "Nothing is annotated in 3 images"),
    "crowds alone": (
        _change_val(lambda content: [box.update(iscrowd=1) for box in content["annotations"]]),
        "Nothing is annotated in 3 images",
    ),
    "other classes": (
        _change_val(lambda content: content["categories"].pop()),
        "has 9 categories, and the detector 10",
    ),
    "nothing is found": (_change_val(_move), "The detector's AP on 3 images is 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_run_without_what_it_takes(trained: TrainedModel, run: Path, output: Path, tmp_path: Path, name: str) -> None:
    change, reason = BAD[name]
    change(run / "dataset")
    with pytest.raises(InputError, match=reason) as caught:
        export(trained, "pickled", output, SETTINGS, tmp_path / "data" / "images")
    assert not isinstance(caught.value, CheckFailed)
    assert len(str(caught.value).splitlines()) == 1
    assert not list(output.parent.iterdir())


def test_a_format_without_int8(trained: TrainedModel, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "pickled", PICKLED)
    with pytest.raises(InputError, match="has no int8: choose float32 or bfloat16"):
        export(trained, "pickled", output, SETTINGS)


def test_formats_that_have_int8_make_it() -> None:
    assert {name for name, each in FORMATS.items() if "int8" in each.dtypes} == {"openvino", "pickled"}
    assert all((each.quantise is not None) == ("int8" in each.dtypes) for each in FORMATS.values())
