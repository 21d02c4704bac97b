"""From feature maps to the encoder's sequence of tokens."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..structures import FlattenedFeatures
from .position import SinePositionEncoding


class FeatureFlattener(nn.Module):
    """Flatten the levels into one sequence, with each token's position and level, and which tokens are padding."""

    def __init__(self, num_levels: int, position: SinePositionEncoding) -> None:
        super().__init__()
        self.position = position
        self.level_embed = nn.Parameter(torch.randn(num_levels, position.num_channels))

    def forward(self, maps: Sequence[Tensor], padding: Tensor, is_padded: bool = True) -> FlattenedFeatures:
        """Flatten ``maps``.

        Args:
            maps: (N, C, H_l, W_l) of each level, fine to coarse.
            padding: (N, H, W) bool at the images' resolution, True where a pixel is padding.
            is_padded: whether any may be.
        """
        masks = [_resize_mask(padding, level) for level in maps]
        positions = [
            _sequence(self.position(mask, is_padded)) + embedding
            for mask, embedding in zip(masks, self.level_embed, strict=True)
        ]
        # Each level is turned before all are joined: what is turned afterwards, every layer would copy.
        return FlattenedFeatures(
            tokens=torch.cat([_sequence(level) for level in maps], dim=1),
            position=torch.cat(positions, dim=1),
            padding=torch.cat([mask.flatten(1) for mask in masks], dim=1),
            shapes=tuple(_size_of(level) for level in maps),
            valid_ratios=torch.stack([_valid_ratio(mask) for mask in masks], dim=1),
            is_padded=is_padded,
        )


def _sequence(level: Tensor) -> Tensor:
    """(N, H * W, C) of a map (N, C, H, W)."""
    return level.flatten(2).transpose(1, 2)


def _size_of(level: Tensor) -> tuple[int, int]:
    height, width = level.shape[2:]
    # torch.jit.trace makes tensors of sizes; of the symbols that torch.export makes, int() would make constants.
    return (int(height), int(width)) if torch.jit.is_tracing() else (height, width)  # type: ignore[attr-defined]


def _resize_mask(padding: Tensor, level: Tensor) -> Tensor:
    # The nearest pixel by whole numbers, as F.interpolate finds it by fractions: these, other runtimes round otherwise.
    for dim in (1, 2):
        size = level.shape[dim + 1]
        nearest = torch.arange(size, device=padding.device) * padding.shape[dim] // size
        padding = padding.index_select(dim, nearest)
    return padding


def _valid_ratio(mask: Tensor) -> Tensor:
    """(N, 2): the valid part of the width and of the height, read off the first row and the first column."""
    return torch.stack(((~mask[:, 0, :]).float().mean(1), (~mask[:, :, 0]).float().mean(1)), dim=-1)
