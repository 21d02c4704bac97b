"""The encoder of Sparse DETR: it refines the tokens that the decoder is expected to look at, and no others."""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from ..structures import EncoderResult, FlattenedFeatures, LayerPredictions, TokenScores
from .attention_spec import AttentionSpec
from .encoder import ENCODER_REGISTRY, EncoderLayer, encoder_attention
from .geometry import reference_points_of_tokens
from .heads import DetectionHead
from .layers import draw_weights

Candidates: TypeAlias = Callable[[FlattenedFeatures], tuple[Tensor, Tensor]]
"""``QuerySelection.candidates``: features -> projected tokens, (N, S, C), and the logits of anchors, (N, S, 4)."""

_PARTS = 2**16  # of which the share of tokens is so many, rounded up


class TokenScorer(nn.Module):
    """A score for each token, of itself and of the mean over all.

    Source: Sparse DETR, arXiv 2111.14330, Sec. 3.2 and Appendix A.4 (scoring network).
    """

    def __init__(self, num_channels: int) -> None:
        """Make the scorer; ``num_channels`` is a multiple of 4."""
        super().__init__()
        half, quarter = num_channels // 2, num_channels // 4
        self.embed = nn.Sequential(nn.LayerNorm(num_channels), nn.Linear(num_channels, num_channels), nn.GELU())
        self.score = nn.Sequential(
            nn.Linear(num_channels, half), nn.GELU(), nn.Linear(half, quarter), nn.GELU(), nn.Linear(quarter, 1)
        )
        draw_weights(*(module for module in self.modules() if isinstance(module, nn.Linear)))

    def forward(self, tokens: Tensor) -> Tensor:
        """Score (N, S, C) tokens: (N, S) logits."""
        local, whole = self.embed(tokens).chunk(2, dim=-1)
        # As published, of all tokens, padded ones included: these are all alike, and say how much of the map is none.
        whole = whole.mean(dim=1, keepdim=True).expand_as(local)
        # Of the tokens' type, which what follows is computed in: under autocast they have been rounded to half before.
        return self.score(torch.cat((local, whole), dim=-1)).squeeze(-1).to(tokens.dtype)  # type: ignore[no-any-return]


@ENCODER_REGISTRY.register()
class SparseEncoder(nn.Module):
    """Every layer refines the same part of the tokens, those of the highest scores.

    Keys and values are always all tokens, in their current state. The scores learn how much the decoder looks at the
    tokens: see :mod:`.attention_map`.

    Source: Sparse DETR, arXiv 2111.14330.
    """

    @configurable
    def __init__(
        self,
        *,
        attention: AttentionSpec,
        num_layers: int,
        dim_feedforward: int,
        dropout: float,
        rho: float,
        auxiliary_heads: Sequence[DetectionHead],
        candidates: Candidates | None = None,
    ) -> None:
        """Make the encoder.

        Args:
            attention: every layer's attention.
            num_layers: at least 1.
            dim_feedforward: hidden size of the feed-forward networks.
            dropout: 0..1.
            rho: the share of an image's tokens that is refined, above 0 and at most 1.
            auxiliary_heads: in training, one for every layer but the last predicts of what the layer refined; or none.
            candidates: of the detector's query selection, whose projection the scorer shares: the encoder calls it, and
                has none of its weights. None to be given before the first call.

        Raises:
            ValueError: when ``rho`` or the number of heads does not fit.

        Attributes:
            candidates: see above.
        """
        super().__init__()
        if not 0 < rho <= 1:
            raise ValueError(f"rho is {rho}: expected a share of the tokens, above 0 and at most 1.")
        if len(auxiliary_heads) not in (0, num_layers - 1):
            raise ValueError(
                f"{len(auxiliary_heads)} auxiliary heads for {num_layers} layers: expected none or one less."
            )
        self.rho = rho
        self.candidates = candidates
        self.scorer = TokenScorer(attention.num_channels)
        self.layers = nn.ModuleList(EncoderLayer(attention, dim_feedforward, dropout) for _ in range(num_layers))
        self.auxiliary_heads = nn.ModuleList(auxiliary_heads)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        model, encoder = cfg.MODEL.LITE_DETR, cfg.MODEL.LITE_DETR.ENCODER
        num_heads = encoder.NUM_LAYERS - 1 if encoder.AUXILIARY_LOSS else 0
        return {
            "attention": encoder_attention(cfg),
            "num_layers": encoder.NUM_LAYERS,
            "dim_feedforward": encoder.DIM_FEEDFORWARD,
            "dropout": model.DROPOUT,
            "rho": encoder.RHO,
            "auxiliary_heads": [DetectionHead(model.HIDDEN_DIM, model.NUM_CLASSES) for _ in range(num_heads)],
        }

    def forward(self, features: FlattenedFeatures) -> EncoderResult:
        """Refine some of the tokens of ``features``; the others stay as they are.

        In the result, auxiliary predictions are of K tokens of each image, highest score first: at least as many as an
        image without padding has chosen; the criterion takes these.
        """
        if self.candidates is None:
            raise ValueError("SparseEncoder needs the candidates of a query selection, which it scores tokens by.")
        looked_at, anchors = self.candidates(features.with_tokens(features.tokens + features.position))
        scores = self._scores(looked_at, features.padding)
        index = self._best(scores.logits, features)
        reference_points = reference_points_of_tokens(features.shapes, features.valid_ratios)
        tokens, position, anchors = (_gather(values, index) for values in (features.tokens, features.position, anchors))
        reference_points = _gather(reference_points.flatten(2), index).unflatten(2, reference_points.shape[2:])
        # An image that has chosen fewer than K carries on some more, which no other token gets to see.
        unseen = torch.arange(index.shape[1], device=index.device) >= scores.chosen[:, None]
        original, refined = tokens, []
        for layer in self.layers:
            tokens = layer(tokens, position, reference_points, features)
            seen = torch.where(unseen[..., None], original, tokens).to(original.dtype)
            places = index[..., None].expand_as(seen)
            features = features.with_tokens(features.tokens.scatter(1, places, seen))
            refined.append(tokens)
        heads = self.auxiliary_heads if self.training else ()
        auxiliary = tuple(_predict(head, of_layer, anchors) for head, of_layer in zip(heads, refined, strict=False))
        return EncoderResult(features.tokens, scores, auxiliary)

    def _scores(self, tokens: Tensor, padding: Tensor) -> TokenScores:
        logits = self.scorer(tokens)
        # As published, the lowest score is not detached: the loss of padded tokens reaches the token that has it. And
        # a token more than the share is chosen, of products in float32.
        logits = logits.masked_fill(padding, logits.min())
        chosen = ((~padding).sum(dim=1).float() * self.rho).long() + 1
        return TokenScores(logits, chosen)

    def _best(self, scores: Tensor, features: FlattenedFeatures) -> Tensor:
        """The indices of the best tokens, (N, K), best first, padded ones last; K depends on no value."""
        # In whole numbers, for torch.export's symbols and other runtimes. Rounding in float32 may choose a token more.
        size = features.start_of(len(features.shapes))
        number = size * math.ceil(self.rho * _PARTS) // _PARTS + 2
        number = number if size >= number else size  # not by min(): see QuerySelection.rank
        return scores.detach().masked_fill(features.padding, -math.inf).topk(number, dim=1).indices


def _gather(values: Tensor, index: Tensor) -> Tensor:
    """(N, K, C): those of (N, S, C) ``values`` whose indices are (N, K) ``index``."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))


def _predict(head: nn.Module, tokens: Tensor, anchors: Tensor) -> LayerPredictions:
    """What a ``DetectionHead`` predicts of (N, K, C) tokens with (N, K, 4) anchors, in logits."""
    assert isinstance(head, DetectionHead)
    return LayerPredictions(head.logits(tokens), (anchors + head.box_offsets(tokens)).sigmoid())
