"""The attention ops: what users call, its checks, and the choice of implementation.

There are two implementations of each op. ``torch.ops.lite_detr`` is compiled (``csrc/``).
``torch.ops.lite_detr_pure_torch`` wraps :mod:`lite_detr_d2.ops.reference`, so that a traced model shows one node per
call in either case. The environment variable ``LITE_DETR_PURE_TORCH``, read on import, chooses: unset, the compiled one
where it is there for the tensor's device, else the other with one warning; ``0``, the compiled one or an error; ``1``,
the pure-PyTorch one.

On CUDA, gradients of the compiled ones differ in their last bits from call to call. After
``torch.use_deterministic_algorithms(True)`` the pure-PyTorch ones are taken there, by gathers, which do not; with
``warn_only=True`` it is a warning.
"""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lite_detr_d2.ops import reference
from lite_detr_d2.ops.checks import check_sampling, check_tensor, is_traced, logits_shape
from lite_detr_d2.ops.compiled import register_compiled_ops

_PACKAGE = Path(__file__).resolve().parent.parent
LIBRARY = _PACKAGE / "_C.abi3.so"
"""The compiled ops, if they have been built. It needs nothing but torch."""
_BUILD_ERROR = _PACKAGE / "_C.build_error.txt"  # setup.py writes it when the build fails
_BUILD = "`pip install --no-build-isolation -e .`"


def ms_deform_attn(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    reference_points: Tensor,
    sampling_offsets: Tensor,
    attention_logits: Tensor,
) -> Tensor:
    """Attend from each query to the values at its sampling locations (multi-scale deformable attention).

    Weights are the softmax of ``attention_logits`` over all L * P points. A location is interpolated bilinearly between
    the pixel centres of its level; outside of the map it samples zeros, and still takes its share of the softmax. A
    location that is not finite makes its own query's head NaN, and nothing else. A token that is not finite may do so
    to heads that sample beside it.

    Args:
        value: (N, S, M, D), M heads of D channels; floating. Padded tokens are zero.
        spatial_shapes: L pairs (height, width) of Python integers, fine to coarse; their areas sum to S. At most 16
            levels on CUDA.
        reference_points: (N, Q, L, 2) as (x, y), or (N, Q, L, 4) as (x, y, w, h), both 0..1 from edge to edge of the
            padded map.
        sampling_offsets: (N, Q, M, L, P, 2) as (x, y), raw: in pixels of the level for 2-d reference points, in units
            of half the box's size over P for 4-d ones.
        attention_logits: (N, Q, M, L * P), before the softmax.

    Returns:
        (N, Q, M * D), of the type of ``value``. Differentiable once, in reverse mode, in every tensor argument. Half
        types are computed in float32, and autocast makes ``value`` half.

    Raises:
        ValueError: naming the argument whose shape, dtype or device does not fit.
        RuntimeError: if ``LITE_DETR_PURE_TORCH=0`` and the compiled op is not there.
        NotImplementedError: in backward, if a second derivative of the compiled op is asked for.

    Source: Deformable DETR, arXiv 2010.04159, Sec. 4.1.
    """
    value = _autocast(value)
    if not is_traced():
        check_sampling(value, spatial_shapes, reference_points, sampling_offsets)
        check_tensor("attention_logits", attention_logits, logits_shape(sampling_offsets), value)
    ops = _ops_for(value.device.type)
    dtype = _compute_dtype(value)
    attended: Tensor = ops.ms_deform_attn(
        value,
        _flatten(spatial_shapes),
        _cast(reference_points, dtype),
        _cast(sampling_offsets, dtype),
        _cast(attention_logits, dtype),
    )
    return attended


def key_aware_deform_attn(
    query: Tensor,
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    reference_points: Tensor,
    sampling_offsets: Tensor,
    key: Tensor | None = None,
) -> Tensor:
    """Attend from each query to the keys found at its sampling locations (key-aware deformable attention, KDA).

    Weights are the softmax over all L * P points of ``<q, k> / sqrt(D)``. A point outside of its map samples zeros: its
    logit is 0, and it still takes its share of the softmax. A location that is not finite makes its own query's head
    NaN, and nothing else. A token that is not finite may do so to heads that sample beside it.

    Args:
        query: (N, Q, M, D) projected queries, M heads of D channels, of the type of ``value``.
        value: (N, S, M, D); floating. Padded tokens are zero.
        spatial_shapes: L pairs (height, width) of Python integers, fine to coarse; their areas sum to S. At most 16
            levels on CUDA.
        reference_points: (N, Q, L, 2) as (x, y), or (N, Q, L, 4) as (x, y, w, h), both 0..1 from edge to edge of the
            padded map.
        sampling_offsets: (N, Q, M, L, P, 2) as (x, y), raw: in pixels of the level for 2-d reference points, in units
            of half the box's size over P for 4-d ones.
        key: (N, S, M, D), of the type of ``value``; or None to use ``value`` as the key too, which samples it once.

    Returns:
        (N, Q, M * D), of the type of ``value``. Differentiable once, in reverse mode, in every tensor argument. Half
        types are computed in float32, and autocast makes ``query``, ``value`` and ``key`` half.

    Raises:
        ValueError: naming the argument whose shape, dtype or device does not fit.
        RuntimeError: if ``LITE_DETR_PURE_TORCH=0`` and the compiled op is not there.
        NotImplementedError: in backward, if a second derivative of the compiled op is asked for.

    Source: Lite DETR, arXiv 2303.07335, Sec. 3.6.
    """
    query, value, key = _autocast(query), _autocast(value), None if key is None else _autocast(key)
    if not is_traced():
        check_sampling(value, spatial_shapes, reference_points, sampling_offsets)
        images, _, heads, channels = value.shape
        check_tensor("query", query, (images, sampling_offsets.shape[1], heads, channels), value, same_dtype=True)
        if key is not None:
            check_tensor("key", key, tuple(value.shape), value, same_dtype=True)
    ops = _ops_for(value.device.type)
    dtype = _compute_dtype(value)
    attended: Tensor = ops.key_aware_deform_attn(
        query,
        value,
        _flatten(spatial_shapes),
        _cast(reference_points, dtype),
        _cast(sampling_offsets, dtype),
        key,
    )
    return attended


def compiled_ops_status(device: str = "cpu") -> tuple[bool, str]:
    """Whether the compiled ops are in use for a type of devices, and if not, why not (else an empty string)."""
    why_not = _why_not_compiled(device)
    return not why_not, why_not


def _compute_dtype(value: Tensor) -> torch.dtype:
    # A half-precision location could not tell the pixels of a large map apart.
    return torch.float64 if value.dtype == torch.float64 else torch.float32


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    # `to` leaves nodes in an exported graph even where it changes nothing.
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


def _autocast(tensor: Tensor) -> Tensor:
    """As autocast treats a matrix product's operand. Locations and logits are never rounded."""
    device = tensor.device.type
    # Meta has no autocast to ask for. torch.amp.is_autocast_available would know, but torch 2.10 does not compile it.
    if tensor.is_meta or not torch.is_autocast_enabled(device):
        return tensor
    eligible = tensor.is_floating_point() and tensor.dtype != torch.float64
    return _cast(tensor, torch.get_autocast_dtype(device)) if eligible else tensor


def _flatten(spatial_shapes: Sequence[tuple[int, int]]) -> list[int]:
    # torch.export's symbols stay as they are: of one, int() would make a constant.
    return [side if isinstance(side, torch.SymInt) else int(side) for shape in spatial_shapes for side in shape]


# --- The pure-PyTorch implementation, as dispatcher ops that autograd and torch.compile see through.


def _pairs(spatial_shapes: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip(spatial_shapes[::2], spatial_shapes[1::2], strict=True))


def _pure_torch_ms_deform_attn(
    value: Tensor,
    spatial_shapes: Sequence[int],
    reference_points: Tensor,
    sampling_offsets: Tensor,
    attention_logits: Tensor,
) -> Tensor:
    _warn_once(value.device.type)
    dtype = _compute_dtype(value)
    attended = reference.ms_deform_attn(
        _cast(value, dtype),
        _pairs(spatial_shapes),
        reference_points,
        sampling_offsets,
        attention_logits,
        sample=_sampler(value.device.type),
    )
    return _cast(attended, value.dtype)


def _pure_torch_key_aware_deform_attn(
    query: Tensor,
    value: Tensor,
    spatial_shapes: Sequence[int],
    reference_points: Tensor,
    sampling_offsets: Tensor,
    key: Tensor | None,
) -> Tensor:
    _warn_once(value.device.type)
    dtype = _compute_dtype(value)
    attended = reference.key_aware_deform_attn(
        _cast(query, dtype),
        _cast(value, dtype),
        _pairs(spatial_shapes),
        reference_points,
        sampling_offsets,
        None if key is None else _cast(key, dtype),
        sample=_sampler(value.device.type),
    )
    return _cast(attended, value.dtype)


def _define_pure_torch_ops() -> None:
    where = "SymInt[] spatial_shapes, Tensor reference_points, Tensor sampling_offsets"
    for name, arguments, function in (
        ("ms_deform_attn", f"Tensor value, {where}, Tensor attention_logits", _pure_torch_ms_deform_attn),
        (
            "key_aware_deform_attn",
            f"Tensor query, Tensor value, {where}, Tensor? key",
            _pure_torch_key_aware_deform_attn,
        ),
    ):
        torch.library.define(f"lite_detr_pure_torch::{name}", f"({arguments}) -> Tensor")
        torch.library.impl(f"lite_detr_pure_torch::{name}", "CompositeImplicitAutograd", function)


# --- The choice.


def _read_mode() -> str:
    mode = os.environ.get("LITE_DETR_PURE_TORCH", "")
    if mode not in ("", "0", "1"):
        raise ValueError(f"LITE_DETR_PURE_TORCH: expected 0, 1 or nothing, got {mode!r}")
    return mode


def _load_compiled_ops() -> str:
    """Load the library; return why it is not loaded, or an empty string."""
    if _MODE == "1":
        return "LITE_DETR_PURE_TORCH=1 asks for the pure-PyTorch ops"
    if not LIBRARY.exists():
        if _BUILD_ERROR.exists():
            return f"they could not be built: {_build_error()} ({_BUILD} tries again)"
        return f"they have not been built ({_BUILD} builds them)"
    try:
        torch.ops.load_library(LIBRARY)
    except OSError as error:
        return f"{LIBRARY.name} does not load: {error.__cause__ or error}"
    register_compiled_ops()
    return ""


def _build_error() -> str:
    return _BUILD_ERROR.read_text(encoding="utf-8", errors="replace").strip()


def _why_not_compiled(device: str) -> str:
    if _WHY_NOT_COMPILED or device in ("cpu", "meta"):  # the fake kernels serve meta tensors
        return _WHY_NOT_COMPILED
    if device == "cuda" and _BUILT_FOR_CUDA:
        return ""
    # The build leaves a reason beside the library if it looked for a toolkit.
    reason = f": {_build_error()}" if device == "cuda" and _BUILD_ERROR.exists() else ""
    cure = f"; with a CUDA toolkit, `FORCE_CUDA=1` before {_BUILD} builds them" if device == "cuda" else ""
    return f"they were built without kernels for {device}{reason}{cure}"


def _ops_for(device: str) -> Any:
    why_not = _why_not_compiled(device)
    if why_not and _MODE == "0":
        raise RuntimeError(f"LITE_DETR_PURE_TORCH=0 asks for the compiled ops of lite_detr_d2, but {why_not}")
    return torch.ops.lite_detr_pure_torch if why_not or _must_be_deterministic(device) else torch.ops.lite_detr


def _must_be_deterministic(device: str) -> bool:
    """Whether gradients may be asked for that the compiled ops, and ``grid_sample``, add up in any order."""
    return (
        device == "cuda"
        and torch.is_grad_enabled()
        and torch.are_deterministic_algorithms_enabled()
        and not torch.is_deterministic_algorithms_warn_only_enabled()
    )


def _sampler(device: str) -> reference.Sampler:
    return reference.sample_by_gathers if _must_be_deterministic(device) else reference.sample_grid


def _warn_once(device: str) -> None:
    """Say why the compiled ops are not used. Called inside of the op, where torch.compile does not look."""
    why_not = _why_not_compiled(device)
    if _MODE == "" and why_not and why_not not in _WARNED:
        _WARNED.add(why_not)
        warnings.warn(
            f"lite_detr_d2 uses its slow pure-PyTorch ops on {device}. The compiled ops are not used: {why_not}",
            RuntimeWarning,
            stacklevel=5,  # the caller of the public function
        )


_WARNED: set[str] = set()
_MODE = _read_mode()
_WHY_NOT_COMPILED = _load_compiled_ops()
_BUILT_FOR_CUDA = not _WHY_NOT_COMPILED and torch._C._dispatch_has_kernel_for_dispatch_key(
    "lite_detr::ms_deform_attn", "CUDA"
)
_define_pure_torch_ops()
