"""The layers that turn decoded queries, or encoder proposals, into class logits and boxes."""

import math

from torch import Tensor, nn

from .layers import MLP


class DetectionHead(nn.Module):
    """A linear classifier, and an MLP for box offsets in logit space."""

    def __init__(self, num_channels: int, num_classes: int, prior: float = 0.01) -> None:
        """Start with class probabilities of ``prior`` (RetinaNet, arXiv 1708.02002, Sec. 4.1) and offsets of zero."""
        super().__init__()
        self.class_embed = nn.Linear(num_channels, num_classes)
        self.box_embed = MLP(num_channels, num_channels, 4, num_layers=3)
        nn.init.constant_(self.class_embed.bias, -math.log((1 - prior) / prior))
        nn.init.zeros_(self.box_embed.layers[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.box_embed.layers[-1].bias)  # type: ignore[arg-type]

    def logits(self, hidden: Tensor) -> Tensor:
        """Class logits, (..., K), of (..., C) states."""
        result: Tensor = self.class_embed(hidden)
        return result

    def box_offsets(self, hidden: Tensor) -> Tensor:
        """What to add to the logits of the reference boxes, (..., 4), of (..., C) states."""
        result: Tensor = self.box_embed(hidden)
        return result
