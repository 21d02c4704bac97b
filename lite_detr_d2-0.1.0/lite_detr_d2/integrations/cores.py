"""The core functions of other packages' multi-scale deformable attention, with their arguments, by our op.

Their modules project values, locations and weights, and call one of these for the rest. Names of arguments are theirs.
N images, S tokens, M heads of D channels, Q queries, L levels with P points each.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lite_detr_d2.errors import InputError
from lite_detr_d2.ops import ms_deform_attn_at

Shapes = Tensor | Sequence[tuple[int, int]]
"""(L, 2) or L pairs, as (height, width)."""

INTERPOLATES = "default"
"""The only ``method`` of :func:`attend_by_level` that the op computes."""


def attend(
    value: Tensor, value_spatial_shapes: Shapes, sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """(N, Q, M * D): of (N, S, M, D) values at (N, Q, M, L, P, 2) locations, by (N, Q, M, L, P) weights."""
    return ms_deform_attn_at(value, _pairs(value_spatial_shapes), sampling_locations, attention_weights)


def attend_by_level(
    value: Tensor,
    value_spatial_shapes: Shapes,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    num_points_list: Sequence[int],
    method: str = INTERPOLATES,
) -> Tensor:
    """The same where levels have points of their own: (N, Q, M, points of all levels, 2) and without the 2.

    Raises:
        InputError: another ``method`` than the default.
    """
    if method != INTERPOLATES:
        raise InputError(f"the method {method!r} of deformable attention is not one that our op computes")
    most = max(num_points_list)
    # What a level lacks are points outside of its map, which count nothing.
    locations = [
        F.pad(points, (0, 0, 0, most - points.shape[3]), value=-1.0)
        for points in sampling_locations.split(list(num_points_list), dim=3)
    ]
    weights = [
        F.pad(points, (0, most - points.shape[3])) for points in attention_weights.split(list(num_points_list), dim=3)
    ]
    return attend(value, value_spatial_shapes, torch.stack(locations, 3), torch.stack(weights, 3))


class Function:
    """What is called as the ``torch.autograd.Function`` of a CUDA extension is."""

    @staticmethod
    def apply(
        value: Tensor,
        value_spatial_shapes: Shapes,
        value_level_start_index: Tensor,
        sampling_locations: Tensor,
        attention_weights: Tensor,
        im2col_step: int,
    ) -> Tensor:
        """:func:`attend`."""
        return attend(value, value_spatial_shapes, sampling_locations, attention_weights)


def forward_of_core_module(
    self: Any,
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_spatial_shapes_list: list[tuple[int, int]],
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """:func:`attend`, as transformers has it as a module without parameters."""
    return attend(value, value_spatial_shapes_list, sampling_locations, attention_weights)


CORES: dict[str, Callable[..., Tensor] | type[Function]] = {
    "multi_scale_deformable_attention": attend,  # transformers
    "multi_scale_deformable_attention_v2": attend_by_level,  # transformers
    "multi_scale_deformable_attn_pytorch": attend,  # mmcv, detrex
    "ms_deform_attn_core_pytorch": attend,  # Deformable-DETR
    "MultiScaleDeformableAttentionFunction": Function,  # transformers before 4.48
    "MultiScaleDeformableAttnFunction": Function,  # mmcv, detrex
    "MSDeformAttnFunction": Function,  # Deformable-DETR
}
"""By the names that other packages' modules call them by."""


def _pairs(shapes: Shapes) -> Sequence[tuple[int, int]]:
    if not isinstance(shapes, Tensor):
        return shapes
    return [(height, width) for height, width in shapes.tolist()]
