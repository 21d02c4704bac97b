"""Which parameters are trained, their groups, and gradient clipping of DETR's recipes."""

import logging
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from torch import nn
from torch.optim import Optimizer

from ..config import nearest
from ..errors import InputError
from ..wording import in_short, quoted

logger = logging.getLogger(__name__)

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


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Take parameters out of the training, for ``SOLVER.FREEZE``, and log how many they are.

    Batch norms without a trained parameter become frozen ones, as with ``MODEL.BACKBONE.FREEZE_AT``: else their
    statistics would go on changing.

    Args:
        model: it is changed.
        patterns: of names of parameters, as ``fnmatch`` reads them; with none, nothing happens.

    Raises:
        InputError: a pattern fits no name, or nothing is left to train.
    """
    if not patterns:
        return
    parameters = dict(model.named_parameters())
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in parameters):
            raise InputError(
                f"SOLVER.FREEZE has {quoted(pattern)}, which fits no parameter. {_similar(pattern, list(parameters))}"
            )
    frozen = [name for name in parameters if any(fnmatchcase(name, pattern) for pattern in patterns)]
    for name in frozen:
        parameters[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise InputError(f"SOLVER.FREEZE is {quoted(list(patterns))}, which leaves no parameter to train.")
    logger.info(
        "SOLVER.FREEZE: %d tensors of %d with %d of %d parameters are not trained (%s).",
        *(len(frozen), len(parameters), sum(parameters[name].numel() for name in frozen)),
        *(sum(parameter.numel() for parameter in parameters.values()), in_short(frozen, 3)),
    )
    for module in list(model.modules()):
        for name, child in module.named_children():
            if _is_frozen_batch_norm(child):
                setattr(module, name, FrozenBatchNorm2d.convert_frozen_batchnorm(child))


def _is_frozen_batch_norm(module: nn.Module) -> bool:
    is_affine = isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm) and module.affine
    return is_affine and not any(parameter.requires_grad for parameter in module.parameters())


def _similar(pattern: str, names: Sequence[str]) -> str:
    """A sentence that names what a pattern may have been meant to fit."""
    parts = list(dict.fromkeys(name[: name.find(".") + 1] + "*" for name in names if "." in name))
    near = nearest(pattern, [*names, *parts])
    return f"Did you mean {near!r}?" if near else f"Names begin as {in_short(parts, 10)}."


def _lr_factor(solver: CfgNode, name: str) -> float:
    factor: float = solver.BIAS_LR_FACTOR if name.endswith(".bias") else 1.0
    if name.startswith("backbone."):
        factor *= solver.BACKBONE_MULTIPLIER
    elif any(layer in name for layer in _OFFSET_LAYERS):
        factor *= solver.OFFSET_MULTIPLIER
    return factor
