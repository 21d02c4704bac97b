"""Training by torch.compile: all that is learned is one graph, from the backbone to the decoder."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..detector import DetrDetector
from ..errors import InputError
from ..modeling.backbones import shifts_windows
from ..structures import Predictions, QueryGroup
from ..torch_compile import CompiledMethod, with_open_sizes

_LEARN = "learn"
_CURE = "Set SOLVER.COMPILE to False."


def compile_training(model: nn.Module) -> None:
    """Let ``model.learn`` be compiled, for images of any size and any number of boxes. Evaluation stays as it is.

    Names of tensors, and results but for rounding, stay; dropout and drop path draw other random numbers. A batch
    without any boxes is not worth a graph of its own, and is computed as it is; so is all without gradients.

    Args:
        model: a detector; it is changed.

    Raises:
        InputError: its backbone is a Swin Transformer.
    """
    assert isinstance(model, DetrDetector)
    if shifts_windows(model.backbone):
        raise InputError(
            "SOLVER.COMPILE is True, and the backbone is a Swin Transformer, which takes another graph for each size "
            "of images: set SOLVER.COMPILE to False, or choose another backbone."
        )
    model.learn = _CompiledLearning(model)


class _CompiledLearning(CompiledMethod):
    """See :meth:`.DetrDetector.learn`."""

    def __init__(self, model: DetrDetector) -> None:
        # On the CPU all maps are in channels-last else, which some backbones are not to be trained in.
        layout = {} if model.trains_channels_last else {"layout_optimization": False}
        super().__init__(model, _LEARN, cure=_CURE, options=layout)

    def __call__(
        self, images: Tensor, padding: Tensor, denoising: Sequence[QueryGroup]
    ) -> tuple[Predictions, list[QueryGroup]]:
        result: tuple[Predictions, list[QueryGroup]]
        if not (torch.is_grad_enabled() and _can_be_open(images, denoising)):
            result = self.uncompiled(images, padding, denoising)
            return result
        for group in denoising:
            _open_number(group)
        with torch._dynamo.config.patch(optimize_ddp=False):  # which would cut the graph where DDP's buckets end
            result = super().__call__(*with_open_sizes(images, padding), denoising)
        return result


def _can_be_open(images: Tensor, denoising: Sequence[QueryGroup]) -> bool:
    """Whether no size is one that torch.compile makes a constant: 0 or 1."""
    sizes: list[int] = [*images.shape[2:], *(len(group) for group in denoising)]
    return min(sizes) > 1


def _open_number(group: QueryGroup) -> None:
    from torch._dynamo import mark_dynamic  # noqa: PLC0415  # seconds to import

    mark_dynamic(group.queries.content, 1)
    mark_dynamic(group.queries.reference, 1)
    if group.blocks is not None:
        mark_dynamic(group.blocks, 0)
