"""Packages that only some uses need: imported where they are used, by those who have installed them."""

import importlib
import importlib.util
from types import ModuleType

from .errors import InputError


def check_extra(name: str, *, extra: str) -> None:
    """See that a package of an extra is installed, without importing it.

    Args:
        name: of the package, such as "onnxruntime".
        extra: that brings it, such as "export".

    Raises:
        InputError: it is not installed.
    """
    if importlib.util.find_spec(name) is None:
        raise _needed(name, "is not installed", extra)


def import_extra(name: str, *, extra: str) -> ModuleType:
    """Import a package that comes with an extra of lite_detr_d2.

    Args:
        name: of a module, such as "onnxruntime".
        extra: that brings it, such as "export".

    Raises:
        InputError: it is not installed, or its own import fails.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        cause = "is not installed" if getattr(error, "name", None) == package else f"cannot be imported: {error}"
        raise _needed(package, cause, extra) from error


def _needed(package: str, cause: str, extra: str) -> InputError:
    return InputError(f"{package} is needed, but {cause}. pip install 'lite_detr_d2[{extra}]' brings it.")
