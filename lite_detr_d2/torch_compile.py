"""torch.compile of a method that is a function of tensors: as one graph, when it is first called."""

import os
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from .errors import InputError


class CompiledMethod:
    """A method of a module, which is compiled by its first call, and anew where that is of another kind.

    It stands in the method's place in the module's attributes: tensors and their names stay. A copy of the module, or
    one that was saved and loaded again, compiles for itself.
    """

    def __init__(
        self,
        module: nn.Module,
        name: str,
        *,
        cure: str,
        has_fixed_sizes: bool = False,
        has_fixed_weights: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Compile the method ``name`` of ``module``'s class.

        Args:
            module: whose method it is.
            name: of the method.
            cure: what errors say at their end.
            has_fixed_sizes: compile anew for each size of a tensor; else a size that changes is left open.
            has_fixed_weights: make the module's tensors constants, laid out as the products want them, where no
                gradients are asked for; what is loaded into it later, or into a part of it, compiles anew.
            options: of ``torch.compile``.
        """
        self._module, self._name, self._cure = module, name, cure
        self._dynamic = False if has_fixed_sizes else None
        self._has_fixed_weights = has_fixed_weights
        self._options = dict(options or {})
        self._compiled: Any = None
        if has_fixed_weights:
            for part in module.modules():
                part.register_load_state_dict_post_hook(partial(_compile_anew, module))

    def __call__(self, *args: Any) -> Any:
        """Call the compiled method.

        Raises:
            InputError: it cannot be compiled.
        """
        # Seconds to import.
        from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException  # noqa: PLC0415
        from torch.fx.experimental.symbolic_shapes import ConstraintViolationError  # noqa: PLC0415

        if self._compiled is None:
            # torch.compile keeps graphs by the code that they are of: those of another module are not for this one.
            method = self._method
            own = FunctionType(
                method.__code__.replace(), method.__globals__, method.__name__, method.__defaults__, method.__closure__
            )
            own.__kwdefaults__ = method.__kwdefaults__
            self._compiled = torch.compile(own, fullgraph=True, dynamic=self._dynamic, options=self._options)
        try:
            with self._freezing():
                return self._compiled(self._module, *args)
        except (TorchDynamoException, FailOnRecompileLimitHit, ConstraintViolationError) as error:
            where = f"{type(self._module).__name__}.{self._name}"
            raise InputError(f"torch.compile cannot compile {where}: {_reason(error)}. {self._cure}") from error

    def uncompiled(self, *args: Any) -> Any:
        """Call the method as it is."""
        return self._method(self._module, *args)

    def _freezing(self) -> AbstractContextManager[Any]:
        if not self._has_fixed_weights:
            return nullcontext()
        from torch._inductor import config  # noqa: PLC0415  # seconds to import

        # As an option of torch.compile it comes too late: what traces the method reads it here.
        freezing: AbstractContextManager[Any] = config.patch(freezing=True)
        return freezing

    @property
    def _method(self) -> Any:
        return getattr(type(self._module), self._name)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_compiled": None}


def _compile_anew(module: nn.Module, part: nn.Module, incompatible_keys: object) -> None:
    for attribute in vars(module).values():
        if isinstance(attribute, CompiledMethod):
            attribute._compiled = None


def _reason(error: Exception) -> str:
    """What torch.compile could not do, why, and in which line of the code; the rest of its message explains itself."""
    cause = getattr(error, "inner_exception", None)
    lines = [line.strip() for line in str(cause or error).strip().splitlines()]
    first = lines[0].rstrip(".:") if lines else ""
    why = next((line.rstrip(".") for line in lines[1:] if line.startswith("Explanation: ") or "error:" in line), "")
    place = next((line for line in reversed(lines) if line.startswith('File "')), "")
    return "; ".join(part for part in (f"{type(cause or error).__name__}: {first}", why, place) if part)


def with_open_sizes(images: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
    """Mark that images (N, C, H, W) and their padding (N, H, W) may be of any height and width, from 2 on."""
    from torch._dynamo import mark_dynamic  # noqa: PLC0415  # seconds to import

    mark_dynamic(images, (2, 3))
    mark_dynamic(padding, (1, 2))
    return images, padding


def check_compiler(device: torch.device, asked: str) -> None:
    """See that what ``torch.compile`` makes can be built for a device.

    Args:
        device: of a module that is to be compiled.
        asked: what asks for it, such as "compile is True".

    Raises:
        InputError: a compiler is not there.
    """
    if device.type == "cpu":
        from torch._inductor.cpp_builder import get_cpp_compiler  # noqa: PLC0415  # seconds to import
        from torch._inductor.exc import InvalidCxxCompiler  # noqa: PLC0415

        try:
            get_cpp_compiler()
        except InvalidCxxCompiler as error:
            raise InputError(
                f"{asked}, which needs a C++ compiler on the CPU: install g++, or name one by CXX."
            ) from error
    elif device.type == "cuda":
        from torch.utils._triton import has_triton  # noqa: PLC0415  # seconds to import

        if not has_triton():
            raise InputError(f"{asked}, which needs Triton on CUDA: install the release of it that is PyTorch's.")
        if not ("CC" in os.environ or shutil.which("gcc") or shutil.which("clang")):
            raise InputError(f"{asked}, for which Triton needs a C compiler: install gcc, or name one by CC.")
