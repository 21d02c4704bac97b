"""Sine encodings of token positions and of the queries' boxes."""

import math

import torch
from torch import Tensor, nn


def interleaved_sines(values: Tensor, num_channels: int, temperature: float) -> Tensor:
    """Encode each value as sines and cosines of falling frequency, interleaved.

    Args:
        values: any shape, in radians of the lowest frequency.
        num_channels: even.
        temperature: the ratio of the highest to the lowest frequency, nearly.

    Returns:
        ``values.shape + (num_channels,)``.
    """
    pair = torch.arange(num_channels // 2, dtype=torch.float32, device=values.device)
    angles = values[..., None] / temperature ** (2 * pair / num_channels)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)


def box_sines(boxes: Tensor, channels_per_coordinate: int) -> Tensor:
    """Encode boxes for the queries: each coordinate in its turn, at temperature 10000.

    Args:
        boxes: (..., 4), 0..1.
        channels_per_coordinate: even.

    Returns:
        (..., 4 * channels_per_coordinate).

    Source: Deformable DETR, arXiv 2010.04159, Appendix A.4, and DAB-DETR, arXiv 2201.12329.
    """
    return interleaved_sines(boxes * (2 * math.pi), channels_per_coordinate, 10000.0).flatten(-2)


class SinePositionEncoding(nn.Module):
    """The position of each pixel of a map among its valid pixels, as sines: half the channels for y, half for x.

    Source: DETR, arXiv 2005.12872.
    """

    def __init__(self, num_channels: int, temperature: float, offset: float) -> None:
        """Make the encoding.

        Args:
            num_channels: C, a multiple of 4.
            temperature: see ``interleaved_sines``.
            offset: what is taken off a pixel's number, which counts from 1: 0.5 for its centre (Deformable DETR), 0 for
                its far edge (DINO).
        """
        super().__init__()
        self.num_channels = num_channels
        self.temperature = temperature
        self.offset = offset

    def forward(self, padding: Tensor, is_padded: bool = True) -> Tensor:
        """Encode a map of which ``padding``, (N, H, W) bool, is True at pixels that are not part of the image.

        ``is_padded`` says whether there may be any.

        Returns:
            (N, C, H, W) float32.
        """
        valid = (~padding).float()
        # Without padding, all columns have the same y, and all rows the same x: one of each is enough.
        column, row = (valid, valid) if is_padded else (valid[:, :, :1], valid[:, :1])
        y, x = column.cumsum(1), row.cumsum(2)
        y = (y - self.offset) / (y[:, -1:, :] + 1e-6) * (2 * math.pi)
        x = (x - self.offset) / (x[:, :, -1:] + 1e-6) * (2 * math.pi)
        half = self.num_channels // 2
        sines = [interleaved_sines(value, half, self.temperature).expand(*valid.shape, half) for value in (y, x)]
        return torch.cat(sines, dim=-1).permute(0, 3, 1, 2)
