"""Boxes and reference points."""

import torch
from torch import Tensor
from torchvision.ops import box_convert

from ..structures import SpatialShapes


def inverse_sigmoid(values: Tensor, eps: float) -> Tensor:
    """The logit of ``values`` (0..1), each side of the ratio clamped from below at ``eps``."""
    values = values.clamp(0, 1)
    return torch.log(values.clamp(min=eps) / (1 - values).clamp(min=eps))


def box_xyxy(boxes: Tensor) -> Tensor:
    """(..., 4) boxes from (cx, cy, w, h) to (x1, y1, x2, y2)."""
    corners: Tensor = box_convert(boxes, "cxcywh", "xyxy")
    return corners


def pairwise_giou(first: Tensor, second: Tensor, eps: float) -> Tensor:
    """Generalised IoU of each of ``first`` with each of ``second``.

    torchvision's ``generalized_box_iou`` has no ``eps``, and the detectors need theirs to train as published.

    Args:
        first: (A, 4) as (x1, y1, x2, y2).
        second: (B, 4), likewise.
        eps: added to the union and to the enclosing area.

    Returns:
        (A, B), -1..1.

    Source: arXiv 1902.09630.
    """
    return _giou(first[:, None], second[None, :], eps)


def paired_giou(first: Tensor, second: Tensor, eps: float) -> Tensor:
    """Generalised IoU of (A, 4) boxes ``first`` and ``second``, pair by pair: (A,). See :func:`pairwise_giou`."""
    return _giou(first, second, eps)


def _giou(first: Tensor, second: Tensor, eps: float) -> Tensor:
    low, high = torch.maximum(first[..., :2], second[..., :2]), torch.minimum(first[..., 2:], second[..., 2:])
    intersection = (high - low).clamp(min=0).prod(dim=-1)
    low, high = torch.minimum(first[..., :2], second[..., :2]), torch.maximum(first[..., 2:], second[..., 2:])
    enclosing = (high - low).prod(dim=-1)
    union = _area(first) + _area(second) - intersection
    return intersection / (union + eps) - (enclosing - union) / (enclosing + eps)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1)


def token_centres(shapes: SpatialShapes, valid_ratios: Tensor) -> Tensor:
    """Where each token lies in its image.

    Args:
        shapes: (height, width) of each level, fine to coarse.
        valid_ratios: (N, L, 2), as in ``FlattenedFeatures``.

    Returns:
        (N, S, 2) as (x, y), 0..1 of the image without its padding (padded tokens lie beyond 1).
    """
    centres = []
    for level, (height, width) in enumerate(shapes):
        x, y = (
            # Valid sizes are whole pixels; rounding undoes the division that made them ratios.
            (torch.arange(size, dtype=torch.float32, device=valid_ratios.device) + 0.5)
            / (valid_ratios[:, level, axis, None] * size).round()
            for axis, size in enumerate((width, height))
        )
        grid = (x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width))
        centres.append(torch.stack(grid, dim=-1).flatten(1, 2))
    return torch.cat(centres, dim=1)


def reference_points_of_tokens(shapes: SpatialShapes, valid_ratios: Tensor) -> Tensor:
    """Reference points of encoder queries: each token's own centre, on every level.

    Returns:
        (N, S, L, 2) as (x, y), 0..1 of each level with its padding.
    """
    return token_centres(shapes, valid_ratios)[:, :, None] * valid_ratios[:, None]
