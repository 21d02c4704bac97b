"""OpenVINO's own format (IR) of the ONNX model: ``.xml``, and ``.bin`` with the weights."""

import io
import logging
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ...detector import DetrDetector
from ...errors import InputError
from ...extras import import_extra
from ...ops.reference import sample_grid
from ...quiet import quiet
from ...wording import one_line, shown
from ..bounds import Bounds, Range
from ..inference import INPUTS, OUTPUTS
from .format import Format, Inputs, Runtime, Settings, Written
from .onnx import OPSETS, make_model, without_inspected

logger = logging.getLogger(__name__)

EXTRA = "openvino"
# Left alone, OpenVINO computes in bfloat16 wherever the processor has instructions for it. A file cannot ask for a
# precision: whoever compiles it has to.
PRECISION = "INFERENCE_PRECISION_HINT"
# Of the processor, as OpenVINO tells it.
CAPABILITY = "OPTIMIZATION_CAPABILITIES"
PRODUCTS = ("Convolution", "MatMul")


def _write(detector: DetrDetector, settings: Settings, path: Path, inspected_path: Path) -> Written:
    openvino = import_extra("openvino", extra=EXTRA)
    model = make_model(detector, settings, sample_grid)
    for target, content in ((inspected_path, model), (path, without_inspected(model))):
        converted = openvino.Core().read_model(content.SerializeToString())
        # OpenVINO refuses what is not within these: the check in the model is left with the sizes.
        converted.reshape(_shapes(openvino, settings.bounds))
        if settings.dtype == "bfloat16":
            _round_products(openvino, converted)
        openvino.save_model(converted, str(target), compress_to_fp16=False)
    return _written(openvino, path, {CAPABILITY: "BF16"} if settings.dtype == "bfloat16" else {})


def _written(openvino: Any, path: Path, requires: Mapping[str, Any]) -> Written:
    return Written([path, path.with_suffix(".bin")], {"openvino": openvino.__version__, PRECISION: "f32", **requires})


def _quantise(source: Path, inputs: Sequence[Inputs], path: Path, inspected_path: Path) -> Written:
    """Let products be of int8, in the ranges of values that the inputs show."""
    openvino = import_extra("openvino", extra=EXTRA)
    with quiet("torch.utils.cpp_extension"):
        nncf = import_extra("nncf", extra="int8")
    with quiet("nncf"), redirect_stdout(io.StringIO()):  # its bars of progress
        model = nncf.quantize(
            openvino.Core().read_model(source),
            nncf.Dataset([dict(zip(INPUTS, each, strict=True)) for each in inputs]),
            subset_size=len(inputs),
            # Without the type, what attention is computed of is rounded, too: AP fell by 4 instead of 0.4.
            model_type=nncf.ModelType.TRANSFORMER,
        )
    openvino.save_model(model, str(inspected_path), compress_to_fp16=False)
    for output in model.outputs[len(OUTPUTS) :]:
        model.remove_result(output.get_node())
    openvino.save_model(model, str(path), compress_to_fp16=False)
    return _written(openvino, path, {CAPABILITY: "INT8"})


def _shapes(openvino: Any, bounds: Bounds) -> dict[str, Any]:
    def dimension(values: Range) -> Any:
        return openvino.Dimension(values.smallest, values.largest)

    batch, height, width = dimension(bounds.batch), dimension(bounds.height), dimension(bounds.width)
    shapes = ([batch, 3, height, width], [batch, 2])
    return {name: openvino.PartialShape(shape) for name, shape in zip(INPUTS, shapes, strict=True)}


def _round_products(openvino: Any, model: Any) -> None:
    """Let the products with weights be of bfloat16, and all else stay of float32, much as autocast does.

    The file says so then. Asked for bfloat16 by ``PRECISION``, OpenVINO would round locations, encodings and boxes,
    too: of a trained detector's detections, 89 % remained. The products of two activations, which are of attention
    between queries, are so small that they only got slower.
    """
    op = openvino.opset13
    for node in model.get_ordered_ops():
        if node.get_type_name() not in PRODUCTS or node.input_value(1).get_node().get_type_name() != "Constant":
            continue
        users = node.output(0).get_target_inputs()
        # OpenVINO alone does not round weights to the nearest.
        nearest = torch.tensor(node.input_value(1).get_node().data).bfloat16().float().numpy()
        weight = op.constant(nearest, dtype=openvino.Type.bf16)
        for index, rounded in enumerate((op.convert(node.input_value(0), "bf16"), weight)):
            node.input(index).replace_source_output(rounded.output(0))
        node.validate_and_infer_types()
        result = op.convert(node.output(0), "f32")
        for user in users:
            user.replace_source_output(result.output(0))


def _load(path: Path, requires: Mapping[str, Any]) -> Runtime:
    openvino = import_extra("openvino", extra=EXTRA)
    core, wanted = openvino.Core(), requires.get(CAPABILITY)
    if wanted is not None and wanted not in core.get_property("CPU", CAPABILITY):
        logger.warning(
            "%s is made for processors with %s, which this one is without: it may be many times as slow as in float32.",
            *(shown(path), wanted),
        )
    options = {PRECISION: requires[PRECISION], "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    try:
        compiled = core.compile_model(str(path), "CPU", options)
    except RuntimeError as error:
        version = openvino.__version__
        raise InputError(f"{shown(path)} cannot be loaded by OpenVINO {version}: {one_line(error)}") from error

    def run(images: npt.NDArray[Any], sizes: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], ...]:
        # The file refuses this itself, but so late that OpenVINO then keeps shapes of it for the next images.
        if len(images) != len(sizes):
            raise ValueError(f"sizes: expected one for each of the {len(images)} images, got {len(sizes)}")
        request = compiled.create_infer_request()  # one serves one thread
        # Given arrays, OpenVINO would cast them to the types of the inputs; tensors of other types it refuses.
        tensors = (openvino.Tensor(np.ascontiguousarray(array)) for array in (images, sizes))
        # infer() would lose the error of a refused input where there is one thread only, and return what is no result.
        request.start_async(dict(zip(INPUTS, tensors, strict=True)))
        request.wait()
        return tuple(request.get_output_tensor(index).data.copy() for index in range(len(compiled.outputs)))

    return run


OPENVINO = Format(
    "openvino",
    ".xml",
    dynamic=True,
    dtypes=("float32", "bfloat16", "int8"),
    write=_write,
    load=_load,
    requires=("openvino", PRECISION),
    packages=dict.fromkeys(("onnx", "onnxscript", "openvino"), EXTRA),
    opsets=OPSETS,
    quantise=_quantise,
    quantiser={"nncf": "int8"},
)
