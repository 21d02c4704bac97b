"""Modules with the arguments, names and structure of other packages' attention, for tests without those packages.

Their core functions are here, too, under the names that their modules call them by: PyTorch's ``grid_sample``, at
finished locations.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def ms_deform_attn_core_pytorch(value: Tensor, shapes: Tensor, sampling_locations: Tensor, weights: Tensor) -> Tensor:
    """The formula, level by level."""
    _, _, heads, channels = value.shape
    images, queries, _, _, points, _ = sampling_locations.shape
    attended = value.new_zeros(images * heads, channels, queries)
    tokens = value.split([height * width for height, width in shapes.tolist()], dim=1)
    for level, (height, width) in enumerate(shapes.tolist()):
        plane = tokens[level].permute(0, 2, 3, 1).reshape(images * heads, channels, height, width)
        grid = (2 * sampling_locations[:, :, :, level] - 1).transpose(1, 2).flatten(0, 1)
        samples = F.grid_sample(plane, grid, align_corners=False)
        attended = attended + (samples * weights[:, :, :, level].transpose(1, 2).flatten(0, 1)[:, None]).sum(-1)
    return attended.view(images, heads * channels, queries).transpose(1, 2)


def multi_scale_deformable_attn_pytorch(*arguments: Tensor) -> Tensor:
    return ms_deform_attn_core_pytorch(*arguments)


class MSDeformAttnFunction(torch.autograd.Function):
    """Of a CUDA extension that is not there."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        raise RuntimeError("Not compiled with GPU support")


class MultiScaleDeformableAttnFunction(MSDeformAttnFunction):
    pass


def renaming(**new_names: str) -> Callable[[Any], Any]:
    """A decorator like mmcv's of deprecated arguments: the old name is taken for the new one."""

    def decorate(function: Any) -> Any:
        @functools.wraps(function)
        def renamed(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **{new_names.get(name, name): value for name, value in kwargs.items()})

        return renamed

    return decorate


class _Attention(nn.Module):
    """The parameters that all of them have."""

    def __init__(self, channels: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.d_model = self.embed_dims = channels
        self.n_heads = self.num_heads = heads
        self.n_levels = self.num_levels = levels
        self.n_points = self.num_points = points
        self.im2col_step = 64
        self.sampling_offsets = nn.Linear(channels, heads * levels * points * 2)
        self.attention_weights = nn.Linear(channels, heads * levels * points)
        self.value_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels)

    def _located(self, query: Tensor, reference_points: Tensor, shapes: Tensor) -> tuple[Tensor, Tensor]:
        """Sampling locations and weights."""
        of_points = (self.n_heads, self.n_levels, self.n_points)
        offsets = self.sampling_offsets(query).unflatten(-1, (*of_points, 2))
        weights = self.attention_weights(query).unflatten(-1, (self.n_heads, -1)).softmax(-1)
        reference = reference_points[:, :, None, :, None]
        if reference_points.shape[-1] == 2:
            locations = reference + offsets / shapes.flip(-1)[:, None]
        else:
            locations = reference[..., :2] + offsets / self.n_points * reference[..., 2:] * 0.5
        return locations, weights.unflatten(-1, of_points[1:])


class MSDeformAttn(_Attention):
    """As in Deformable-DETR's repository."""

    def forward(
        self,
        query: Tensor,
        reference_points: Tensor,
        input_flatten: Tensor,
        input_spatial_shapes: Tensor,
        input_level_start_index: Tensor,
        input_padding_mask: Tensor | None = None,
    ) -> Tensor:
        value = self.value_proj(input_flatten)
        if input_padding_mask is not None:
            value = value.masked_fill(input_padding_mask[..., None], 0.0)
        value = value.unflatten(-1, (self.n_heads, -1))
        locations, weights = self._located(query, reference_points, input_spatial_shapes)
        try:
            attended = MSDeformAttnFunction.apply(
                value, input_spatial_shapes, input_level_start_index, locations, weights, self.im2col_step
            )
        except RuntimeError:  # as Mask2Former's copy does
            attended = ms_deform_attn_core_pytorch(value, input_spatial_shapes, locations, weights)
        return self.output_proj(attended)


class MultiScaleDeformableAttention(_Attention):
    """As in mmcv and detrex."""

    def __init__(self, channels: int, heads: int, levels: int, points: int, batch_first: bool = False) -> None:
        super().__init__(channels, heads, levels, points)
        self.batch_first = batch_first
        self.dropout = nn.Dropout(0.1)

    @renaming(residual="identity")
    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        identity: Tensor | None = None,
        query_pos: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        reference_points: Tensor | None = None,
        spatial_shapes: Tensor | None = None,
        level_start_index: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        value = query if value is None else value
        identity = query if identity is None else identity
        query = query if query_pos is None else query + query_pos
        if not self.batch_first:
            query, value = query.transpose(0, 1), value.transpose(0, 1)
        value = self.value_proj(value)
        if key_padding_mask is not None:
            value = value.masked_fill(key_padding_mask[..., None], 0.0)
        value = value.unflatten(-1, (self.num_heads, -1))
        assert reference_points is not None
        assert spatial_shapes is not None
        locations, weights = self._located(query, reference_points, spatial_shapes)
        if value.is_cuda:
            attended = MultiScaleDeformableAttnFunction.apply(
                value, spatial_shapes, level_start_index, locations, weights, self.im2col_step
            )
        else:
            attended = multi_scale_deformable_attn_pytorch(value, spatial_shapes, locations, weights)
        attended = self.output_proj(attended)
        if not self.batch_first:
            attended = attended.transpose(0, 1)
        return self.dropout(attended) + identity
