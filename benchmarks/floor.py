"""The floor of a model: its matrix products and convolutions alone, each in the fastest way that PyTorch has for it."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

TRIES = 3  # of each way, of which the fastest is taken
Call = Callable[[], Any]
Shape = tuple[int, ...]
Product = tuple[Any, ...]
"""("convolution", input, weight, bias, stride, padding, dilation, groups) or ("product", left, right, bias)."""


class _Recorder(TorchDispatchMode):
    """Notes the shapes of all products."""

    def __init__(self) -> None:
        super().__init__()
        self.products: Counter[Product] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name == "convolution":
            maps, weight, bias, stride, padding, dilation, _, _, groups = args
            geometry = tuple(map(tuple, (stride, padding, dilation)))
            self._note("convolution", _shape(maps), _shape(weight), bias is not None, *geometry, groups)
        elif name == "addmm":
            self._note("product", _shape(args[1]), _shape(args[2]), True)
        elif name in ("mm", "bmm"):
            self._note("product", _shape(args[0]), _shape(args[1]), False)
        elif name.startswith("_scaled_dot_product"):
            query, key, value = (_shape(each) for each in args[:3])
            self._note("product", query, (*key[:-2], key[-1], key[-2]), False)
            self._note("product", (*query[:-1], key[-2]), value, False)
        return func(*args, **(kwargs or {}))

    def _note(self, *product: Any) -> None:
        self.products[product] += 1


class Floor:
    """Seconds of a model's products; each is timed once a call, in the way that was the fastest at first."""

    def __init__(self, run: Call, dtype: torch.dtype, now: Callable[[], float]) -> None:
        """Note the products of ``run``, a call of the model, and find the fastest way of each in a type."""
        self.now = now
        with torch.no_grad(), _Recorder() as recorder:
            run()
        self.products = recorder.products
        self.calls: dict[Product, Call] = {}
        with torch.no_grad():
            for product in self.products:
                ways = _ways(product, dtype)
                self.calls[product] = min(ways, key=lambda call: min(self._seconds(call) for _ in range(1 + TRIES)))
        self.gflop = sum(number * _flop(product) for product, number in self.products.items()) / 1e9

    @torch.no_grad()
    def __call__(self) -> dict[str, float]:
        """Seconds of all products, as often as the model computes them, and billions of operations a second."""
        whole = sum(number * self._seconds(self.calls[product]) for product, number in self.products.items())
        return {"whole": whole, "GFLOP": self.gflop, "GFLOP/s": self.gflop / whole}

    def _seconds(self, call: Call) -> float:
        start = self.now()
        call()
        return self.now() - start


def _shape(tensor: Tensor) -> Shape:
    return tuple(tensor.shape)


def _flop(product: Product) -> float:
    kind, left, right, bias, *geometry = product
    if kind == "product":
        return 2.0 * torch.Size(left).numel() * right[-1]
    with torch.device("meta"):
        result = F.conv2d(torch.empty(left), torch.empty(right), None, *geometry)
    return 2.0 * result.numel() * torch.Size(right[1:]).numel()


def _ways(product: Product, dtype: torch.dtype) -> list[Call]:
    """Ways to compute a product of noise."""
    kind, left, right, has_bias, *geometry = product
    first, second = torch.randn(left).to(dtype), torch.randn(right).to(dtype)
    is_onednn = torch.backends.mkldnn.is_available()
    if kind == "convolution":
        bias = torch.randn(right[0]).to(dtype) if has_bias else None
        last = [each.contiguous(memory_format=torch.channels_last) for each in (first, second)]
        ways: list[Call] = [
            lambda: F.conv2d(first, second, bias, *geometry),
            lambda: F.conv2d(*last, bias, *geometry),
        ]
        if is_onednn:
            stride, padding, dilation, groups = geometry
            order = (padding, stride, dilation, groups)
            packed = torch.ops.mkldnn._reorder_convolution_weight(last[1], *order, _shape(first))
            operator = torch.ops.mkldnn._convolution_pointwise.default
            ways.append(lambda: operator(last[0], packed, bias, *order, "none", [], None))
        return ways
    if len(left) > 2 or not has_bias:
        return [lambda: first @ second]
    bias, weight = torch.randn(right[-1]).to(dtype), second.t().contiguous()
    ways = [lambda: F.linear(first, weight, bias), lambda: first @ second]
    if is_onednn:
        packed_weight = torch.ops.mkldnn._reorder_linear_weight(weight, left[0])
        linear = torch.ops.mkldnn._linear_pointwise.default
        ways.append(lambda: linear(first, packed_weight, bias, "none", [], None))
    return ways
