"""A detector for inference alone: what :func:`prepare` makes of one."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, BottleneckBlock
from torch import nn

from ..detector import DetrDetector, Inputs
from ..errors import InputError
from ..modeling.layers import FeedForward
from ..torch_compile import check_compiler
from ..wording import quoted
from .checks import check_flag
from .compiled_form import compile_detection
from .fused import FusedBlock, FusedConv2d, FusedFeedForward, FusedLinear, FusedStem
from .inference import DTYPES, InferenceModel


class PreparedDetector(nn.Module):
    """A detector's inference form: it detects what the detector detects, in less time. See :func:`prepare`.

    Attributes:
        model: the detector as a function of tensors; of a compiled form ``model.detect`` is compiled, ``model()`` not.
    """

    def __init__(self, model: InferenceModel) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        self.eval()

    @property
    def device(self) -> torch.device:
        """Where the model's inputs go."""
        return self.model.detector.device

    @torch.no_grad()
    def forward(self, batched_inputs: Inputs) -> list[dict[str, Any]]:
        """Detect; see :meth:`.DetrDetector.forward`."""
        with self.model.precision(self.device):
            found: list[dict[str, Any]] = self.model.detector(batched_inputs)
        return found

    def train(self, mode: bool = True) -> "PreparedDetector":
        """Stay in evaluation mode.

        Raises:
            InputError: training is asked for.
        """
        if mode:
            raise InputError("A prepared detector is for inference alone: train the one that it was made of.")
        return super().train(False)


def prepare(model: nn.Module, *, dtype: torch.dtype = torch.float32, compile: bool = False) -> PreparedDetector:
    """Make the inference form of a detector, which is left as it is.

    Batch norms are in the weights of the convolutions before them, maps are in channels-last, what follows a product is
    computed with it (on the CPU, by oneDNN), and nothing is there that training alone needs. It takes detectron2's
    batched inputs of any size, can be saved by ``torch.save``, and does not follow later changes of the detector.

    Args:
        model: a detector of this package, in whatever mode; or one in ``DistributedDataParallel``.
        dtype: ``torch.float32``; or ``torch.bfloat16``, in which products are then computed, and what follows from
            them, as by autocast. Reference points and boxes are of float32.
        compile: let torch.compile make one graph of it, which takes minutes when it first detects, and again after it
            was saved and loaded. See :func:`.compile_detection`.

    Raises:
        InputError: the model is no detector of this package, or is prepared already; of other dtypes; or it is to be
            compiled, and there is no compiler.
    """
    if isinstance(model, nn.parallel.DistributedDataParallel):
        model = model.module
    if isinstance(model, PreparedDetector):
        raise InputError("The model is prepared already: give the detector that it was made of.")
    if not isinstance(model, DetrDetector):
        raise InputError(f"The model is a {type(model).__name__}: expected a detector of lite_detr_d2.")
    named = next((name for name, allowed in DTYPES.items() if dtype is allowed), None)
    if named is None:
        raise InputError(f"dtype is {quoted(dtype)}: expected one of {', '.join(map(str, DTYPES.values()))}.")
    check_flag("compile", compile)
    if compile:
        check_compiler(model.device, "compile is True")
    detector = copy.deepcopy(model).eval()
    detector.denoising = detector.one_to_many = None
    vars(detector).pop("learn", None)  # compiled, of a training
    _fuse(detector, dtype)
    if compile:
        compile_detection(detector)
    return PreparedDetector(InferenceModel(detector, dtype=named))


_Fused = Callable[[Any, torch.dtype], nn.Module]


def _fused_form(module: nn.Module) -> _Fused | None:
    """What stands for a module in the inference form; None for itself, or what its parts become.

    Subclasses may compute something else, and stay.
    """
    if type(module) in (BasicBlock, BottleneckBlock, BasicStem):
        convolutions = [each for each in module.children() if isinstance(each, nn.Conv2d)]
        if all(map(FusedConv2d.takes, convolutions)):
            return FusedStem if type(module) is BasicStem else FusedBlock
        return None
    if type(module) is FeedForward:
        return FusedFeedForward
    if type(module) is nn.Linear:
        return FusedLinear
    return FusedConv2d if FusedConv2d.takes(module) else None


def _fuse(module: nn.Module, dtype: torch.dtype) -> None:
    """Put fused layers in the place of a module's parts."""
    for name, part in module.named_children():
        form = _fused_form(part)
        if form is None:
            _fuse(part, dtype)
        else:
            setattr(module, name, form(part, dtype))
