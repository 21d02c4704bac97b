"""A batch in parts, and batches that are not finite."""

import json
import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase

from lite_detr_d2.engine import Trainer
from lite_detr_d2.modeling.criterion import Criterion

from ..helpers import choose_detector
from .stops import assert_same_training, stoppable_config, train


@pytest.fixture
def cfg(tmp_path: Path) -> CfgNode:
    cfg = stoppable_config(tmp_path / "data")
    cfg.OUTPUT_DIR = str(tmp_path / "output")
    return cfg


def gradients(cfg: CfgNode, parts: int) -> dict[str, torch.Tensor]:
    """Of the first step; the learning rate is 0."""
    cfg = cfg.clone()
    cfg.SOLVER.ACCUMULATE, cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR = parts, 1, 0.0
    torch.manual_seed(0)
    trainer = Trainer(cfg)
    trainer.train()
    parameters = trainer.model.named_parameters()
    return {name: parameter.grad.double() for name, parameter in parameters if parameter.grad is not None}


@pytest.mark.parametrize("name", ["dino", "deformable_detr", "h_detr", "sparse_detr"])
@pytest.mark.parametrize("parts", [2, 3, 100])
def test_parts_have_the_gradients_of_the_whole(cfg: CfgNode, name: str, parts: int) -> None:
    """With boxes shared out unevenly; of images of one size, and of layers that do not look at the batch."""
    choose_detector(cfg, name)
    cfg.MODEL.RESNETS.NORM = "FrozenBN"
    cfg.MODEL.LITE_DETR.DENOISING.NUM_QUERIES = 0  # draws as many numbers as a part has boxes
    cfg.SOLVER.IMS_PER_BATCH, cfg.INPUT.CROP.ENABLED = 4, False
    cfg.INPUT.MIN_SIZE_TRAIN = (64,)
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = False
    expected, found = gradients(cfg, 1), gradients(cfg, parts)
    assert found.keys() == expected.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for key, gradient in expected.items():
        assert torch.allclose(found[key], gradient, rtol=1e-5, atol=1e-5 * largest), key


def test_a_part_alone_has_other_gradients(cfg: CfgNode) -> None:
    """What the comparison above would see: losses divided by the boxes of a part."""
    cfg.MODEL.RESNETS.NORM = "FrozenBN"
    cfg.MODEL.LITE_DETR.DENOISING.NUM_QUERIES = 0
    counting = Criterion.counting
    expected = gradients(cfg, 1)
    try:
        Criterion.counting = lambda self, *numbers: nullcontext()  # type: ignore[method-assign,assignment]
        found = gradients(cfg, 2)
    finally:
        Criterion.counting = counting  # type: ignore[method-assign]
    name = "decoder.class_embed.0.weight" if "decoder.class_embed.0.weight" in expected else next(iter(expected))
    assert not torch.allclose(found[name], expected[name], rtol=1e-2)


def spoil(monkeypatch: pytest.MonkeyPatch, calls: set[int], value: float = math.nan) -> None:
    """Make the losses of these calls not finite."""
    compute, counted = Criterion.__call__, []

    def diverge(*inputs: Any) -> dict[str, torch.Tensor]:
        losses = compute(*inputs)
        counted.append(None)
        return {**losses, "loss_bbox": losses["loss_bbox"] * (value if len(counted) - 1 in calls else 1)}

    monkeypatch.setattr(Criterion, "__call__", diverge)


class SpoilGradient(HookBase):
    """Makes a gradient infinite, or as large as it is told, that a finite loss has."""

    def __init__(self, value: float = math.inf) -> None:
        self.value = value

    def before_train(self) -> None:
        next(self.trainer.model.parameters()).register_hook(
            lambda gradient: torch.full_like(gradient, self.value) if self.trainer.iter == 1 else gradient
        )


def loss(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, {1})


def gradient(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer.register_hooks([SpoilGradient()])


def overflow(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer.register_hooks([SpoilGradient(1e30)])


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (loss, "loss_bbox = nan"),
        (gradient, "gradients that are not finite (1)"),
        (overflow, "gradients whose norm is not finite"),
    ],
)
def test_a_bad_batch_changes_nothing_and_is_written_down(
    cfg: CfgNode,
    monkeypatch: pytest.MonkeyPatch,
    log: pytest.LogCaptureFixture,
    fault: Callable[[Trainer, pytest.MonkeyPatch], None],
    said: str,
) -> None:
    seen = []

    class Look(HookBase):
        def after_step(self) -> None:
            seen.append({name: value.clone() for name, value in self.trainer.model.state_dict().items()})

    cfg.MODEL.RESNETS.NORM = "BN"
    trainer = Trainer(cfg)
    trainer.register_hooks([Look()])
    fault(trainer, monkeypatch)
    trainer.train()
    assert all(torch.equal(seen[1][name], value) for name, value in seen[0].items())
    assert any(not torch.equal(seen[2][name], value) for name, value in seen[1].items())
    messages = [
        message for message in log.messages if message.startswith("Iteration 1 is passed over (1 of at most 10)")
    ]
    assert len(messages) == 1
    assert said in messages[0]
    lines = (Path(cfg.OUTPUT_DIR) / "bad_batches.json").read_text().splitlines()
    record = json.loads(lines[0])
    assert len(lines) == 1
    assert (record["iteration"], record["rank"], len(record["images"])) == (1, 0, 2)
    assert said in record["problem"]


def test_the_budget_is_of_the_whole_training(cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg.SOLVER.MAX_SKIPPED_STEPS = 1
    spoil(monkeypatch, {1})
    first = train(cfg, tmp_path / "run", SOLVER__MAX_ITER=4)
    assert first["trainer"]["_trainer"]["skipped"] == 1
    spoil(monkeypatch, {0})
    with pytest.raises(FloatingPointError, match=r"^Iteration 4: loss_bbox = nan, on the images .*2 batches were bad"):
        train(cfg, tmp_path / "run")


def test_a_training_with_a_bad_batch_goes_on_as_if_it_had_not_stopped(
    cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = Criterion.__call__
    spoil(monkeypatch, {1})
    expected = train(cfg, tmp_path / "whole")
    monkeypatch.setattr(Criterion, "__call__", compute)
    spoil(monkeypatch, {1})
    assert_same_training(train(cfg, tmp_path / "stopped", stops=(4,)), expected)
