"""From feature maps to the encoder's sequence of tokens."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..structures import FlattenedFeatures
from .position import SinePositionEncoding


class FeatureFlattener(nn.Module):
    """Flatten the levels into one sequence, with each token's position and level, and which tokens are padding."""

    def __init__(self, num_levels: int, position: SinePositionEncoding) -> None:
        super().__init__()
        self.position = position
        self.level_embed = nn.Parameter(torch.randn(num_levels, position.num_channels))

    def forward(self, maps: Sequence[Tensor], padding: Tensor) -> FlattenedFeatures:
        """Flatten ``maps``.

        Args:
            maps: (N, C, H_l, W_l) of each level, fine to coarse.
            padding: (N, H, W) bool at the images' resolution, True where a pixel is padding.
        """
        masks = [_resize_mask(padding, level) for level in maps]
        positions = [
            self.position(mask).flatten(2) + embedding[:, None]
            for mask, embedding in zip(masks, self.level_embed, strict=True)
        ]
        return FlattenedFeatures(
            tokens=torch.cat([level.flatten(2) for level in maps], dim=2).transpose(1, 2),
            position=torch.cat(positions, dim=2).transpose(1, 2),
            padding=torch.cat([mask.flatten(1) for mask in masks], dim=1),
            shapes=tuple((int(level.shape[2]), int(level.shape[3])) for level in maps),
            valid_ratios=torch.stack([_valid_ratio(mask) for mask in masks], dim=1),
        )


def _resize_mask(padding: Tensor, level: Tensor) -> Tensor:
    return F.interpolate(padding[:, None].float(), size=level.shape[2:]).bool()[:, 0]


def _valid_ratio(mask: Tensor) -> Tensor:
    """(N, 2): the valid part of the width and of the height, read off the first row and the first column."""
    return torch.stack(((~mask[:, 0, :]).float().mean(1), (~mask[:, :, 0]).float().mean(1)), dim=-1)
