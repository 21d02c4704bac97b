"""What the ops cost, for fvcore's and torch's FLOP counters.

With X = N * Q * M * L * P * D, and a multiply-add counted as one, bilinear sampling of a map costs 4X. Published
figures are fvcore's for the authors' PyTorch code, and these are the same: multi-scale deformable attention 4X (its
weighted sum is elementwise there, and not counted), key-aware 10X (two maps, and X each for the products with the query
and for the weighted sum), or 6X where keys and values share one map, which is sampled once.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from fvcore.nn.flop_count import _DEFAULT_SUPPORTED_OPS
from fvcore.nn.jit_handles import get_shape
from torch.utils.flop_counter import register_flop_formula

from lite_detr_d2.ops.deform_attn import compiled_ops_status

Shape = Sequence[int]


@functools.cache
def register_flop_handlers() -> None:
    """Teach both counters the ops.

    fvcore's go into its default table, which any ``FlopCountAnalysis``, detectron2's included, reads when it is made.
    torch's counter sees the compiled ops; the pure-PyTorch ones it decomposes.
    """
    for namespace in ("lite_detr", "lite_detr_pure_torch"):
        _DEFAULT_SUPPORTED_OPS[f"{namespace}::ms_deform_attn"] = _ms_deform_attn_jit
        _DEFAULT_SUPPORTED_OPS[f"{namespace}::key_aware_deform_attn"] = _key_aware_deform_attn_jit
    _DEFAULT_SUPPORTED_OPS["aten::scaled_dot_product_attention"] = _scaled_dot_product_attention_jit

    compiled, _ = compiled_ops_status()
    if compiled:
        ops = torch.ops.lite_detr
        _register_formula(ops.ms_deform_attn, ops.ms_deform_attn_backward, _ms_deform_attn_of)
        _register_formula(ops.key_aware_deform_attn, ops.key_aware_deform_attn_backward, _key_aware_deform_attn_of)


def ms_deform_attn_flops(value: Shape, sampling_offsets: Shape) -> int:
    """Multiply-adds of a call, from the shapes (N, S, M, D) and (N, Q, M, L, P, 2)."""
    return 4 * math.prod(sampling_offsets[:-1]) * value[-1]


def key_aware_deform_attn_flops(value: Shape, sampling_offsets: Shape, shared_map: bool) -> int:
    """Multiply-adds of a call, from the shapes (N, S, M, D) and (N, Q, M, L, P, 2)."""
    return (6 if shared_map else 10) * math.prod(sampling_offsets[:-1]) * value[-1]


def _ms_deform_attn_jit(inputs: list[Any], outputs: list[Any]) -> int:
    return ms_deform_attn_flops(get_shape(inputs[0]), get_shape(inputs[3]))


def _key_aware_deform_attn_jit(inputs: list[Any], outputs: list[Any]) -> int:
    shared_map = get_shape(inputs[5]) is None
    return key_aware_deform_attn_flops(get_shape(inputs[1]), get_shape(inputs[4]), shared_map)


def _scaled_dot_product_attention_jit(inputs: list[Any], outputs: list[Any]) -> int:
    *batch, queries, channels = get_shape(inputs[0])
    keys, value_channels = get_shape(inputs[2])[-2:]
    return math.prod((*batch, queries, keys, channels + value_channels))


def _ms_deform_attn_of(value: Shape, spatial_shapes: Any, reference_points: Shape, offsets: Shape, *_: Any) -> int:
    return ms_deform_attn_flops(value, offsets)


def _key_aware_deform_attn_of(
    query: Shape, value: Shape, spatial_shapes: Any, reference_points: Shape, offsets: Shape, key: Shape | None, *_: Any
) -> int:
    return key_aware_deform_attn_flops(value, offsets, shared_map=key is None)


def _register_formula(forward: Any, backward: Any, multiply_adds: Callable[..., int]) -> None:
    """In torch's unit a multiply-add is two; backward costs twice forward, as for a matrix product."""

    def forward_flops(*arguments: Any, **_: Any) -> int:
        return 2 * multiply_adds(*arguments)

    def backward_flops(grad_output: Shape, *arguments: Any, **_: Any) -> int:
        return 4 * multiply_adds(*arguments)

    register_flop_formula(forward)(forward_flops)
    register_flop_formula(backward)(backward_flops)
