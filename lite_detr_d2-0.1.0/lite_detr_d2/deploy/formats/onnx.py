"""ONNX models of standard operators, for ONNX Runtime and whatever else reads them."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch

from ...detector import DetrDetector
from ...errors import InputError
from ...extras import import_extra
from ...modeling.query_selection import QuerySelection
from ...ops.reference import Sampler, sample_by_gathers, sample_grid
from ...quiet import quiet
from ...wording import one_line, shown
from ..inference import INPUTS, INSPECTED, OUTPUTS, InferenceModel, InspectedModel
from .capture import capture
from .format import Format, Runtime, Settings, Written
from .input_check import add_input_check
from .standard_ops import PlainAttention

EXTRA = "export"
OPSETS = (18, 19, 20, 21, 22, 23, 24, 25)  # those that PyTorch writes when it is asked for them


def make_model(detector: DetrDetector, settings: Settings, sample: Sampler) -> Any:
    """Make an ``onnx.ModelProto`` of a detector, which puts out ``OUTPUTS`` and then ``INSPECTED``.

    Raises:
        InputError: the exporter does not write the opset asked for; onnx or onnxscript is not installed.
    """
    for package in ("onnx", "onnxscript"):
        import_extra(package, extra=EXTRA)
    selects = isinstance(detector.query_selection, QuerySelection)
    inspected = [name for name in INSPECTED if selects or name != "selected"]
    with PlainAttention(sample):
        program = capture(InspectedModel(InferenceModel(detector)).eval(), detector, settings.bounds)
    with quiet("onnxscript", "onnx_ir", "torch.onnx"):
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=settings.opset,
            input_names=INPUTS,
            output_names=[*OUTPUTS, *inspected],
            verbose=False,
        )
    assert exported is not None
    _check_opset(exported.model.opset_imports[""], settings.opset)
    exported.rename_axes(_names_of_axes(exported.model.graph.inputs[0].shape))
    model: Any = exported.model_proto
    _forget_origin(model)
    add_input_check(model, settings.bounds)
    return model


def without_inspected(model: Any) -> Any:
    """A copy of ``model`` that puts out ``OUTPUTS`` only; the others are on the way to these."""
    copy = type(model)()
    copy.CopyFrom(model)
    del copy.graph.output[len(OUTPUTS) :]
    return copy


def _check_opset(written: int | None, asked: int) -> None:
    if written != asked:
        raise InputError(
            f"--opset {asked}: PyTorch {torch.__version__} writes this model in opset {written} instead. "
            f"Ask for {written}, or for one that it can convert to."
        )


def _names_of_axes(images: Any) -> dict[Any, str]:
    names = ("batch", None, "height", "width")
    return {axis: name for axis, name in zip(images, names, strict=True) if name and not isinstance(axis, int)}


def _forget_origin(model: Any) -> None:
    """Drop the exporter's notes: each node's lines of source, with the paths of this machine."""
    del model.metadata_props[:], model.graph.metadata_props[:]
    for item in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        del item.metadata_props[:]
        item.doc_string = ""


def _write(sample: Sampler, detector: DetrDetector, settings: Settings, path: Path, inspected_path: Path) -> Written:
    onnx = import_extra("onnx", extra=EXTRA)
    model = make_model(detector, settings, sample)
    onnx.save(model, inspected_path)
    onnx.save(without_inspected(model), path)
    return Written([path], {"onnxruntime": import_extra("onnxruntime", extra=EXTRA).__version__})


def _load(path: Path, requires: Mapping[str, Any]) -> Runtime:
    onnxruntime = import_extra("onnxruntime", extra=EXTRA)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own exceptions have no common base
        version = onnxruntime.__version__
        raise InputError(f"{shown(path)} cannot be loaded by ONNX Runtime {version}: {one_line(error)}") from error

    def run(images: npt.NDArray[Any], sizes: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], ...]:
        return tuple(session.run(None, dict(zip(INPUTS, (images, sizes), strict=True))))

    return run


def _format(name: str, sample: Sampler) -> Format:
    # ONNX Runtime's CPU kernels are made for float32: of bfloat16, it has but a few.
    return Format(
        name,
        ".onnx",
        dynamic=True,
        dtypes=("float32",),
        write=partial(_write, sample),
        load=_load,
        requires=("onnxruntime",),
        packages=dict.fromkeys(("onnx", "onnxscript", "onnxruntime"), EXTRA),
        opsets=OPSETS,
    )


ONNX = _format("onnx", sample_grid)
ONNX_GATHER = _format("onnx-gather", sample_by_gathers)
