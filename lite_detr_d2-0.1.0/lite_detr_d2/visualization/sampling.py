"""What an attention layer of a detector samples in an image, observed while the detector is at work."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..modeling.attention import SamplingAttention
from ..modeling.geometry import reference_points_of_tokens
from ..structures import FlattenedFeatures, SpatialShapes

T = TypeVar("T")


@dataclass(frozen=True)
class Sampling:
    """What a layer samples in one image. Coordinates are (x, y), 0..1 of the image without its padding.

    Attributes:
        locations: (Q, M, L, P, 2), on the CPU; they may lie outside of the image.
        weights: (Q, M, L, P), which sum to 1 over levels and points.
        references: (Q, 2) or (Q, 4): what the locations of a query lie around, a point or a box (cx, cy, w, h).
        shapes: (height, width) of each level, fine to coarse.
        levels: whose tokens the queries are, in their order; none where they are no tokens, such as a decoder's.
    """

    locations: Tensor
    weights: Tensor
    references: Tensor
    shapes: SpatialShapes
    levels: range

    def query_at(self, point: tuple[float, float], level: int | None = None) -> int:
        """The query that is the token nearest to a point.

        Args:
            point: (x, y), 0..1.
            level: whose token; None for the coarsest level of which there are queries.

        Raises:
            InputError: no query is a token of that level.
        """
        if not self.levels:
            raise InputError(
                "The queries of this layer are not the tokens of any level, so that none is at a point: look at the "
                "decoder, from an object (--decoder --object N)."
            )
        level = self.levels[-1] if level is None else level
        if level not in self.levels:
            raise InputError(
                f"The layer updates no tokens of level {level}, but those of {_levels(self.levels)} (0 is the finest "
                "level): choose one of these, or another layer."
            )
        first, last = self._first_of(level), self._first_of(level + 1)
        return first + int((self.references[first:last, :2] - torch.tensor(point)).square().sum(-1).argmin())

    def level_of(self, query: int) -> int:
        """The level of the token that a query is."""
        return max(level for level in self.levels if self._first_of(level) <= query)

    def _first_of(self, level: int) -> int:
        """The first query of a level."""
        return sum(height * width for height, width in self.shapes[self.levels.start : level])

    def strongest(self, number: int, *, query: int | None = None, level: int | None = None) -> "Strongest":
        """The ``number`` locations, or all, of the largest weights: of one query or all, on one level or all."""
        queries = slice(None) if query is None else slice(query, query + 1)
        levels = slice(None) if level is None else slice(level, level + 1)
        weights = self.weights[queries, :, levels]
        kept, index = weights.flatten().topk(min(number, weights.numel()))
        level_of = torch.arange(len(self.shapes))[levels, None].expand(weights.shape)
        return Strongest(
            locations=self.locations[queries, :, levels].reshape(-1, 2)[index],
            weights=kept,
            levels=level_of.reshape(-1)[index],
            candidates=weights.numel(),
        )


@dataclass(frozen=True)
class Strongest:
    """The K locations of the largest weights, largest first.

    Attributes:
        locations: (K, 2) as (x, y), 0..1 of the image.
        weights: (K,), falling.
        levels: (K,) int64.
        candidates: of how many they are the strongest.
    """

    locations: Tensor
    weights: Tensor
    levels: Tensor
    candidates: int


def attention_layers(part: nn.Module) -> list[SamplingAttention]:
    """The layers of deformable attention in an encoder or a decoder, first to last."""
    return [module for module in part.modules() if isinstance(module, SamplingAttention)]


def observe(layer: SamplingAttention, run: Callable[[], T]) -> tuple[Sampling, T]:
    """Run a detector, and see what one of its attention layers samples in the first image of the batch.

    The layer computes what it would have, so that the result is the same as without anybody looking.

    Args:
        layer: as ``attention_layers`` finds it.
        run: calls the detector; nothing is recorded for gradients.

    Returns:
        What was sampled when the layer was called last, and the result of ``run``.

    Raises:
        FloatingPointError: where it is sampled, or the weights, are not finite.
    """
    seen: list[Sampling] = []

    def look(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(_sampling(layer, *args, **kwargs))

    handle = layer.register_forward_pre_hook(look, with_kwargs=True)
    try:
        with torch.no_grad():
            result = run()
    finally:
        handle.remove()
    return seen[-1], result


def _sampling(
    layer: SamplingAttention, query: Tensor, reference_points: Tensor, features: FlattenedFeatures
) -> Sampling:
    locations, weights = (found[0].float().cpu() for found in layer.sampling(query, reference_points, features))
    if not bool(locations.isfinite().all() and weights.isfinite().all()):
        raise FloatingPointError("what the attention samples is not finite: the weights have diverged. Take others.")
    valid = features.valid_ratios[0].float().cpu()
    references = reference_points[0, :, 0].float().cpu()
    return Sampling(
        locations=locations / valid[:, None],
        weights=weights,
        references=references / valid[0].repeat(references.shape[-1] // 2),
        shapes=features.shapes,
        levels=_levels_of_queries(reference_points, features),
    )


def _levels_of_queries(reference_points: Tensor, features: FlattenedFeatures) -> range:
    """Whose tokens have these reference points, one for one: any encoder gives its queries those of their tokens."""
    of_tokens = reference_points_of_tokens(features.shapes, features.valid_ratios)
    levels = range(len(features.shapes))
    for first in levels:
        for last in levels[first:]:
            tokens = slice(features.start_of(first), features.start_of(last + 1))
            if torch.equal(of_tokens[:, tokens], reference_points):
                return range(first, last + 1)
    return range(0)


def _levels(levels: range) -> str:
    return f"level {levels[0]}" if len(levels) == 1 else f"the levels {levels[0]} to {levels[-1]}"
