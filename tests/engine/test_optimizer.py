"""Learning rates, weight decay and gradient clipping are those of the recipes."""

from typing import Any

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.engine import DefaultTrainer
from torch import nn

from lite_detr_d2 import add_lite_detr_config
from lite_detr_d2.engine import build_optimizer


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.sampling_offsets = nn.Linear(2, 2)
        self.reference_points = nn.Linear(2, 2)
        self.value = nn.Linear(2, 2)


class Detector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))
        self.attention = Attention()
        self.norm = nn.LayerNorm(2)
        self.frozen = nn.Parameter(torch.zeros(2), requires_grad=False)


@pytest.fixture
def cfg() -> CfgNode:
    cfg = get_cfg()
    add_lite_detr_config(cfg)
    cfg.SOLVER.BASE_LR = 1e-3
    cfg.SOLVER.WEIGHT_DECAY = 1e-4
    cfg.SOLVER.WEIGHT_DECAY_NORM = 2e-4
    cfg.SOLVER.BACKBONE_MULTIPLIER = 0.1
    cfg.SOLVER.OFFSET_MULTIPLIER = 0.5
    return cfg


def settings(cfg: CfgNode, model: nn.Module) -> dict[str, tuple[float, float]]:
    """Return the learning rate and weight decay of each parameter that is optimized."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups: list[dict[str, Any]] = build_optimizer(cfg, model).param_groups
    return {names[p]: (round(g["lr"], 9), g["weight_decay"]) for g in groups for p in g["params"]}


def test_parameters_get_their_learning_rate_and_decay(cfg: CfgNode) -> None:
    assert settings(cfg, Detector()) == {
        "backbone.0.weight": (1e-4, 1e-4),
        "backbone.0.bias": (1e-4, 1e-4),
        "backbone.1.weight": (1e-4, 2e-4),
        "backbone.1.bias": (1e-4, 2e-4),
        "attention.sampling_offsets.weight": (5e-4, 1e-4),
        "attention.sampling_offsets.bias": (5e-4, 1e-4),
        "attention.reference_points.weight": (5e-4, 1e-4),
        "attention.reference_points.bias": (5e-4, 1e-4),
        "attention.value.weight": (1e-3, 1e-4),
        "attention.value.bias": (1e-3, 1e-4),
        "norm.weight": (1e-3, 2e-4),
        "norm.bias": (1e-3, 2e-4),
    }


def test_biases_can_have_their_own(cfg: CfgNode) -> None:
    cfg.SOLVER.BIAS_LR_FACTOR = 2.0
    cfg.SOLVER.WEIGHT_DECAY_BIAS = 0.0
    found = settings(cfg, Detector())
    assert found["backbone.0.bias"] == (2e-4, 0.0)
    assert found["attention.sampling_offsets.bias"] == (1e-3, 0.0)
    assert found["attention.value.bias"] == (2e-3, 0.0)
    assert found["attention.value.weight"] == (1e-3, 1e-4)


@pytest.mark.parametrize(("name", "kind"), [("ADAMW", torch.optim.AdamW), ("SGD", torch.optim.SGD)])
def test_the_optimizer_is_the_named_one(cfg: CfgNode, name: str, kind: type) -> None:
    cfg.SOLVER.OPTIMIZER, cfg.SOLVER.MOMENTUM = name, 0.8
    optimizer = build_optimizer(cfg, Detector())
    assert isinstance(optimizer, kind)
    assert optimizer.defaults.get("momentum") == (0.8 if name == "SGD" else None)


def step_lengths(cfg: CfgNode, gradient: float) -> tuple[float, float, float]:
    """Return how far a step with learning rate 1 moves two parameters of 4 elements each, and both together."""
    cfg.SOLVER.OPTIMIZER, cfg.SOLVER.MOMENTUM, cfg.SOLVER.BASE_LR = "SGD", 0.0, 1.0
    cfg.SOLVER.WEIGHT_DECAY = 0.0
    model = nn.ParameterDict({"a": nn.Parameter(torch.zeros(4)), "b": nn.Parameter(torch.zeros(4))})
    optimizer = build_optimizer(cfg, model)
    model["a"].grad = torch.full((4,), gradient)
    model["b"].grad = torch.full((4,), 2 * gradient)
    optimizer.step()
    a, b = float(model["a"].detach().norm()), float(model["b"].detach().norm())
    return round(a, 4), round(b, 4), round((a**2 + b**2) ** 0.5, 4)


def test_the_norm_of_all_gradients_is_clipped(cfg: CfgNode) -> None:
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = cfg.SOLVER.CLIP_GRADIENTS.FULL_MODEL = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE, cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = "norm", 0.1
    assert step_lengths(cfg, gradient=50.0) == (round(0.1 / 5**0.5, 4), round(0.2 / 5**0.5, 4), 0.1)
    assert step_lengths(cfg, gradient=0.001) == (0.002, 0.004, round(0.002 * 5**0.5, 4))


def test_else_each_parameter_is_clipped_as_detectron2_does(cfg: CfgNode) -> None:
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE, cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = "norm", 0.1
    assert step_lengths(cfg, gradient=50.0)[:2] == (0.1, 0.1)


def test_clipping_is_off_by_default(cfg: CfgNode) -> None:
    cfg.SOLVER.CLIP_GRADIENTS.FULL_MODEL = True
    assert step_lengths(cfg, gradient=50.0)[:2] == (100.0, 200.0)


def test_a_stock_trainer_takes_the_same_config(cfg: CfgNode) -> None:
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = cfg.SOLVER.CLIP_GRADIENTS.FULL_MODEL = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "norm"
    assert isinstance(DefaultTrainer.build_optimizer(cfg, Detector()), torch.optim.SGD)
