"""Bilinear sampling by gathers against PyTorch's own, and both ops with it."""

import pytest
import torch
from torch.testing import assert_close

from lite_detr_d2.ops import reference
from lite_detr_d2.ops.reference import sample_by_gathers, sample_grid

from .cases import UNUSUAL_SIZES, make_case

OPS = {
    "ms_deform_attn": lambda c, **sample: reference.ms_deform_attn(
        c.value, c.spatial_shapes, c.reference_points, c.sampling_offsets, c.attention_logits, **sample
    ),
    "key_aware_shared": lambda c, **sample: reference.key_aware_deform_attn(
        c.query, c.value, c.spatial_shapes, c.reference_points, c.sampling_offsets, **sample
    ),
    "key_aware_separate": lambda c, **sample: reference.key_aware_deform_attn(
        c.query, c.value, c.spatial_shapes, c.reference_points, c.sampling_offsets, c.key, **sample
    ),
}


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 1), (4, 7)])
@pytest.mark.parametrize("spread", [0.5, 1.0, 3.0, 1e6, 1e30])
def test_gathers_sample_what_grid_sample_does(size: tuple[int, int], spread: float) -> None:
    planes = torch.randn(3, 5, *size, dtype=torch.float64)
    locations = torch.randn(3, 50, 4, 2, dtype=torch.float64) * spread
    assert_close(sample_by_gathers(planes, locations), sample_grid(planes, locations))


@pytest.mark.parametrize("size", [(1, 1), (3, 4)])
def test_pixel_centres_and_edges(size: tuple[int, int]) -> None:
    """Half pixels and whole ones from beyond one edge to beyond the other: where rounding could take another pixel."""
    height, width = size
    planes = torch.randn(1, 2, height, width, dtype=torch.float64)
    y, x = (torch.arange(-3, 2 * side + 4, dtype=torch.float64) / side - 1 for side in size)
    locations = torch.stack(torch.broadcast_tensors(x[None, :], y[:, None]), dim=-1)[None]
    sampled = sample_by_gathers(planes, locations)
    assert_close(sampled, sample_grid(planes, locations))
    assert_close(sampled[0, :, 4 : 4 + 2 * height : 2, 4 : 4 + 2 * width : 2], planes[0])


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("reference_size", [2, 4])
@pytest.mark.parametrize("sizes", ["usual", *UNUSUAL_SIZES])
def test_ops_with_gathers(op: str, reference_size: int, sizes: str) -> None:
    case = make_case(reference_size=reference_size, **UNUSUAL_SIZES.get(sizes, {}))
    assert_close(OPS[op](case, sample=sample_by_gathers), OPS[op](case))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("axis", [0, 1])
def test_location_that_is_not_finite_spoils_only_its_own_head_of_its_own_query(op: str, bad: float, axis: int) -> None:
    case = make_case(images=1, queries=3, heads=2)
    expected = OPS[op](case).unflatten(-1, (2, -1))
    case.sampling_offsets[0, 1, 1, 0, 0, axis] = bad
    spoilt = OPS[op](case, sample=sample_by_gathers).unflatten(-1, (2, -1))
    assert spoilt[0, 1, 1].isnan().all()
    spoilt[0, 1, 1] = expected[0, 1, 1]
    assert_close(spoilt, expected)
