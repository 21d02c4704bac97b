"""What the ops are compared with: multi-scale deformable attention in plain PyTorch, formulated as published code does.

Names, arguments and results are those of :mod:`lite_detr_d2.ops`. ``lite_detr_d2.ops.reference`` computes the same with
fewer copies; here every step of the published formulation is kept, because its cost is what users of that code pay: the
locations as eager arithmetic, each level's map as a copy in channel-first layout, all samples stacked, and keys and
values sampled separately even where they are one map.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

SpatialShapes = Sequence[tuple[int, int]]


def ms_deform_attn(
    value: Tensor,
    spatial_shapes: SpatialShapes,
    reference_points: Tensor,
    sampling_offsets: Tensor,
    attention_logits: Tensor,
) -> Tensor:
    """Multi-scale deformable attention; see :func:`lite_detr_d2.ops.ms_deform_attn`."""
    images, queries, heads, levels, points, _ = sampling_offsets.shape
    locations = sampling_locations(spatial_shapes, reference_points, sampling_offsets)
    weights = attention_logits.softmax(-1).view(images, queries, heads, levels, points)
    weights = weights.transpose(1, 2).reshape(images * heads, 1, queries, levels * points)
    return _weighted_sum(_sample(value, spatial_shapes, locations), weights, images)


def key_aware_deform_attn(
    query: Tensor,
    value: Tensor,
    spatial_shapes: SpatialShapes,
    reference_points: Tensor,
    sampling_offsets: Tensor,
    key: Tensor | None = None,
) -> Tensor:
    """Key-aware deformable attention; see :func:`lite_detr_d2.ops.key_aware_deform_attn`."""
    images, queries, heads, channels = query.shape
    locations = sampling_locations(spatial_shapes, reference_points, sampling_offsets)
    values = _sample(value, spatial_shapes, locations)
    keys = _sample(value if key is None else key, spatial_shapes, locations)
    query = query.permute(0, 2, 3, 1).reshape(images * heads, channels, queries, 1)
    logits = (query * keys).sum(1) / channels**0.5
    return _weighted_sum(values, logits.softmax(-1).unsqueeze(1), images)


def sampling_locations(spatial_shapes: SpatialShapes, reference_points: Tensor, sampling_offsets: Tensor) -> Tensor:
    """(N, Q, M, L, P, 2) as (x, y), 0..1 from edge to edge: the arithmetic that many ops leave to their users."""
    reference = reference_points[:, :, None, :, None, :]
    if reference_points.shape[-1] == 4:
        points = sampling_offsets.shape[4]
        return reference[..., :2] + sampling_offsets / points * reference[..., 2:] * 0.5
    sizes = tuple((width, height) for height, width in spatial_shapes)
    normaliser = _normaliser(sizes, sampling_offsets.dtype, sampling_offsets.device)
    return reference + sampling_offsets / normaliser[None, None, None, :, None, :]


@lru_cache
def _normaliser(sizes: tuple[tuple[int, int], ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """(L, 2). Published code has the sizes on the device once per image; a copy in each call would wait for it."""
    return torch.tensor(sizes, dtype=dtype, device=device)


def _sample(tokens: Tensor, spatial_shapes: SpatialShapes, locations: Tensor) -> Tensor:
    """(N, S, M, D) tokens, (N, Q, M, L, P, 2) locations -> (N * M, D, Q, L * P)."""
    images, _, heads, channels = tokens.shape
    grids = 2 * locations - 1
    samples = []
    for level, map_of_level in enumerate(tokens.split([height * width for height, width in spatial_shapes], dim=1)):
        height, width = spatial_shapes[level]
        plane = map_of_level.flatten(2).transpose(1, 2).reshape(images * heads, channels, height, width)
        grid = grids[:, :, :, level].transpose(1, 2).flatten(0, 1)
        samples.append(F.grid_sample(plane, grid, mode="bilinear", padding_mode="zeros", align_corners=False))
    return torch.stack(samples, dim=-2).flatten(-2)


def _weighted_sum(samples: Tensor, weights: Tensor, images: int) -> Tensor:
    """(N * M, D, Q, L * P) samples, (N * M, 1, Q, L * P) weights -> (N, Q, M * D)."""
    attended = (samples * weights).sum(-1)
    return attended.view(images, -1, attended.shape[-1]).transpose(1, 2).contiguous()
