"""Training in bfloat16 on the CPU: products are half; weights, losses, matching and gradients are not."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from torch import Tensor
from torch.testing import assert_close

from lite_detr_d2.engine import Trainer
from lite_detr_d2.modeling.matcher import HungarianMatcher
from lite_detr_d2.structures import Targets

from ..helpers import choose_detector
from .stops import stoppable_config


@pytest.fixture
def cfg(tmp_path: Path) -> CfgNode:
    cfg = stoppable_config(tmp_path / "data")
    cfg.OUTPUT_DIR = str(tmp_path / "output")
    cfg.SOLVER.AMP.DTYPE = "bfloat16"
    cfg.SOLVER.MAX_ITER, cfg.TEST.EVAL_PERIOD = 1, 0
    return cfg


def trained(cfg: CfgNode, half: bool) -> Trainer:
    cfg = cfg.clone()
    cfg.SOLVER.AMP.ENABLED = half
    torch.manual_seed(0)
    trainer = Trainer(cfg)
    trainer.train()
    return trainer


def gradients(trainer: Trainer) -> dict[str, Tensor]:
    named = trainer.model.named_parameters()
    return {name: parameter.grad for name, parameter in named if parameter.grad is not None}


def test_products_are_half_and_nothing_else_is(cfg: CfgNode, monkeypatch: pytest.MonkeyPatch) -> None:
    products, matched, match = [], [], HungarianMatcher.__call__

    def note(self: HungarianMatcher, logits: Tensor, boxes: Tensor, targets: Sequence[Targets]) -> Any:
        matched.extend((logits.dtype, boxes.dtype))
        return match(self, logits, boxes, targets)

    monkeypatch.setattr(HungarianMatcher, "__call__", note)
    cfg.SOLVER.AMP.ENABLED = True
    trainer = Trainer(cfg)
    trainer.model.decoder.layers[0].feed_forward.linear1.register_forward_hook(
        lambda module, args, output: products.append(output.dtype)
    )
    trainer.train()
    assert set(products) == {torch.bfloat16}
    assert set(matched) == {torch.float32}
    assert {parameter.dtype for parameter in trainer.model.parameters()} == {torch.float32}
    found = gradients(trainer)
    assert found and {gradient.dtype for gradient in found.values()} == {torch.float32}
    assert "grad_scaler" not in trainer._trainer.state_dict()


def losses(trainer: Trainer) -> dict[str, float]:
    return {name: value for name, (value, _) in trainer.storage.latest().items() if "loss" in name}


def test_losses_and_gradients_are_those_of_float32_but_for_rounding(cfg: CfgNode) -> None:
    """Of learned queries: where tokens are selected, rounding chooses others."""
    choose_detector(cfg, "deformable_detr")
    cfg.SOLVER.BASE_LR = 0.0
    full, half = (trained(cfg, flag) for flag in (False, True))
    expected, found = losses(full), losses(half)
    assert found.keys() == expected.keys()
    assert found["total_loss"] != expected["total_loss"]
    assert found["total_loss"] == pytest.approx(expected["total_loss"], rel=0.02)
    expected, found = gradients(full), gradients(half)
    assert found.keys() == expected.keys()
    for part in {name.partition(".")[0] for name in expected}:
        theirs, ours = (
            torch.cat([each.flatten() for name, each in named.items() if name.partition(".")[0] == part])
            for named in (expected, found)
        )
        assert torch.cosine_similarity(theirs, ours, dim=0) > 0.9, part
        assert_close(ours.norm(), theirs.norm(), rtol=0.1, atol=0.0)


def test_the_loss_falls(cfg: CfgNode) -> None:
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR, cfg.SOLVER.WARMUP_ITERS = 60, 1e-3, 0
    cfg.SOLVER.STEPS = ()
    trained(cfg, half=True)
    lines = [json.loads(line) for line in Path(cfg.OUTPUT_DIR, "metrics.json").read_text().splitlines()]
    losses = [line["total_loss"] for line in lines if "total_loss" in line]
    assert losses[-1] < 0.9 * losses[0]


def test_images_are_laid_out_for_convolutions_and_predictions_are_the_same(cfg: CfgNode) -> None:
    torch.manual_seed(0)
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 32
    model = Trainer(cfg).model.eval()
    images, padding = torch.randn(2, 3, 64, 96), torch.zeros(2, 64, 96, dtype=torch.bool)
    seen = []
    model.backbone.register_forward_pre_hook(
        lambda module, args: seen.append(args[0].is_contiguous(memory_format=torch.channels_last))
    )
    with torch.no_grad():
        expected, (found, _) = model.detect(images, padding), model.learn(images, padding, ())
    assert seen == [False, True]
    assert_close(found.layers[-1].logits, expected.logits, rtol=1e-4, atol=1e-4)
    assert_close(found.layers[-1].boxes, expected.boxes, rtol=1e-4, atol=1e-4)
