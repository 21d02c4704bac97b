"""The decoder: queries attend to each other and to the encoder's tokens, and refine their boxes layer by layer."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..structures import FlattenedFeatures, LayerPredictions, Queries
from .attention import SelfAttention
from .attention_spec import AttentionSpec
from .geometry import inverse_sigmoid
from .heads import DetectionHead
from .layers import MLP, FeedForward, draw_weights
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
    ) -> tuple[Tensor, Tensor]:
        """Update the queries.

        Args:
            queries: (N, Q, C).
            position: (N, Q, C).
            reference_points: (N, Q, L, 2 or 4), 0..1 of each level with its padding.
            features: the encoder's tokens.
            mask: (Q, Q) bool, True where the row query must not see the column query.

        Returns:
            The queries, and what they looked at the tokens with: (N, Q, C) each.
        """
        attended = self.self_attention(queries, position, mask)
        queries = self.self_attention_norm(queries + self.dropout(attended))
        looking = queries + position
        attended = self.cross_attention(looking, reference_points, features)
        queries = self.cross_attention_norm(queries + self.dropout(attended))
        return self.feed_forward(queries), looking


class BoxPosition(nn.Module):
    """The queries' position, anew in every layer: an MLP of the sine encoding of their reference boxes.

    Source: DAB-DETR, arXiv 2201.12329, Sec. 4.2; coordinates in the order y, x, w, h, as DINO has them.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.mlp = MLP(2 * num_channels, num_channels, num_channels, num_layers=2)
        draw_weights(*self.mlp.layers)
        self.channels_per_coordinate = num_channels // 2

    def forward(self, boxes: Tensor) -> Tensor:
        """Encode (N, Q, 4) boxes to (N, Q, C)."""
        x, y, width, height = boxes.unbind(-1)
        ordered = torch.stack((y, x, width, height), dim=-1)
        result: Tensor = self.mlp(box_sines(ordered, self.channels_per_coordinate))
        return result


@dataclass(frozen=True)
class DecodedLayer:
    """What a decoder layer leaves.

    Attributes:
        queries: (N, Q, C).
        reference: (N, Q, 2 or 4), 0..1 of the image, that the layer started from.
        looking: (N, Q, C), what its cross-attention was asked with, position included.
    """

    queries: Tensor
    reference: Tensor
    looking: Tensor


class Decoder(nn.Module):
    """Decoder layers, each of which predicts boxes as offsets from a reference.

    Without box refinement the reference is the queries' first one in all layers; with it, the box of the layer before,
    read off that layer's state before its normalisation. Refined references steer attention without a gradient; looking
    forward twice, a layer's loss yet reaches the layer that its reference comes from.

    Source: Deformable DETR, arXiv 2010.04159, Sec. 4.2; looking forward twice: DINO, arXiv 2203.03605, Sec. 3.5.
    """

    def __init__(
        self,
        *,
        attention: AttentionSpec,
        num_layers: int,
        dim_feedforward: int,
        dropout: float,
        heads: Sequence[DetectionHead],
        box_refinement: bool,
        look_forward_twice: bool,
        position: BoxPosition | None,
        norm: nn.Module | None,
        logit_eps: float,
    ) -> None:
        """Make the decoder.

        Args:
            attention: every layer's cross-attention.
            num_layers: at least 1.
            dim_feedforward: hidden size of the feed-forward networks.
            dropout: 0..1.
            heads: one for every layer, or a single one that all layers share.
            box_refinement: hand each layer's boxes on to the next one.
            look_forward_twice: with their gradient.
            position: makes the queries' position from their boxes; None if the queries bring theirs.
            norm: normalises a layer's queries for its predictions; None for predictions of the queries as they are.
            logit_eps: clamp of the inverse sigmoid of boxes.

        Raises:
            ValueError: when the number of heads is neither 1 nor ``num_layers``, or a flag lacks the one that it needs.
        """
        super().__init__()
        if look_forward_twice and not box_refinement:
            raise ValueError("look_forward_twice needs box_refinement: else no layer hands its boxes on.")
        if len(heads) not in (1, num_layers):
            raise ValueError(f"{len(heads)} heads for {num_layers} decoder layers: expected 1 or {num_layers}.")
        self.layers = nn.ModuleList(DecoderLayer(attention, dim_feedforward, dropout) for _ in range(num_layers))
        self.heads = nn.ModuleList(heads)
        self.box_refinement = box_refinement
        self.look_forward_twice = look_forward_twice
        self.position = position
        self.norm = nn.Identity() if norm is None else norm
        self.logit_eps = logit_eps

    @property
    def num_classes(self) -> int:
        """K, the number of classes that the heads tell apart."""
        return int(self._head(0).class_embed.out_features)

    def forward(self, initial: Queries, features: FlattenedFeatures, mask: Tensor | None) -> tuple[DecodedLayer, ...]:
        """Decode queries.

        Args:
            initial: the queries; they need a position unless the decoder makes it, which it can of boxes only.
            features: the encoder's tokens.
            mask: (Q, Q) bool, True where the row query must not see the column query; None if all see all.

        Returns:
            Every layer's result, first to last; ``predict`` reads the predictions off it.
        """
        queries, reference = initial.content, initial.reference.sigmoid()
        steering = reference
        decoded: list[DecodedLayer] = []
        for index, layer in enumerate(self.layers):
            if index > 0 and self.box_refinement:
                refined = self._refine(steering, self._head(index - 1).box_offsets(queries))
                steering = refined.detach()
                reference = refined if self.look_forward_twice else steering
            reference_points = on_levels(steering, features.valid_ratios)
            position = self._position(initial, reference_points)
            queries, looking = layer(queries, position, reference_points, features, mask)
            decoded.append(DecodedLayer(queries, reference, looking))
        return tuple(decoded)

    def predict(self, decoded: Sequence[DecodedLayer], layer: int) -> LayerPredictions:
        """The predictions of one of the ``decoded`` layers; ``layer`` counts from 0, or from -1 backwards."""
        head = self._head(layer % len(decoded))
        normalised = self.norm(decoded[layer].queries)
        return LayerPredictions(
            logits=head.logits(normalised), boxes=self._refine(decoded[layer].reference, head.box_offsets(normalised))
        )

    def _position(self, initial: Queries, reference_points: Tensor) -> Tensor:
        if self.position is not None:
            position: Tensor = self.position(reference_points[:, :, 0])
            return position
        if initial.position is None:
            raise ValueError("queries without a position need a decoder that makes it of their boxes.")
        return initial.position

    def _head(self, layer: int) -> DetectionHead:
        head: DetectionHead = self.heads[layer % len(self.heads)]  # type: ignore[assignment]
        return head

    def _refine(self, reference: Tensor, offsets: Tensor) -> Tensor:
        """(N, Q, 4) boxes: ``offsets`` in logits from a box, or from a point, which has no size to add to."""
        logits = inverse_sigmoid(reference, self.logit_eps)
        if logits.shape[-1] == 2:
            logits = torch.cat((logits, torch.zeros_like(logits)), dim=-1)
        return torch.sigmoid(logits + offsets)


def on_levels(reference: Tensor, valid_ratios: Tensor) -> Tensor:
    """(N, Q, L, 2 or 4) reference points of each level with its padding, of (N, Q, 2 or 4) ones of the image."""
    return reference[:, :, None] * valid_ratios.repeat(1, 1, reference.shape[-1] // 2)[:, None]
