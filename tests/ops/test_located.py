"""Attention at finished locations by finished weights: its definition, its gradients, and its bad input."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lite_detr_d2.ops import ms_deform_attn, ms_deform_attn_at, sampling_locations_and_weights

from .cases import UNUSUAL_SIZES, make_case, weighted_sum

SHAPES = ((4, 5), (2, 3))


def arguments(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Values; locations inside and outside; weights of any sum, of which some are 0, and of one query all are."""
    value = torch.randn(2, 26, 2, 4, dtype=dtype)
    locations = torch.rand(2, 3, 2, 2, 3, 2, dtype=dtype) * 1.6 - 0.3
    weights = torch.rand(2, 3, 2, 2, 3, dtype=dtype) * 3
    weights[..., ::2] = 0
    weights[0, 1] = 0
    return value, locations, weights


@pytest.mark.parametrize("sizes", [{}, *UNUSUAL_SIZES.values()], ids=["usual", *UNUSUAL_SIZES.keys()])
@pytest.mark.parametrize("reference_size", [2, 4])
def test_it_is_the_op_behind_its_arithmetic(sizes: dict[str, Any], reference_size: int) -> None:
    case = make_case(**sizes, reference_size=reference_size)
    where = case.spatial_shapes, case.reference_points, case.sampling_offsets, case.attention_logits
    found = ms_deform_attn_at(case.value, case.spatial_shapes, *sampling_locations_and_weights(*where))
    assert_close(found, ms_deform_attn(case.value, *where))


def test_weights_of_any_sum() -> None:
    value, locations, weights = arguments()
    expected = weighted_sum(value, SHAPES, locations, weights)
    assert_close(ms_deform_attn_at(value, SHAPES, locations, weights), expected)
    assert bool((expected[0, 1] == 0).all())
    single = [tensor.float() for tensor in (value, locations, weights)]
    assert_close(ms_deform_attn_at(single[0], SHAPES, *single[1:]), expected.float())


def test_half_types_are_rounded_at_the_end() -> None:
    """The sum of the weights need not be a number of the half type."""
    value, locations, weights = torch.full((1, 26, 2, 4), 1e-3), torch.full((1, 3, 2, 2, 3, 2), 0.5), torch.tensor(2e4)
    found = ms_deform_attn_at(value.half(), SHAPES, locations.half(), weights.expand(1, 3, 2, 2, 3).half())
    assert_close(found, torch.full((1, 3, 8), 120.0).half(), rtol=2e-3, atol=0)


def test_gradients() -> None:
    """Of weights, too, that are 0 or do not sum to 1; by differences, of weights that may not be negative, forwards."""
    value, locations, weights = arguments()
    positive = [value.requires_grad_(), locations.requires_grad_(), (weights + 0.1).requires_grad_()]
    assert torch.autograd.gradcheck(lambda v, at, w: ms_deform_attn_at(v, SHAPES, at, w), positive)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gradients_where_weights_are_zero(dtype: torch.dtype) -> None:
    """The result is linear in the weights: each gradient is the sampled value along the output's gradient."""
    value, locations, weights = arguments(dtype)
    inputs = [tensor.requires_grad_() for tensor in (value, locations, weights)]
    towards = torch.randn(2, 3, 8, dtype=dtype)
    found = torch.autograd.grad(ms_deform_attn_at(value, SHAPES, locations, weights), inputs, towards)
    expected = torch.empty_like(weights)
    for index in range(weights[0, 0, 0].numel()):
        one = torch.zeros_like(weights).flatten(3)
        one[..., index] = 1
        samples = weighted_sum(value.detach(), SHAPES, locations.detach(), one.view_as(weights))
        expected.view(2, 3, 2, -1)[..., index] = (samples * towards).view(2, 3, 2, 4).sum(-1)
    assert_close(found[2], expected)
    assert bool((found[1][weights == 0].abs() < 1e-20).all())


def test_a_negative_weight_is_nan_in_its_head_alone() -> None:
    value, locations, weights = arguments()
    weights[1, 2, 1, 0, 1] = -0.5
    attended = ms_deform_attn_at(value, SHAPES, locations, weights).view(2, 3, 2, 4)
    assert bool(attended[1, 2, 1].isnan().all())
    assert int(attended.isnan().sum()) == 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types(dtype: torch.dtype) -> None:
    """Locations and weights are not rounded with the value."""
    value, locations, weights = (tensor.float() for tensor in arguments())
    found = ms_deform_attn_at(value.to(dtype), SHAPES, locations, weights)
    assert found.dtype == dtype
    expected = ms_deform_attn_at(value.to(dtype).float(), SHAPES, locations, weights)
    assert_close(found.float(), expected, rtol=3 * torch.finfo(dtype).eps, atol=1e-3)


def test_it_compiles_and_exports() -> None:
    value, locations, weights = (tensor.float() for tensor in arguments())

    class Attention(torch.nn.Module):
        def forward(self, value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
            return ms_deform_attn_at(value, SHAPES, locations, weights)

    expected = Attention()(value, locations, weights)
    compiled = torch.compile(Attention(), backend="aot_eager", fullgraph=True)
    assert_close(compiled(value, locations, weights), expected)
    queries = torch.export.Dim("queries", min=2)
    dynamic = ({}, {1: queries}, {1: queries})
    exported = torch.export.export(Attention(), (value, locations, weights), dynamic_shapes=dynamic).module()
    assert_close(exported(value, locations[:, :2], weights[:, :2]), expected[:, :2])


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("value", lambda x: x[0], r"value: expected 4 dimensions"),
        ("value", lambda x: x[:, 1:], r"spatial_shapes: expected areas that sum to the 25 tokens of value, got 26"),
        ("locations", lambda x: x[..., 0], r"sampling_locations: expected 6 dimensions"),
        ("locations", lambda x: x[:, :, :1], r"sampling_locations: expected shape \(2, 3, 2, 2, 3, 2\)"),
        ("locations", lambda x: x.long(), r"sampling_locations: expected a floating dtype"),
        (
            "weights",
            lambda x: x.flatten(-2),
            r"attention_weights: expected shape \(2, 3, 2, 2, 3\), got",
        ),
        ("weights", lambda x: x.to("meta"), r"attention_weights: expected the device of value, cpu, got meta"),
    ],
)
def test_bad_input_is_named(name: str, change: Any, message: str) -> None:
    given = dict(zip(("value", "locations", "weights"), arguments(), strict=True))
    given[name] = change(given[name])
    with pytest.raises(ValueError, match=message):
        ms_deform_attn_at(given["value"], SHAPES, given["locations"], given["weights"])
