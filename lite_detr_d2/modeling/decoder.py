"""The decoder: queries attend to each other and to the encoder's tokens, and refine their boxes layer by layer."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..structures import FlattenedFeatures, LayerPredictions
from .attention import SelfAttention
from .attention_spec import AttentionSpec
from .geometry import inverse_sigmoid
from .heads import DetectionHead
from .layers import MLP, FeedForward
from .position import box_sines


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention to the encoder's tokens, feed-forward network (post-norm)."""

    def __init__(self, attention: AttentionSpec, dim_feedforward: int, dropout: float) -> None:
        super().__init__()
        channels = attention.num_channels
        self.self_attention = SelfAttention(channels, attention.num_heads, dropout)
        self.self_attention_norm = nn.LayerNorm(channels)
        self.cross_attention = attention.build()
        self.cross_attention_norm = nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)
        self.feed_forward = FeedForward(channels, dim_feedforward, dropout)

    def forward(
        self,
        queries: Tensor,
        position: Tensor,
        reference_points: Tensor,
        features: FlattenedFeatures,
        mask: Tensor | None,
    ) -> Tensor:
        """Update the queries.

        Args:
            queries: (N, Q, C).
            position: (N, Q, C).
            reference_points: (N, Q, L, 4), 0..1 of each level with its padding.
            features: the encoder's tokens.
            mask: (Q, Q) bool, True where the row query must not see the column query.

        Returns:
            (N, Q, C).
        """
        attended = self.self_attention(queries, position, mask)
        queries = self.self_attention_norm(queries + self.dropout(attended))
        attended = self.cross_attention(queries + position, reference_points, features)
        queries = self.cross_attention_norm(queries + self.dropout(attended))
        result: Tensor = self.feed_forward(queries)
        return result


class BoxPosition(nn.Module):
    """The queries' position, anew in every layer: an MLP of the sine encoding of their reference boxes.

    Source: DAB-DETR, arXiv 2201.12329, Sec. 4.2.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.mlp = MLP(2 * num_channels, num_channels, num_channels, num_layers=2)
        self.channels_per_coordinate = num_channels // 2

    def forward(self, boxes: Tensor) -> Tensor:
        """Encode (N, Q, 4) boxes to (N, Q, C)."""
        result: Tensor = self.mlp(box_sines(boxes, self.channels_per_coordinate))
        return result


@dataclass(frozen=True)
class DecodedLayer:
    """What a decoder layer leaves: queries (N, Q, C), and the boxes (N, Q, 4) that it started from."""

    queries: Tensor
    boxes: Tensor


class Decoder(nn.Module):
    """Decoder layers with iterative box refinement, looking forward twice.

    Each layer's box is its offset, read off the normalised state, on top of the reference that the layer before it
    handed on, through which the gradient flows; the references that steer attention are detached.

    Source: DINO, arXiv 2203.03605, Sec. 3.5.
    """

    def __init__(
        self,
        *,
        attention: AttentionSpec,
        num_layers: int,
        dim_feedforward: int,
        dropout: float,
        heads: Sequence[DetectionHead],
        logit_eps: float,
    ) -> None:
        """Make the decoder.

        Args:
            attention: every layer's cross-attention.
            num_layers: at least 1.
            dim_feedforward: hidden size of the feed-forward networks.
            dropout: 0..1.
            heads: one for every layer, or a single one that all layers share.
            logit_eps: clamp of the inverse sigmoid of boxes.

        Raises:
            ValueError: when the number of heads is neither 1 nor ``num_layers``.
        """
        super().__init__()
        if len(heads) not in (1, num_layers):
            raise ValueError(f"{len(heads)} heads for {num_layers} decoder layers: expected 1 or {num_layers}.")
        self.layers = nn.ModuleList(DecoderLayer(attention, dim_feedforward, dropout) for _ in range(num_layers))
        self.position = BoxPosition(attention.num_channels)
        self.norm = nn.LayerNorm(attention.num_channels)
        self.heads = nn.ModuleList(heads)
        self.logit_eps = logit_eps

    def forward(
        self, content: Tensor, reference: Tensor, features: FlattenedFeatures, mask: Tensor | None
    ) -> tuple[DecodedLayer, ...]:
        """Decode queries.

        Args:
            content: (N, Q, C).
            reference: (N, Q, 4), logits of the first reference boxes.
            features: the encoder's tokens.
            mask: (Q, Q) bool, True where the row query must not see the column query; None if all see all.

        Returns:
            Every layer's result, first to last; ``predict`` reads the predictions off it.
        """
        queries, boxes = content, reference.sigmoid()
        to_padded = features.valid_ratios.repeat(1, 1, 2)[:, None]
        decoded: list[DecodedLayer] = []
        for index, layer in enumerate(self.layers):
            if index > 0:
                boxes = self._refine(boxes.detach(), self._head(index - 1).box_offsets(queries))
            attended_boxes = boxes.detach()
            reference_points = attended_boxes[:, :, None] * to_padded
            position = self.position(reference_points[:, :, 0])
            queries = layer(queries, position, reference_points, features, mask)
            decoded.append(DecodedLayer(queries, boxes))
        return tuple(decoded)

    def predict(self, decoded: Sequence[DecodedLayer], layer: int) -> LayerPredictions:
        """The predictions of one of the ``decoded`` layers; ``layer`` counts from 0, or from -1 backwards."""
        head = self._head(layer % len(decoded))
        normalised = self.norm(decoded[layer].queries)
        return LayerPredictions(
            logits=head.logits(normalised), boxes=self._refine(decoded[layer].boxes, head.box_offsets(normalised))
        )

    def _head(self, layer: int) -> DetectionHead:
        head: DetectionHead = self.heads[layer % len(self.heads)]  # type: ignore[assignment]
        return head

    def _refine(self, boxes: Tensor, offsets: Tensor) -> Tensor:
        return torch.sigmoid(inverse_sigmoid(boxes, self.logit_eps) + offsets)
