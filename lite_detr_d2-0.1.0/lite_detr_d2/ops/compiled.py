"""The Python side of the compiled ops: fake kernels, which know shapes only, and autograd.

Arguments are those of the schemas in ``csrc/library.cpp``; :mod:`lite_detr_d2.ops.deform_attn` documents their shapes.
"""

import warnings
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
    output_mask: Sequence[bool],
) -> tuple[Tensor, ...]:
    return _fake_gradients((value, reference_points, sampling_offsets, attention_logits), output_mask)


def _fake_key_aware_deform_attn(
    query: Tensor, value: Tensor, spatial_shapes: Sequence[int], reference_points: Tensor, *_: Any
) -> Tensor:
    images, queries, heads, channels = query.shape
    return value.new_empty((images, queries, heads * channels))


def _fake_key_aware_deform_attn_backward(
    grad_output: Tensor,
    query: Tensor,
    value: Tensor,
    spatial_shapes: Sequence[int],
    reference_points: Tensor,
    sampling_offsets: Tensor,
    key: Tensor | None,
    output_mask: Sequence[bool],
) -> tuple[Tensor, ...]:
    without_key = value.new_empty(0)
    inputs = (query, value, reference_points, sampling_offsets, without_key if key is None else key)
    return _fake_gradients(inputs, output_mask)


def _fake_check_images(images: Tensor, sizes: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    images, sizes = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (images, sizes))
    return images, sizes


def _fake_gradients(inputs: Sequence[Tensor], output_mask: Sequence[bool]) -> tuple[Tensor, ...]:
    return tuple(
        tensor.new_empty(tensor.shape if wanted else (0,)) for tensor, wanted in zip(inputs, output_mask, strict=True)
    )


def _alert_if_not_deterministic(op: str, grad_output: Tensor) -> None:
    # As torch does for its own ops. The CUDA kernels add to the gradients of the maps in any order.
    if not grad_output.is_cuda or not torch.are_deterministic_algorithms_enabled():
        return
    message = (
        f"{op}: the gradient on CUDA is not deterministic, but torch.use_deterministic_algorithms(True) asks for that; "
        "turn it off, or give it warn_only=True"
    )
    if not torch.is_deterministic_algorithms_warn_only_enabled():
        raise RuntimeError(message)
    warnings.warn(message, UserWarning, stacklevel=2)


def _none_if_unwanted(gradients: Sequence[Tensor], output_mask: Sequence[bool]) -> list[Tensor | None]:
    return [gradient if wanted else None for gradient, wanted in zip(gradients, output_mask, strict=True)]


def _save_ms_deform_attn(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    value, ctx.spatial_shapes, *others = inputs
    ctx.save_for_backward(value, *others)


def _ms_deform_attn_backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    _alert_if_not_deterministic("ms_deform_attn", grad_output)
    value, *others = ctx.saved_tensors
    output_mask = [ctx.needs_input_grad[i] for i in (0, 2, 3, 4)]
    gradients = torch.ops.lite_detr.ms_deform_attn_backward(
        grad_output, value, ctx.spatial_shapes, *others, output_mask
    )
    grad_value, *grad_others = _none_if_unwanted(gradients, output_mask)
    return grad_value, None, *grad_others


def _save_key_aware_deform_attn(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    query, value, ctx.spatial_shapes, *others = inputs
    ctx.save_for_backward(query, value, *others)


def _key_aware_deform_attn_backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    _alert_if_not_deterministic("key_aware_deform_attn", grad_output)
    query, value, *others = ctx.saved_tensors
    output_mask = [ctx.needs_input_grad[i] for i in (0, 1, 3, 4, 5)]
    gradients = torch.ops.lite_detr.key_aware_deform_attn_backward(
        grad_output, query, value, ctx.spatial_shapes, *others, output_mask
    )
    grad_query, grad_value, *grad_others = _none_if_unwanted(gradients, output_mask)
    return grad_query, grad_value, None, *grad_others


def _refuse_second_derivatives(ctx: Any, *_: Any) -> Any:
    # Without this, torch would warn, and take them for zero.
    raise NotImplementedError("ms_deform_attn and key_aware_deform_attn are differentiable once: no second derivatives")


def register_compiled_ops() -> None:
    """Register the fake kernels and the gradients of ``torch.ops.lite_detr``, once the library is loaded."""
    register_fake, register_autograd = torch.library.register_fake, torch.library.register_autograd
    register_fake("lite_detr::check_images", _fake_check_images)
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
    register_autograd("lite_detr::ms_deform_attn_backward", _refuse_second_derivatives)
    register_autograd("lite_detr::key_aware_deform_attn_backward", _refuse_second_derivatives)
