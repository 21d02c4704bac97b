"""The Python side of the compiled ops: fake kernels, which know shapes only, and autograd.

Arguments are those of the schemas in ``csrc/library.cpp``; :mod:`lite_detr_d2.ops.deform_attn` documents their shapes.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def _fake_ms_deform_attn(
    value: Tensor, spatial_shapes: Sequence[int], reference_points: Tensor, sampling_offsets: Tensor, *_: Any
) -> Tensor:
    images, _tokens, heads, channels = value.shape
    return value.new_empty((images, sampling_offsets.shape[1], heads * channels))


def _fake_ms_deform_attn_backward(
    grad_output: Tensor,
    value: Tensor,
    spatial_shapes: Sequence[int],
    reference_points: Tensor,
    sampling_offsets: Tensor,
    attention_logits: Tensor,
    reference_points_grad: bool,
) -> tuple[Tensor, ...]:
    return (
        value.new_empty(value.shape),
        value.new_empty(reference_points.shape if reference_points_grad else (0,)),
        value.new_empty(sampling_offsets.shape),
        value.new_empty(attention_logits.shape),
    )


def _fake_key_aware_deform_attn(
    query: Tensor, value: Tensor, spatial_shapes: Sequence[int], reference_points: Tensor, *_: Any
) -> Tensor:
    return value.new_empty(query.shape).flatten(2)


def _fake_key_aware_deform_attn_backward(
    grad_output: Tensor,
    query: Tensor,
    value: Tensor,
    spatial_shapes: Sequence[int],
    reference_points: Tensor,
    sampling_offsets: Tensor,
    key: Tensor | None,
    reference_points_grad: bool,
) -> tuple[Tensor, ...]:
    return (
        value.new_empty(query.shape),
        value.new_empty(value.shape),
        value.new_empty(reference_points.shape if reference_points_grad else (0,)),
        value.new_empty(sampling_offsets.shape),
        value.new_empty((0,) if key is None else key.shape),
    )


def _save_ms_deform_attn(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    value, ctx.spatial_shapes, *others = inputs
    ctx.save_for_backward(value, *others)


def _ms_deform_attn_backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    value, reference_points, sampling_offsets, attention_logits = ctx.saved_tensors
    wanted = ctx.needs_input_grad[2]
    grad_value, grad_reference, grad_offsets, grad_logits = torch.ops.lite_detr.ms_deform_attn_backward(
        grad_output, value, ctx.spatial_shapes, reference_points, sampling_offsets, attention_logits, wanted
    )
    return grad_value, None, grad_reference if wanted else None, grad_offsets, grad_logits


def _save_key_aware_deform_attn(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    query, value, ctx.spatial_shapes, *others = inputs
    ctx.save_for_backward(query, value, *others)


def _key_aware_deform_attn_backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    query, value, reference_points, sampling_offsets, key = ctx.saved_tensors
    wanted = ctx.needs_input_grad[3]
    grad_query, grad_value, grad_reference, grad_offsets, grad_key = torch.ops.lite_detr.key_aware_deform_attn_backward(
        grad_output, query, value, ctx.spatial_shapes, reference_points, sampling_offsets, key, wanted
    )
    return (
        grad_query,
        grad_value,
        None,
        grad_reference if wanted else None,
        grad_offsets,
        None if key is None else grad_key,
    )


def register_compiled_ops() -> None:
    """Register the fake kernels and the gradients of ``torch.ops.lite_detr``, once the library is loaded."""
    register_fake, register_autograd = torch.library.register_fake, torch.library.register_autograd
    register_fake("lite_detr::ms_deform_attn", _fake_ms_deform_attn)
    register_fake("lite_detr::ms_deform_attn_backward", _fake_ms_deform_attn_backward)
    register_fake("lite_detr::key_aware_deform_attn", _fake_key_aware_deform_attn)
    register_fake("lite_detr::key_aware_deform_attn_backward", _fake_key_aware_deform_attn_backward)
    register_autograd("lite_detr::ms_deform_attn", _ms_deform_attn_backward, setup_context=_save_ms_deform_attn)
    register_autograd(
        "lite_detr::key_aware_deform_attn",
        _key_aware_deform_attn_backward,
        setup_context=_save_key_aware_deform_attn,
    )
