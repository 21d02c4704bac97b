"""The compiled inference form finds what the prepared detector finds, and is loaded and saved as that is."""

import copy
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch._inductor import config as inductor

import lite_detr_d2
from lite_detr_d2.deploy import PreparedDetector, prepare
from lite_detr_d2.deploy.inference import DTYPES
from lite_detr_d2.engine.compilation import compile_training
from lite_detr_d2.errors import InputError
from tests.compiled import CompileCounter
from tests.helpers import batched_input

from .runs import write_run
from .test_prepare import BACKBONES, build, inputs

each_dtype = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)


@pytest.fixture
def cfg(small_cfg: CfgNode) -> CfgNode:
    """With one layer of each kind: symbols take long."""
    small_cfg.MODEL.LITE_DETR.ENCODER.SPEC = "H2L1-(1+1)x1"
    return small_cfg


def assert_same(found: PreparedDetector, expected: PreparedDetector, batch: list[dict[str, Any]]) -> None:
    close = 1e-4 if expected.model.dtype == "float32" else 2e-2
    for ours, theirs in zip(found(batch), expected(batch), strict=True):
        torch.testing.assert_close(ours["instances"].scores, theirs["instances"].scores, rtol=0, atol=close)
        if close < 1e-3:
            assert torch.equal(ours["instances"].pred_classes, theirs["instances"].pred_classes)
            boxes = (each["instances"].pred_boxes.tensor for each in (ours, theirs))
            torch.testing.assert_close(*boxes, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)])
def test_one_graph_for_all_sizes_of_one_image(cfg: CfgNode, counter: CompileCounter, dtype: torch.dtype) -> None:
    detector = build(cfg)
    found, expected = (prepare(detector, dtype=dtype, compile=compile) for compile in (True, False))
    for size in ((96, 128), (65, 203), (160, 96)):
        assert_same(found, expected, [batched_input(*size, 0)])
    assert counter.graphs == 1


@pytest.mark.slow
def test_two_images_of_which_one_is_padded(cfg: CfgNode, counter: CompileCounter) -> None:
    detector = build(cfg)
    assert_same(prepare(detector, compile=True), prepare(detector), inputs())
    assert counter.graphs == 1


@pytest.mark.slow
@each_dtype
def test_swin_takes_a_graph_for_each_size(cfg: CfgNode, counter: CompileCounter, dtype: torch.dtype) -> None:
    detector = build(cfg, BACKBONES["Swin"])
    found, expected = (prepare(detector, dtype=dtype, compile=compile) for compile in (True, False))
    for size in ((96, 128), (64, 96), (96, 128)):
        assert_same(found, expected, [batched_input(*size, 0)])
    assert counter.graphs == 2


@pytest.mark.slow
def test_it_is_copied_and_saved(cfg: CfgNode, counter: CompileCounter) -> None:
    detector, batch = build(cfg), [batched_input(96, 128, 0)]
    prepared, expected = prepare(detector, compile=True), prepare(detector)
    prepared(batch)
    file = io.BytesIO()
    torch.save(prepared, file)
    file.seek(0)
    copies = copy.deepcopy(prepared), torch.load(file, weights_only=False)
    for number, each in enumerate(copies, 2):
        assert_same(each, expected, batch)
        assert counter.graphs == number  # its own, of its own weights
        assert each.model.detector.detect._module is each.model.detector
    assert list(prepared.state_dict()) == list(expected.state_dict())


def test_of_a_detector_whose_training_is_compiled(cfg: CfgNode) -> None:
    detector = build(cfg)
    compile_training(detector)
    assert "learn" not in vars(prepare(detector).model.detector)
    assert "learn" in vars(detector)


@pytest.mark.slow
def test_a_predictor_of_it(cfg: CfgNode, counter: CompileCounter, tmp_path: Path) -> None:
    write_run(cfg, tmp_path / "run")
    found, expected = (
        lite_detr_d2.load(tmp_path / "run", device="cpu", prepared=True, compile=compile) for compile in (True, False)
    )
    for size in ((96, 128), (80, 160)):
        image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
        scores, wanted = (each(image)["instances"].scores for each in (found, expected))
        torch.testing.assert_close(scores, wanted, rtol=0, atol=1e-4)
    assert 1 <= counter.graphs <= 2  # of the smaller image PyTorch takes other convolutions


@pytest.mark.slow
def test_machine_code(cfg: CfgNode) -> None:
    """With weights that are constants."""
    torch.compiler.reset()
    detector = build(cfg)
    found, expected = (prepare(detector, compile=compile) for compile in (True, False))
    for batch in ([batched_input(96, 128, 0)], [batched_input(80, 192, 0)]):
        assert_same(found, expected, batch)


def test_without_a_compiler_it_is_refused(cfg: CfgNode) -> None:
    with (
        inductor.patch({"cpp.cxx": (None, "no-such-compiler")}),
        pytest.raises(InputError, match=r"^compile is True, which needs a C\+\+ compiler on the CPU: install g\+\+"),
    ):
        prepare(build_model(cfg), compile=True)


def test_arguments_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="compile is 'yes': expected True or False"):
        lite_detr_d2.load(tmp_path, prepared=True, compile="yes")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="compile is True, and prepared is False"):
        lite_detr_d2.load(tmp_path, compile=True)
