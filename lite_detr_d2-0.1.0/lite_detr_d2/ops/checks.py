"""The checks of the ops' arguments: one line that names the argument, what was expected and what came."""

from collections.abc import Sequence

import torch
from torch import Tensor


def is_traced() -> bool:
    """Whether sizes may be no numbers, which the checks need.

    torch.jit.trace, by which fvcore counts operations, makes tensors of them, and torch.export and torch.compile
    symbols. The kernels check what is run.
    """
    return bool(torch.jit.is_tracing()) or torch.compiler.is_compiling()  # type: ignore[attr-defined]


def check(condition: bool, argument: str, expected: str, got: object) -> None:
    if not condition:
        raise ValueError(f"{argument}: expected {expected}, got {got}")


def check_tensor(
    argument: str, tensor: Tensor, shape: tuple[int, ...], value: Tensor, same_dtype: bool = False
) -> None:
    check(tensor.shape == shape, argument, f"shape {shape}", tuple(tensor.shape))
    check(tensor.is_floating_point(), argument, "a floating dtype", tensor.dtype)
    if same_dtype:
        check(tensor.dtype == value.dtype, argument, f"the dtype of value, {value.dtype}", tensor.dtype)
    check(tensor.device == value.device, argument, f"the device of value, {value.device}", tensor.device)


def check_value(value: Tensor, spatial_shapes: Sequence[tuple[int, int]]) -> None:
    check(value.dim() == 4 and value.shape[3] > 0, "value", "4 dimensions (N, S, M, D) with D > 0", tuple(value.shape))
    check(value.is_floating_point(), "value", "a floating dtype", value.dtype)
    tokens = value.shape[1]
    check(_are_sizes(spatial_shapes), "spatial_shapes", "pairs (height, width) of positive integers", spatial_shapes)
    areas = sum(height * width for height, width in spatial_shapes)
    check(areas == tokens, "spatial_shapes", f"areas that sum to the {tokens} tokens of value", areas)


def check_points(argument: str, points: Tensor, value: Tensor, levels: int) -> None:
    """Offsets or locations."""
    check(
        points.dim() == 6 and points.shape[4] > 0,
        argument,
        "6 dimensions (N, Q, M, L, P, 2) with P > 0",
        tuple(points.shape),
    )
    images, _, heads, _ = value.shape
    check_tensor(argument, points, (images, points.shape[1], heads, levels, points.shape[4], 2), value)


def check_sampling(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    reference_points: Tensor,
    sampling_offsets: Tensor,
) -> None:
    """All that the ops have in common."""
    check_value(value, spatial_shapes)
    levels = len(spatial_shapes)
    check_points("sampling_offsets", sampling_offsets, value, levels)

    coordinates = reference_points.shape[-1] if reference_points.dim() == 4 else 0
    check(
        coordinates in (2, 4), "reference_points", "shape (N, Q, L, 2) or (N, Q, L, 4)", tuple(reference_points.shape)
    )
    queries = sampling_offsets.shape[1]
    check_tensor("reference_points", reference_points, (value.shape[0], queries, levels, coordinates), value)


def _are_sizes(spatial_shapes: Sequence[tuple[int, int]]) -> bool:
    try:
        pairs = [(height, width) for height, width in spatial_shapes]
        return len(pairs) > 0 and all(side > 0 and side == int(side) for pair in pairs for side in pair)
    except (TypeError, ValueError):
        return False


def logits_shape(sampling_offsets: Tensor) -> tuple[int, ...]:
    images, queries, heads, levels, points, _ = sampling_offsets.shape
    return images, queries, heads, levels * points
