"""Positions, neck and flattening."""

import math

import pytest
import torch
from torch.nn import functional

from lite_detr_d2.modeling.flatten import FeatureFlattener
from lite_detr_d2.modeling.neck import ChannelMapper
from lite_detr_d2.modeling.position import SinePositionEncoding, box_sines, interleaved_sines


def test_sines_and_cosines_alternate() -> None:
    encoded = interleaved_sines(torch.tensor([0.3]), num_channels=4, temperature=100.0)
    torch.testing.assert_close(encoded[0], torch.tensor([math.sin(0.3), math.cos(0.3), math.sin(0.03), math.cos(0.03)]))


def test_box_sines_keep_the_order_of_the_coordinates() -> None:
    box = torch.tensor([0.1, 0.2, 0.3, 0.4])
    angles = 2 * math.pi * torch.stack((box, box / 100), dim=-1)  # temperature 10000
    expected = torch.stack((angles.sin(), angles.cos()), dim=-1)
    torch.testing.assert_close(box_sines(box, channels_per_coordinate=4).view(4, 2, 2), expected)


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_positions_count_valid_pixels_only(offset: float) -> None:
    encoding = SinePositionEncoding(num_channels=8, temperature=20.0, offset=offset)
    padding = torch.zeros(2, 4, 6, dtype=torch.bool)
    padding[1, 3:], padding[1, :, 4:] = True, True
    alone = encoding(torch.zeros(1, 3, 4, dtype=torch.bool))
    torch.testing.assert_close(encoding(padding)[1:, :, :3, :4], alone)
    # y comes first: it is constant along a row.
    assert bool((alone[0, :4] == alone[0, :4, :, :1]).all())
    assert bool((alone[0, 4:] == alone[0, 4:, :1]).all())


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_positions_are_pixels_edges_or_centres(offset: float) -> None:
    """The first pair of channels is sine and cosine of the position, in full turns."""
    position = SinePositionEncoding(8, temperature=20.0, offset=offset)(torch.zeros(1, 3, 4, dtype=torch.bool))[0]
    y = 2 * math.pi * (torch.arange(1, 4) - offset) / 3
    x = 2 * math.pi * (torch.arange(1, 5) - offset) / 4
    torch.testing.assert_close(position[:2, :, 0], torch.stack((y.sin(), y.cos())), atol=1e-5, rtol=0)
    torch.testing.assert_close(position[4:6, 0], torch.stack((x.sin(), x.cos())), atol=1e-5, rtol=0)


def test_neck_adds_coarser_levels() -> None:
    neck = ChannelMapper([16, 24], out_channels=32, num_levels=4)
    maps = neck([torch.randn(2, 16, 20, 13), torch.randn(2, 24, 10, 7)])
    assert [tuple(level.shape[1:]) for level in maps] == [(32, 20, 13), (32, 10, 7), (32, 5, 4), (32, 3, 2)]


def test_neck_without_further_levels() -> None:
    assert len(ChannelMapper([16, 24], out_channels=32, num_levels=2).added) == 0


def test_neck_reports_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="num_levels"):
        ChannelMapper([16, 24], out_channels=32, num_levels=1)
    with pytest.raises(ValueError, match="multiple of 32"):
        ChannelMapper([16], out_channels=40, num_levels=1)


def test_flattening_keeps_tokens_positions_and_masks_together() -> None:
    flatten = FeatureFlattener(num_levels=2, position=SinePositionEncoding(8, temperature=20.0, offset=0.5))
    maps = [torch.randn(2, 8, 4, 6), torch.randn(2, 8, 2, 3)]
    padding = torch.zeros(2, 32, 48, dtype=torch.bool)
    padding[1, 24:], padding[1, :, 32:] = True, True
    features = flatten(maps, padding)
    assert features.shapes == ((4, 6), (2, 3))
    assert all(type(size) is int for shape in features.shapes for size in shape)
    torch.testing.assert_close(features.tokens[0, 7], maps[0][0, :, 1, 1])
    torch.testing.assert_close(features.tokens[1, 24 + 4], maps[1][1, :, 1, 1])
    fine = features.padding[1, :24].view(4, 6)
    assert fine[:3, :4].any().item() is False
    assert bool(fine[3:].all()) and bool(fine[:, 4:].all())
    torch.testing.assert_close(features.valid_ratios[1, 0], torch.tensor([4 / 6, 3 / 4]))
    torch.testing.assert_close(features.valid_ratios[0], torch.ones(2, 2))
    position = flatten.position(fine[None])[0, :, 2, 3] + flatten.level_embed[0]
    torch.testing.assert_close(features.position[1, 2 * 6 + 3], position)


def test_padding_of_a_level_is_that_of_its_nearest_pixels() -> None:
    """At every width and level, as PyTorch's interpolation finds them; with fractions, exact ones are hard to meet."""
    flatten = FeatureFlattener(num_levels=1, position=SinePositionEncoding(4, temperature=20.0, offset=0.5))
    for width in range(1, 1400, 3):
        padding = torch.rand(1, 2, width) > 0.5
        level = -(-width // 2)
        while level > 1:
            level = -(-level // 2)
            resized = flatten([torch.zeros(1, 4, 1, level)], padding).padding
            nearest = [index * width // level for index in range(level)]
            assert torch.equal(resized, padding[:, 0, nearest]), (width, level)
            assert torch.equal(resized, functional.interpolate(padding.float(), size=level)[:, 0].bool())
