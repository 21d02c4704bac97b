"""From the backbone's feature maps to maps of one width, with further coarse levels."""

from collections.abc import Sequence

from torch import Tensor, nn

GROUPS = 32


class ChannelMapper(nn.Module):
    """Project each map to ``out_channels``, and add coarser maps by stride-2 convolutions.

    The first added map is convolved from the last input, each further one from the added map before it.

    Source: Deformable DETR, arXiv 2010.04159, Appendix A.2.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int, num_levels: int) -> None:
        """Map inputs of ``in_channels`` (fine to coarse) to ``num_levels`` maps of ``out_channels``.

        Raises:
            ValueError: when there are fewer levels than inputs, or ``out_channels`` is not a multiple of 32.
        """
        super().__init__()
        if num_levels < len(in_channels):
            raise ValueError(f"num_levels ({num_levels}) is less than the number of inputs ({len(in_channels)}).")
        if out_channels % GROUPS:
            raise ValueError(f"out_channels ({out_channels}) must be a multiple of {GROUPS}, the group norm's groups.")
        self.inputs = nn.ModuleList(_projection(width, out_channels, stride=1) for width in in_channels)
        added = [in_channels[-1]] + [out_channels] * (num_levels - len(in_channels))
        self.added = nn.ModuleList(
            _projection(width, out_channels, stride=2) for width in added[: num_levels - len(in_channels)]
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Map (N, C_i, H_i, W_i) inputs to (N, out_channels, H_i, W_i), fine to coarse, one per level."""
        levels = [layer(features) for layer, features in zip(self.inputs, maps, strict=True)]
        last = maps[-1]
        for layer in self.added:
            last = layer(last)
            levels.append(last)
        return levels


def _projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    kernel = 1 if stride == 1 else 3
    convolution = nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2)
    nn.init.xavier_uniform_(convolution.weight)
    nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    return nn.Sequential(convolution, nn.GroupNorm(GROUPS, out_channels))
