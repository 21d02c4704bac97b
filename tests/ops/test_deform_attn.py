"""Values and gradients of the ops as they are in use here: compiled, or pure PyTorch under LITE_DETR_PURE_TORCH=1."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from .cases import VARIANTS, Case, Variant, make_case, oracle

pytestmark = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())


def gradients(variant: Variant, case: Case, pure_torch: bool = False) -> list[torch.Tensor]:
    case = case.requiring_grad()
    attended = (variant.pure_torch if pure_torch else variant.call)(case)
    weights = torch.linspace(-1, 1, attended.numel(), dtype=attended.dtype).view_as(attended)
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


@pytest.mark.parametrize(
    "sizes",
    [
        {"queries": 1},
        {"images": 1, "heads": 1, "points": 1},
        {"spatial_shapes": ((3, 4),)},
        {"spatial_shapes": ((1, 1),)},
        {"spatial_shapes": ((1, 7), (5, 1), (1, 1), (2, 2), (3, 3))},
        {"points": 7},
    ],
    ids=["one query", "one of all", "one level", "one pixel", "thin levels", "seven points"],
)
def test_unusual_sizes(variant: Variant, sizes: dict[str, object]) -> None:
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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_computed_in_float32(variant: Variant, dtype: torch.dtype) -> None:
    case = make_case(dtype=torch.float32, queries=8)
    rounded = replace(case, **{name: getattr(case, name).to(dtype) for name in ("query", "value", "key")})
    back = replace(rounded, **{name: getattr(rounded, name).float() for name in ("query", "value", "key")})
    attended = variant.call(rounded)
    assert attended.dtype == dtype
    # Only the result is rounded.
    assert_close(attended, variant.call(back).to(dtype), rtol=0, atol=0)


def test_bits_do_not_depend_on_threads(variant: Variant) -> None:
    case = make_case(images=3, queries=200, heads=3, channels=16, points=4, dtype=torch.float32)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = gradients(variant, case)
        torch.set_num_threads(2)
        two = gradients(variant, case)
    finally:
        torch.set_num_threads(threads)
    assert_close(two, one, rtol=0, atol=0)
