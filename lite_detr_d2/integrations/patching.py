"""Give modules of other packages our compiled attention, in place, and take it away again.

A patched module stays the object that it was, with its parameters, buffers and hooks: only its class becomes a subclass
of its own one, whose ``forward`` is the same code, but calls our core function where it called its package's. So what a
package's module does besides (projections, masks, residuals, batch-first or not) stays what its version does.
"""

import copyreg
import inspect
from collections.abc import Callable, Iterator
from types import CellType, FunctionType
from typing import Any

from torch import nn

from lite_detr_d2.errors import InputError
from lite_detr_d2.integrations.cores import CORES, INTERPOLATES, attend_by_level, forward_of_core_module
from lite_detr_d2.ops.deform_attn import compiled_ops_status
from lite_detr_d2.wording import counted, in_short

# Where D-FINE's module keeps its core function, as an attribute of the object.
_KEPT_CORE = "ms_deformable_attn_core"
# Where modules say how they sample.
_METHODS = ("method", "decoder_method")
_WHAT_MATCHES = (
    "the attention of Hugging Face transformers (Deformable DETR, RT-DETR, RT-DETRv2, D-FINE, Grounding DINO, "
    "Mask2Former, OneFormer and others with the same cores), MSDeformAttn of Deformable-DETR's repository, and "
    "MultiScaleDeformableAttention of mmcv and of detrex; that is, a module whose forward calls "
    f"{', '.join(CORES)}, or which is such a core"
)


def patch(model: nn.Module) -> list[str]:
    """Replace multi-scale deformable attention by our compiled op, in place.

    Outputs and gradients stay what they were, but for rounding. Parameters, ``state_dict``, hooks and what
    ``isinstance`` says do not change. A patched model can be copied, pickled (reading it takes this package, too),
    compiled and trained. Modules that are patched already are left alone.

    Args:
        model: any module; it may be the attention itself. It is looked for by what it computes, as the error below
            tells, not by the package that it comes from.

    Returns:
        The names, as ``model.named_modules()`` has them, of what was replaced.

    Raises:
        InputError: nothing in the model is such an attention, or all of it is patched already; one of its modules
            samples in a way that the op does not compute (``discrete``), or has had its ``forward`` replaced by others;
            the compiled ops are not there, so that nothing would be gained. Nothing is changed then.
    """
    found = dict(_named_modules(model, patch.__name__))
    patched = [name for name, module in found.items() if isinstance(module, _Patched)]
    matching = {name: module for name, module in found.items() if name not in patched and _matches(module)}
    if not matching and patched:
        raise InputError(
            f"patch: {counted(len(patched), 'module')} of this {type(model).__name__} are patched already, and nothing "
            f"is left: {in_short(patched)}"
        )
    if not matching:
        raise InputError(
            f"patch: nothing in this {type(model).__name__} is multi-scale deformable attention that is known here. "
            f"What is: {_WHAT_MATCHES}"
        )
    for name, module in matching.items():
        _check(name, module)
    _check_devices(model)
    for module in matching.values():
        module.__class__ = _patched_class(type(module))
    return list(matching)


def unpatch(model: nn.Module) -> list[str]:
    """Give modules that :func:`patch` has replaced their own attention again.

    Returns:
        Their names.

    Raises:
        InputError: none is patched.
    """
    patched = {name: module for name, module in _named_modules(model, unpatch.__name__) if isinstance(module, _Patched)}
    if not patched:
        raise InputError(f"unpatch: nothing in this {type(model).__name__} is patched")
    for module in patched.values():
        module.__class__ = module.original_class
    return list(patched)


class _Patched(nn.Module):
    """What patched modules are, besides what they were."""

    original_class: type[Any]

    def __reduce_ex__(self, protocol: Any) -> Any:
        # The subclass has no name by which pickle would find it.
        reduced: Any = super().__reduce_ex__(max(protocol, 2))
        _, (_, *arguments), *state = reduced
        return _new, (self.original_class, *arguments), *state


def _new(original: type[Any], *arguments: Any) -> Any:
    return copyreg.__newobj__(_patched_class(original), *arguments)  # type: ignore[attr-defined]


_SUBCLASSES: dict[type[Any], type[Any]] = {}
"""By what they are subclasses of: all modules of a kind share one."""


def _patched_class(original: type[Any]) -> type[Any]:
    """The subclass, of the same name, with our core."""
    if original not in _SUBCLASSES:
        _SUBCLASSES[original] = _make_subclass(original)
    return _SUBCLASSES[original]


def _make_subclass(original: type[Any]) -> type[Any]:
    members: dict[str, Any] = {
        "original_class": original,
        "__module__": original.__module__,
        "__doc__": original.__doc__,
    }
    forward = original.forward
    if _is_core(forward):
        members["forward"] = forward_of_core_module
    elif (ours := _with_our_cores(forward)) is not forward:
        members["forward"] = ours
    else:
        # A property goes before what the object has under the same name.
        members[_KEPT_CORE] = property(lambda _: attend_by_level)
    return type(original.__name__, (_Patched, original), members)


# --- What matches, and with what.


def _is_core(forward: Any) -> bool:
    return isinstance(forward, FunctionType) and _parameters(forward) == _parameters(forward_of_core_module)


def _parameters(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)


def _with_our_cores(function: Any) -> Any:
    """The same code, which finds our cores under the names of others, behind decorators, too; itself if it has none.

    Its globals are a copy of the module's as they are when the class is first patched, and stay so: what is changed in
    the module later, patched modules of the class do not see.
    """
    if not isinstance(function, FunctionType):
        return function
    scope, cells = function.__globals__, function.__closure__ or ()
    cores = {name: core for name, core in CORES.items() if name in function.__code__.co_names and name in scope}
    decorated = vars(function).get("__wrapped__")
    holds_it = [_content(cell) is decorated for cell in cells]
    ours_decorated = _with_our_cores(decorated) if any(holds_it) else decorated
    if not cores and ours_decorated is decorated:
        return function
    closure = tuple(CellType(ours_decorated) if holds else cell for cell, holds in zip(cells, holds_it, strict=True))
    ours = FunctionType(function.__code__, {**scope, **cores}, function.__name__, function.__defaults__, closure)
    ours.__kwdefaults__ = function.__kwdefaults__
    return ours


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty
        return cell


def _named_modules(model: nn.Module, caller: str) -> Iterator[tuple[str, nn.Module]]:
    if not isinstance(model, nn.Module):
        raise InputError(
            f"{caller}: expected a torch.nn.Module, got {type(model).__name__}; of a pipeline or a wrapper, give the "
            "model that is within"
        )
    yield from model.named_modules()


def _matches(module: nn.Module) -> bool:
    forward = type(module).forward
    kept = getattr(vars(module).get(_KEPT_CORE), "__name__", "")
    return _is_core(forward) or CORES.get(kept) is attend_by_level or _with_our_cores(forward) is not forward


def _check(name: str, module: nn.Module) -> None:
    """Refuse what must not be replaced."""
    where = f"patch: {name or 'the model'} ({type(module).__name__})"
    if "forward" in vars(module):
        raise InputError(
            f"{where} has had its forward replaced already, as hooks of accelerate and kernels of the hub do: patch "
            "the model before that is done. Nothing is changed."
        )
    for attribute in _METHODS:
        method = getattr(module, attribute, INTERPOLATES)
        if method != INTERPOLATES:
            raise InputError(
                f"{where} has {attribute}={method!r}, which takes pixels without interpolating; our op interpolates. "
                f"Build the model with {attribute}={INTERPOLATES!r}, or leave it as it is. Nothing is changed."
            )


def _check_devices(model: nn.Module) -> None:
    """Refuse where patched modules would take the slow ops."""
    for device in {parameter.device.type for parameter in model.parameters()} or {"cpu"}:
        compiled, reason = compiled_ops_status(device)
        if not compiled:
            raise InputError(f"patch: nothing would be gained, as the compiled ops are not used: {reason}")
