"""Memory for time: what some modules compute is not kept for the backward pass, which computes it again."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from detectron2.modeling.backbone.resnet import CNNBlockBase
from detectron2.modeling.backbone.swin import SwinTransformerBlock
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..errors import InputError
from ..modeling.attention import SamplingAttention
from ..modeling.layers import FeedForward
from ..modeling.timm_backbone import TimmBackbone

# What is computed again as a whole, by the part of the detector.
_UNITS: dict[str, tuple[type[nn.Module], ...]] = {
    "backbone": (CNNBlockBase, SwinTransformerBlock),
    "encoder": (SamplingAttention, FeedForward),
}


def recompute(model: nn.Module, parts: Sequence[str]) -> None:
    """Let the blocks of ``model``'s backbone, or its encoder's attention and feed-forward networks, be computed again.

    Names of tensors, results and gradients stay; random numbers are drawn again as they were.

    Args:
        model: a detector; it is changed.
        parts: "backbone" and "encoder", see ``SOLVER.RECOMPUTE``.

    Raises:
        InputError: a part has no such modules, as a backbone of somebody's own; or timm does not offer it of its model.
    """
    for part in parts:
        if isinstance(getattr(model, part), TimmBackbone):
            getattr(model, part).recompute_activations()
            continue
        units = [module for module in getattr(model, part).modules() if isinstance(module, _UNITS[part])]
        if not units:
            name, kinds = type(getattr(model, part)).__name__, " or ".join(kind.__name__ for kind in _UNITS[part])
            raise InputError(f"SOLVER.RECOMPUTE has {part!r}, and {name} has no {kinds}: leave it out.")
        for unit in units:
            # A partial, and no closure: a copy of the model has to call its own modules.
            unit.forward = partial(_without_keeping, unit.forward)


def _without_keeping(forward: Callable[..., Any], *args: Any) -> Any:
    return checkpoint(forward, *args, use_reentrant=False) if torch.is_grad_enabled() else forward(*args)
