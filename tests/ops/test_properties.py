"""The ops on any sizes, types and locations, against the pure-PyTorch ones in float64.

LITE_DETR_EXAMPLES sets the number of examples of each test; a few thousand take minutes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from .cases import VARIANTS, Case, Variant

pytestmark = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
examples = settings(
    max_examples=int(os.environ.get("LITE_DETR_EXAMPLES", "300")),
    derandomize=True,  # a failure in CI is a failure everywhere
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

# Of a result's largest element: the rounding of float32 sums, and that of the result to its type.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5, torch.bfloat16: 2**-8, torch.float16: 2**-11}
LOCATIONS = ("inside", "edge", "centre", "corner", "outside", "huge")


@pytest.fixture(scope="module", autouse=True)
def _memory_starts_as_nan() -> Iterator[None]:
    """What a kernel forgets to write shows."""
    threads = torch.get_num_threads()
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert torch.empty(5).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


@dataclass(frozen=True)
class Sizes:
    images: int
    queries: int
    heads: int
    channels: int
    spatial_shapes: tuple[tuple[int, int], ...]
    points: int
    reference_size: int
    dtype: torch.dtype
    locations: tuple[str, ...]  # those that occur
    snapped: bool  # whether reference points have few bits, so that locations are exact
    shifted: bool  # whether tensors start one element after what an allocator gives
    threads: int
    seed: int


sides = st.one_of(st.just(1), st.integers(1, 12))
sizes = st.builds(
    Sizes,
    images=st.integers(0, 3),
    queries=st.integers(0, 20),
    heads=st.integers(1, 4),
    channels=st.one_of(st.sampled_from([16, 32, 64]), st.integers(1, 70)),  # three have kernels of their own
    spatial_shapes=st.lists(st.tuples(sides, sides), min_size=1, max_size=5).map(tuple),
    points=st.integers(1, 9),
    reference_size=st.sampled_from([2, 4]),
    dtype=st.sampled_from(list(TOLERANCE)),
    locations=st.lists(st.sampled_from(LOCATIONS), min_size=1, unique=True).map(tuple),
    snapped=st.booleans(),
    shifted=st.booleans(),
    threads=st.sampled_from([1, 3]),
    seed=st.integers(0, 2**32 - 1),
)


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def sides_of(spatial_shapes: tuple[tuple[int, int], ...]) -> Tensor:
    """(L, 1, 2): width and height, to broadcast over the points of sampling offsets."""
    return torch.tensor(spatial_shapes, dtype=torch.float64).flip(-1)[:, None]


def draw_pixels(size: Sizes, shape: tuple[int, ...], random: torch.Generator) -> Tensor:
    """Where to sample, in pixels of each level: each coordinate of each point is of one of the kinds that occur."""
    side = sides_of(size.spatial_shapes)

    def between(low: Tensor | float, high: Tensor | float) -> Tensor:
        return low + torch.rand(shape, generator=random, dtype=torch.float64) * (high - low)

    of_kind = {
        "inside": between(-0.5, side - 0.5),
        "edge": torch.where(between(0, 1) < 0.5, between(-1.5, 0), between(side - 1, side + 0.5)),
        "centre": between(-2, side + 2).floor(),
        "corner": between(-2, side + 2).floor() + 0.5,
        "outside": torch.where(between(0, 1) < 0.5, -1 - between(0, 1000), side + between(0, 1000)),
        "huge": torch.where(between(0, 1) < 0.5, -1e30, 1e30).double(),
    }
    kinds = torch.stack([of_kind[kind] for kind in size.locations])
    chosen = torch.randint(len(size.locations), shape, generator=random)
    return kinds.gather(0, chosen[None])[0]


def draw_case(size: Sizes) -> tuple[Case, Tensor]:
    """Arguments, and weights of the output for a gradient."""
    random = torch.Generator().manual_seed(size.seed)
    dtype, coordinates = size.dtype, compute_dtype(size.dtype)
    side = sides_of(size.spatial_shapes)
    levels, tokens = len(size.spatial_shapes), int(side.prod(-1).sum())
    per_query = (size.images, size.queries)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float64)

    reference = torch.rand((*per_query, levels, size.reference_size), generator=random, dtype=torch.float64)
    if size.snapped:
        reference = (reference * 16).round() / 16  # boxes without extent among them
    reference = reference.to(coordinates)
    offset_shape = (*per_query, size.heads, levels, size.points, 2)
    pixels = draw_pixels(size, offset_shape, random)
    exact = reference.double()[:, :, None, :, None]
    offsets = pixels + 0.5 - exact[..., :2] * side
    if size.reference_size == 4:
        step = exact[..., 2:] * side / (2 * size.points)
        offsets = torch.where(step == 0, 1.0, offsets / step)
    # Steps may be small, but 1e30 pixels are meant, not an overflow.
    offsets = offsets.clamp(-1e30, 1e30)

    padded = torch.rand((size.images, tokens, 1, 1), generator=random) < 0.2
    per_token, per_head = (size.images, tokens, size.heads, size.channels), (*per_query, size.heads, size.channels)
    case = Case(
        query=normal(*per_head).to(dtype),
        value=normal(*per_token).masked_fill(padded, 0).to(dtype),
        key=normal(*per_token).masked_fill(padded, 0).to(dtype),
        spatial_shapes=size.spatial_shapes,
        reference_points=reference,
        sampling_offsets=offsets.to(coordinates),
        attention_logits=(normal(*per_query, size.heads, levels * size.points) * 3).to(coordinates),
    )
    if size.shifted:
        case = replace(case, **{n: shifted(t) for n, t in vars(case).items() if isinstance(t, Tensor)})
    return case, normal(*per_query, size.heads * size.channels).to(dtype)


def shifted(tensor: Tensor) -> Tensor:
    longer = tensor.new_zeros(tensor.numel() + 1)
    longer[1:] = tensor.flatten()
    return longer[1:].view(tensor.shape)


def in_float64(case: Case) -> Case:
    return replace(case, **{n: t.double() for n, t in vars(case).items() if isinstance(t, Tensor)})


def pixels_of(case: Case) -> Tensor:
    """(N, Q, M, L, P, 2) as (x, y): where the case samples, in pixels; 0 is the centre of the first."""
    case, side = in_float64(case), sides_of(case.spatial_shapes)
    reference = case.reference_points[:, :, None, :, None]
    if reference.shape[-1] == 2:
        return reference * side - 0.5 + case.sampling_offsets
    points = case.sampling_offsets.shape[4]
    return (reference[..., :2] + case.sampling_offsets * reference[..., 2:] / (2 * points)) * side - 0.5


def attend(variant: Variant, case: Case, weights: Tensor, pure_torch: bool = False) -> dict[str, Tensor]:
    """The output and the gradients of all inputs."""
    case = case.requiring_grad()
    output = (variant.pure_torch if pure_torch else variant.call)(case)
    grads = torch.autograd.grad(output, case.tensors(*variant.inputs), weights.to(output.dtype))
    return {"output": output.detach(), **dict(zip(variant.inputs, grads, strict=True))}


def check_close(name: str, actual: Tensor, expected: Tensor, size: Sizes) -> None:
    if expected.numel():
        tolerance = TOLERANCE[compute_dtype(size.dtype)]
        atol = tolerance * max(1.0, expected.abs().max().item())
        rtol = max(tolerance, TOLERANCE[actual.dtype])
        assert_close(actual.double(), expected, rtol=rtol, atol=atol, msg=lambda text: f"{name}: {text}")


@given(size=sizes)
@examples
def test_values_and_gradients_are_those_of_float64(variant: Variant, size: Sizes) -> None:
    case, weights = draw_case(size)
    torch.set_num_threads(size.threads)
    actual = attend(variant, case, weights)
    expected = attend(variant, in_float64(case), weights, pure_torch=True)
    assert actual.keys() == expected.keys()

    # The slope of an interpolation jumps at pixel centres. There both sides' slopes are right.
    pixels = pixels_of(case)
    smooth = (pixels - pixels.round()).abs() > (1e-9 if size.dtype == torch.float64 else 1e-3)
    smooth |= (pixels < -1.1) | (pixels > sides_of(size.spatial_shapes) + 0.1)
    comparable = dict.fromkeys(actual, torch.tensor(True))
    comparable["sampling_offsets"] = smooth
    of_reference = smooth.all(4).all(2)
    comparable["reference_points"] = torch.cat([of_reference] * (size.reference_size // 2), dim=-1)

    for name, tensor in actual.items():
        inputs = getattr(case, "value" if name == "output" else name)
        assert tensor.dtype == inputs.dtype, name
        assert tensor.isfinite().all(), name
        here = comparable[name].expand(tensor.shape)
        check_close(name, tensor[here], expected[name][here], size)


@given(
    size=sizes,
    bad=st.sampled_from([math.nan, math.inf, -math.inf]),
    where=st.sampled_from(["reference_points", "sampling_offsets", "weighing"]),
)
@examples
def test_row_that_is_not_finite_spoils_itself_only(variant: Variant, size: Sizes, bad: float, where: str) -> None:
    case, weights = draw_case(size)
    torch.set_num_threads(size.threads)
    clean = attend(variant, case, weights)

    random = torch.Generator().manual_seed(size.seed)
    if where == "weighing":  # infinities may weigh: a softmax takes -inf to 0
        where, bad = "query" if variant.key_aware else "attention_logits", math.nan
    tensor = getattr(case, where)
    hit = torch.rand(tensor.shape, generator=random) < size.images / max(1, tensor.numel())
    spoilt = attend(variant, replace(case, **{where: tensor.masked_fill(hit, bad)}), weights)
    hit_queries = hit.flatten(2).any(-1)[..., None].expand(*hit.shape[:2], size.heads)
    rows = hit_queries if where == "reference_points" else hit.flatten(3).any(-1)  # (N, Q, M)

    of_heads = (size.heads, size.channels)
    output, clean_output = spoilt["output"].unflatten(-1, of_heads), clean["output"].unflatten(-1, of_heads)
    assert output[rows].isnan().all()
    assert torch.equal(output[~rows], clean_output[~rows])
    for name in set(variant.inputs) & {"query", "sampling_offsets", "attention_logits"}:
        assert torch.equal(spoilt[name][~rows], clean[name][~rows]), name
    other_queries = ~rows.any(-1)
    assert torch.equal(spoilt["reference_points"][other_queries], clean["reference_points"][other_queries])
    # Maps belong to an image and a head.
    other_maps = ~rows.any(1)
    for name in set(variant.inputs) & {"value", "key"}:
        grad, clean_grad = spoilt[name].transpose(1, 2), clean[name].transpose(1, 2)
        assert torch.equal(grad[other_maps], clean_grad[other_maps]), name


@given(size=sizes, bad=st.sampled_from([math.nan, math.inf, -math.inf]))
@examples
def test_token_that_is_not_finite_spoils_rows_that_sample_beside_it(variant: Variant, size: Sizes, bad: float) -> None:
    case, weights = draw_case(size)
    torch.set_num_threads(size.threads)
    clean = attend(variant, case, weights)

    images, tokens, heads, _ = case.value.shape
    random = torch.Generator().manual_seed(size.seed)
    hit = torch.rand((images, tokens, heads), generator=random) < 1 / max(1, tokens)
    poisoned = {name: getattr(case, name).masked_fill(hit[..., None], bad) for name in ("value", "key")}
    spoilt = attend(variant, replace(case, **poisoned), weights)
    rows = sampled_beside(case, hit)

    of_heads = (size.heads, size.channels)
    output, clean_output = spoilt["output"].unflatten(-1, of_heads), clean["output"].unflatten(-1, of_heads)
    assert torch.equal(output[~rows], clean_output[~rows])
    for name in set(variant.inputs) & {"query", "sampling_offsets", "attention_logits"}:
        assert torch.equal(spoilt[name][~rows], clean[name][~rows]), name


def sampled_beside(case: Case, tokens: Tensor) -> Tensor:
    """(N, Q, M): which rows have a point less than a pixel, and a rounding error, from one of the (N, S, M) tokens."""
    pixels, start = pixels_of(case), 0
    rows = torch.zeros(pixels.shape[:3], dtype=torch.bool)
    for level, (height, width) in enumerate(case.spatial_shapes):
        x, y = pixels[:, :, :, level, :, None].unbind(-1)  # (N, Q, M, P, 1)
        y_of, x_of = torch.arange(height).repeat_interleave(width), torch.arange(width).repeat(height)
        beside = ((x - x_of).abs() < 1.001) & ((y - y_of).abs() < 1.001)  # (N, Q, M, P, H * W)
        here = tokens[:, start : start + height * width].transpose(1, 2)[:, None, :, None]
        rows |= (beside & here).flatten(3).any(-1)
        start += height * width
    return rows
