"""The CUDA kernels' arithmetic, run on the CPU by cuda_emulation: what can be tested of them where there is no GPU."""

import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils.cpp_extension import include_paths, library_paths

from .cases import UNUSUAL_SIZES, VARIANTS, Case, make_case

EMULATION = Path(__file__).parent / "cuda_emulation"
NAMES = {  # in the order of the gradients
    "ms_deform_attn": ("value", "reference_points", "sampling_offsets", "attention_logits"),
    "key_aware_shared": ("query", "value", "reference_points", "sampling_offsets"),
    "key_aware_separate": ("query", "value", "reference_points", "sampling_offsets", "key"),
}
variants = pytest.mark.parametrize("variant", VARIANTS)
PYRAMID = ((6, 9), (3, 5), (2, 3), (1, 2))
ALL_SIZES = {**UNUSUAL_SIZES, "more images than blocks": {"images": 5}}  # the emulated grid has room for two


def build(library: Path) -> None:
    """Needs a compiler, but no CUDA. `-fsanitize=address` may be added by hand to find reads outside of the tensors."""
    command = ["c++", "-shared", "-fPIC", "-std=c++20", "-O1", "-Wall", "-Wno-unknown-pragmas", "-Wno-attributes"]
    command += [f"-DTORCH_TARGET_VERSION={2 << 56 | 10 << 48:#x}ULL", f"-I{EMULATION}"]
    command += [f"-I{path}" for path in include_paths()]
    command += [str(EMULATION / "emulated.cpp"), "-o", str(library)]
    command += [f"-L{path}" for path in library_paths()]
    subprocess.run([*command, "-ltorch", "-ltorch_cpu"], check=True)


@pytest.fixture(scope="session", autouse=True)
def _emulated_ops(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Once in a process: torch refuses a namespace's second library, and its stable interface goes on without one.

    So the process would crash where tests of another module come between these, and a fixture of the module is set up
    again.
    """
    library = tmp_path_factory.mktemp("emulation") / "emulated.so"
    build(library)
    torch.ops.load_library(library)


def emulate(variant: str, case: Case) -> Tensor:
    ops, shapes = torch.ops.lite_detr_emulated, [side for shape in case.spatial_shapes for side in shape]
    where = (shapes, case.reference_points, case.sampling_offsets)
    if variant == "ms_deform_attn":
        return ops.ms_deform_attn(case.value, *where, case.attention_logits)
    key = case.key if VARIANTS[variant].separate_key else None
    return ops.key_aware_deform_attn(case.query, case.value, *where, key)


def emulate_backward(
    variant: str, case: Case, grad_output: Tensor, output_mask: Sequence[bool] | None = None
) -> list[Tensor]:
    ops, shapes = torch.ops.lite_detr_emulated, [side for shape in case.spatial_shapes for side in shape]
    where = (shapes, case.reference_points, case.sampling_offsets)
    if variant == "ms_deform_attn":
        mask = output_mask or [True] * 4
        return list(ops.ms_deform_attn_backward(grad_output, case.value, *where, case.attention_logits, mask))
    separate = VARIANTS[variant].separate_key
    mask = output_mask or [True] * 5
    gradients = ops.key_aware_deform_attn_backward(
        grad_output, case.query, case.value, *where, case.key if separate else None, mask
    )
    assert separate or gradients[-1].shape == (0,)
    return list(gradients if separate else gradients[:-1])


def weights_like(attended: Tensor) -> Tensor:
    return torch.linspace(-1, 1, attended.numel(), dtype=attended.dtype).view_as(attended)


def assert_agrees(variant: str, case: Case, **tolerance: float) -> None:
    """Values and gradients agree with pure PyTorch in float64. NaN agrees with NaN."""
    exact = replace(case, **{n: t.double() for n, t in vars(case).items() if isinstance(t, Tensor)}).requiring_grad()
    attended = VARIANTS[variant].pure_torch(exact)
    emulated = emulate(variant, case)
    assert emulated.dtype == case.value.dtype
    assert_close(emulated.double(), attended.detach(), equal_nan=True, **tolerance)

    grad_output = weights_like(emulated)
    expected = torch.autograd.grad(attended, exact.tensors(*NAMES[variant]), grad_output.double())
    gradients = emulate_backward(variant, case, grad_output)
    for name, gradient, expected_gradient in zip(NAMES[variant], gradients, expected, strict=True):
        assert gradient.dtype == getattr(case, name).dtype, name
        assert_close(
            gradient.double(), expected_gradient, equal_nan=True, **tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


@variants
@pytest.mark.parametrize("channels", [1, 5, 16, 32, 64, 100, 200])
@pytest.mark.parametrize("reference_size", [2, 4])
def test_float32(variant: str, channels: int, reference_size: int) -> None:
    case = make_case(channels=channels, points=4, reference_size=reference_size, dtype=torch.float32)
    assert_agrees(variant, case, rtol=1e-4, atol=1e-4)


@variants
@pytest.mark.parametrize("channels", [3, 32])
def test_float64(variant: str, channels: int) -> None:
    assert_agrees(variant, make_case(channels=channels, reference_size=4), rtol=1e-9, atol=1e-9)


@variants
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels", [5, 16, 32, 64])
def test_half_maps(variant: str, dtype: torch.dtype, channels: int) -> None:
    case = make_case(channels=channels, dtype=torch.float32)
    case = replace(case, **{name: getattr(case, name).to(dtype) for name in ("query", "value", "key")})
    assert_agrees(variant, case, rtol=1e-2, atol=1e-2)


# A group of lanes holds 4, 8, 16 or 32 points at a time; the last number of points is more than it can keep.
@variants
@pytest.mark.parametrize("channels", [16, 32, 5])
@pytest.mark.parametrize(
    ("points", "spatial_shapes"),
    [(1, ((3, 4),)), (4, ((3, 4),)), (3, PYRAMID), (4, PYRAMID), (5, PYRAMID), (4, (*PYRAMID, (1, 1))), (90, PYRAMID)],
    ids=["1", "4", "12", "16", "20", "5 levels", "360"],
)
def test_number_of_points(
    variant: str, channels: int, points: int, spatial_shapes: tuple[tuple[int, int], ...]
) -> None:
    queries = 1 if points > 10 else 3
    case = make_case(
        images=1, queries=queries, channels=channels, points=points, spatial_shapes=spatial_shapes, dtype=torch.float32
    )
    assert_agrees(variant, case, rtol=1e-4, atol=1e-4)


@variants
@pytest.mark.parametrize("sizes", ALL_SIZES.values(), ids=ALL_SIZES.keys())
def test_unusual_sizes(variant: str, sizes: dict[str, Any]) -> None:
    assert_agrees(variant, make_case(channels=32, dtype=torch.float32, **sizes), rtol=1e-4, atol=1e-4)  # type: ignore[arg-type]


@variants
@pytest.mark.parametrize("empty", [{"images": 0}, {"queries": 0}], ids=lambda empty: next(iter(empty)))
def test_empty_input(variant: str, empty: dict[str, int]) -> None:
    case = make_case(**empty)  # type: ignore[arg-type]
    attended = emulate(variant, case)
    assert attended.shape == (*case.query.shape[:2], case.query.shape[2] * case.query.shape[3])
    for name, gradient in zip(NAMES[variant], emulate_backward(variant, case, attended), strict=True):
        assert_close(gradient, torch.zeros_like(getattr(case, name)))


@variants
@pytest.mark.parametrize("channels", [4, 32])
def test_inputs_may_be_strided_or_unaligned(variant: str, channels: int) -> None:
    case = make_case(channels=channels, points=3, dtype=torch.float32)
    attended, tensors = emulate(variant, case), [n for n, t in vars(case).items() if isinstance(t, Tensor)]
    grad_output = weights_like(attended)
    gradients = emulate_backward(variant, case, grad_output)

    def transposed(tensor: Tensor) -> Tensor:
        return tensor.transpose(0, -1).contiguous().transpose(0, -1)

    def moved(tensor: Tensor) -> Tensor:
        return torch.cat([tensor.new_zeros(1), tensor.flatten()])[1:].view_as(tensor)

    for change in (transposed, moved):
        changed = replace(case, **{name: change(getattr(case, name)) for name in tensors})
        assert_close(emulate(variant, changed), attended)
        assert_close(emulate_backward(variant, changed, change(grad_output)), gradients)
    assert_close(emulate_backward(variant, case, moved(grad_output)), gradients)
    for name in tensors:
        changed = replace(case, **{name: moved(getattr(case, name))})
        assert_close(emulate(variant, changed), attended)
        assert_close(emulate_backward(variant, changed, grad_output), gradients)


@variants
@pytest.mark.parametrize("channels", [4, 32])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_location_that_is_not_finite_spoils_only_its_own_head_of_its_own_query(
    variant: str, channels: int, bad: float
) -> None:
    case = make_case(channels=channels, dtype=torch.float32)
    offsets = case.sampling_offsets.clone()
    offsets[0, 1, 1, 0, 0, 0] = bad
    spoilt_case = replace(case, sampling_offsets=offsets)
    clean, spoilt = emulate(variant, case).unflatten(-1, (2, -1)), emulate(variant, spoilt_case).unflatten(-1, (2, -1))
    assert spoilt[0, 1, 1].isnan().all()
    spoilt[0, 1, 1] = clean[0, 1, 1]
    assert_close(spoilt, clean, rtol=0, atol=0)

    grad_output = weights_like(clean.flatten(2))
    gradients = dict(zip(NAMES[variant], emulate_backward(variant, spoilt_case, grad_output), strict=True))
    for name in {"query", "sampling_offsets", "attention_logits"} & gradients.keys():
        assert gradients[name][0, 1, 1].isnan().any(), name
        gradients[name][0, 1, 1] = 0
        assert gradients[name].isfinite().all(), name


@variants
@pytest.mark.parametrize("far", [1e30, -1e6])
def test_far_outside_samples_zeros(variant: str, far: float) -> None:
    case = make_case(channels=32, dtype=torch.float32)
    offsets = case.sampling_offsets.clone()
    offsets[:, 0] = far
    offsets[:, 1, 0] = far
    case = replace(case, sampling_offsets=offsets)
    assert emulate(variant, case)[:, 0].abs().max() == 0
    assert_agrees(variant, case, rtol=1e-4, atol=1e-4)


@variants
@pytest.mark.parametrize("channels", [4, 32])
def test_tokens_that_no_point_is_next_to_are_not_read(variant: str, channels: int) -> None:
    case = make_case(channels=channels, spatial_shapes=((4, 4),), dtype=torch.float32)
    # All points are around (-0.5, -0.5), or far away: only token 0 is next to one.
    corner = torch.zeros_like(case.reference_points)
    offsets = case.sampling_offsets.clamp(-0.4, 0.4)
    offsets[:, :, :, :, 1] = 100
    case = replace(case, reference_points=corner, sampling_offsets=offsets)
    infinite = replace(case, value=case.value.clone(), key=case.key.clone())
    infinite.value[:, 1:] = infinite.key[:, 1:] = float("inf")
    attended = emulate(variant, case)
    assert_close(emulate(variant, infinite), attended, rtol=0, atol=0)
    grad_output = weights_like(attended)
    assert_close(emulate_backward(variant, infinite, grad_output), emulate_backward(variant, case, grad_output))


def test_points_may_be_masked_by_infinite_logits() -> None:
    case = make_case(channels=32, dtype=torch.float32, points=4)
    case.attention_logits[:, 0, :, :5] = -float("inf")
    case.attention_logits[:, 1, :, 3:] = -float("inf")
    assert_agrees("ms_deform_attn", case, rtol=1e-4, atol=1e-4)


@variants
@pytest.mark.parametrize("channels", [4, 32])
def test_gradients_that_are_not_wanted_are_empty(variant: str, channels: int) -> None:
    case = make_case(channels=channels, dtype=torch.float32)
    grad_output = weights_like(emulate(variant, case))
    everything = emulate_backward(variant, case, grad_output)
    count = 4 if variant == "ms_deform_attn" else 5
    for wanted in range(count):
        for mask in ([i == wanted for i in range(count)], [i != wanted for i in range(count)]):
            for gradient, expected, asked in zip(
                emulate_backward(variant, case, grad_output, mask), everything, mask, strict=False
            ):
                assert_close(gradient, expected if asked else expected.new_empty(0))


@variants
def test_arguments_that_do_not_fit_are_named(variant: str) -> None:
    """The device's own entry points check as the CPU's do."""
    case = make_case(dtype=torch.float32)
    for name in NAMES[variant]:
        tensor = getattr(case, name)
        if name != "value":  # its number of channels is its own
            with pytest.raises(ValueError, match=f"^{name}: "):
                emulate(variant, replace(case, **{name: tensor[..., :-1]}))
        with pytest.raises(ValueError, match=f"^{'reference_points' if name == 'value' else name}: "):
            emulate(variant, replace(case, **{name: tensor.double()}))
    with pytest.raises(ValueError, match="^spatial_shapes: "):
        emulate(variant, replace(case, value=case.value[:, :-1], key=case.key[:, :-1]))
    with pytest.raises(ValueError, match="^spatial_shapes: "):
        emulate(variant, replace(case, spatial_shapes=((-1, 4), *case.spatial_shapes[1:])))
    with pytest.raises(ValueError, match="^grad_output: "):
        emulate_backward(variant, case, torch.zeros(1, 2, 3))
    with pytest.raises(ValueError, match="^output_mask: "):
        emulate_backward(variant, case, emulate(variant, case), [True])


def test_too_many_levels_are_refused() -> None:
    with pytest.raises(
        ValueError, match="^spatial_shapes: expected at most 16 levels on CUDA, got 17; LITE_DETR_PURE_TORCH=1"
    ):
        emulate("ms_deform_attn", make_case(spatial_shapes=((1, 1),) * 17))


@pytest.mark.parametrize("leave", [True, False])
def test_the_emulation_sees_diverging_lanes(leave: bool) -> None:
    with pytest.raises(RuntimeError, match="the lanes of a warp diverge"):
        torch.ops.lite_detr_emulated.diverge(torch.ones(()), leave)
