"""What the formats that run in torch share: the compiled ops beside the file, and what is required to load it."""

import hashlib
import logging
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from ...detector import DetrDetector
from ...errors import InputError
from ...ops.compiled import register_compiled_ops
from ...ops.deform_attn import LIBRARY, compiled_ops_status
from ...wording import shown
from ..inference import INPUTS, InferenceModel
from .format import Runtime, Settings, Written

logger = logging.getLogger(__name__)

Run = Callable[[Tensor, Tensor], tuple[Tensor, ...]]

REQUIRES = ("torch", "library")

# What the op that looks at the inputs says; and torch.export's programs, which look at shapes before it.
_REFUSED = re.compile(r"\b(?:images|sizes): .+|\b(?:Unexpected|Expected) .*input at .+?(?=$|\. If )", re.MULTILINE)


def checked_model(detector: DetrDetector, settings: Settings) -> InferenceModel:
    """A model that refuses what is not within the bounds, by an op: its runtime may check nothing.

    Raises:
        InputError: the compiled ops are not there.
    """
    compiled, reason = compiled_ops_status()
    if not compiled:
        raise InputError(
            f"The formats torch, aoti and torchscript need the compiled ops of lite_detr_d2, but {reason}."
        )
    smallest, largest = settings.bounds.smallest, settings.bounds.largest

    def check(images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        checked: tuple[Tensor, Tensor] = torch.ops.lite_detr.check_images(images, sizes, smallest, largest)
        return checked

    return InferenceModel(detector, check, settings.dtype).eval()


def with_library(file: Path, requires: Mapping[str, Any]) -> Written:
    """Copy the compiled ops beside a written file.

    Returns:
        What is written: ``requires`` has ``torch``, the version that wrote it, and ``library``, the copy's name.
    """
    library = file.with_name(_name_of_copy())
    shutil.copyfile(LIBRARY, library)
    return Written([file, library], {"torch": str(torch.__version__), "library": library.name, **requires})


def load_library(file: Path, requires: Mapping[str, Any]) -> None:
    """Load the ops that a file needs, unless this process has them: a second copy would be an error.

    Where those that it has are of another build, it is said.

    Raises:
        InputError: it cannot be loaded.
    """
    if hasattr(torch.ops.lite_detr, "check_images"):
        present = {Path(path).name for path in torch.ops.loaded_libraries}
        if LIBRARY.name in present:
            present.add(_name_of_copy())
        if requires["library"] not in present:
            logger.warning(
                "%s is run with the kernels that are loaded already, which are of another build than its own, %s.",
                *(shown(file), requires["library"]),
            )
        return
    library = file.with_name(requires["library"])
    try:
        torch.ops.load_library(library)
    except OSError as error:
        raise InputError(
            f"{shown(library)} cannot be loaded, which {file.name} needs: {error.__cause__ or error}. Export the model "
            "on a machine like this one."
        ) from error
    register_compiled_ops()


def _name_of_copy() -> str:
    # By its content: files of several builds of it may share a folder.
    return f"lite_detr_ops_{hashlib.sha256(LIBRARY.read_bytes()).hexdigest()[:8]}{LIBRARY.suffix}"


def check_not_older(file: Path, requires: Mapping[str, Any]) -> None:
    """See that torch is of the version that wrote a file, or later.

    Raises:
        InputError: it is older.
    """
    if _release(torch.__version__) < _release(requires["torch"]):
        raise InputError(
            f"{shown(file)} was written by PyTorch {requires['torch']}, and this is {torch.__version__}: install that "
            "or a later one, or export the model again."
        )


def check_same_release(file: Path, requires: Mapping[str, Any]) -> None:
    """See that torch is of the release that wrote a file, whose bug fixes may differ.

    Raises:
        InputError: it is another.
    """
    if _release(torch.__version__) != _release(requires["torch"]):
        raise InputError(
            f"{shown(file)} was compiled for PyTorch {requires['torch']}, and this is {torch.__version__}: install "
            "that, or export the model again."
        )


def make_runtime(file: Path, run: Run) -> Runtime:
    """A runtime of a function of tensors, which says by InputError what the file refuses."""

    def runtime(images: npt.NDArray[Any], sizes: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], ...]:
        try:
            with torch.no_grad():
                outputs = run(torch.tensor(images), torch.tensor(sizes))
        except (RuntimeError, ValueError) as error:
            refused = _REFUSED.search(str(error))
            if refused is None:
                raise
            raise InputError(f"{shown(file)}: {_with_names(refused[0])}") from error
        return tuple(output.numpy() for output in outputs)

    return runtime


def _with_names(message: str) -> str:
    for position, name in enumerate(INPUTS):
        message = message.replace(f"*args[{position}]", name)
    return message


def _release(version: str) -> tuple[int, int]:
    major, minor = str(version).split(".")[:2]
    return int(major), int(minor)
