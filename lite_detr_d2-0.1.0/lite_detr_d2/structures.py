"""The values that flow through a detector.

Letters in shapes: N images, S encoder tokens (of all levels, fine to coarse), L levels, Q queries, C channels,
K classes.
Boxes are (cx, cy, w, h), 0..1 of the image without its padding, unless a name says otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

SpatialShapes = tuple[tuple[int, int], ...]


class PixelStats(NamedTuple):
    """Of the images that a detector takes.

    Attributes:
        mean: of each channel, in the units of the images.
        std: likewise, the standard deviation.
        channels: their order, such as "RGB": detectron2's ``INPUT.FORMAT``.
    """

    mean: Sequence[float]
    std: Sequence[float]
    channels: str = "RGB"


@dataclass(frozen=True)
class FlattenedFeatures:
    """The feature levels of a batch as one sequence of tokens.

    Attributes:
        tokens: (N, S, C).
        position: (N, S, C), the tokens' position and level encoding.
        padding: (N, S) bool, True where a token lies in the padding of its image.
        shapes: (height, width) of each level, fine to coarse, Python integers.
        valid_ratios: (N, L, 2), the part of each level's width and height that is not padding, 0..1.
        is_padded: False where it is known beforehand that no token is padding, so that none need be masked.
    """

    tokens: Tensor
    position: Tensor
    padding: Tensor
    shapes: SpatialShapes
    valid_ratios: Tensor
    is_padded: bool = True

    def start_of(self, level: int) -> int:
        """The index of the first token of ``level``; S for the level after the last."""
        return sum(height * width for height, width in self.shapes[:level])

    def with_tokens(self, tokens: Tensor) -> "FlattenedFeatures":
        """The same features with other ``tokens``, (N, S, C)."""
        return replace(self, tokens=tokens)


@dataclass(frozen=True)
class Targets:
    """The ground truth of one image.

    Attributes:
        labels: (T,) int64, 0..K - 1.
        boxes: (T, 4) float32.
        name: what an error message calls the image: its file name or id.
    """

    labels: Tensor
    boxes: Tensor
    name: str

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    def class_agnostic(self) -> "Targets":
        """The same targets, all of class 0."""
        return replace(self, labels=torch.zeros_like(self.labels))

    def repeated(self, times: int) -> "Targets":
        """The same targets ``times`` over: all of them, then all again."""
        return replace(self, labels=self.labels.repeat(times), boxes=self.boxes.repeat(times, 1))


Match = tuple[Tensor, Tensor]
"""Which queries of an image are trained on which of its targets: two int64 tensors of equal length."""


class Assigner(Protocol):
    """The rule by which a group's predictions are matched to targets."""

    def __call__(self, logits: Tensor, boxes: Tensor, targets: Sequence[Targets]) -> list[Match]:
        """Match (N, Q, K) ``logits`` and (N, Q, 4) ``boxes`` to each image's targets."""


@dataclass(frozen=True)
class Queries:
    """What the decoder starts from.

    Attributes:
        content: (N, Q, C).
        reference: (N, Q, 4), logits of the queries' first boxes; or (N, Q, 2), of points (x, y).
        position: (N, Q, C), what is added to the content for attention; None where the decoder derives it from boxes.
    """

    content: Tensor
    reference: Tensor
    position: Tensor | None = None

    def __len__(self) -> int:
        return int(self.content.shape[1])

    def __getitem__(self, queries: slice) -> "Queries":
        """Some of the queries."""
        position = None if self.position is None else self.position[:, queries]
        return Queries(self.content[:, queries], self.reference[:, queries], position)

    @classmethod
    def concatenated(cls, parts: "Sequence[Queries]") -> "Queries":
        """All ``parts``, side by side.

        Raises:
            ValueError: when some of them have a position, and others do not.
        """
        positions = [part.position for part in parts if part.position is not None]
        if len(positions) not in (0, len(parts)):
            raise ValueError("either all of the queries that are decoded together have a position, or none of them.")
        return cls(
            content=torch.cat([part.content for part in parts], dim=1),
            reference=torch.cat([part.reference for part in parts], dim=1),
            position=torch.cat(positions, dim=1) if positions else None,
        )


@dataclass(frozen=True)
class QueryGroup:
    """Queries that are decoded together, and how they are trained.

    Attributes:
        name: what other groups call it in ``sees``.
        queries: what the decoder starts from.
        sees: other groups whose queries these attend to; in a detector, visibility need not be mutual.
        blocks: (Q,) int64, of each query a number: in their own group, queries attend to those of the same number;
            None: to all of it.
        assign: matches predictions to targets in training.
        target_repeats: how many times each target is there to be matched.
        min_boxes: the losses are divided by the number of targets to be matched, and at least by this.
        loss_weight: the group's losses are multiplied by it.
        loss_suffix: what the names of the group's losses end with; ``{layer}`` stands for the decoder layer's number
            after an underscore, or for nothing in the last layer.
    """

    name: str
    queries: Queries
    assign: Assigner
    sees: tuple[str, ...] = ()
    blocks: Tensor | None = None
    target_repeats: int = 1
    min_boxes: float = 1.0
    loss_weight: float = 1.0
    loss_suffix: str = "{layer}"

    def __len__(self) -> int:
        return len(self.queries)


@dataclass(frozen=True)
class LayerPredictions:
    """What one layer predicts: ``logits`` (N, Q, K) and ``boxes`` (N, Q, 4)."""

    logits: Tensor
    boxes: Tensor

    def of_queries(self, queries: slice) -> "LayerPredictions":
        """The predictions of some of the queries."""
        return LayerPredictions(self.logits[:, queries], self.boxes[:, queries])


@dataclass(frozen=True)
class TokenScores:
    """How much a scorer expects of each token, by which an encoder chooses those that it refines.

    Attributes:
        logits: (N, S); padded tokens have the lowest score of the batch.
        chosen: (N,) int64, how many tokens of each image are refined: those of the highest scores.
    """

    logits: Tensor
    chosen: Tensor


@dataclass(frozen=True)
class EncoderResult:
    """What an encoder makes of ``FlattenedFeatures``.

    Attributes:
        tokens: (N, S, C), in the order of the features' tokens.
        token_scores: by which tokens were chosen, to be trained; None for an encoder that refines all.
        auxiliary: in training, what inner layers predict of the tokens that they refined, first layer to last, which
            are trained with the labels as they are.
    """

    tokens: Tensor
    token_scores: TokenScores | None = None
    auxiliary: tuple[LayerPredictions, ...] = ()


@dataclass(frozen=True)
class Proposals:
    """What the encoder's head proposes of some tokens or all, to be trained.

    Attributes:
        predictions: of the tokens.
        class_agnostic: whether they are to find objects of any class, all of them as class 0.
    """

    predictions: LayerPredictions
    class_agnostic: bool


@dataclass(frozen=True)
class Predictions:
    """Predictions of every decoder layer, first to last, of the encoder's proposals, and of the encoder.

    Attributes:
        layers: per decoder layer, over the queries of all groups, in the groups' order.
        proposals: of the encoder's tokens; None for a detector without any.
        encoded: the encoder's result, which may have losses of its own.
        attention: (N, S), how much the decoder looks at each token, see ``modeling.attention_map``; None where no
            scores of tokens learn from it.
    """

    layers: tuple[LayerPredictions, ...]
    proposals: Proposals | None = None
    encoded: EncoderResult | None = None
    attention: Tensor | None = None


def query_slices(groups: Sequence[QueryGroup]) -> list[slice]:
    """Where each group's queries lie when the groups are decoded side by side."""
    slices, start = [], 0
    for group in groups:
        slices.append(slice(start, start + len(group)))
        start += len(group)
    return slices


def attention_mask(groups: Sequence[QueryGroup]) -> Tensor | None:
    """Who may not attend to whom: (Q, Q) bool, True where row query must not see column query; None if all see all.

    This is the one place that reads what the groups declare (``sees`` and ``blocks``).
    """
    if len(groups) == 1 and groups[0].blocks is None:
        return None
    slices = query_slices(groups)
    device = groups[0].queries.content.device
    blocked = torch.ones(slices[-1].stop, slices[-1].stop, dtype=torch.bool, device=device)
    for group, rows in zip(groups, slices, strict=True):
        for other, columns in zip(groups, slices, strict=True):
            if other.name in group.sees:
                blocked[rows, columns] = False
        blocked[rows, rows] = False if group.blocks is None else group.blocks[:, None] != group.blocks[None, :]
    return blocked
