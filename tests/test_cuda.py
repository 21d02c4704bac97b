"""Whole detectors on a CUDA device: predictions, losses and gradients, trainings, and what predicts with the result.

Needs what all of the package needs, and the compiled ops with CUDA kernels.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from types import EllipsisType

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor
from torch.testing import assert_close

import lite_detr_d2
from lite_detr_d2.deploy import prepare
from lite_detr_d2.deploy.inference import DTYPES
from lite_detr_d2.detector import DetrDetector, Inputs
from lite_detr_d2.engine import Trainer
from lite_detr_d2.engine.compilation import compile_training
from lite_detr_d2.ops.deform_attn import compiled_ops_status

from .engine.stops import assert_same_training, stoppable_config, train
from .helpers import DETECTORS, batched_input, choose_detector, randomised
from .parity.reference import Reference, fixture_paths

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.skipif(not compiled_ops_status()[0], reason=f"no compiled ops: {compiled_ops_status()[1]}"),
]
each_detector = pytest.mark.parametrize("name", DETECTORS)
each_recording = pytest.mark.parametrize("path", fixture_paths(), ids=lambda path: path.stem)


@pytest.fixture(autouse=True)
def _convolutions_of_float32() -> Iterator[None]:
    """Those of TF32, cuDNN's default, lose half of the digits."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def relative_error(ours: Tensor, theirs: np.ndarray, where: np.ndarray | EllipsisType = ...) -> float:
    return float(np.abs(ours.cpu().numpy() - theirs)[where].max() / np.abs(theirs).max())


@each_recording
def test_predictions_are_the_recorded_ones(path: Path) -> None:
    recorded, seen = Reference(path), {}
    model = recorded.model().eval().cuda()
    model.encoder.register_forward_hook(
        lambda module, args, output: seen.update(memory=output.tokens, is_image=~args[0].padding)
    )
    model.decoder.register_forward_hook(lambda module, args, output: seen.update(last=module.predict(output, -1)))
    with torch.no_grad():
        results = model(recorded.inputs())
    # Padding beyond an image's last column has angles of millions in Deformable DETR's encoding of positions.
    assert relative_error(seen["memory"], recorded.arrays["memory"], seen["is_image"].cpu().numpy()) < 1e-4
    assert relative_error(seen["last"].logits, recorded.arrays["pred_logits"]) < 1e-4
    assert relative_error(seen["last"].boxes, recorded.arrays["pred_boxes"]) < 1e-4
    assert {result["instances"].scores.device.type for result in results} == {"cuda"}


@each_recording
def test_losses_and_gradients_are_the_recorded_ones(path: Path) -> None:
    recorded = Reference(path)
    model = recorded.model().train().cuda()
    losses = model(recorded.inputs())
    for name, weight in recorded.loss_weights.items():
        assert losses[name].item() == pytest.approx(weight * recorded.facts["losses"][name], rel=2e-4), name
    torch.stack(list(losses.values())).sum().backward()
    norms = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None])
    assert float(norms.norm()) == pytest.approx(recorded.facts["grad_norm_total"], rel=1e-3)


def build(cfg: CfgNode, name: str) -> tuple[DetrDetector, DetrDetector]:
    """The same detector on the CPU and on the GPU."""
    choose_detector(cfg, name)
    detectors = []
    for device in ("cpu", "cuda"):
        cfg.MODEL.DEVICE = device
        torch.manual_seed(0)
        detectors.append(randomised(build_model(cfg)))
    detectors[1].load_state_dict(detectors[0].state_dict())
    return detectors[0], detectors[1]


@each_detector
def test_each_detector_predicts_as_on_the_cpu(small_cfg: CfgNode, name: str) -> None:
    for detector in (pair := build(small_cfg, name)):
        assert next(detector.parameters()).device.type == detector.device.type
    batch = [batched_input(96, 128, 0), batched_input(80, 100, 0, seed=1)]
    with torch.no_grad():
        expected, found = (
            detector.detect(images.tensor, padding)
            for detector in pair
            for images, padding in [detector.preprocess(batch)]
        )
    assert_close(found.logits.cpu(), expected.logits, rtol=1e-3, atol=1e-4)
    assert_close(found.boxes.cpu(), expected.boxes, rtol=1e-3, atol=1e-4)


def losses_and_gradients(model: DetrDetector, batch: Inputs, precision: torch.dtype | None = None) -> dict[str, Tensor]:
    """By name; gradients of those parameters that have one."""
    torch.manual_seed(0)
    model.train().zero_grad()
    with torch.autocast(model.device.type, precision, enabled=precision is not None):
        losses = model(batch)
    torch.stack(list(losses.values())).sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {name: loss.detach() for name, loss in losses.items()} | gradients


@each_detector
@pytest.mark.parametrize("precision", [None, torch.bfloat16, torch.float16])
def test_each_detector_learns(small_cfg: CfgNode, name: str, precision: torch.dtype | None) -> None:
    """All that has gradients on the CPU has finite ones, whatever the precision, with and without boxes."""
    on_cpu, on_gpu = build(small_cfg, name)
    for boxes in ((3, 5), (0, 1), (0, 0)):
        batch = [batched_input(96, 128, boxes[0]), batched_input(80, 100, boxes[1], seed=1)]
        expected, found = losses_and_gradients(on_cpu, batch), losses_and_gradients(on_gpu, batch, precision)
        assert found.keys() == expected.keys()
        assert all(bool(value.isfinite().all()) for value in found.values())
        assert {value.dtype for name, value in found.items() if "." in name} == {torch.float32}  # of parameters


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("name", ["dino", "h_detr", "deformable_detr", "sparse_detr"])
def test_the_inference_form_predicts_as_the_detector(small_cfg: CfgNode, name: str, dtype: torch.dtype) -> None:
    detector = build(small_cfg, name)[1]
    inputs = [batched_input(96, 128, 0)]
    with torch.no_grad():
        expected, found = (model(inputs)[0]["instances"] for model in (detector, prepare(detector, dtype=dtype)))
    limits = {"rtol": 1e-3, "atol": 1e-3} if dtype == torch.float32 else {"rtol": 0.1, "atol": 0.1}
    assert_close(found.scores[:10], expected.scores[:10], **limits)
    assert found.scores.device.type == "cuda"


@pytest.fixture
def cfg(tmp_path: Path) -> CfgNode:
    cfg = stoppable_config(tmp_path / "data")
    cfg.MODEL.DEVICE = "cuda"
    cfg.OUTPUT_DIR = str(tmp_path / "output")
    return cfg


def assert_the_loss_falls(cfg: CfgNode, precision: str) -> None:
    cfg.SOLVER.AMP.ENABLED, cfg.SOLVER.AMP.DTYPE = bool(precision), precision or "float16"
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR, cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.STEPS = 60, 1e-3, 0, ()
    cfg.SOLVER.EMA.ENABLED = True
    torch.manual_seed(0)
    Trainer(cfg).train()
    lines = [json.loads(line) for line in Path(cfg.OUTPUT_DIR, "metrics.json").read_text().splitlines()]
    losses = [line["total_loss"] for line in lines if "total_loss" in line]
    assert losses[-1] < 0.9 * losses[0]
    assert [line["max_mem"] for line in lines if "max_mem" in line]


@pytest.mark.parametrize("precision", ["", "bfloat16", "float16"])
def test_the_loss_falls(cfg: CfgNode, precision: str) -> None:
    assert_the_loss_falls(cfg, precision)


def test_a_training_that_stops_goes_on_as_if_it_had_not(cfg: CfgNode, tmp_path: Path) -> None:
    cfg.SOLVER.DETERMINISTIC = True
    whole = train(cfg, tmp_path / "whole")
    assert_same_training(train(cfg, tmp_path / "stopped", stops=(3,)), whole)


def test_what_was_trained_predicts_on_either_device(cfg: CfgNode, tmp_path: Path) -> None:
    cfg.DATASETS.TEST = cfg.DATASETS.TRAIN
    cfg.TEST.EVAL_PERIOD = cfg.SOLVER.MAX_ITER
    trainer = Trainer(cfg)
    trainer.train()
    Path(cfg.OUTPUT_DIR, "config.yaml").write_text(cfg.dump())
    pixels = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    on_cpu, on_gpu = (
        lite_detr_d2.load(cfg.OUTPUT_DIR, device=device)(pixels)["instances"].scores for device in ("cpu", "cuda")
    )
    assert (on_cpu.device.type, on_gpu.device.type) == ("cpu", "cuda")
    assert len(on_cpu) == len(on_gpu) > 0
    assert_close(on_gpu.cpu(), on_cpu, rtol=1e-3, atol=1e-3)


# Compiled detectors come last: they take a minute each.


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_the_compiled_form_predicts_as_the_prepared_one(small_cfg: CfgNode, dtype: torch.dtype) -> None:
    detector, inputs = build(small_cfg, "dino")[1], [batched_input(96, 128, 0)]
    found, expected = (
        prepare(detector, dtype=dtype, compile=compile)(inputs)[0]["instances"] for compile in (True, False)
    )
    limits = {"rtol": 1e-3, "atol": 1e-3} if dtype == torch.float32 else {"rtol": 0.1, "atol": 0.1}
    assert_close(found.scores[:10], expected.scores[:10], **limits)
    assert found.scores.device.type == "cuda"


def test_a_compiled_training_has_the_losses_of_another(small_cfg: CfgNode) -> None:
    model = build(small_cfg, "dino")[1].train()
    batch = [batched_input(96, 128, 3), batched_input(80, 100, 5, seed=1)]
    expected = losses_and_gradients(model, batch)
    compile_training(model)
    found = losses_and_gradients(model, batch)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(found[name], value, rtol=1e-3, atol=1e-3 * max(1.0, float(value.abs().max())))


def test_the_loss_of_a_compiled_training_falls(cfg: CfgNode) -> None:
    cfg.SOLVER.COMPILE = True
    assert_the_loss_falls(cfg, "bfloat16")
