"""Packages of AOTInductor: machine code, made by a C++ compiler, that runs without the model's Python code."""

import logging
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from ...detector import DetrDetector
from ...errors import InputError
from ...wording import one_line, shown
from ..inference import InspectedModel
from .capture import capture
from .format import Format, Runtime, Settings, Written
from .op_library import REQUIRES, check_same_release, checked_model, load_library, make_runtime, with_library

X86 = "x86_64"
# On x86: what nearly all processors of the last ten years have. Products and attention choose for themselves, by the
# machine that they run on; what is compiled here is the rest.
X86_OPTIONS = {"cpp.march": "x86-64-v3", "cpp.simdlen": 256}
X86_INSTRUCTIONS = "AVX2"
# With bfloat16, let it round wherever the detector does: between fused operators it otherwise keeps float32, and what
# it computes is twice as far from what the detector does.
ROUNDING = {"emulate_precision_casts": True}


def _write(detector: DetrDetector, settings: Settings, file: Path, inspected: Path) -> Written:
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler  # noqa: PLC0415  # seconds to import

    model = checked_model(detector, settings)
    machine, instructions, options = _target()
    options = {**options, **(ROUNDING if settings.dtype == "bfloat16" else {})}
    for module, path in ((model, file), (InspectedModel(model).eval(), inspected)):
        program = capture(module, detector, settings.bounds)
        try:
            torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=options)
        except InvalidCxxCompiler as error:
            raise InputError("The format aoti needs a C++ compiler: install g++, or name one by CXX.") from error
        except CppCompileError as error:
            raise InputError(f"The format aoti: the C++ compiler failed. {error}") from error
    return with_library(file, {"machine": machine, "instructions": instructions})


def _target() -> tuple[str, str, dict[str, Any]]:
    """The machine and the instructions that are compiled for, and the options that make it so."""
    machine, capability = platform.machine(), torch.backends.cpu.get_cpu_capability()
    if machine != X86:
        return machine, capability, {}
    _check_instructions("The format aoti", X86_INSTRUCTIONS)
    return machine, X86_INSTRUCTIONS, X86_OPTIONS


def _load(file: Path, requires: Mapping[str, Any]) -> Runtime:
    check_same_release(file, requires)
    if platform.machine() != requires["machine"]:
        raise InputError(
            f"{shown(file)} was compiled for {requires['machine']}, and this is {platform.machine()}: export the model "
            "on a machine like this one."
        )
    _check_instructions(shown(file), requires["instructions"])
    load_library(file, requires)
    try:
        with _quiet():
            package = torch._inductor.aoti_load_package(str(file))
    except RuntimeError as error:
        raise InputError(f"{shown(file)} cannot be loaded by PyTorch {torch.__version__}: {one_line(error)}") from error
    # Two threads in a package at once have waited for each other for ever, with this package imported: torch's ops then
    # have parts in Python, whose lock one has and the other needs. It computes one call at a time anyway.
    turn = Lock()

    def run(images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        with turn:
            return tuple(package(images, sizes))

    return make_runtime(file, run)


@contextmanager
def _quiet() -> Iterator[None]:
    """Let torch not warn of a processor that has more than was compiled for, or of a compiler that is not there.

    What the processor has less is checked, and no compiler is needed.
    """
    loggers = [logging.getLogger(name) for name in ("torch.export.pt2_archive._package", "torch._inductor.package")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _check_instructions(what: str, instructions: str) -> None:
    capability = torch.backends.cpu.get_cpu_capability()
    if capability != instructions and (instructions, capability) != (X86_INSTRUCTIONS, "AVX512"):
        raise InputError(
            f"{what} needs a processor with {instructions}; PyTorch finds {capability} here. Use another machine or "
            "format, or unset ATEN_CPU_CAPABILITY if that is set."
        )


AOTI = Format(
    "aoti",
    ".pt2",
    dynamic=False,
    dtypes=("float32", "bfloat16"),
    write=_write,
    load=_load,
    requires=(*REQUIRES, "machine", "instructions"),
)
