"""Parameter groups and gradient clipping of DETR's recipes."""

from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from torch import nn
from torch.optim import Optimizer

# Layers that predict where to look; Deformable DETR and H-DETR train them slower (Deformable DETR, Appendix A.4).
_OFFSET_LAYERS = ("sampling_offsets", "reference_points")


def build_optimizer(cfg: CfgNode, model: nn.Module) -> Optimizer:
    """Build the optimizer that ``cfg.SOLVER`` describes: AdamW, or SGD with detectron2's keys.

    The learning rate is ``BASE_LR``, times ``BACKBONE_MULTIPLIER`` for parameters of ``model.backbone`` and
    ``OFFSET_MULTIPLIER`` for layers that predict sampling offsets or reference points, times ``BIAS_LR_FACTOR`` for
    biases. ``WEIGHT_DECAY``, ``WEIGHT_DECAY_NORM`` and ``WEIGHT_DECAY_BIAS`` are detectron2's. Gradients are clipped as
    ``CLIP_GRADIENTS`` says: with ``FULL_MODEL`` the norm of all of them together, else each parameter's.
    """
    solver = cfg.SOLVER
    groups: list[dict[str, Any]] = get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        weight_decay=solver.WEIGHT_DECAY,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        # detectron2's bias_lr_factor would undo the multipliers below.
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
        lr_factor_func=lambda name: _lr_factor(solver, name),
    )
    optimizer: Optimizer
    if solver.OPTIMIZER == "ADAMW":
        optimizer = torch.optim.AdamW(groups, lr=solver.BASE_LR)
    else:
        optimizer = torch.optim.SGD(groups, lr=solver.BASE_LR, momentum=solver.MOMENTUM, nesterov=solver.NESTEROV)
    clip = solver.CLIP_GRADIENTS
    if not (clip.ENABLED and clip.FULL_MODEL):
        clipped: Optimizer = maybe_add_gradient_clipping(cfg, optimizer)
        return clipped
    parameters = [parameter for group in groups for parameter in group["params"]]

    def clip_all(*_: object) -> None:
        nn.utils.clip_grad_norm_(parameters, clip.CLIP_VALUE, norm_type=clip.NORM_TYPE)

    # Runs inside step(), where gradients are complete, and unscaled under mixed precision.
    optimizer.register_step_pre_hook(clip_all)
    return optimizer


def _lr_factor(solver: CfgNode, name: str) -> float:
    factor: float = solver.BIAS_LR_FACTOR if name.endswith(".bias") else 1.0
    if name.startswith("backbone."):
        factor *= solver.BACKBONE_MULTIPLIER
    elif any(layer in name for layer in _OFFSET_LAYERS):
        factor *= solver.OFFSET_MULTIPLIER
    return factor
