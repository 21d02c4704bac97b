"""Inputs of the ops, and the oracle, written point by point so that it shares nothing with the code under test."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
from torch import Tensor

from lite_detr_d2.ops import key_aware_deform_attn, ms_deform_attn, reference


@dataclass(frozen=True)
class Case:
    """The arguments of both ops."""

    query: Tensor
    value: Tensor
    key: Tensor
    spatial_shapes: tuple[tuple[int, int], ...]
    reference_points: Tensor
    sampling_offsets: Tensor
    attention_logits: Tensor

    def tensors(self, *names: str) -> list[Tensor]:
        return [getattr(self, name) for name in names]

    def requiring_grad(self) -> Case:
        names = ("query", "value", "key", "reference_points", "sampling_offsets", "attention_logits")
        return replace(self, **{name: getattr(self, name).detach().clone().requires_grad_() for name in names})


def make_case(
    images: int = 2,
    queries: int = 3,
    heads: int = 2,
    channels: int = 4,
    points: int = 2,
    spatial_shapes: tuple[tuple[int, int], ...] = ((4, 5), (2, 3)),
    reference_size: int = 2,
    dtype: torch.dtype = torch.float64,
) -> Case:
    """Random arguments whose points lie inside, across the edge of, and outside of their maps."""
    tokens = sum(height * width for height, width in spatial_shapes)
    levels = len(spatial_shapes)
    return Case(
        query=torch.randn(images, queries, heads, channels, dtype=dtype),
        value=torch.randn(images, tokens, heads, channels, dtype=dtype),
        key=torch.randn(images, tokens, heads, channels, dtype=dtype),
        spatial_shapes=spatial_shapes,
        reference_points=torch.rand(images, queries, levels, reference_size, dtype=dtype),
        sampling_offsets=torch.randn(images, queries, heads, levels, points, 2, dtype=dtype) * 2,
        attention_logits=torch.randn(images, queries, heads, levels * points, dtype=dtype),
    )


@contextmanager
def deterministic_algorithms(warn_only: bool) -> Iterator[None]:
    """Within it, torch refuses what is not deterministic, or warns of it."""
    torch.use_deterministic_algorithms(True, warn_only=warn_only)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def _interpolate(plane: Tensor, x: float, y: float) -> Tensor:
    """(H, W, D) at pixel (x, y): each pixel counts by its distance, pixels outside are zero."""
    sample = plane.new_zeros(plane.shape[-1])
    for row in range(plane.shape[0]):
        for column in range(plane.shape[1]):
            sample += max(0.0, 1 - abs(x - column)) * max(0.0, 1 - abs(y - row)) * plane[row, column]
    return sample


def oracle(case: Case, key_aware: bool, separate_key: bool = False) -> Tensor:
    """The definition of the ops, in loops over images, queries, heads, levels and points."""
    images, queries, heads, _, points, _ = case.sampling_offsets.shape
    channels = case.value.shape[-1]
    attended = case.value.new_zeros(images, queries, heads, channels)
    for image in range(images):
        for query in range(queries):
            for head in range(heads):
                samples, keys, start = [], [], 0
                for level, (height, width) in enumerate(case.spatial_shapes):
                    stop = start + height * width
                    for point in range(points):
                        x, y = case.sampling_offsets[image, query, head, level, point].tolist()
                        reference_x, reference_y, *box = case.reference_points[image, query, level].tolist()
                        box_width, box_height = box or (2 * points / width, 2 * points / height)
                        x = (reference_x + x / points * box_width / 2) * width - 0.5
                        y = (reference_y + y / points * box_height / 2) * height - 0.5
                        value = case.value[image, start:stop, head].view(height, width, channels)
                        key = case.key[image, start:stop, head].view(height, width, channels)
                        samples.append(_interpolate(value, x, y))
                        keys.append(_interpolate(key, x, y) if separate_key else samples[-1])
                    start = stop
                logits = case.attention_logits[image, query, head]
                if key_aware:
                    logits = torch.stack(keys) @ case.query[image, query, head] / math.sqrt(channels)
                attended[image, query, head] = logits.softmax(-1) @ torch.stack(samples)
    return attended.flatten(2)


def weighted_sum(
    value: Tensor, spatial_shapes: tuple[tuple[int, int], ...], locations: Tensor, weights: Tensor
) -> Tensor:
    """(N, Q, M * D): of the values at the locations, sampled one by one."""
    images, queries, heads, levels, points = weights.shape
    attended = value.new_zeros(images, queries, heads, value.shape[-1])
    areas = [height * width for height, width in spatial_shapes]
    maps = [tokens.unflatten(1, shape) for tokens, shape in zip(value.split(areas, dim=1), spatial_shapes, strict=True)]
    for index in product(*map(range, (images, queries, heads, levels, points))):
        image, query, head, level, _ = index
        height, width = spatial_shapes[level]
        x, y = locations[index].tolist()
        sample = _interpolate(maps[level][image, :, :, head], x * width - 0.5, y * height - 0.5)
        attended[image, query, head] += weights[index] * sample
    return attended.flatten(2)


@dataclass(frozen=True)
class Variant:
    """One way of attending: how to call it, what it depends on, and what defines it."""

    call: Callable[[Case], Tensor]
    pure_torch: Callable[[Case], Tensor]
    inputs: tuple[str, ...]
    key_aware: bool
    separate_key: bool = False


VARIANTS = {
    "ms_deform_attn": Variant(
        lambda c: ms_deform_attn(c.value, c.spatial_shapes, c.reference_points, c.sampling_offsets, c.attention_logits),
        lambda c: reference.ms_deform_attn(
            c.value, c.spatial_shapes, c.reference_points, c.sampling_offsets, c.attention_logits
        ),
        ("value", "sampling_offsets", "attention_logits", "reference_points"),
        key_aware=False,
    ),
    "key_aware_shared": Variant(
        lambda c: key_aware_deform_attn(c.query, c.value, c.spatial_shapes, c.reference_points, c.sampling_offsets),
        lambda c: reference.key_aware_deform_attn(
            c.query, c.value, c.spatial_shapes, c.reference_points, c.sampling_offsets
        ),
        ("query", "value", "sampling_offsets", "reference_points"),
        key_aware=True,
    ),
    "key_aware_separate": Variant(
        lambda c: key_aware_deform_attn(
            c.query, c.value, c.spatial_shapes, c.reference_points, c.sampling_offsets, c.key
        ),
        lambda c: reference.key_aware_deform_attn(
            c.query, c.value, c.spatial_shapes, c.reference_points, c.sampling_offsets, c.key
        ),
        ("query", "value", "key", "sampling_offsets", "reference_points"),
        key_aware=True,
        separate_key=True,
    ),
}

UNUSUAL_SIZES: dict[str, dict[str, Any]] = {
    "one query": {"queries": 1},
    "one of all": {"images": 1, "heads": 1, "points": 1},
    "odd": {"heads": 3, "queries": 7},
    "one level": {"spatial_shapes": ((3, 4),)},
    "one pixel": {"spatial_shapes": ((1, 1),)},
    "thin levels": {"spatial_shapes": ((1, 7), (5, 1), (1, 1), (2, 2), (3, 3))},
    "seven points": {"points": 7},
}
"""Arguments of ``make_case``, by what a test is to call them."""
