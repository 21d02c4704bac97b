"""The encoder's layer, the plain deformable encoder, and the registry in which encoders are found by name.

An encoder is a module that maps ``FlattenedFeatures`` to an ``EncoderResult``: refined tokens, (N, S, C), and in
training what else of it has a loss. It knows nothing of its detector.
"""

from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.utils.registry import Registry
from torch import Tensor, nn

from ..structures import EncoderResult, FlattenedFeatures
from .attention_spec import AttentionSpec
from .geometry import reference_points_of_tokens
from .layers import FeedForward

ENCODER_REGISTRY = Registry("LITE_DETR_ENCODER")
ENCODER_REGISTRY.__doc__ = "Encoders, built from a config by ``build_encoder`` under ``MODEL.LITE_DETR.ENCODER.NAME``."


def build_encoder(cfg: CfgNode) -> nn.Module:
    """Build the encoder that ``cfg.MODEL.LITE_DETR.ENCODER.NAME`` names."""
    encoder: nn.Module = ENCODER_REGISTRY.get(cfg.MODEL.LITE_DETR.ENCODER.NAME)(cfg)
    return encoder


def encoder_attention(cfg: CfgNode) -> AttentionSpec:
    """The encoder's attention as ``cfg`` asks for it; for encoders' ``from_config``."""
    model = cfg.MODEL.LITE_DETR
    return AttentionSpec(
        num_channels=model.HIDDEN_DIM,
        num_heads=model.NUM_HEADS,
        num_levels=model.NUM_LEVELS,
        num_points=model.ENCODER.NUM_POINTS,
        key_aware=model.ENCODER.KEY_AWARE,
        key_proj=model.ENCODER.KEY_PROJ,
    )


class EncoderLayer(nn.Module):
    """Attention from some of the tokens to all of them, then a feed-forward network (post-norm)."""

    def __init__(self, attention: AttentionSpec, hidden_channels: int, dropout: float) -> None:
        super().__init__()
        self.attention = attention.build()
        self.norm = nn.LayerNorm(attention.num_channels)
        self.dropout = nn.Dropout(dropout)
        self.feed_forward = FeedForward(attention.num_channels, hidden_channels, dropout)

    def attend(self, tokens: Tensor, position: Tensor, reference_points: Tensor, features: FlattenedFeatures) -> Tensor:
        """The attention sub-layer; arguments as for ``forward``."""
        attended = self.attention(tokens + position, reference_points, features)
        result: Tensor = self.norm(tokens + self.dropout(attended))
        return result

    def forward(
        self, tokens: Tensor, position: Tensor, reference_points: Tensor, features: FlattenedFeatures
    ) -> Tensor:
        """Refine some tokens.

        Args:
            tokens: (N, Q, C), the tokens to refine.
            position: (N, Q, C), theirs.
            reference_points: (N, Q, L, 2), theirs.
            features: all tokens, which are the keys and values.

        Returns:
            (N, Q, C).
        """
        refined: Tensor = self.feed_forward(self.attend(tokens, position, reference_points, features))
        return refined


@ENCODER_REGISTRY.register()
class DeformableEncoder(nn.Module):
    """Every layer refines all tokens.

    Source: Deformable DETR, arXiv 2010.04159, Sec. 4.1.
    """

    @configurable
    def __init__(self, *, attention: AttentionSpec, num_layers: int, dim_feedforward: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(attention, dim_feedforward, dropout) for _ in range(num_layers))

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        encoder = cfg.MODEL.LITE_DETR.ENCODER
        return {
            "attention": encoder_attention(cfg),
            "num_layers": encoder.NUM_LAYERS,
            "dim_feedforward": encoder.DIM_FEEDFORWARD,
            "dropout": cfg.MODEL.LITE_DETR.DROPOUT,
        }

    def forward(self, features: FlattenedFeatures) -> EncoderResult:
        """Refine the tokens of ``features``."""
        reference_points = reference_points_of_tokens(features.shapes, features.valid_ratios)
        for layer in self.layers:
            tokens = layer(features.tokens, features.position, reference_points, features)
            features = features.with_tokens(tokens)
        return EncoderResult(features.tokens)
