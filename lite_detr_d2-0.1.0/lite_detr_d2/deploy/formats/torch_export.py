"""Programs of ``torch.export``: graphs of torch's operators, with one node for each attention op."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...detector import DetrDetector
from ...errors import InputError
from ...wording import one_line, shown
from ..inference import InspectedModel
from .capture import capture
from .format import Format, Runtime, Settings, Written
from .op_library import REQUIRES, check_not_older, checked_model, load_library, make_runtime, with_library


def _write(detector: DetrDetector, settings: Settings, file: Path, inspected: Path) -> Written:
    model = checked_model(detector, settings)
    for module, path in ((model, file), (InspectedModel(model).eval(), inspected)):
        program = capture(module, detector, settings.bounds)
        program.example_inputs = None  # zeros, which the file need not hold
        torch.export.save(program, path)
    return with_library(file, {})


def _load(file: Path, requires: Mapping[str, Any]) -> Runtime:
    check_not_older(file, requires)
    load_library(file, requires)
    try:
        program = torch.export.load(file)
    except Exception as error:  # whatever its reader stumbles over
        raise InputError(f"{shown(file)} cannot be loaded by PyTorch {torch.__version__}: {one_line(error)}") from error
    return make_runtime(file, program.module())


TORCH = Format(
    "torch", ".pt2", dynamic=True, dtypes=("float32", "bfloat16"), write=_write, load=_load, requires=REQUIRES
)
