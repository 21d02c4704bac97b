"""Which file a ``file_name`` means."""

import errno
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image

_NEAR_SHOWN = 2
_REASONS = {errno.EACCES: "permission denied", errno.ENAMETOOLONG: "the name is too long", errno.ELOOP: "a link loop"}


@dataclass(frozen=True)
class Found:
    """The file that a name means.

    Attributes:
        path: the file; None if there is none.
        folder: the one of the folders that it is in.
        exact: whether the name is just that of the file.
        without: the folders at the start of the name that were left out to find it.
        reason: why there is none; "" where it is only missing.
    """

    path: str | None
    folder: Path | None = None
    exact: bool = True
    without: str = ""
    reason: str = ""


class ImageFiles:
    """The files of a half's image folders."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = tuple(folders)

    def find(self, name: str) -> Found:
        """Find the file that ``name``, relative to one of the folders, means.

        Where there is no such file, it is the one whose path in one of the folders is ``name`` but for upper and lower
        case, Unicode's form, ``\\`` for ``/`` and folders at its start. It must be the only one.
        """
        for folder in self._folders:
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                return Found(path, folder)
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
        for start in range(len(parts)):
            key = _key("/".join(parts[start:]))
            for folder, files in self._index.items():
                paths = files.get(key, ())
                if len(paths) == 1:
                    path = os.path.join(folder, paths[0])
                    return Found(path, folder, exact=False, without="/".join(parts[:start]))
                if paths:
                    return Found(None, reason=f"it may be {' or '.join(sorted(paths))}")
        return Found(None, reason=self._why_not(name))

    @cached_property
    def _index(self) -> dict[Path, dict[str, list[str]]]:
        """By folder, the files below it: path relative to it, by the same without case and in one form."""
        index: dict[Path, dict[str, list[str]]] = {}
        for folder in self._folders:
            files = index.setdefault(folder, {})
            for parent, _, names in os.walk(folder):
                relative = os.path.relpath(parent, folder)
                for name in names:
                    path = name if relative == "." else os.path.join(relative, name)
                    files.setdefault(_key(path), []).append(path)
        return index

    def _why_not(self, name: str) -> str:
        for folder in self._folders:
            try:
                os.stat(os.path.join(folder, name))
            except (OSError, ValueError) as error:
                reason = _REASONS.get(getattr(error, "errno", None) or 0)
                if reason:
                    return reason
        stem = _key(os.path.splitext(os.path.basename(name.replace("\\", "/")))[0])
        near = self._images_by_stem.get(stem, [])[:_NEAR_SHOWN]
        return f"there is {' and '.join(near)}" if near else ""

    @cached_property
    def _images_by_stem(self) -> dict[str, list[str]]:
        """The images below the folders, relative to the first that has them, by their names without a suffix."""
        suffixes, found = Image.registered_extensions(), dict[str, dict[str, str]]()
        for folder, files in self._index.items():
            for path in (path for paths in files.values() for path in paths):
                stem, suffix = os.path.splitext(os.path.basename(path))
                if suffix.lower() in suffixes:
                    found.setdefault(_key(stem), {}).setdefault(os.path.join(folder, path), path)
        return {stem: sorted(paths.values()) for stem, paths in found.items()}


def _key(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()
