"""The ops on a CUDA device: values and gradients against pure PyTorch in float64 on the CPU, and what only a GPU has.

Needs neither detectron2 nor a whole installation: with LITE_DETR_OPS_ONLY=1 the package holds the ops alone.
"""

import importlib
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lite_detr_d2.ops import key_aware_deform_attn, ms_deform_attn, reference
from lite_detr_d2.ops.deform_attn import compiled_ops_status

from .cases import UNUSUAL_SIZES, VARIANTS, Case, deterministic_algorithms, make_case

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.skipif(not compiled_ops_status()[0], reason=f"no compiled ops: {compiled_ops_status()[1]}"),
]
variants = pytest.mark.parametrize("name", VARIANTS)
PYRAMID = ((25, 34), (13, 17), (7, 9), (4, 5))
MAPS = ("query", "value", "key")
MANY_IMAGES = {"images": 70000, "queries": 1, "channels": 1, "points": 1, "spatial_shapes": ((1, 1),)}
ALL_SIZES = {**UNUSUAL_SIZES, "more images than blocks": MANY_IMAGES}


def change(case: Case, function: Callable[[Tensor], Tensor], *names: str) -> Case:
    names = names or tuple(f.name for f in fields(case) if isinstance(getattr(case, f.name), Tensor))
    return replace(case, **{name: function(getattr(case, name)) for name in names})


def on_gpu(case: Case, device: str = "cuda") -> Case:
    return change(case, lambda tensor: tensor.to(device))


def off_the_grid(case: Case) -> Case:
    """Moves points off the rows and columns of pixel centres, where gradients jump and rounding would choose a side."""
    sides = torch.tensor([[width, height] for height, width in case.spatial_shapes], dtype=torch.float64)[:, None]
    boxes = case.reference_points[:, :, None, :, None].double()
    points = case.sampling_offsets.shape[4]
    step = torch.ones(2) if case.reference_points.shape[-1] == 2 else boxes[..., 2:] * sides / (2 * points)
    pixels = boxes[..., :2] * sides - 0.5 + case.sampling_offsets * step
    close = (pixels - pixels.round()).abs() < 0.01
    return replace(case, sampling_offsets=(case.sampling_offsets + close * 0.03 / step).to(case.sampling_offsets))


def results(name: str, case: Case, pure_torch: bool = False) -> list[Tensor]:
    """The values, and the gradients of all inputs."""
    case, variant = case.requiring_grad(), VARIANTS[name]
    attended = (variant.pure_torch if pure_torch else variant.call)(case)
    weights = torch.linspace(-1, 1, attended.numel(), device=attended.device).view_as(attended).to(attended.dtype)
    return [attended.detach(), *torch.autograd.grad(attended, case.tensors(*variant.inputs), weights)]


def assert_agrees(name: str, case: Case, tolerance: float) -> None:
    """`case` on the CPU."""
    case = off_the_grid(case)
    expected = results(name, change(case, Tensor.double), pure_torch=True)
    actual = results(name, on_gpu(case))
    for what, tensor, exact in zip(("output", *VARIANTS[name].inputs), actual, expected, strict=True):
        assert tensor.is_cuda
        # Sums over many queries are compared by what they are made of.
        error = (tensor.cpu().double() - exact).norm() / exact.norm().clamp(min=1e-12)
        assert error < tolerance, f"{what}: relative error {error:.2e}"


@variants
@pytest.mark.parametrize("channels", [1, 5, 16, 32, 64, 100, 256])
@pytest.mark.parametrize("reference_size", [2, 4])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-11), (torch.float32, 1e-4), (torch.bfloat16, 2e-2), (torch.float16, 3e-3)],
)
def test_values_and_gradients(
    name: str, channels: int, reference_size: int, dtype: torch.dtype, tolerance: float
) -> None:
    computed = torch.float64 if dtype == torch.float64 else torch.float32
    case = make_case(
        queries=37, channels=channels, points=4, spatial_shapes=PYRAMID, reference_size=reference_size, dtype=computed
    )
    assert_agrees(name, change(case, lambda tensor: tensor.to(dtype), *MAPS), tolerance)


@variants
@pytest.mark.parametrize("points", [1, 3, 5, 20, 90])
@pytest.mark.parametrize("channels", [5, 16, 32])
def test_number_of_points(name: str, points: int, channels: int) -> None:
    case = make_case(queries=9, channels=channels, points=points, spatial_shapes=PYRAMID, dtype=torch.float32)
    assert_agrees(name, case, 1e-4)


@variants
def test_encoder_sizes(name: str) -> None:
    case = make_case(
        queries=4421, heads=8, channels=32, points=4, spatial_shapes=((50, 67), *PYRAMID), dtype=torch.float32
    )
    assert_agrees(name, case, 1e-4)


@variants
@pytest.mark.parametrize("sizes", ALL_SIZES.values(), ids=ALL_SIZES.keys())
def test_unusual_sizes(name: str, sizes: dict[str, Any]) -> None:
    assert_agrees(name, make_case(dtype=torch.float32, **sizes), 1e-4)  # type: ignore[arg-type]


@variants
@pytest.mark.parametrize("empty", [{"images": 0}, {"queries": 0}], ids=["no image", "no query"])
def test_empty_input(name: str, empty: dict[str, int]) -> None:
    case = on_gpu(make_case(**empty))  # type: ignore[arg-type]
    attended, *gradients = results(name, case)
    assert attended.shape == (case.value.shape[0], case.query.shape[1], 8)
    for argument, gradient in zip(VARIANTS[name].inputs, gradients, strict=True):
        assert_close(gradient, torch.zeros_like(getattr(case, argument)))


@variants
def test_inputs_may_be_strided_or_unaligned(name: str) -> None:
    case = on_gpu(make_case(channels=32, points=3, dtype=torch.float32))
    expected = results(name, case)
    transposed = change(case, lambda tensor: tensor.transpose(0, -1).contiguous().transpose(0, -1))
    moved = change(case, lambda tensor: torch.cat([tensor.new_zeros(1), tensor.flatten()])[1:].view_as(tensor))
    assert_close(results(name, transposed), expected)
    assert_close(results(name, moved), expected)


@variants
@pytest.mark.parametrize("channels", [4, 32])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_location_that_is_not_finite_spoils_only_its_own_head_of_its_own_query(
    name: str, channels: int, bad: float
) -> None:
    case = on_gpu(make_case(channels=channels, dtype=torch.float32))
    offsets = case.sampling_offsets.clone()
    offsets[0, 1, 1, 0, 0, 0] = bad
    clean = VARIANTS[name].call(case).unflatten(-1, (2, -1))
    spoilt = VARIANTS[name].call(replace(case, sampling_offsets=offsets)).unflatten(-1, (2, -1))
    assert spoilt[0, 1, 1].isnan().all()
    spoilt[0, 1, 1] = clean[0, 1, 1]
    assert_close(spoilt, clean, rtol=0, atol=0)
    results(name, replace(case, sampling_offsets=offsets))
    torch.cuda.synchronize()


@variants
@pytest.mark.parametrize("far", [1e30, 100.0])
def test_point_outside_reads_no_token(name: str, far: float) -> None:
    case = on_gpu(make_case(channels=32, dtype=torch.float32))
    infinite = change(case, lambda tensor: torch.full_like(tensor, float("inf")), "value", "key")
    outside = change(infinite, lambda tensor: torch.full_like(tensor, far), "sampling_offsets")
    attended, *gradients = results(name, outside)
    assert_close(attended, torch.zeros_like(attended))
    assert all(gradient.isfinite().all() for gradient in gradients)


@variants
def test_gradients_only_where_asked_for(name: str) -> None:
    case, variant = on_gpu(make_case(channels=32, dtype=torch.float32)), VARIANTS[name]
    _, *everything = results(name, case)
    for argument, expected in zip(variant.inputs, everything, strict=True):
        one = replace(case, **{argument: getattr(case, argument).clone().requires_grad_()})
        attended = variant.call(one)
        weights = torch.linspace(-1, 1, attended.numel(), device="cuda").view_as(attended)
        (gradient,) = torch.autograd.grad(attended, [getattr(one, argument)], weights)
        assert_close(gradient, expected, rtol=1e-4, atol=1e-5)


def arguments(name: str, case: Case) -> tuple[object, ...]:
    shapes = [side for shape in case.spatial_shapes for side in shape]
    where = (shapes, case.reference_points, case.sampling_offsets)
    if not VARIANTS[name].key_aware:
        return (case.value, *where, case.attention_logits)
    return (case.query, case.value, *where, case.key if VARIANTS[name].separate_key else None)


@variants
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck(name: str, dtype: torch.dtype) -> None:
    case = on_gpu(make_case(channels=32, dtype=torch.float32)).requiring_grad()
    case = change(case, lambda tensor: tensor.detach().to(dtype).requires_grad_(), *MAPS)
    op = torch.ops.lite_detr.key_aware_deform_attn if VARIANTS[name].key_aware else torch.ops.lite_detr.ms_deform_attn
    torch.library.opcheck(op.default, arguments(name, case), atol=1e-2, rtol=1e-2)


@variants
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_graph_captures_forward_and_backward(name: str, dtype: torch.dtype) -> None:
    case = change(on_gpu(make_case(channels=32, dtype=torch.float32)), lambda tensor: tensor.to(dtype), *MAPS)
    other = change(on_gpu(make_case(channels=32, dtype=torch.float32)), lambda tensor: tensor.to(dtype), *MAPS)
    inputs, variant = case.requiring_grad(), VARIANTS[name]

    def run() -> list[Tensor]:
        attended = variant.call(inputs)
        weights = torch.linspace(-1, 1, attended.numel(), device="cuda").view_as(attended).to(dtype)
        return [attended.detach(), *torch.autograd.grad(attended, inputs.tensors(*variant.inputs), weights)]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        replayed = run()
    with torch.no_grad():
        for field in fields(case):
            if isinstance(getattr(case, field.name), Tensor):
                getattr(inputs, field.name).copy_(getattr(other, field.name))
    graph.replay()
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    assert_close(replayed, results(name, other), rtol=tolerance, atol=tolerance)


@variants
def test_work_goes_to_the_current_stream(name: str) -> None:
    case = on_gpu(make_case(channels=32, dtype=torch.float32))
    expected = results(name, case)
    late = change(case, torch.zeros_like)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)  # the inputs are there only after this, and only on this stream
        for field in fields(case):
            if isinstance(getattr(case, field.name), Tensor):
                getattr(late, field.name).copy_(getattr(case, field.name))
        actual = results(name, late)
    stream.synchronize()
    assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
@variants
def test_the_device_is_that_of_the_tensors(name: str) -> None:
    case = make_case(channels=32, dtype=torch.float32)
    assert torch.cuda.current_device() == 0
    actual = results(name, on_gpu(case, "cuda:1"))
    assert all(tensor.device.index == 1 for tensor in actual)
    assert torch.cuda.current_device() == 0
    expected = results(name, on_gpu(case))
    assert_close([tensor.cpu() for tensor in actual], [tensor.cpu() for tensor in expected], rtol=1e-5, atol=1e-5)


@variants
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_rounds_maps_and_no_locations(name: str, dtype: torch.dtype) -> None:
    case, variant = on_gpu(make_case(channels=32, dtype=torch.float32)).requiring_grad(), VARIANTS[name]
    with torch.autocast("cuda", dtype=dtype):
        attended = variant.call(case)
    assert attended.dtype == dtype
    rounded = change(case, lambda tensor: tensor.detach().to(dtype), *MAPS)
    assert_close(attended, variant.call(rounded), rtol=0, atol=0)
    attended.float().sum().backward()
    for argument in variant.inputs:
        assert getattr(case, argument).grad.dtype == torch.float32


@variants
def test_compiles_without_a_graph_break(name: str) -> None:
    case = on_gpu(make_case(channels=32, dtype=torch.float32))
    compiled = torch.compile(lambda: VARIANTS[name].call(case), fullgraph=True, backend="aot_eager")
    assert_close(compiled(), VARIANTS[name].call(case))


@variants
def test_gradients_are_the_same_each_time_where_they_must_be(name: str) -> None:
    case = on_gpu(make_case(channels=32, dtype=torch.float32))
    expected = results(name, case)
    message = "_deform_attn: the gradient on CUDA is not deterministic, .* warn_only=True$"
    with deterministic_algorithms(warn_only=False):
        first, second = results(name, case), results(name, case)
    assert_close(first, expected, rtol=1e-4, atol=1e-5)
    assert_close(second, first, rtol=0, atol=0)
    with deterministic_algorithms(warn_only=True), pytest.warns(UserWarning, match=message):
        actual = results(name, case)
    assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def bad_arguments() -> list[tuple[str, Callable[[Tensor], Tensor]]]:
    return [
        ("reference_points", Tensor.cpu),
        ("sampling_offsets", Tensor.cpu),
        ("reference_points", lambda tensor: tensor[:1]),
        ("sampling_offsets", lambda tensor: tensor[..., :1]),
    ]


@pytest.mark.parametrize(("argument", "spoil"), bad_arguments())
def test_errors_name_the_argument(argument: str, spoil: Callable[[Tensor], Tensor]) -> None:
    case = change(on_gpu(make_case(dtype=torch.float32)), spoil, argument)
    where = (case.spatial_shapes, case.reference_points, case.sampling_offsets)
    with pytest.raises(ValueError, match=f"^{argument}: expected"):
        ms_deform_attn(case.value, *where, case.attention_logits)
    with pytest.raises(ValueError, match=f"^{argument}: expected"):
        key_aware_deform_attn(case.query, case.value, *where, case.key)


def test_errors_of_the_kernels_name_the_argument() -> None:
    case = on_gpu(make_case(spatial_shapes=((1, 1),) * 17))
    with pytest.raises(
        ValueError, match="^spatial_shapes: expected at most 16 levels on CUDA, got 17; LITE_DETR_PURE_TORCH=1"
    ):
        VARIANTS["ms_deform_attn"].call(case)
    case = on_gpu(make_case())
    for op, inputs in (
        (torch.ops.lite_detr.ms_deform_attn, arguments("ms_deform_attn", case)),
        (torch.ops.lite_detr.key_aware_deform_attn, arguments("key_aware_shared", case)),
    ):
        wrong = [x.float() if x is case.reference_points else x for x in inputs]
        with pytest.raises(ValueError, match="reference_points: expected dtype"):
            op(*wrong)


def test_the_baseline_of_the_benchmark_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    classic_ms_deform_attn = importlib.import_module("classic_msda").classic_ms_deform_attn
    case = on_gpu(off_the_grid(make_case(channels=32, points=4, queries=37, spatial_shapes=PYRAMID)))
    case = change(case, Tensor.float)
    expected = results("ms_deform_attn", case)
    inputs = case.requiring_grad()
    shapes = torch.tensor(case.spatial_shapes, device="cuda")
    areas = shapes.prod(1)
    locations = reference.sampling_locations(case.spatial_shapes, inputs.reference_points, inputs.sampling_offsets)
    attended = classic_ms_deform_attn(
        inputs.value,
        shapes,
        areas.cumsum(0) - areas,
        locations,
        inputs.attention_logits.softmax(-1).view(locations.shape[:-1]),
    )
    weights = torch.linspace(-1, 1, attended.numel(), device="cuda").view_as(attended)
    actual = [attended, *torch.autograd.grad(attended, inputs.tensors(*VARIANTS["ms_deform_attn"].inputs), weights)]
    assert_close(actual, expected, rtol=1e-3, atol=1e-4)


@variants
def test_indices_beyond_32_bits(name: str) -> None:
    """Offsets of 2^31 numbers and more, and gradients at the end of them."""
    if torch.cuda.get_device_properties(0).total_memory < 48 << 30:
        pytest.skip("needs 48 GB of GPU memory")
    queries, heads, channels, points = 1_050_000, 8, 16, 128
    shapes, generator = ((64, 64),), torch.Generator("cuda").manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device="cuda")

    case = Case(
        query=random(1, queries, heads, channels),
        value=random(1, 4096, heads, channels),
        key=random(1, 4096, heads, channels),
        spatial_shapes=shapes,
        reference_points=random(1, queries, 1, 2),
        sampling_offsets=random(1, queries, heads, 1, points, 2),
        attention_logits=random(1, queries, heads, points),
    )
    assert case.sampling_offsets.numel() >= 1 << 31
    last = change(
        case, lambda t: t[:, -5:].clone(), "query", "reference_points", "sampling_offsets", "attention_logits"
    )
    assert_close(VARIANTS[name].call(case)[:, -5:], VARIANTS[name].call(last), rtol=1e-5, atol=1e-5)

    def offsets_gradient(some: Case) -> Tensor:
        offsets = some.sampling_offsets.requires_grad_()
        (gradient,) = torch.autograd.grad(VARIANTS[name].call(replace(some, sampling_offsets=offsets)).sum(), [offsets])
        return gradient[:, -5:]

    assert_close(offsets_gradient(case), offsets_gradient(last), rtol=1e-4, atol=1e-5)
