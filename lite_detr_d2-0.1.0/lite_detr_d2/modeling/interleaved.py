"""The encoder of Lite DETR: coarse tokens are refined often, fine tokens rarely."""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from ..encoder_spec import EncoderSpec
from ..structures import EncoderResult, FlattenedFeatures
from .attention_spec import AttentionSpec
from .encoder import ENCODER_REGISTRY, EncoderLayer, encoder_attention
from .geometry import reference_points_of_tokens
from .layers import FeedForward


class JointEncoderLayer(EncoderLayer):
    """An encoder layer over all tokens, in which the low-level ones have a feed-forward network of their own."""

    def __init__(
        self, attention: AttentionSpec, hidden_channels: int, low_hidden_channels: int, low_levels: int, dropout: float
    ) -> None:
        """Make the layer; the first ``low_levels`` levels pass through the network of ``low_hidden_channels``."""
        super().__init__(attention, hidden_channels, dropout)
        self.low_levels = low_levels
        self.low_feed_forward = FeedForward(attention.num_channels, low_hidden_channels, dropout)

    def forward(
        self, tokens: Tensor, position: Tensor, reference_points: Tensor, features: FlattenedFeatures
    ) -> Tensor:
        """Refine all tokens; arguments as for ``EncoderLayer.forward``, with Q = S."""
        tokens = self.attend(tokens, position, reference_points, features)
        split = features.start_of(self.low_levels)
        return torch.cat((self.low_feed_forward(tokens[:, :split]), self.feed_forward(tokens[:, split:])), dim=1)


@ENCODER_REGISTRY.register()
class InterleavedEncoder(nn.Module):
    """Blocks that refine the high-level tokens several times and the low-level tokens once.

    Keys and values are always all tokens, in their current state.

    Source: Lite DETR, arXiv 2303.07335, Sec. 3.3 to 3.5.
    """

    @configurable
    def __init__(
        self,
        *,
        spec: EncoderSpec,
        fusion: str,
        attention: AttentionSpec,
        dim_feedforward: int,
        low_level_ffn_ratio: int,
        dropout: float,
    ) -> None:
        """Make the encoder.

        Args:
            spec: which levels are refined how often.
            fusion: "joint", "sequential" or "high_only", see ``EncoderSpec.block_schedule``.
            attention: every layer's attention.
            dim_feedforward: hidden size of the high-level tokens' feed-forward networks.
            low_level_ffn_ratio: how many times smaller the low-level tokens' is; 0 makes it as large, and with joint
                fusion the same.
            dropout: 0..1.

        Raises:
            ValueError: when spec, levels, fusion and sizes do not fit each other.
        """
        super().__init__()
        if spec.num_levels != attention.num_levels:
            raise ValueError(f"{spec} needs {spec.num_levels} levels, the attention has {attention.num_levels}.")
        if low_level_ffn_ratio and dim_feedforward % low_level_ffn_ratio:
            raise ValueError(f"dim_feedforward ({dim_feedforward}) is not a multiple of {low_level_ffn_ratio}.")
        self.spec = spec
        self.schedule = spec.block_schedule(fusion) * spec.blocks
        low_hidden = dim_feedforward // (low_level_ffn_ratio or 1)

        def make_layer(tokens: str) -> EncoderLayer:
            if tokens == "all" and low_level_ffn_ratio:
                return JointEncoderLayer(attention, dim_feedforward, low_hidden, spec.low_levels, dropout)
            return EncoderLayer(attention, low_hidden if tokens == "low" else dim_feedforward, dropout)

        self.layers = nn.ModuleList(make_layer(tokens) for tokens in self.schedule)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        encoder = cfg.MODEL.LITE_DETR.ENCODER
        return {
            "spec": EncoderSpec.parse(encoder.SPEC),
            "fusion": encoder.FUSION,
            "attention": encoder_attention(cfg),
            "dim_feedforward": encoder.DIM_FEEDFORWARD,
            "low_level_ffn_ratio": encoder.LOW_LEVEL_FFN_RATIO,
            "dropout": cfg.MODEL.LITE_DETR.DROPOUT,
        }

    def forward(self, features: FlattenedFeatures) -> EncoderResult:
        """Refine the tokens of ``features``."""
        reference_points = reference_points_of_tokens(features.shapes, features.valid_ratios)
        split, end = features.start_of(self.spec.low_levels), features.tokens.shape[1]
        ranges = {"low": (0, split), "high": (split, end), "all": (0, end)}
        for layer, name in zip(self.layers, self.schedule, strict=True):
            first, last = ranges[name]
            queries = slice(first, last)
            old = features.tokens
            new = layer(old[:, queries], features.position[:, queries], reference_points[:, queries], features)
            whole = new if name == "all" else torch.cat((old[:, :first], new, old[:, last:]), dim=1)
            features = features.with_tokens(whole)
        return EncoderResult(features.tokens)
