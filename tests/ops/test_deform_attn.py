"""Values and gradients of the ops as they are in use here: compiled, or pure PyTorch under LITE_DETR_PURE_TORCH=1."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from .cases import UNUSUAL_SIZES, VARIANTS, Case, Variant, make_case, oracle

pytestmark = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())


def gradients(variant: Variant, case: Case, pure_torch: bool = False) -> list[torch.Tensor]:
    case = case.requiring_grad()
    attended = (variant.pure_torch if pure_torch else variant.call)(case)
    weights = torch.linspace(-1, 1, attended.numel(), dtype=torch.float64).view_as(attended).to(attended.dtype)
    return [attended, *torch.autograd.grad(attended, case.tensors(*variant.inputs), weights)]


@pytest.mark.parametrize("reference_size", [2, 4])
def test_values_are_those_of_the_definition(variant: Variant, reference_size: int) -> None:
    case = make_case(reference_size=reference_size)
    expected = oracle(case, variant.key_aware, variant.separate_key)
    assert_close(variant.call(case), expected)
    assert_close(variant.pure_torch(case), expected)


@pytest.mark.parametrize("reference_size", [2, 4])
def test_gradients_are_those_of_finite_differences(variant: Variant, reference_size: int) -> None:
    case = make_case(queries=2, channels=3, reference_size=reference_size).requiring_grad()

    def call(*tensors: torch.Tensor) -> torch.Tensor:
        return variant.call(replace(case, **dict(zip(variant.inputs, tensors, strict=True))))

    assert torch.autograd.gradcheck(call, case.tensors(*variant.inputs))


# 16, 32 and 64 channels have kernels of their own in float32.
@pytest.mark.parametrize("channels", [1, 5, 16, 32, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("reference_size", [2, 4])
def test_pure_torch_agrees(variant: Variant, channels: int, dtype: torch.dtype, reference_size: int) -> None:
    case = make_case(channels=channels, points=4, queries=11, dtype=dtype, reference_size=reference_size)
    assert_close(gradients(variant, case), gradients(variant, case, pure_torch=True), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sizes", UNUSUAL_SIZES.values(), ids=UNUSUAL_SIZES.keys())
def test_unusual_sizes(variant: Variant, sizes: dict[str, Any]) -> None:
    case = make_case(**sizes)  # type: ignore[arg-type]
    assert_close(variant.call(case), oracle(case, variant.key_aware, variant.separate_key))
    assert_close(gradients(variant, case), gradients(variant, case, pure_torch=True))


@pytest.mark.parametrize("empty", [{"images": 0}, {"queries": 0}], ids=["no image", "no query"])
def test_empty_input(variant: Variant, empty: dict[str, int]) -> None:
    case = make_case(**empty)  # type: ignore[arg-type]
    attended, *grads = gradients(variant, case)
    assert attended.shape == (case.value.shape[0], case.query.shape[1], 8)
    for name, grad in zip(variant.inputs, grads, strict=True):
        assert_close(grad, torch.zeros_like(getattr(case, name)))


def test_inputs_may_be_strided(variant: Variant) -> None:
    case = make_case(points=3)
    names = (*variant.inputs, "attention_logits")
    # The same numbers, with the first and last dimensions swapped in memory.
    strided = replace(case, **{n: getattr(case, n).transpose(0, -1).contiguous().transpose(0, -1) for n in names})
    assert not strided.value.is_contiguous()
    assert_close(gradients(variant, strided), gradients(variant, case))


def test_far_outside_samples_zeros(variant: Variant) -> None:
    case = make_case()
    offsets = case.sampling_offsets.clone()
    offsets[:, 0] = 1e30
    offsets[:, 1] = -1e6
    attended, *grads = gradients(variant, replace(case, sampling_offsets=offsets))
    assert_close(attended[:, :2], torch.zeros_like(attended[:, :2]))
    assert attended[:, 2].abs().sum() > 0
    for name, grad in zip(variant.inputs, grads, strict=True):
        assert grad.isfinite().all(), name


def test_point_outside_takes_its_share_of_the_softmax(variant: Variant) -> None:
    case = make_case(points=1, spatial_shapes=((3, 3), (3, 3)), reference_size=2)
    zeros = torch.zeros_like(case.sampling_offsets)
    outside = zeros.clone()
    outside[:, :, :, 1] = 100
    # With keys and logits of zero both points weigh one half; only the first is inside.
    case = replace(
        case,
        query=torch.zeros_like(case.query),
        attention_logits=torch.zeros_like(case.attention_logits),
        reference_points=torch.full_like(case.reference_points, 0.5),
        sampling_offsets=outside,
    )
    centre = case.value[:, 4].flatten(1)[:, None].expand(-1, 3, -1)
    assert_close(variant.call(case), centre / 2)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_location_that_is_not_finite_spoils_only_its_own_head_of_its_own_query(variant: Variant, bad: float) -> None:
    case = make_case(queries=3, heads=2, channels=4)
    offsets = case.sampling_offsets.clone()
    offsets[0, 1, 1, 0, 0, 0] = bad
    clean = variant.call(case).unflatten(-1, (2, 4))
    spoilt = variant.call(replace(case, sampling_offsets=offsets)).unflatten(-1, (2, 4))
    assert spoilt[0, 1, 1].isnan().all()
    spoilt[0, 1, 1] = clean[0, 1, 1]
    assert_close(spoilt, clean, rtol=0, atol=0)


def test_point_outside_reads_no_token(variant: Variant) -> None:
    case = make_case()
    infinite = torch.full_like(case.value, float("inf"))
    outside = replace(case, value=infinite, key=infinite, sampling_offsets=torch.full_like(case.sampling_offsets, 100))
    assert_close(variant.call(outside), torch.zeros(2, 3, 8, dtype=torch.float64))


def test_gradients_only_where_asked_for(variant: Variant) -> None:
    everything = gradients(variant, make := make_case())
    for name, expected in zip(variant.inputs, everything[1:], strict=True):
        case = replace(make, **{name: getattr(make, name).clone().requires_grad_()})
        attended = variant.call(case)
        weights = torch.linspace(-1, 1, attended.numel(), dtype=attended.dtype).view_as(attended)
        (grad,) = torch.autograd.grad(attended, [getattr(case, name)], weights)
        assert_close(grad, expected)


# Under AVX-512 a vector holds 16 numbers: 3 channels leave most of it idle, as do 6 points.
@pytest.mark.parametrize("channels", [3, 32])
def test_row_that_is_not_finite_leaves_the_gradients_of_the_next(variant: Variant, channels: int) -> None:
    case = make_case(queries=3, heads=1, channels=channels, points=3, dtype=torch.float32)
    offsets = case.sampling_offsets.clone()
    offsets[:, 0] = float("nan")
    clean = dict(zip(variant.inputs, gradients(variant, case)[1:], strict=True))
    spoilt_gradients = gradients(variant, replace(case, sampling_offsets=offsets))[1:]
    spoilt = dict(zip(variant.inputs, spoilt_gradients, strict=True))
    for name in set(variant.inputs) - {"value", "key"}:
        assert_close(spoilt[name][:, 1:], clean[name][:, 1:], rtol=0, atol=0)


# Maps are copied to where their tokens are adjacent from tokens / (L * P) queries on. With as many threads as here, a
# task of the forward pass has a part of a map's queries: too few for a copy, where one thread's share is enough.
@pytest.mark.parametrize(
    ("sizes", "dtype"),
    [
        ({"images": 1, "heads": 2, "queries": 900, "spatial_shapes": ((14, 15), (7, 8))}, torch.float32),
        ({"images": 1, "heads": 2, "queries": 900, "spatial_shapes": ((80, 100), (40, 50))}, torch.float32),
        ({"images": 1, "heads": 2, "queries": 900, "spatial_shapes": ((80, 160), (40, 50))}, torch.float32),
        ({"images": 3, "heads": 3, "queries": 300, "spatial_shapes": ((14, 15), (7, 8))}, torch.float32),
        ({"images": 1, "heads": 2, "queries": 900, "spatial_shapes": ((14, 15), (7, 8))}, torch.bfloat16),
        ({"images": 3, "heads": 3, "queries": 100, "spatial_shapes": ((14, 15), (7, 8))}, torch.float64),
    ],
    ids=["copied", "copied by few threads", "in place", "three images", "bfloat16", "float64"],
)
def test_bits_do_not_depend_on_threads(variant: Variant, sizes: dict[str, object], dtype: torch.dtype) -> None:
    # A task of the forward pass has 2^17 / (16 * 32) rows or more: here there are enough for several.
    case = make_case(channels=32, points=8, dtype=torch.float32, **sizes)  # type: ignore[arg-type]
    located_in = torch.float64 if dtype == torch.float64 else torch.float32
    case = replace(case, **{n: t.to(located_in) for n, t in vars(case).items() if isinstance(t, torch.Tensor)})
    case = replace(case, **{name: getattr(case, name).to(dtype) for name in ("query", "value", "key")})
    threads, results = torch.get_num_threads(), {}
    try:
        for count in (1, 2, 3, 5):
            torch.set_num_threads(count)
            results[count] = gradients(variant, case)
    finally:
        torch.set_num_threads(threads)
    for count in (2, 3, 5):
        for actual, expected in zip(results[count], results[1], strict=True):
            assert torch.equal(actual, expected), count
