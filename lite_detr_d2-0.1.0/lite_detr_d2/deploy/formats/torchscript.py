"""TorchScript, by tracing, for those who deploy that: C++ of torch alone, at one size."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...detector import DetrDetector
from ...errors import InputError
from ...wording import one_line, shown
from ..inference import InspectedModel
from .capture import largest_inputs
from .format import Format, Runtime, Settings, Written
from .op_library import REQUIRES, check_not_older, checked_model, load_library, make_runtime, with_library


def _write(detector: DetrDetector, settings: Settings, file: Path, inspected: Path) -> Written:
    # Without detectron2's TracingAdapter: that makes a function of tensors of a detectron2 model, which this one is.
    model = checked_model(detector, settings)
    for module, path in ((model, file), (InspectedModel(model).eval(), inspected)):
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that sizes become constants, as they are to; and that it is deprecated
            traced = torch.jit.trace(module, largest_inputs(settings.bounds), check_trace=False)
            torch.jit.save(traced, path)
    return with_library(file, {})


def _load(file: Path, requires: Mapping[str, Any]) -> Runtime:
    check_not_older(file, requires)
    load_library(file, requires)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is deprecated
            program = torch.jit.load(file)
    except RuntimeError as error:
        raise InputError(f"{shown(file)} cannot be loaded by PyTorch {torch.__version__}: {one_line(error)}") from error
    return make_runtime(file, program)


TORCHSCRIPT = Format(
    "torchscript", ".ts", dynamic=False, dtypes=("float32",), write=_write, load=_load, requires=REQUIRES
)
