"""Files of standard operators in their own runtimes: what they compute, and what they refuse."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
import pytest
import torch
from torch import Tensor

from lite_detr_d2.deploy.comparison import LIMITS, difference
from lite_detr_d2.deploy.formats import FORMATS, Settings
from lite_detr_d2.deploy.formats.onnx import make_model
from lite_detr_d2.deploy.inference import InferenceModel
from lite_detr_d2.detector import DetrDetector
from lite_detr_d2.errors import InputError
from lite_detr_d2.ops.reference import sample_grid

from .conftest import BOUNDS, NAMES, Exported, arrays, batch

Sizes = tuple[int, int, int]
EACH = pytest.mark.parametrize("name", NAMES)
# Levels of 19 and 21 pixels have strides that are no whole numbers; 131 is prime.
RUNS: list[tuple[str, Sizes]] = [
    ("one size", (2, 64, 96)),
    *(("many sizes", sizes) for sizes in [(1, 64, 64), (2, 160, 75), (3, 131, 160), (1, 145, 83)]),
]


def compare(found: tuple[Any, ...], detector: DetrDetector, images: Tensor, sizes: Tensor, tolerance: float) -> None:
    """Compare tokens, and the predictions and detections for the selected tokens that were found."""
    model = InferenceModel(detector)
    boxes, scores, labels, tokens, selected, logits, query_boxes = map(torch.from_numpy, found)
    with torch.no_grad():
        expected = model.inspect(images, sizes, selected)
        detections = model.detections(expected, sizes)
    close = {"rtol": 0, "atol": tolerance}
    torch.testing.assert_close(tokens, expected.tokens, **close)
    torch.testing.assert_close(logits, expected.predictions.logits, **close)
    torch.testing.assert_close(query_boxes, expected.predictions.boxes, **close)
    torch.testing.assert_close(scores, detections.scores, **close)
    assert (boxes.dtype, scores.dtype, labels.dtype) == (torch.float32, torch.float32, torch.int64)
    same = labels == detections.labels  # not where two score alike
    assert same.double().mean() > 0.98
    torch.testing.assert_close(boxes[same], detections.boxes[same], rtol=0, atol=tolerance * max(images.shape[2:]))


@EACH
@pytest.mark.parametrize(("sizes", "shape"), RUNS, ids=str)
def test_a_file_computes_what_the_model_does(
    name: str, sizes: str, shape: Sizes, exported: Any, detector: DetrDetector
) -> None:
    file: Exported = exported(name, sizes)
    images, own_sizes = batch(*shape)
    found = file.run_inspected(images.numpy(), own_sizes.numpy())
    compare(found, detector, images, own_sizes, 1e-4)
    for inspected, alone in zip(found, file.run(images.numpy(), own_sizes.numpy()), strict=False):
        np.testing.assert_array_equal(alone, inspected)


@EACH
def test_a_file_has_but_the_outputs_of_detections(name: str, exported: Any) -> None:
    for sizes, shape in RUNS[:2]:
        boxes, scores, labels = exported(name, sizes).run(*arrays(*shape))
        assert (boxes.shape, scores.shape, labels.shape) == ((shape[0], 100, 4), (shape[0], 100), (shape[0], 100))


Arrays = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def _swapped(images: Any, sizes: Any) -> Arrays:
    return images, sizes[:, ::-1]


REFUSALS = "|".join(
    (
        "images .*, sizes one for each",  # the file's own check
        r"sizes: expected one for each of the \d images",  # the runtime of OpenVINO's files
        "Got invalid dimensions|Invalid rank|Unexpected input data type",  # ONNX Runtime
        "are incompatible|is incompatible|ParameterMismatch",  # OpenVINO
    )
)
WRONG: dict[str, Any] = {
    "smaller": lambda images, sizes: (images[:, :, :, :63], np.minimum(sizes, 60)),
    "lower": lambda images, sizes: (images[:, :, :63], np.minimum(sizes, 60)),
    "larger": lambda images, sizes: (np.tile(images, (1, 1, 1, 3)), sizes),
    "higher": lambda images, sizes: (np.tile(images, (1, 1, 3, 1)), sizes),
    "more images": lambda images, sizes: (np.tile(images, (2, 1, 1, 1)), np.tile(sizes, (2, 1))),
    "no images": lambda images, sizes: (images[:0], sizes[:0]),
    "more sizes": lambda images, sizes: (images, np.tile(sizes, (2, 1))[:3]),
    "fewer sizes": lambda images, sizes: (images, sizes[:1]),
    "two channels": lambda images, sizes: (images[:, :2], sizes),
    "one image alone": lambda images, sizes: (images[0], sizes),
    "float32 images": lambda images, sizes: (images.astype(np.float32), sizes),
    "int32 sizes": lambda images, sizes: (images, sizes.astype(np.int32)),
    "swapped sizes": _swapped,
    "a size of zero": lambda images, sizes: (images, sizes * [[1, 1], [1, 0]]),
    "a negative size": lambda images, sizes: (images, sizes * [[-1, 1], [1, 1]]),
    "a pixel too high": lambda images, sizes: (images, sizes + [[0, 0], [8, 0]]),
    "a pixel too wide": lambda images, sizes: (images, sizes + [[1, 0], [0, 12]]),
}
"""Makes of two images of 64 x 96, of 64 x 96 and 57 x 85 without padding, what the file must refuse."""


@EACH
@pytest.mark.parametrize("sizes", BOUNDS)
@pytest.mark.parametrize("wrong", WRONG)
def test_a_file_refuses_what_it_is_not_for(name: str, sizes: str, wrong: str, exported: Any) -> None:
    right = arrays(2, 64, 96)
    run = exported(name, sizes).run
    with pytest.raises(Exception, match=REFUSALS):
        run(*(np.ascontiguousarray(array) for array in WRONG[wrong](*right)))
    run(*right)


@EACH
def test_the_error_names_the_sizes(name: str, exported: Any) -> None:
    images, sizes = arrays(1, 64, 96)
    with pytest.raises(Exception, match="images 1 to 3 x 3 x 64 to 160 x 64 to 160, sizes one for each"):
        exported(name, "many sizes").run(images, sizes + 1)


def test_openvino_refuses_with_one_thread_too(exported: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    file: Exported = exported("openvino", "many sizes")
    run = FORMATS["openvino"].load(file.written.files[0], file.written.requires)
    images, sizes = arrays(1, 64, 96)
    with pytest.raises(RuntimeError, match="sizes one for each"):
        run(images, sizes + 1)


@EACH
def test_threads_may_share_a_file(name: str, exported: Any) -> None:
    run = exported(name, "many sizes").run
    inputs = [arrays(1, 64 + 8 * index, 96) for index in range(4)]
    expected = [run(*each) for each in inputs]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda index: run(*inputs[index % 4]), range(16)))
    for index, result in enumerate(results):
        for array, right in zip(result, expected[index % 4], strict=True):
            np.testing.assert_array_equal(array, right)


@EACH
def test_no_paths_of_the_machine_go_out(name: str, exported: Any) -> None:
    for path in exported(name, "many sizes").written.files:
        content = path.read_bytes()
        for root in (sys.prefix, Path(__file__).parents[2], path.parent):
            assert os.fsencode(root) not in content, path


@pytest.mark.parametrize("name", ["onnx", "onnx-gather"])
@pytest.mark.parametrize("sizes", BOUNDS)
def test_the_onnx_model(name: str, sizes: str, exported: Any) -> None:
    file: Exported = exported(name, sizes)
    (path,) = file.written.files
    assert {each.name for each in path.parent.iterdir()} == {path.name, file.inspected.name}  # and no data beside it
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(path)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 18)]
    assert {node.domain for node in model.graph.node} == {""}
    operators = {node.op_type for node in model.graph.node}
    assert ("GridSample" in operators) == (name == "onnx")
    images, own_sizes = model.graph.input
    assert images.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert own_sizes.type.tensor_type.elem_type == onnx.TensorProto.INT64
    shape = [each.dim_param or each.dim_value for each in images.type.tensor_type.shape.dim]
    assert shape == ([2, 3, 64, 96] if sizes == "one size" else ["batch", 3, "height", "width"])
    assert [each.name for each in model.graph.output] == ["boxes", "scores", "labels"]
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
    assert b".py" not in model.SerializeToString()  # of the sources that were traced


@pytest.mark.parametrize(("opset", "written"), [(16, 18), (99, 18)])
def test_an_opset_that_cannot_be_written(opset: int, written: int, detector: DetrDetector) -> None:
    with pytest.raises(InputError, match=rf"^--opset {opset}: PyTorch .* writes this model in opset {written} instead"):
        make_model(detector, Settings(BOUNDS["one size"], opset=opset), sample_grid)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_none(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{FORMATS[name].suffix}"
    path.write_text("nothing of the kind")
    with pytest.raises(InputError, match=rf"{path} cannot be loaded by (ONNX Runtime|OpenVINO) \d[^\n]+\Z"):
        FORMATS[name].load(path, {"INFERENCE_PRECISION_HINT": "f32"})


@pytest.mark.parametrize(("sizes", "shape"), RUNS, ids=str)
def test_bfloat16_rounds_products_alone(sizes: str, shape: Sizes, exported: Any, detector: DetrDetector) -> None:
    images, own_sizes = batch(*shape)
    found = exported("openvino", sizes, "bfloat16").run_inspected(images.numpy(), own_sizes.numpy())
    tokens, selected, *predictions = found[3:]
    with torch.no_grad():
        expected, exact = (
            InferenceModel(detector, dtype=dtype).inspect(images, own_sizes, torch.from_numpy(selected))
            for dtype in ("bfloat16", "float32")
        )
    for ours, rounded, whole in zip(
        (tokens, *predictions),
        (expected.tokens, expected.predictions.logits, expected.predictions.boxes),
        (exact.tokens, exact.predictions.logits, exact.predictions.boxes),
        strict=True,
    ):
        assert difference(ours, rounded.float().numpy(), "rms") < LIMITS["bfloat16"].tolerance
        assert difference(ours, whole.numpy(), "max") > 1e-4


@pytest.mark.parametrize("sizes", BOUNDS)
def test_the_openvino_model_in_bfloat16(sizes: str, exported: Any) -> None:
    (path, weights), (_, exact_weights) = (
        exported("openvino", sizes, dtype).written.files for dtype in ("bfloat16", "float32")
    )
    assert weights.stat().st_size < 0.6 * exact_weights.stat().st_size
    rounded = {
        (node.get_type_name(), node.input_value(1).get_node().get_type_name())
        for node in openvino.Core().read_model(path).get_ordered_ops()
        if node.get_output_size() and node.get_output_element_type(0) == openvino.Type.bf16
        if node.get_type_name() not in ("Constant", "Convert")
    }
    assert rounded == {("Convolution", "Constant"), ("MatMul", "Constant")}


def test_bfloat16_is_warned_of_where_the_processor_has_none(exported: Any, caplog: pytest.LogCaptureFixture) -> None:
    file: Exported = exported("openvino", "one size", "bfloat16")
    (path, _), requires = file.written.files, file.written.requires
    assert requires["OPTIMIZATION_CAPABILITIES"] == "BF16"
    for capability, warnings in (("FP32", 0), ("FP1", 1)):
        FORMATS["openvino"].load(path, requires | {"OPTIMIZATION_CAPABILITIES": capability})
        said = [message for message in caplog.messages if "is made for processors" in message]
        assert len(said) == warnings
    assert f"{path} is made for processors with FP1, which this one is without" in said[0]
