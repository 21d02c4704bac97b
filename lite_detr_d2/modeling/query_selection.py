"""Two-stage query selection: the encoder's best tokens become the decoder's first boxes."""

import torch
from torch import Tensor, nn

from ..structures import FlattenedFeatures, LayerPredictions
from .attention import projection
from .geometry import inverse_sigmoid, token_centres
from .heads import DetectionHead

PROPOSAL_SIZE = 0.05  # of a proposal at the finest level, as a part of the image; it doubles with every level


class QuerySelection(nn.Module):
    """Mixed query selection: boxes come from the proposals with the largest class logit, content is learned.

    Source: DINO, arXiv 2203.03605, Sec. 3.4.
    """

    def __init__(self, num_channels: int, num_queries: int, head: DetectionHead) -> None:
        super().__init__()
        self.proj = projection(num_channels)
        self.norm = nn.LayerNorm(num_channels)
        self.head = head
        self.content = nn.Embedding(num_queries, num_channels)
        nn.init.xavier_uniform_(self.content.weight)

    def forward(self, features: FlattenedFeatures) -> tuple[Tensor, Tensor, LayerPredictions]:
        """Select queries from the encoder's tokens: as many as configured, or all S when there are fewer tokens.

        Returns:
            Content (N, Q, C), reference box logits (N, Q, 4; detached), and the predictions of the selected proposals.
        """
        anchors, usable = anchor_logits(features)
        tokens = self.norm(self.proj(features.tokens.masked_fill(~usable[..., None], 0.0)))
        num_queries = min(self.content.num_embeddings, tokens.shape[1])
        with torch.no_grad():  # S x K logits that only rank
            scores = self.head.logits(tokens).amax(dim=-1)
        selected = scores.topk(num_queries, dim=1).indices[..., None]
        tokens = tokens.gather(1, selected.expand(-1, -1, tokens.shape[-1]))
        reference = anchors.gather(1, selected.expand(-1, -1, 4)) + self.head.box_offsets(tokens)
        content = self.content.weight[:num_queries].expand(tokens.shape[0], -1, -1)
        return content, reference.detach(), LayerPredictions(self.head.logits(tokens), reference.sigmoid())


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
