"""Export, and that nothing wrong is ever left: with a format that takes no time."""

import copy
import dataclasses
import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from torch.nn import functional

from lite_detr_d2.deploy.bounds import Bounds, Range, fixed
from lite_detr_d2.deploy.export import check_request, export, verify
from lite_detr_d2.deploy.formats import FORMATS, Format, Runtime, Settings, Written
from lite_detr_d2.deploy.manifest import Manifest, digest_of_file
from lite_detr_d2.deploy.run import TrainedModel
from lite_detr_d2.deploy.self_check import CheckFailed
from lite_detr_d2.detector import DetrDetector
from lite_detr_d2.errors import InputError
from lite_detr_d2.ops import deform_attn

from .exports import BOUNDS, PICKLED, load, load_pickled, write_pickled, write_run

SETTINGS = Settings(BOUNDS)

pytestmark = pytest.mark.usefixtures("pickled")


def left(output: Path) -> list[str]:
    return sorted(path.name for path in output.parent.iterdir())


def test_what_is_exported_says_what_it_is(trained: TrainedModel, images: Path, output: Path) -> None:
    manifest = export(trained, "pickled", output, SETTINGS, images)
    assert left(output) == ["model.bin", "model.bin.json", "model.bin.txt"]
    assert Manifest.read(output) == manifest
    assert manifest.bounds == BOUNDS
    assert manifest.class_names == tuple(f"digit {number}" for number in range(10))
    assert (manifest.resize.min_size, manifest.resize.max_size) == (96, 128)
    assert [spec.shape for spec in manifest.outputs] == [(Range(1, 2), 30, 4), (Range(1, 2), 30), (Range(1, 2), 30)]
    assert manifest.opset is None
    assert manifest.requires == {"torch": torch.__version__}
    assert manifest.versions["torch"] == torch.__version__
    assert manifest.check.images == 3
    assert manifest.check.passed
    # The smallest, at the size of evaluation, turned, two at once, and the largest.
    assert manifest.check.sizes == (
        *((1, 32, 32), (1, 96, 120), (1, 96, 128), (1, 120, 96)),
        *((2, 120, 120), (2, 128, 160)),
    )
    assert manifest.check.compared > 100


def test_a_fixed_batch_is_filled(trained: TrainedModel, images: Path, output: Path) -> None:
    manifest = export(trained, "pickled", output, Settings(fixed(2, 100, 120)), images)
    assert manifest.check.sizes == ((2, 100, 120),)
    assert manifest.check.images == 3


def test_a_detector_with_learned_queries(small_cfg: CfgNode, images: Path, output: Path, tmp_path: Path) -> None:
    small_cfg.MODEL.META_ARCHITECTURE = "DeformableDETR"
    for stage in ("LOOK_FORWARD_TWICE", "MIXED_SELECTION", "TWO_STAGE"):
        small_cfg.MODEL.LITE_DETR[stage] = False
    learned = load(write_run(small_cfg, tmp_path / "learned"))
    assert export(learned, "pickled", output, SETTINGS, images).check.passed


def test_the_images_of_the_training_are_used(run: Path, images: Path, output: Path, tmp_path: Path) -> None:
    from lite_detr_d2.data import register_coco_folder  # noqa: PLC0415
    from tests.data.folders import write_single_file_folder  # noqa: PLC0415

    register_coco_folder(write_single_file_folder(tmp_path / "data"), split_folder=run / "dataset")
    assert export(load(run), "pickled", output, SETTINGS).check.images >= 1


def test_images_that_cannot_be_read_are_reported(
    trained: TrainedModel, images: Path, output: Path, said: list[str]
) -> None:
    (images / "1.png").write_bytes(b"no image")
    assert export(trained, "pickled", output, SETTINGS, images).check.images == 2
    assert any(
        "1 of 3 images to check the exported file on are passed over" in message and "1.png" in message
        for message in said
    )
    for name in ("0.png", "2.png"):
        (images / name).write_bytes(b"no image")
    with pytest.raises(InputError, match="None of 3 images can be read"):
        export(trained, "pickled", output, SETTINGS, images)


def test_a_check_that_compares_nothing_is_none(small_cfg: CfgNode, images: Path, output: Path, tmp_path: Path) -> None:
    trained = load(write_run(small_cfg, tmp_path / "flat"))
    for name, parameter in trained.detector.named_parameters():
        if "class_embed" in name:
            parameter.data.fill_(0.0 if parameter.ndim > 1 else -4.6)
    with pytest.raises(InputError, match="the check would compare nothing"):
        export(trained, "pickled", output, SETTINGS, images)
    assert left(output) == []


def swapped_weight(detector: DetrDetector) -> None:
    """The rows of one layer, in another order."""
    weight = detector.decoder.layers[0].feed_forward.linear1.weight
    weight.data = weight.data.flip(0)


def swapped_encoder_weight(detector: DetrDetector) -> None:
    weight = next(parameter for parameter in detector.encoder.parameters() if parameter.ndim > 1)
    weight.data = weight.data.flip(0)


def wrong_mean(detector: DetrDetector) -> None:
    """By one of 256 shades, in one channel."""
    detector.pixel_mean[0] += 1.0  # type: ignore[operator, index]


def wrong_ranking(detector: DetrDetector) -> None:
    """Proposals rank the other way round: on the way, all is as it would be for these tokens."""
    detector.query_selection.head.class_embed.weight.data.neg_()


def written_of(change: Callable[[DetrDetector], None]) -> Callable[..., Written]:
    """Writing that changes the detector on the way."""

    def write(detector: DetrDetector, *arguments: Any) -> Written:
        other = copy.deepcopy(detector)
        change(other)
        return write_pickled(other, *arguments)

    return write


def run_with_aligned_corners(file: Path, requires: Any) -> Runtime:
    """A runtime whose sampling takes the corners' centres for the edges."""
    runtime = load_pickled(file, requires)

    def run(*inputs: Any) -> tuple[Any, ...]:
        with pytest.MonkeyPatch.context() as patch:
            sample = functional.grid_sample
            patch.setattr(functional, "grid_sample", lambda plane, grid, **_: sample(plane, grid, align_corners=True))
            patch.setattr(deform_attn, "_ops_for", lambda _: torch.ops.lite_detr_pure_torch)
            return runtime(*inputs)

    return run


def broken(change: Callable[[list[Any]], Any], *, twin: bool = False) -> Callable[[Path, Any], Runtime]:
    """A runtime whose outputs are changed: of the file, or of its twin."""

    def load_broken(file: Path, requires: Any) -> Runtime:
        runtime = load_pickled(file, requires)
        if file.name.startswith("inspected") != twin:
            return runtime

        def run(*inputs: Any) -> tuple[Any, ...]:
            outputs = [output.copy() for output in runtime(*inputs)]
            change(outputs)
            return tuple(outputs)

        return run

    return load_broken


def put(index: int, change: Callable[[Any], Any]) -> Callable[[list[Any]], None]:
    def replace_output(outputs: list[Any]) -> None:
        outputs[index] = change(outputs[index])

    return replace_output


TOKENS, PREDICTIONS = r"encoder tokens differ by \S+, and 0.0001 is allowed", "predictions differ by"
DETECTIONS = "of its detections and of those of the model are the same"
FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "a swapped weight of the decoder": ({"write": written_of(swapped_weight)}, PREDICTIONS),
    "a swapped weight of the encoder": ({"write": written_of(swapped_encoder_weight)}, TOKENS),
    "a wrong mean": ({"write": written_of(wrong_mean)}, TOKENS),
    "aligned corners": ({"load": run_with_aligned_corners}, TOKENS),
    "other tokens selected": ({"write": written_of(wrong_ranking)}, DETECTIONS),
    "boxes moved": ({"load": broken(put(0, lambda boxes: boxes + 3))}, DETECTIONS),
    "boxes of another scale": ({"load": broken(put(0, lambda boxes: boxes * 1.1))}, DETECTIONS),
    "labels from 1": ({"load": broken(put(2, lambda labels: labels + 1))}, DETECTIONS),
    "scores off": ({"load": broken(put(1, lambda scores: scores * np.float32(0.9)))}, DETECTIONS),
    "scores that do not fall": ({"load": broken(put(1, lambda scores: scores[:, ::-1]))}, "scores that do not fall"),
    "labels of another type": (
        {"load": broken(put(2, lambda labels: labels.astype(np.int32)))},
        r"labels as \(\S+, 30\) of int32: expected \(1, 30\) of int64",
    ),
    "fewer detections": ({"load": broken(put(1, lambda scores: scores[:, :-1]))}, r"scores as \(1, 29\)"),
    "an output missing": ({"load": broken(lambda outputs: outputs.pop())}, "puts out 2 arrays: expected 3"),
    "the twin's detections": (
        {"load": broken(put(0, lambda boxes: boxes + 3), twin=True)},
        "those of its own inspected form are the same",
    ),
    "the twin's tokens": ({"load": broken(put(3, lambda tokens: tokens + np.float32(2e-4)), twin=True)}, TOKENS),
    "tokens that are not finite": ({"load": broken(put(3, lambda tokens: tokens * np.inf), twin=True)}, TOKENS),
    "no such tokens": (
        {"load": broken(put(4, lambda selected: selected + 10_000), twin=True)},
        "selects other tokens than the",
    ),
    "logits off": ({"load": broken(put(5, lambda logits: logits + np.float32(2e-3)), twin=True)}, PREDICTIONS),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_seen_and_nothing_is_left(
    trained: TrainedModel, images: Path, output: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    replaced, reason = FAULTS[name]
    monkeypatch.setitem(FORMATS, "pickled", dataclasses.replace(PICKLED, **replaced))
    with pytest.raises(CheckFailed, match=reason) as caught:
        export(trained, "pickled", output, SETTINGS, images)
    assert len(str(caught.value).splitlines()) == 1
    assert left(output) == []


def test_other_tokens_are_seen_in_bfloat16_too(
    trained: TrainedModel, images: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There, the detector is given the tokens that the file selects."""
    settings = Settings(BOUNDS, "bfloat16")
    assert export(trained, "pickled", output, settings, images).check.selected == 1.0
    monkeypatch.setitem(FORMATS, "pickled", dataclasses.replace(PICKLED, write=written_of(wrong_ranking)))
    with pytest.raises(CheckFailed, match=r"of selected tokens \S+ are the same, and 90% are expected"):
        export(trained, "pickled", output, settings, images)


def test_what_was_there_stays_when_the_next_one_fails(
    trained: TrainedModel, images: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(trained, "pickled", output, SETTINGS, images)
    before = {path: path.read_bytes() for path in output.parent.iterdir()}
    monkeypatch.setitem(FORMATS, "pickled", dataclasses.replace(PICKLED, write=written_of(wrong_mean)))
    with pytest.raises(CheckFailed):
        export(trained, "pickled", output, Settings(fixed(1, 96, 96)), images)
    assert {path: path.read_bytes() for path in output.parent.iterdir()} == before


@pytest.mark.parametrize("name", ["aligned corners", "boxes moved", "the twin's tokens"])
def test_a_fault_that_comes_later_is_seen_by_verify(
    trained: TrainedModel, images: Path, output: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    export(trained, "pickled", output, SETTINGS, images)
    assert verify(output, images=images).passed
    replaced, reason = FAULTS[name]
    monkeypatch.setitem(FORMATS, "pickled", dataclasses.replace(PICKLED, **replaced))
    with pytest.raises(CheckFailed, match=reason):
        verify(output, images=images)


def test_verify_runs_the_file_itself(trained: TrainedModel, images: Path, output: Path) -> None:
    """Not one that is exported anew: here the file is another model's, with a description that says otherwise."""
    manifest = export(trained, "pickled", output, SETTINGS, images)
    written_of(wrong_mean)(trained.detector, SETTINGS, output, output.with_name("twin.bin"))
    files = {name: digest_of_file(output.with_name(name)) for name in manifest.files}
    dataclasses.replace(manifest, files=files).write(output)
    with pytest.raises(CheckFailed, match=DETECTIONS):
        verify(output, images=images)


def failing(error: Exception) -> Callable[..., Written]:
    def write(detector: DetrDetector, settings: Settings, file: Path, twin: Path) -> Written:
        write_pickled(detector, settings, file, twin)
        raise error

    return write


def full_disk() -> Exception:
    """As torch reports it: an error of its own, because of the system's."""
    error = RuntimeError("unexpected pos 64 vs 0")
    error.__context__ = OSError(errno.ENOSPC, "No space left on device")
    return error


@pytest.mark.parametrize("error", [full_disk(), OSError(errno.ENOSPC, "No space left on device")])
def test_a_full_disk_leaves_nothing(
    trained: TrainedModel, images: Path, output: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setitem(FORMATS, "pickled", dataclasses.replace(PICKLED, write=failing(error)))
    with pytest.raises(InputError, match="model.bin cannot be written: No space left on device"):
        export(trained, "pickled", output, SETTINGS, images)
    assert left(output) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a fault of the format")])
def test_whatever_happens_nothing_is_left(
    trained: TrainedModel, images: Path, output: Path, monkeypatch: pytest.MonkeyPatch, error: Any
) -> None:
    monkeypatch.setitem(FORMATS, "pickled", dataclasses.replace(PICKLED, write=failing(error)))
    with pytest.raises(type(error)):
        export(trained, "pickled", output, SETTINGS, images)
    assert left(output) == []


def test_what_a_killed_export_leaves_goes_with_the_next(trained: TrainedModel, images: Path, output: Path) -> None:
    killed = output.with_name(".model.bin.unfinished")
    killed.mkdir()
    (killed / "model.bin").write_bytes(b"half")
    export(trained, "pickled", output, SETTINGS, images)
    assert left(output) == ["model.bin", "model.bin.json", "model.bin.txt"]


def test_where_nothing_can_be_written(trained: TrainedModel, images: Path) -> None:
    """Not even by root."""
    with pytest.raises(InputError, match="/proc/model.bin cannot be written: "):
        export(trained, "pickled", Path("/proc/model.bin"), SETTINGS, images)


@pytest.mark.parametrize(
    ("settings", "format", "reason"),
    [
        (Settings(BOUNDS, dtype="float16"), PICKLED, "has no float16: choose float32 or bfloat16"),
        (SETTINGS, dataclasses.replace(PICKLED, dynamic=False), "takes one size and batch only: leave --dynamic out"),
        (Settings(BOUNDS, opset=9), dataclasses.replace(PICKLED, opsets=(17, 18)), "opset 9: choose one of 17, 18"),
        (Settings(BOUNDS, opset=20), PICKLED, "has no operators of ONNX: leave --opset out"),
        (Settings(Bounds(Range(1, 1), Range(8, 99), Range(8, 99))), PICKLED, "fewer than the 20 queries"),
    ],
)
def test_settings_that_a_format_cannot_have(
    trained: TrainedModel,
    images: Path,
    output: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: Settings,
    format: Format,
    reason: str,
) -> None:
    monkeypatch.setitem(FORMATS, "pickled", format)
    with pytest.raises(InputError, match=reason):
        export(trained, "pickled", output, settings, images)
    assert left(output) == []


def test_channels_that_no_contract_has(small_cfg: CfgNode, images: Path, output: Path, tmp_path: Path) -> None:
    small_cfg.INPUT.FORMAT = "HSV"
    write_run(small_cfg, tmp_path / "hsv")
    with pytest.raises(InputError, match="INPUT.FORMAT is 'HSV': detectors that take RGB or BGR are exported"):
        export(load(tmp_path / "hsv"), "pickled", output, SETTINGS, images)


@pytest.mark.parametrize(
    ("format", "dtype", "missing", "extra"),
    [
        ("onnx", "float32", "onnxscript", "export"),
        ("onnx-gather", "float32", "onnxruntime", "export"),
        ("openvino", "bfloat16", "openvino", "openvino"),
        ("openvino", "int8", "nncf", "int8"),
    ],
)
def test_a_package_that_is_missing_is_named_before_the_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, format: str, dtype: str, missing: str, extra: str
) -> None:
    needed = {**FORMATS[format].packages, **FORMATS[format].quantiser}
    monkeypatch.setattr(
        "lite_detr_d2.extras.importlib.util.find_spec", lambda name: name if name in needed.keys() - {missing} else None
    )
    output = tmp_path / f"model{FORMATS[format].suffix}"
    with pytest.raises(InputError, match=rf"^{missing} is needed, but is not installed\. .*lite_detr_d2\[{extra}\]"):
        check_request(format, output, dtype=dtype, opset=Settings.opset, dynamic=True)
