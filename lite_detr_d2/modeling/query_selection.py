"""Where the decoder's queries come from: the encoder's best tokens (two-stage), or learned ones (single-stage)."""

import torch
from torch import Tensor, nn

from ..structures import FlattenedFeatures, LayerPredictions, Proposals, Queries
from .geometry import inverse_sigmoid, token_centres
from .heads import DetectionHead
from .layers import draw_weights
from .position import box_sines

PROPOSAL_SIZE = 0.05  # of a proposal at the finest level, as a part of the image; it doubles with every level


class LearnedQueries(nn.Module):
    """Content and position are learned, and the position says which point of the image a query starts from.

    Source: Deformable DETR, arXiv 2010.04159, Sec. 4.1.
    """

    def __init__(self, num_channels: int, num_queries: int, num_extra: int = 0) -> None:
        """Learn ``num_queries`` queries, and up to ``num_extra`` more to be asked for."""
        super().__init__()
        self.num_queries = num_queries
        self.position = nn.Embedding(num_queries + num_extra, num_channels)
        self.content = nn.Embedding(num_queries + num_extra, num_channels)
        self.reference_points = nn.Linear(num_channels, 2)
        draw_weights(self.reference_points)
        nn.init.zeros_(self.reference_points.bias)

    def forward(self, features: FlattenedFeatures, num_extra: int = 0) -> tuple[Queries, None]:
        """``num_queries`` and ``num_extra`` queries, the same for each image.

        Gradients flow through their references, (N, Q, 2).

        Raises:
            ValueError: when more are asked for than are learned.
        """
        images, number = features.tokens.shape[0], self.num_queries + num_extra
        _check_learned(self.content, number)
        position, content = (
            embedding.weight[:number].expand(images, -1, -1) for embedding in (self.position, self.content)
        )
        # Autocast must not round what all layers add to: boxes in the decoder take the type of these.
        reference = self.reference_points(position).to(position.dtype)
        return Queries(content, reference, position), None


class ProposalEmbedding(nn.Module):
    """Position and content of queries, or the position alone, made of the proposals that they start from.

    Source: Deformable DETR, arXiv 2010.04159, Sec. 4.2 and Appendix A.4; without content: Sparse DETR's code.
    """

    def __init__(self, num_channels: int, makes_content: bool = True) -> None:
        super().__init__()
        out_channels = 2 * num_channels if makes_content else num_channels
        self.makes_content = makes_content
        self.proj = nn.Linear(2 * num_channels, out_channels)
        draw_weights(self.proj)
        self.norm = nn.LayerNorm(out_channels)
        self.channels_per_coordinate = num_channels // 2

    def forward(self, boxes: Tensor) -> tuple[Tensor, Tensor | None]:
        """Encode (N, Q, 4) boxes: position and content, (N, Q, C) each, or None for a content that is not made."""
        projected = self.proj(box_sines(boxes, self.channels_per_coordinate))
        # Autocast must not round what all layers add to: the decoder's residuals take the type of the content.
        encoded = self.norm(projected.to(boxes.dtype))
        if not self.makes_content:
            return encoded, None
        position, content = encoded.chunk(2, dim=-1)
        return position, content


class QuerySelection(nn.Module):
    """Two-stage query selection: a head proposes a box for each token, and the best become the first boxes.

    What the queries are besides boxes is either learned, or made of the proposals. With mixed query selection (DINO,
    arXiv 2203.03605, Sec. 3.4), content is learned and the position comes from the proposal. In Efficient DETR and
    Sparse DETR, the content is the selected token itself.

    Source: Deformable DETR, arXiv 2010.04159, Sec. 4.2; content from memory: Efficient DETR, arXiv 2104.01318.
    """

    def __init__(
        self,
        *,
        num_queries: int,
        head: DetectionHead,
        class_agnostic: bool,
        trains_all: bool,
        content: nn.Embedding | None,
        proposal_embed: ProposalEmbedding | None,
    ) -> None:
        """Make the selection.

        Args:
            num_queries: how many queries to select, unless more are asked for.
            head: proposes.
            class_agnostic: the head learns whether there is an object, which is its class 0, and ranks by that. Else it
                learns the classes, and ranks by the largest logit.
            trains_all: the head learns from all tokens; else from the selected ones.
            content: learned content of as many queries as can be selected; None for one that is not learned.
            proposal_embed: makes the queries' position, and the content that is not learned, which if it makes none is
                the selected tokens; None where the decoder makes the position.

        Raises:
            ValueError: when there is nothing to make the content of.
        """
        super().__init__()
        if content is None and proposal_embed is None:
            raise ValueError("queries need a content: give content, proposal_embed, or both.")
        num_channels = head.class_embed.in_features
        self.num_queries = num_queries
        self.proj = nn.Linear(num_channels, num_channels)
        draw_weights(self.proj)
        self.norm = nn.LayerNorm(num_channels)
        self.head = head
        self.class_agnostic = class_agnostic
        self.trains_all = trains_all
        self.content = content
        self.proposal_embed = proposal_embed

    def forward(self, features: FlattenedFeatures, num_extra: int = 0) -> tuple[Queries, Proposals | None]:
        """Select ``num_queries`` and ``num_extra`` queries, best first, or all S when there are fewer tokens.

        Returns:
            The queries, whose references (N, Q, 4) are detached; and in training the proposals to train.

        Raises:
            ValueError: when content is learned, and more queries are asked for than have one.
        """
        if self.content is not None:
            _check_learned(self.content, self.num_queries + num_extra)
        tokens, anchors = self.candidates(features)
        ranked = self.rank(tokens, self.num_queries + num_extra)
        queries, selected, reference = self.select(tokens, anchors, ranked, features.tokens)
        if not self.training:
            return queries, None
        if self.trains_all:
            selected, reference = tokens, anchors + self.head.box_offsets(tokens)
        predictions = LayerPredictions(self.head.logits(selected), reference.sigmoid())
        return queries, Proposals(predictions, self.class_agnostic)

    def candidates(self, features: FlattenedFeatures) -> tuple[Tensor, Tensor]:
        """What is selected from: (N, S, C) projected tokens, and the logits of their anchor boxes, (N, S, 4)."""
        anchors, usable = anchor_logits(features)
        return self.norm(self.proj(features.tokens.masked_fill(~usable[..., None], 0.0))), anchors

    def rank(self, tokens: Tensor, number: int) -> Tensor:
        """The indices of the best ``number`` of the projected tokens, or of all S if these are fewer: (N, Q)."""
        with torch.no_grad():  # S x K logits that only rank
            logits = self.head.logits(tokens)
            scores = logits[..., 0] if self.class_agnostic else logits.amax(dim=-1)
        # Not by min(): of that, torch.export makes a number that is known for no size, though all have enough tokens.
        number = number if tokens.shape[1] >= number else tokens.shape[1]
        return scores.topk(number, dim=1).indices

    def select(self, tokens: Tensor, anchors: Tensor, ranked: Tensor, memory: Tensor) -> tuple[Queries, Tensor, Tensor]:
        """Make queries of the tokens whose indices are ``ranked``, (N, Q).

        Args:
            tokens: as ``candidates`` gives them.
            anchors: likewise.
            ranked: as ``rank`` gives them.
            memory: (N, S, C), the encoder's tokens.

        Returns:
            The queries; the projected tokens, (N, Q, C); and the logits of their boxes, (N, Q, 4), which are not
            detached.
        """
        index = ranked[..., None]
        selected = tokens.gather(1, index.expand(-1, -1, tokens.shape[-1]))
        reference = anchors.gather(1, index.expand(-1, -1, 4)) + self.head.box_offsets(selected)
        return self._queries(reference.detach(), memory, index), selected, reference

    def _queries(self, reference: Tensor, memory: Tensor, index: Tensor) -> Queries:
        position = content = None
        if self.proposal_embed is not None:
            position, content = self.proposal_embed(reference.sigmoid())
        if self.content is not None:
            content = self.content.weight[: reference.shape[1]].expand(reference.shape[0], -1, -1)
        if content is None:
            selected = memory.gather(1, index.expand(-1, -1, memory.shape[-1])).to(reference.dtype)
            # Where there are too few usable tokens, others are selected: what stands in padding must not matter.
            content = selected.masked_fill(reference[..., :1].isinf(), 0.0)
        return Queries(content, reference, position)


def _check_learned(content: nn.Embedding, wanted: int) -> None:
    if wanted > content.num_embeddings:
        raise ValueError(
            f"{wanted} queries are asked for, and the content of {content.num_embeddings} is learned: make it as many "
            "as num_queries and those of the one-to-many branch together."
        )


def anchor_logits(features: FlattenedFeatures) -> tuple[Tensor, Tensor]:
    """One anchor box per token: its centre, and a size that doubles with every level.

    Returns:
        Logits (N, S, 4), +inf where the anchor is unusable, and (N, S) bool, whether it is usable: not padding, and
        with every coordinate between 0.01 and 0.99.
    """
    centres = token_centres(features.shapes, features.valid_ratios)
    sizes = [
        centres.new_full((height * width,), PROPOSAL_SIZE * 2.0**level)
        for level, (height, width) in enumerate(features.shapes)
    ]
    size = torch.cat(sizes)[None, :, None].expand(centres.shape[0], -1, 2)
    boxes = torch.cat((centres, size), dim=-1)
    usable = ((boxes > 0.01) & (boxes < 0.99)).all(dim=-1) & ~features.padding
    return inverse_sigmoid(boxes, eps=0.0).masked_fill(~usable[..., None], float("inf")), usable
