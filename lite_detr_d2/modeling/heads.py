"""The layers that turn decoded queries, or encoder proposals, into class logits and boxes."""

import math

import torch
from torch import Tensor, nn

from .layers import MLP


class DetectionHead(nn.Module):
    """A linear classifier, and an MLP for box offsets in logit space."""

    def __init__(self, num_channels: int, num_classes: int, *, size_offset: float = 0.0, prior: float = 0.01) -> None:
        """Make the head.

        It starts with class probabilities of ``prior`` (RetinaNet, arXiv 1708.02002, Sec. 4.1) and offsets of zero, but
        for ``size_offset`` in width and height: from a point, these are all that there is.
        """
        super().__init__()
        self.class_embed = nn.Linear(num_channels, num_classes)
        self.box_embed = MLP(num_channels, num_channels, 4, num_layers=3)
        nn.init.constant_(self.class_embed.bias, -math.log((1 - prior) / prior))
        nn.init.zeros_(self.box_embed.layers[-1].weight)  # type: ignore[arg-type]
        with torch.no_grad():
            self.box_embed.layers[-1].bias.copy_(  # type: ignore[operator]
                torch.tensor([0.0, 0.0, size_offset, size_offset])
            )

    def start_as(self, other: "DetectionHead") -> None:
        """Take all values of another head of these sizes, but for its offsets."""
        self.class_embed.load_state_dict(other.class_embed.state_dict())
        hidden, others = self.box_embed.layers[:-1], other.box_embed.layers[:-1]
        hidden.load_state_dict(others.state_dict())

    def logits(self, hidden: Tensor) -> Tensor:
        """Class logits, (..., K), of (..., C) states."""
        result: Tensor = self.class_embed(hidden)
        return result

    def box_offsets(self, hidden: Tensor) -> Tensor:
        """What to add to the logits of the reference boxes, (..., 4), of (..., C) states."""
        result: Tensor = self.box_embed(hidden)
        return result
