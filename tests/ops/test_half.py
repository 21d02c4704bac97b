"""Half types: rounded once, as torch rounds; and autocast."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lite_detr_d2.ops import ms_deform_attn
from lite_detr_d2.ops.deform_attn import compiled_ops_status

from .cases import VARIANTS, Case, Variant, make_case

COMPILED, _ = compiled_ops_status()
each_variant = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
each_half = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
MAPS = ("query", "value", "key")


def cast_maps(case: Case, dtype: torch.dtype) -> Case:
    return replace(case, **{name: getattr(case, name).detach().to(dtype) for name in MAPS})


def attend(variant: Variant, case: Case, weights: Tensor) -> dict[str, Tensor]:
    case = case.requiring_grad()
    output = variant.call(case)
    grads = torch.autograd.grad(output, case.tensors(*variant.inputs), weights.to(output.dtype))
    return {"output": output, **dict(zip(variant.inputs, grads, strict=True))}


# 17 and 32 channels: with some that vectors leave over, and none. 3 and 200 queries: maps of half types are copied for
# any number, float32 ones for the latter; it must not matter.
@each_variant
@each_half
@pytest.mark.parametrize("channels", [17, 32])
@pytest.mark.parametrize("queries", [3, 200])
def test_half_types_are_computed_in_float32(variant: Variant, dtype: torch.dtype, channels: int, queries: int) -> None:
    case = cast_maps(make_case(dtype=torch.float32, queries=queries, channels=channels), dtype)
    weights = torch.randn(2, queries, 2 * channels).to(dtype)
    half = attend(variant, case, weights)
    full = attend(variant, cast_maps(case, torch.float32), weights)
    for name, tensor in half.items():
        expected_type = dtype if name in ("output", *MAPS) else torch.float32
        assert tensor.dtype == expected_type, name
        # Only the result is rounded.
        assert_close(tensor, full[name].to(expected_type), rtol=0, atol=0, msg=lambda text, n=name: f"{n}: {text}")


# --- Rounding, against torch's own. Sampling in the middle of equal pixels, or of two, is exact in float32.


def all_numbers(dtype: torch.dtype) -> Tensor:
    """Every number of a type of 16 bits."""
    return torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(dtype)


def next_numbers(numbers: Tensor) -> Tensor:
    """The next larger in magnitude."""
    return (numbers.view(torch.int16) + 1).view(numbers.dtype)


def sample_in_the_middle(pixels: Tensor, spatial_shape: tuple[int, int], queries: int = 1) -> Tensor:
    """(S, D) pixels -> (1, Q, D): one level, one point, whose weight is 1."""
    halfway, no_offset = torch.full((1, queries, 1, 2), 0.5), torch.zeros(1, queries, 1, 1, 1, 2)
    return ms_deform_attn(pixels[None, :, None], (spatial_shape,), halfway, no_offset, torch.zeros(1, queries, 1, 1))


def assert_same_bits(actual: Tensor, expected: Tensor) -> None:
    assert torch.equal(actual.isnan(), expected.isnan())
    numbers = ~expected.isnan()
    # A sum from +0 on is +0, where -0 is expected.
    expected = torch.where(expected == 0, torch.zeros_like(expected), expected)
    actual = torch.where(actual == 0, torch.zeros_like(actual), actual)
    assert torch.equal(actual[numbers].view(torch.int16), expected[numbers].view(torch.int16))


@each_half
def test_every_number_is_read_and_written(dtype: torch.dtype) -> None:
    numbers = all_numbers(dtype)
    # Infinities and NaN of every kind among them.
    assert_same_bits(sample_in_the_middle(numbers.expand(4, -1), (2, 2))[0, 0], numbers)


@each_half
def test_output_is_rounded_as_torch_does(dtype: torch.dtype) -> None:
    numbers = all_numbers(dtype)
    numbers = numbers[numbers.isfinite()]
    neighbours, others = next_numbers(numbers), numbers[torch.randperm(len(numbers))]
    neighbours = torch.where(neighbours.isfinite(), neighbours, numbers)
    for second in (neighbours, others):  # the means of neighbours are ties
        means = numbers.float() / 2 + second.float() / 2
        assert_same_bits(sample_in_the_middle(torch.stack([numbers, second]), (1, 2))[0, 0], means.to(dtype))


@pytest.mark.skipif(not COMPILED, reason="torch rounds each query's share of the pure-PyTorch op")
@each_half
def test_gradient_is_rounded_as_torch_does(dtype: torch.dtype) -> None:
    """The gradient of a pixel that two queries sample is the sum of theirs."""
    numbers = all_numbers(dtype)
    numbers = numbers[numbers.isfinite()]
    half_a_step = ((next_numbers(numbers).double() - numbers.double()) / 2).to(dtype)  # of the last: infinite
    largest = torch.finfo(dtype).max
    half_a_step = torch.where(numbers.abs() == largest, half_a_step.roll(1), half_a_step)
    others = numbers[torch.randperm(len(numbers))]
    for second in (half_a_step, -half_a_step, next_numbers(half_a_step), others, numbers):
        finite = torch.where(second.isfinite(), second, torch.zeros_like(second))
        pixels = torch.zeros(1, len(numbers), dtype=dtype, requires_grad=True)
        attended = sample_in_the_middle(pixels, (1, 1), queries=2)
        (grad,) = torch.autograd.grad(attended, [pixels], torch.stack([numbers, finite])[None])
        sums = (numbers.float() + finite.float()).to(dtype)
        assert_same_bits(grad[0], sums)
    assert sums.isinf().any()  # twice a number may be too large


# --- Autocast.


def autocast(dtype: torch.dtype) -> torch.autocast:
    return torch.autocast("cpu", dtype=dtype)


@each_variant
@each_half
def test_autocast_is_a_cast_of_the_maps(variant: Variant, dtype: torch.dtype) -> None:
    case = make_case(dtype=torch.float32).requiring_grad()
    inputs, weights = case.tensors(*variant.inputs), torch.randn(2, 3, 8).to(dtype)
    with autocast(dtype):
        attended = variant.call(case)
    # The cast's gradient is in the type of the parameters. Locations stay as they are, or this would differ.
    expected = variant.call(replace(case, **{name: getattr(case, name).to(dtype) for name in MAPS}))
    assert attended.dtype == expected.dtype == dtype
    assert torch.equal(attended, expected)
    actual_grads = torch.autograd.grad(attended, inputs, weights)
    expected_grads = torch.autograd.grad(expected, inputs, weights)
    for name, actual, grad in zip(variant.inputs, actual_grads, expected_grads, strict=True):
        assert actual.dtype == torch.float32, name
        assert torch.equal(actual, grad), name


@each_variant
@each_half
def test_autocast_raises_what_is_half_already_no_further(variant: Variant, dtype: torch.dtype) -> None:
    """A linear layer under autocast gives half offsets: they are used as float32 numbers."""
    case = make_case(dtype=torch.float32)
    locations = ("reference_points", "sampling_offsets", "attention_logits")
    half = replace(cast_maps(case, dtype), **{name: getattr(case, name).to(dtype) for name in locations})
    half = half.requiring_grad()
    with autocast(dtype):
        attended = variant.call(half)
    raised = replace(half, **{name: getattr(half, name).detach().float() for name in locations})
    assert torch.equal(attended, variant.call(raised))
    grads = torch.autograd.grad(attended.sum(), half.tensors(*variant.inputs))
    assert {grad.dtype for grad in grads} == {dtype}


@each_variant
@each_half
def test_autocast_leaves_float64_alone(variant: Variant, dtype: torch.dtype) -> None:
    case = make_case(dtype=torch.float64)
    expected = variant.call(case)
    with autocast(dtype):
        attended = variant.call(case)
    assert attended.dtype == torch.float64
    assert torch.equal(attended, expected)
