"""Layers of inference alone, each of which is one call of oneDNN on the CPU: product, bias, sum and ReLU.

Left apart, these are passes over the whole of a map, which take longer than the products where those are of bfloat16.
Elsewhere than on the CPU, or without oneDNN, they are computed one after the other; and so they are to torch.compile,
which writes the same operators into its programs. Weights are as they are, and not in an order that oneDNN chose for
one size: such tensors can neither be copied nor saved, and gained too little to be measured here.
"""

from typing import Any

import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ..modeling.layers import FeedForward

_BATCH_NORMS = (FrozenBatchNorm2d, nn.BatchNorm2d, nn.SyncBatchNorm)


class FusedConv2d(nn.Module):
    """A convolution with the frozen batch norm that follows it in its weights, in channels-last.

    Its parameters need no gradient.
    """

    def __init__(self, convolution: nn.Conv2d, dtype: torch.dtype, *, relu: bool = False) -> None:
        """Fuse a convolution, of which :meth:`takes` is true, and a ReLU after it if there is one."""
        super().__init__()
        weight, bias = convolution.weight, convolution.bias
        norm = _norm_of(convolution)
        if norm is not None:
            statistics: Any = (norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
            weight, bias = fuse_conv_bn_weights(weight, bias, *statistics)
        self.weight = _frozen(weight, dtype, torch.channels_last)
        self.bias = None if bias is None else _frozen(bias, dtype)
        self.relu = relu
        self.padding, self.stride, self.dilation = (
            [int(side) for side in sides] for sides in (convolution.padding, convolution.stride, convolution.dilation)
        )
        self.groups = convolution.groups

    @staticmethod
    def takes(module: nn.Module) -> bool:
        """Whether a module is a convolution of zero-padded maps, with a batch norm or nothing that follows it."""
        return (
            type(module) in (nn.Conv2d, Conv2d)
            and module.padding_mode == "zeros"
            and not isinstance(module.padding, str)
            and getattr(module, "activation", None) is None
            and (_norm_of(module) is None or _has_statistics(_norm_of(module)))
        )

    def forward(self, maps: Tensor, added: Tensor | None = None) -> Tensor:
        """Convolve (N, C_in, H, W), add ``added`` of the result's shape if it is given, and take the ReLU."""
        maps = maps.to(self.weight.dtype).contiguous(memory_format=torch.channels_last)
        if not _has_onednn(maps):
            result = F.conv2d(maps, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
            return _finished(result, added, self.relu)
        geometry = (self.padding, self.stride, self.dilation, self.groups)
        # Typed as if they had no overloads.
        operator: Any = torch.ops.mkldnn._convolution_pointwise
        if added is None:
            return operator.default(maps, self.weight, self.bias, *geometry, _relu(self.relu) or "none", [], None)  # type: ignore[no-any-return]
        added = added.to(maps.dtype).contiguous(memory_format=torch.channels_last)
        return operator.binary(  # type: ignore[no-any-return]
            maps, added, self.weight, self.bias, *geometry, "add", 1.0, _relu(self.relu), [], None
        )


class FusedLinear(nn.Module):
    """A linear layer, whose parameters need no gradient."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype, *, relu: bool = False) -> None:
        """Fuse a linear layer, and a ReLU after it if there is one."""
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight = _frozen(linear.weight, dtype)
        self.bias = None if linear.bias is None else _frozen(linear.bias, dtype)
        self.relu = relu

    def forward(self, values: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features), of the type of the weights."""
        values = values.to(self.weight.dtype)
        if not _has_onednn(values):
            return _finished(F.linear(values, self.weight, self.bias), None, self.relu)
        operator: Any = torch.ops.mkldnn._linear_pointwise
        return operator.default(values, self.weight, self.bias, _relu(self.relu) or "none", [], None)  # type: ignore[no-any-return]


class FusedFeedForward(nn.Module):
    """A :class:`FeedForward` without dropout."""

    def __init__(self, layer: FeedForward, dtype: torch.dtype) -> None:
        super().__init__()
        self.linear1 = FusedLinear(layer.linear1, dtype, relu=True)
        self.linear2 = FusedLinear(layer.linear2, dtype)
        self.norm = layer.norm

    def forward(self, tokens: Tensor) -> Tensor:
        """Refine (..., C) tokens."""
        refined: Tensor = self.norm(tokens + self.linear2(self.linear1(tokens)))
        return refined


class FusedStem(nn.Module):
    """The beginning of detectron2's ResNets: a convolution, ReLU, and max pooling."""

    def __init__(self, stem: Any, dtype: torch.dtype) -> None:
        super().__init__()
        self.conv1 = FusedConv2d(stem.conv1, dtype, relu=True)

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, C, H, W) to a quarter of the height and width."""
        return F.max_pool2d(self.conv1(images), kernel_size=3, stride=2, padding=1)


class FusedBlock(nn.Module):
    """A residual block of detectron2's ResNets: convolutions with ReLUs, of which the last adds the shortcut."""

    def __init__(self, block: Any, dtype: torch.dtype) -> None:
        super().__init__()
        convolutions = [getattr(block, name) for name in ("conv1", "conv2", "conv3") if hasattr(block, name)]
        self.convolutions = nn.ModuleList(FusedConv2d(each, dtype, relu=True) for each in convolutions)
        self.shortcut = None if block.shortcut is None else FusedConv2d(block.shortcut, dtype)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (N, C, H, W) features, as the block does."""
        added = maps if self.shortcut is None else self.shortcut(maps)
        *first, last = self.convolutions
        for convolution in first:
            maps = convolution(maps)
        result: Tensor = last(maps, added)
        return result


def _norm_of(convolution: nn.Module) -> Any:
    return getattr(convolution, "norm", None)  # of detectron2's


def _has_statistics(norm: Any) -> bool:
    return isinstance(norm, _BATCH_NORMS) and norm.running_mean is not None


def _frozen(values: Tensor, dtype: torch.dtype, layout: torch.memory_format = torch.contiguous_format) -> nn.Parameter:
    return nn.Parameter(values.detach().to(dtype).clone(memory_format=layout), requires_grad=False)


def _has_onednn(values: Tensor) -> bool:
    if values.device.type != "cpu" or torch.compiler.is_compiling() or not torch.backends.mkldnn.is_available():
        return False
    return values.dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _relu(wanted: bool) -> str | None:
    return "relu" if wanted else None


def _finished(result: Tensor, added: Tensor | None, relu: bool) -> Tensor:
    if added is not None:
        result = result + added
    return F.relu_(result) if relu else result
