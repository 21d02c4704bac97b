"""The attention of models that work out locations and weights by themselves, by the kernels of ``ms_deform_attn``."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lite_detr_d2.ops.checks import check_points, check_tensor, check_value, is_traced
from lite_detr_d2.ops.deform_attn import ms_deform_attn

# Added to each weight: far less than what float32 tells apart of weights that count, and not 0, whose logarithm has no
# gradient.
_TINY = 1e-30


def ms_deform_attn_at(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Sum the values at finished locations by finished weights: :func:`ms_deform_attn` behind its arithmetic.

    It is what ``sampling_locations_and_weights`` gives the inputs of, and what the core functions of other packages
    compute. Weights need not sum to 1. A location outside of its map samples zeros.

    Args:
        value: (N, S, M, D), M heads of D channels; floating. Padded tokens are zero.
        spatial_shapes: L pairs (height, width) of Python integers; their areas sum to S. At most 16 levels on CUDA.
        sampling_locations: (N, Q, M, L, P, 2) as (x, y); 0 and 1 are the edges of the padded map.
        attention_weights: (N, Q, M, L, P), 0 or more; a negative one makes its query's head NaN.

    Returns:
        (N, Q, M * D), of the type of ``value``. Differentiable once, in reverse mode, in every tensor argument, also
        where a weight is 0. Half types are computed in float32, and autocast makes ``value`` half.

    Raises:
        ValueError: naming the argument whose shape, dtype or device does not fit.
        RuntimeError: if ``LITE_DETR_PURE_TORCH=0`` and the compiled op is not there.
        NotImplementedError: in backward, if a second derivative of the compiled op is asked for.

    Source: Deformable DETR, arXiv 2010.04159, Sec. 4.1.
    """
    if not is_traced():
        check_value(value, spatial_shapes)
        check_points("sampling_locations", sampling_locations, value, len(spatial_shapes))
        check_tensor("attention_weights", attention_weights, tuple(sampling_locations.shape[:-1]), value)
    images, queries, heads, levels, points, _ = sampling_locations.shape
    dtype = torch.promote_types(attention_weights.dtype, torch.float32)
    # The op's softmax of the logarithms is each weight's share of their sum, by which its result is multiplied.
    weights = attention_weights.to(dtype).flatten(-2) + _TINY
    # An offset of a box counts in units of half its side over P: from such a box at 0 it is the location itself.
    box = sampling_locations.new_tensor([0.0, 0.0, 2.0 * points, 2.0 * points])
    boxes = box.expand(images, queries, levels, 4)
    shares = ms_deform_attn(value, spatial_shapes, boxes, sampling_locations, weights.log())
    attended = shares.unflatten(-1, (heads, -1)) * weights.sum(-1, keepdim=True)
    finished: Tensor = attended.to(shares.dtype).flatten(-2)
    return finished
