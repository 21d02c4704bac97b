"""Multi-scale deformable attention and self-attention, as modules."""

import math
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..ops import ms_deform_attn, sampling_locations_and_weights
from ..structures import FlattenedFeatures


class CrossAttention(Protocol):
    """Attention from queries to the tokens of all levels: what encoder and decoder layers are made with."""

    def __call__(self, query: Tensor, reference_points: Tensor, features: FlattenedFeatures) -> Tensor:
        """Attend from (N, Q, C) ``query`` to ``features.tokens``; see :class:`DeformableAttention`."""


class SamplingAttention(nn.Module):
    """What deformable and key-aware deformable attention share: where they sample, and the values they sample."""

    def __init__(self, num_channels: int, num_heads: int, num_levels: int, num_points: int) -> None:
        """Sample ``num_points`` per head and level.

        Raises:
            ValueError: when ``num_channels`` is not a multiple of ``num_heads``.
        """
        super().__init__()
        if num_channels % num_heads:
            raise ValueError(f"num_channels ({num_channels}) must be a multiple of num_heads ({num_heads}).")
        self.num_heads, self.num_levels, self.num_points = num_heads, num_levels, num_points
        self.sampling_offsets = nn.Linear(num_channels, num_heads * num_levels * num_points * 2)
        self.value_proj = projection(num_channels)
        self.output_proj = projection(num_channels)
        nn.init.zeros_(self.sampling_offsets.weight)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(self._initial_offsets())

    def sampling(self, query: Tensor, reference_points: Tensor, features: FlattenedFeatures) -> tuple[Tensor, Tensor]:
        """Where ``forward`` samples, given the same arguments, and how much each sample counts.

        Returns:
            Locations and weights as of :func:`lite_detr_d2.ops.sampling_locations_and_weights`.
        """
        raise NotImplementedError

    def _initial_offsets(self) -> Tensor:
        """Each head looks in a direction of its own, point k at k + 1 pixels (in the maximum norm)."""
        angle = torch.arange(self.num_heads, dtype=torch.float32) * (2.0 * math.pi / self.num_heads)
        direction = torch.stack((angle.cos(), angle.sin()), dim=-1)
        direction = direction / direction.abs().amax(dim=-1, keepdim=True)
        distance = torch.arange(1, self.num_points + 1, dtype=torch.float32)
        offsets = direction[:, None, None, :] * distance[None, None, :, None]
        return offsets.expand(-1, self.num_levels, -1, -1).flatten()

    def _offsets(self, query: Tensor) -> Tensor:
        shape = (self.num_heads, self.num_levels, self.num_points, 2)
        return self.sampling_offsets(query).unflatten(-1, shape)  # type: ignore[no-any-return]

    def _sampled_map(self, linear: nn.Linear, features: FlattenedFeatures) -> Tensor:
        """(N, S, M, D): the tokens' projection, zero where they are padding."""
        projected: Tensor = linear(features.tokens)
        if not features.is_padded:
            return projected.unflatten(-1, (self.num_heads, -1))  # type: ignore[no-any-return]
        # In place only where nothing is recorded, as in FeedForward.
        fill = projected.masked_fill if torch.is_grad_enabled() else projected.masked_fill_
        filled: Tensor = fill(features.padding[..., None], 0.0)
        return filled.unflatten(-1, (self.num_heads, -1))  # type: ignore[no-any-return]


class DeformableAttention(SamplingAttention):
    """Multi-scale deformable attention: weights are predicted from the query alone.

    Source: Deformable DETR, arXiv 2010.04159, Sec. 4.1.
    """

    def __init__(self, num_channels: int, num_heads: int, num_levels: int, num_points: int) -> None:
        super().__init__(num_channels, num_heads, num_levels, num_points)
        self.attention_weights = nn.Linear(num_channels, num_heads * num_levels * num_points)
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)

    def forward(self, query: Tensor, reference_points: Tensor, features: FlattenedFeatures) -> Tensor:
        """Attend to the tokens around the reference points.

        Args:
            query: (N, Q, C), position included.
            reference_points: (N, Q, L, 2 or 4), 0..1 of each level with its padding.
            features: of which ``tokens``, ``padding`` and ``shapes`` are read.

        Returns:
            (N, Q, C).
        """
        attended = ms_deform_attn(
            self._sampled_map(self.value_proj, features),
            features.shapes,
            reference_points,
            self._offsets(query),
            self._logits(query),
        )
        result: Tensor = self.output_proj(attended)
        return result

    def sampling(self, query: Tensor, reference_points: Tensor, features: FlattenedFeatures) -> tuple[Tensor, Tensor]:
        """See :meth:`SamplingAttention.sampling`."""
        return sampling_locations_and_weights(
            features.shapes, reference_points, self._offsets(query), self._logits(query)
        )

    def _logits(self, query: Tensor) -> Tensor:
        return self.attention_weights(query).unflatten(-1, (self.num_heads, -1))  # type: ignore[no-any-return]


class SelfAttention(nn.Module):
    """Multi-head self-attention by ``scaled_dot_product_attention``.

    ``nn.MultiheadAttention`` would do, but its fast path hides the work from FLOP counters in evaluation.
    """

    def __init__(self, num_channels: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.query_key_proj = nn.Linear(num_channels, 2 * num_channels)
        self.value_proj = nn.Linear(num_channels, num_channels)
        self.output_proj = projection(num_channels)
        # The three projections start as one (C, 3C) matrix would, like nn.MultiheadAttention's.
        bound = math.sqrt(6 / (4 * num_channels))
        for linear in (self.query_key_proj, self.value_proj):
            nn.init.uniform_(linear.weight, -bound, bound)
            nn.init.zeros_(linear.bias)

    def forward(self, tokens: Tensor, position: Tensor, mask: Tensor | None) -> Tensor:
        """Attend among ``tokens``.

        Args:
            tokens: (N, Q, C).
            position: (N, Q, C), added for queries and keys, not for values.
            mask: (Q, Q) bool, True where the row must not see the column; None if all see all.

        Returns:
            (N, Q, C).
        """
        query, key = self.query_key_proj(tokens + position).chunk(2, dim=-1)
        value = self.value_proj(tokens)
        query, key, value = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in (query, key, value))
        attended = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=None if mask is None else ~mask,
            dropout_p=self.dropout if self.training else 0.0,
        )
        result: Tensor = self.output_proj(attended.transpose(1, 2).flatten(2))
        return result


def projection(num_channels: int) -> nn.Linear:
    """A square linear layer with Xavier weights and zero bias."""
    linear = nn.Linear(num_channels, num_channels)
    nn.init.xavier_uniform_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
