"""The attention ops as operators that every exchange format knows."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ...ops import reference
from ...ops.reference import Sampler


class PlainAttention(TorchFunctionMode):
    """Within it, the attention ops are computed by :mod:`lite_detr_d2.ops.reference`, and so traced as what they do."""

    def __init__(self, sample: Sampler) -> None:
        """Sample by ``sample``."""
        super().__init__()
        # Whichever of the two implementations is in use: the compiled one need not be there.
        namespaces = (torch.ops.lite_detr, torch.ops.lite_detr_pure_torch)
        plain = (reference.ms_deform_attn, reference.key_aware_deform_attn)
        self._plain = {
            getattr(namespace, function.__name__): partial(_with_pairs, function, sample)
            for namespace in namespaces
            for function in plain
            if hasattr(namespace, function.__name__)
        }

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call ``func``, or what it does."""
        return self._plain.get(func, func)(*args, **(kwargs or {}))


def _with_pairs(function: Callable[..., Tensor], sample: Sampler, *arguments: Any) -> Tensor:
    # An op's schema has no pairs: of its arguments, the sizes of the levels are the one that is a list.
    paired = (list(zip(a[::2], a[1::2], strict=True)) if isinstance(a, list) else a for a in arguments)
    return function(*paired, sample=sample)
