"""Multi-scale deformable attention in plain PyTorch: the oracle of the tests, and the fallback of the compiled ops.

Names, arguments and results are those of :mod:`lite_detr_d2.ops`, where shapes and ranges are documented. These
functions check nothing and compute in the type of ``value``. They hold every sampled key and value in memory. Their
further argument is how planes are sampled.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

Sampler = Callable[[Tensor, Tensor], Tensor]
"""(B, D, H, W) planes and (B, Q, P, 2) locations as (x, y), -1..1 from edge to edge -> (B, D, Q, P), zeros outside."""


def sample_grid(planes: Tensor, locations: Tensor) -> Tensor:
    """The :data:`Sampler` by PyTorch's own operator."""
    return F.grid_sample(planes, locations, align_corners=False)


def sample_by_gathers(planes: Tensor, locations: Tensor) -> Tensor:
    """The :data:`Sampler` by four gathers, for runtimes whose own operator is wrong. What is not finite samples NaN."""
    batch, channels, height, width = planes.shape
    x, y = (((locations[..., axis] + 1) * size - 1) / 2 for axis, size in ((0, width), (1, height)))
    left, top = x.floor(), y.floor()
    pixels = planes.flatten(2).transpose(1, 2).flatten(0, 1)
    first = torch.arange(batch, device=planes.device)[:, None, None] * (height * width)
    samples = planes.new_zeros(())
    for column, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        weights = (1 - (x - column).abs()) * (1 - (y - row).abs()) * inside
        # Whole numbers are clamped, not fractions: of those, NaN would stay what it is, and be no index.
        index = first + row.long().clamp(0, height - 1) * width + column.long().clamp(0, width - 1)
        samples = samples + pixels.index_select(0, index.flatten()).unflatten(0, index.shape) * weights[..., None]
    return samples.permute(0, 3, 1, 2)


def ms_deform_attn(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    reference_points: Tensor,
    sampling_offsets: Tensor,
    attention_logits: Tensor,
    sample: Sampler = sample_grid,
) -> Tensor:
    """Multi-scale deformable attention; see :func:`lite_detr_d2.ops.ms_deform_attn`."""
    locations = sampling_locations(spatial_shapes, reference_points, sampling_offsets)
    samples = _sample(value, spatial_shapes, locations, sample)
    return _weighted_sum(samples, attention_logits.softmax(-1))


def key_aware_deform_attn(
    query: Tensor,
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    reference_points: Tensor,
    sampling_offsets: Tensor,
    key: Tensor | None = None,
    sample: Sampler = sample_grid,
) -> Tensor:
    """Key-aware deformable attention; see :func:`lite_detr_d2.ops.key_aware_deform_attn`."""
    locations = sampling_locations(spatial_shapes, reference_points, sampling_offsets)
    values = _sample(value, spatial_shapes, locations, sample)
    keys = values if key is None else _sample(key, spatial_shapes, locations, sample)
    return _weighted_sum(values, _key_aware_logits(query, keys).softmax(-1))


def sampling_locations_and_weights(
    spatial_shapes: Sequence[tuple[int, int]],
    reference_points: Tensor,
    sampling_offsets: Tensor,
    attention_logits: Tensor | None = None,
    *,
    query: Tensor | None = None,
    key: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Where the ops sample, and how much each sample counts: their result is the weighted sum of the sampled values.

    Args:
        spatial_shapes: as the ops get them, and likewise all others.
        reference_points: (N, Q, L, 2 or 4).
        sampling_offsets: (N, Q, M, L, P, 2).
        attention_logits: (N, Q, M, L * P), of ``ms_deform_attn``; or else
        query: (N, Q, M, D), of ``key_aware_deform_attn``, with
        key: (N, S, M, D); the ``value`` where there is no key of its own.

    Returns:
        (N, Q, M, L, P, 2) locations as (x, y), where 0 and 1 are the edges of the padded map; and (N, Q, M, L, P)
        weights, which sum to 1 over levels and points. A location outside of its map has a weight, and samples zeros.

    Raises:
        ValueError: neither logits are given, nor query and key; or both are.
    """
    locations = sampling_locations(spatial_shapes, reference_points, sampling_offsets)
    if attention_logits is not None and query is None and key is None:
        logits = attention_logits
    elif attention_logits is None and query is not None and key is not None:
        logits = _key_aware_logits(query, _sample(key, spatial_shapes, locations, sample_grid))
    else:
        raise ValueError("give attention_logits alone, or query and key together.")
    return locations, logits.softmax(-1).unflatten(-1, locations.shape[3:5])


def sampling_locations(
    spatial_shapes: Sequence[tuple[int, int]], reference_points: Tensor, sampling_offsets: Tensor
) -> Tensor:
    """Move the reference points by the raw offsets.

    Returns:
        (N, Q, M, L, P, 2) as (x, y); 0 and 1 are the edges of the padded map.
    """
    points = sampling_offsets.shape[4]
    reference = reference_points[:, :, None, :, None]
    if reference_points.shape[-1] == 4:
        return reference[..., :2] + sampling_offsets / points * reference[..., 2:] * 0.5
    # Filled on the device: a tensor of Python numbers would be copied there, which waits for it.
    sides = [sampling_offsets.new_full((1,), side) for height, width in spatial_shapes for side in (width, height)]
    return reference + sampling_offsets / torch.cat(sides).view(-1, 1, 2)


def _sample(tokens: Tensor, spatial_shapes: Sequence[tuple[int, int]], locations: Tensor, sample: Sampler) -> Tensor:
    """Interpolate (N, S, M, D) tokens at (N, Q, M, L, P, 2) locations: (N, Q, M, D, L * P), zeros outside the maps."""
    images, _, heads, channels = tokens.shape
    grids = (2 * locations - 1).transpose(1, 2).flatten(0, 1)
    levels = tokens.split([height * width for height, width in spatial_shapes], dim=1)
    samples = []
    for level, (tokens_of_level, (height, width)) in enumerate(zip(levels, spatial_shapes, strict=True)):
        plane = tokens_of_level.permute(0, 2, 3, 1).reshape(images * heads, channels, height, width)
        samples.append(sample(plane, grids[:, :, level]))
    sampled = torch.cat(samples, dim=-1)
    return sampled.reshape(images, heads, *sampled.shape[1:]).permute(0, 3, 1, 2, 4)


def _key_aware_logits(query: Tensor, keys: Tensor) -> Tensor:
    """(N, Q, M, D) queries, (N, Q, M, D, L * P) sampled keys -> (N, Q, M, L * P)."""
    logits: Tensor = (query[..., None] * keys).sum(-2) * query.shape[-1] ** -0.5
    return logits


def _weighted_sum(samples: Tensor, weights: Tensor) -> Tensor:
    """(N, Q, M, D, L * P) samples, (N, Q, M, L * P) weights -> (N, Q, M * D)."""
    return (samples * weights[..., None, :]).sum(-1).flatten(-2)
