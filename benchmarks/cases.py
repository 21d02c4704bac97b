"""What is measured: the ops, and the arguments they are called with."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SpatialShapes = Sequence[tuple[int, int]]
Arguments = dict[str, Any]
Call = Callable[[], Any]

LEVELS: SpatialShapes = ((100, 134), (50, 67), (25, 34), (13, 17))  # strides 8 to 64 of an 800 x 1066 image
TINY_LEVELS: SpatialShapes = ((4, 6), (2, 3), (1, 2), (1, 1))
HEADS, CHANNELS, POINTS = 8, 32, 4
OFFSET_PIXELS = 2.5  # standard deviation of an encoder query's offsets
LOCATIONS = ("model", "random", "cached")
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}
PASSES = {"forward": "forward", "backward": "forward + backward"}


@dataclass(frozen=True)
class Case:
    """An op, named as in ``lite_detr_d2.ops``, and whether its keys are a map of their own."""

    name: str
    title: str
    function: str
    two_maps: bool = False


CASES = {
    case.name: case
    for case in (
        Case("msda", "MSDA", "ms_deform_attn"),
        Case("kda-shared", "KDA, shared map", "key_aware_deform_attn"),
        Case("kda-two", "KDA, two maps", "key_aware_deform_attn", two_maps=True),
    )
}


@dataclass(frozen=True)
class Setting:
    """How an op is called: everything but the case and the implementation."""

    queries: int
    images: int
    dtype: str
    device: str
    locations: str = "model"
    levels: SpatialShapes = LEVELS


def make_arguments(case: Case, setting: Setting) -> Arguments:
    """The keyword arguments of a call, the same ones each time. Locations and logits are float32 beside half types."""
    generator = torch.Generator().manual_seed(0)
    dtype = DTYPES[setting.dtype]
    exact = torch.float64 if dtype == torch.float64 else torch.float32

    def leaf(*shape: int) -> Tensor:
        return torch.randn(setting.images, *shape, generator=generator).to(setting.device, dtype).requires_grad_()

    tokens = sum(height * width for height, width in setting.levels)
    reference_points, offsets = _reference_points_and_offsets(setting, generator)
    arguments: Arguments = {
        "value": leaf(tokens, HEADS, CHANNELS),
        "spatial_shapes": setting.levels,
        "reference_points": reference_points.to(setting.device, exact),
        "sampling_offsets": offsets.to(setting.device, exact).requires_grad_(),
    }
    if case.function == "ms_deform_attn":
        logits = torch.randn(setting.images, setting.queries, HEADS, len(setting.levels) * POINTS, generator=generator)
        return arguments | {"attention_logits": logits.to(setting.device, exact).requires_grad_()}
    return arguments | {
        "query": leaf(setting.queries, HEADS, CHANNELS),
        "key": leaf(tokens, HEADS, CHANNELS) if case.two_maps else None,
    }


def pass_of(call: Callable[[], Tensor], arguments: Arguments, setting: Setting, backward: bool) -> Call:
    """``call`` without gradients, or followed by the gradients of all that a layer trains (not reference points)."""
    if not backward:
        return torch.no_grad()(call)
    leaves = [argument for argument in arguments.values() if isinstance(argument, Tensor) and argument.requires_grad]
    shape = (setting.images, setting.queries, HEADS * CHANNELS)
    grad_output = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    grad_output = grad_output.to(setting.device, DTYPES[setting.dtype])
    return lambda: torch.autograd.grad(call(), leaves, grad_output)


def _reference_points_and_offsets(setting: Setting, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(N, Q, L, 2 or 4) and (N, Q, M, L, P, 2)."""
    images, queries, levels = setting.images, setting.queries, setting.levels
    shape = (images, queries, HEADS, len(levels), POINTS, 2)
    centre = torch.full((images, queries, len(levels), 2), 0.5)
    if setting.locations == "random":
        sizes = torch.tensor([(width, height) for height, width in levels], dtype=torch.float32)[:, None]
        return centre, (torch.rand(shape, generator=generator) - 0.5) * sizes
    if setting.locations == "cached":
        return centre, torch.randn(shape[3:], generator=generator).expand(shape).contiguous()
    coarse = _levels_of_tokens(queries, levels)
    if coarse:
        points = torch.cat([_pixel_centres(*size) for size in coarse])[None, :, None]
        points = points.expand(images, -1, len(levels), -1).contiguous()
        return points, torch.randn(shape, generator=generator) * OFFSET_PIXELS
    # Sides of 3 to 60 percent of the image, small ones as often as large ones; boxes lie inside of it.
    low, high = math.log(0.03), math.log(0.6)
    sides = (low + (high - low) * torch.rand(images, queries, 2, generator=generator)).exp()
    centres = sides / 2 + (1 - sides) * torch.rand(images, queries, 2, generator=generator)
    boxes = torch.cat((centres, sides), dim=-1)[:, :, None].expand(-1, -1, len(levels), -1).contiguous()
    # Offsets are in units of half a side over P: most points lie in the box, some around it.
    return boxes, torch.randn(shape, generator=generator) * POINTS / 2


def _levels_of_tokens(queries: int, levels: SpatialShapes) -> SpatialShapes:
    """The coarsest levels that have ``queries`` tokens together, fine to coarse; none if no such levels do."""
    for first in range(len(levels)):
        if sum(height * width for height, width in levels[first:]) == queries:
            return levels[first:]
    return ()


def _pixel_centres(height: int, width: int) -> Tensor:
    """(H * W, 2) as (x, y) in raster order, 0..1."""
    y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij")
    return torch.stack((x, y), dim=-1).flatten(0, 1)
