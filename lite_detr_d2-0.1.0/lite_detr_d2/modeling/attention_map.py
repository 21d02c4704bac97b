"""How much a decoder looks at each token: what Sparse DETR's scorer of tokens learns."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..structures import FlattenedFeatures, SpatialShapes
from .attention import SamplingAttention
from .decoder import DecodedLayer, Decoder, on_levels


@torch.no_grad()
def attention_map(
    decoder: Decoder, decoded: Sequence[DecodedLayer], features: FlattenedFeatures, num_queries: int
) -> Tensor:
    """Sum up how much the cross-attention of all layers, heads, queries and points counts each token.

    Args:
        decoder: that decoded.
        decoded: every layer's result.
        features: what was looked at.
        num_queries: of how many queries, the first ones.

    Returns:
        (N, S) float32, at least 0, and -1 of padded tokens; without a gradient.

    Source: Sparse DETR, arXiv 2111.14330, Sec. 3.2 (decoder cross-attention map, DAM).
    """
    locations, weights = [], []
    for layer, result in zip(decoder.layers, decoded, strict=True):
        attention: SamplingAttention = layer.cross_attention  # type: ignore[assignment]
        references = on_levels(result.reference[:, :num_queries], features.valid_ratios)
        where, weight = attention.sampling(result.looking[:, :num_queries], references, features)
        locations.append(where.float())
        weights.append(weight.float())
    looked = spread(torch.cat(locations, dim=1), torch.cat(weights, dim=1), features.shapes)
    return looked.masked_fill(features.padding, -1.0)


def spread(locations: Tensor, weights: Tensor, shapes: SpatialShapes) -> Tensor:
    """Spread the weight of each location over the four tokens around it, bilinearly; outside of the map it is lost.

    Args:
        locations: (N, Q, M, L, P, 2) as (x, y), 0..1 from edge to edge of each map.
        weights: (N, Q, M, L, P).
        shapes: (height, width) of each level.

    Returns:
        (N, S), the sums.
    """
    height, width, first = (
        torch.cat([weights.new_full((1, 1), value) for value in values])
        for values in (
            [height for height, _ in shapes],
            [width for _, width in shapes],
            [sum(h * w for h, w in shapes[:level]) for level in range(len(shapes))],
        )
    )
    # The published map takes a token's corner for its place, where attention samples around its centre: it lies half a
    # token further right and down.
    x, y = locations[..., 0] * width, locations[..., 1] * height
    left, top = x.floor(), y.floor()
    tokens, shares = [], []
    for column, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        shares.append(torch.where(inside, weights * (1 - (x - column).abs()) * (1 - (y - row).abs()), 0.0))
        tokens.append(torch.where(inside, first + row * width + column, 0.0).long())
    total = weights.new_zeros(weights.shape[0], sum(h * w for h, w in shapes))
    return total.scatter_add_(1, torch.cat(tokens, dim=1).flatten(1), torch.cat(shares, dim=1).flatten(1))
