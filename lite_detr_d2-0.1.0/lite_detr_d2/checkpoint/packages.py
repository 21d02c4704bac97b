"""Weights that an installed package ships: ``package://NAME/FILE``, wherever detectron2 takes a file's address."""

import importlib.util
from pathlib import Path
from typing import Any

from detectron2.utils.file_io import PathHandler, PathManager

from ..errors import InputError

PACKAGE = "package://"


def file_of_package(address: str) -> str:
    """The path of a file in an installed package, which is not imported.

    Args:
        address: ``package://``, the name that the package is imported by, and the file's path in it.

    Raises:
        InputError: the package is not installed, or has no such file.
    """
    name, _, file = address.removeprefix(PACKAGE).partition("/")
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None:
        cure = f"pip install {name}" if name.isidentifier() else f"write {PACKAGE}NAME/FILE"
        raise InputError(f"{address}: there is no package {name!r} installed: {cure}.")
    paths = [Path(folder, file) for folder in spec.submodule_search_locations or ()]
    for path in paths:
        if path.is_file():
            return str(path)
    raise InputError(f"{address}: the package {name} has no file {file!r}: install another version of it.")


class PackageHandler(PathHandler):
    """Lets detectron2's path manager find ``package://NAME/FILE``."""

    def _get_supported_prefixes(self) -> list[str]:
        return [PACKAGE]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        return file_of_package(path)

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> Any:
        return open(file_of_package(path), mode, buffering)

    def _exists(self, path: str, **kwargs: Any) -> bool:
        return self._isfile(path)

    def _isfile(self, path: str, **kwargs: Any) -> bool:
        try:
            return bool(file_of_package(path))
        except InputError:
            return False


PathManager.register_handler(PackageHandler())
