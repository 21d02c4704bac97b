"""A detector as a program of ``torch.export``, for all images within its bounds."""

from typing import Any

import torch
from torch import nn
from torch._dynamo.exc import UserError  # what torch.export raises
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from ...detector import DetrDetector
from ...errors import InputError
from ..bounds import Bounds, Range
from ..sizing import strides


def capture(model: nn.Module, detector: DetrDetector, bounds: Bounds) -> ExportedProgram:
    """Trace a model of images and sizes.

    Args:
        model: an ``InferenceModel`` or ``InspectedModel`` in evaluation mode.
        detector: its detector.
        bounds: the images that the program is to take.

    Raises:
        InputError: the model is not the same program for all of them.
    """
    _check_coarsest_level(detector, bounds)
    # Of a symbol that is 1 here, torch.export would make a constant: the largest values are none.
    inputs = largest_inputs(bounds)
    batch = _dimension("batch", bounds.batch)
    shapes = (
        {0: batch, 2: _dimension("height", bounds.height), 3: _dimension("width", bounds.width)},
        {0: batch},
    )
    try:
        with torch.no_grad():
            program = torch.export.export(model, inputs, dynamic_shapes=shapes, strict=False)
    except UserError as error:
        backbone = type(detector.backbone).__name__
        raise InputError(
            f"The detector is no single program for {_shown(bounds)}: its backbone, {backbone}, may take one size and "
            f"batch only. Export it for one: leave --dynamic out. (PyTorch: {_first_line(error)})"
        ) from error
    _forget_origin(program)
    return program


def _forget_origin(program: ExportedProgram) -> None:
    """Drop each node's lines of source, with the paths of this machine: they would go out with the file."""
    for module in program.graph_module.modules():
        if isinstance(module, GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)


def largest_inputs(bounds: Bounds) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and sizes, the largest batch of the largest there are."""
    batch, height, width = bounds.largest
    return torch.zeros(batch, 3, height, width, dtype=torch.uint8), torch.tensor([[height, width]] * batch)


def _check_coarsest_level(detector: DetrDetector, bounds: Bounds) -> None:
    stride = strides(detector)[-1]
    for name, side in (("height", bounds.height), ("width", bounds.width)):
        if not side.is_fixed and side.smallest <= stride:
            raise InputError(
                f"The smallest {name} is {side.smallest}: one token on the coarsest level, which PyTorch cannot make a "
                f"program of together with larger ones. It must be at least {stride + 1}."
            )


def _dimension(name: str, values: Range) -> Any:
    return Dim.STATIC if values.is_fixed else Dim(name, min=values.smallest, max=values.largest)


def _shown(bounds: Bounds) -> str:
    names = zip(("batches", "heights", "widths"), bounds.smallest, bounds.largest, strict=True)
    return ", ".join(f"{name} of {smallest} to {largest}" for name, smallest, largest in names)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
