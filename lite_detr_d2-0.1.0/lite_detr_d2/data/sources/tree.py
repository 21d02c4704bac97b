"""What lies in a dataset's folder, walked once."""

import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ...errors import InputError
from ...wording import in_short, shown

logger = logging.getLogger("lite_detr_d2")

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".pnm")
    + (".jp2", ".avif")
)
_DEEPEST = 8  # folders within folders: deeper than any export, and an end to whatever else was named
_JUNK_FOLDERS = frozenset(("__macosx", "$recycle.bin", "system volume information", "@eadir"))
_JUNK_FILES = frozenset(("thumbs.db", "desktop.ini"))


@dataclass(frozen=True)
class Tree:
    """The files below a folder, but for what systems and tools leave there: hidden files, ``__MACOSX``, ``Thumbs.db``.

    Attributes:
        root: the folder; where it held one folder and nothing else, that one.
        files: all files in the order of their paths, by the lower case suffix of their names.
        unreadable: folders that cannot be listed.
    """

    root: Path
    files: dict[str, list[Path]]
    unreadable: tuple[Path, ...]

    def with_suffix(self, *suffixes: str) -> list[Path]:
        """All files with one of these suffixes."""
        return [file for suffix in suffixes for file in self.files.get(suffix, ())]

    @cached_property
    def images(self) -> list[Path]:
        """All files that are named as images, in the order of their paths."""
        return sorted(self.with_suffix(*sorted(IMAGE_SUFFIXES)))

    def images_below(self, folder: Path) -> list[Path]:
        """All files in a folder, and in those below it, that are named as images; the folder may be elsewhere."""
        if not folder.is_relative_to(self.root):
            return walk(folder).images
        inside = {parent: parent.is_relative_to(folder) for parent in {image.parent for image in self.images}}
        return [image for image in self.images if inside[image.parent]]

    def name(self, path: Path) -> str:
        """How messages call a file or folder: from the root on where it is below it."""
        inside = path != self.root and path.is_relative_to(self.root)
        return shown(path.relative_to(self.root) if inside else path)

    def names(self, paths: Iterable[Path]) -> str:
        """How messages call files or folders, the first few of them."""
        return in_short([self.name(path) for path in paths])


def is_junk(name: str) -> bool:
    """Whether a file or folder of this name is no data."""
    return name.startswith(".") or name.lower() in _JUNK_FOLDERS or name.lower() in _JUNK_FILES


def check_folder(folder: Path) -> None:
    """See that a folder is one.

    Raises:
        InputError: it is a file, or not there.
    """
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "is not there"
        raise InputError(f"{shown(folder)} {what}: name a folder.")


def walk(root: Path) -> Tree:
    """List what lies below a folder; links are followed, but never in a circle.

    Raises:
        InputError: the folder cannot be listed.
    """
    files: dict[str, list[Path]] = {}
    unreadable: list[Path] = []
    too_deep: list[Path] = []
    root = _only_folder(root)
    for file in _files_below(root, unreadable, too_deep, frozenset(), _DEEPEST):
        files.setdefault(os.path.splitext(file.name)[1].lower(), []).append(file)
    if unreadable:
        names = in_short([shown(folder) for folder in unreadable])
        check_folder(root)
        if root in unreadable:
            raise InputError(f"The folder {shown(root)} cannot be listed: check its permissions.")
        logger.warning("Folders that cannot be listed are left out; check their permissions: %s", names)
    if too_deep:
        names = in_short([shown(folder) for folder in too_deep])
        logger.warning("Folders more than %d levels below %s are left out: %s", _DEEPEST, shown(root), names)
    return Tree(root, files, tuple(unreadable))


def _files_below(
    folder: Path, unreadable: list[Path], too_deep: list[Path], ancestors: frozenset[tuple[int, int]], depth: int
) -> Iterator[Path]:
    try:
        status = os.stat(folder)
        with os.scandir(folder) as listing:
            entries = sorted((e for e in listing if not is_junk(e.name)), key=lambda e: e.name)
    except OSError:
        unreadable.append(folder)
        return
    place = (status.st_dev, status.st_ino)
    if place in ancestors:
        return
    for entry in entries:
        if not _is_folder(entry):
            yield folder / entry.name
        elif depth:
            yield from _files_below(folder / entry.name, unreadable, too_deep, ancestors | {place}, depth - 1)
        else:
            too_deep.append(folder / entry.name)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False


def _only_folder(root: Path) -> Path:
    """Enter folders that hold one folder and nothing else, as archives have it."""
    for _ in range(_DEEPEST):
        try:
            with os.scandir(root) as listing:
                entries = [entry for entry in listing if not is_junk(entry.name)]
        except OSError:
            break
        if len(entries) != 1 or entries[0].is_symlink() or not _is_folder(entries[0]):
            break
        root = Path(entries[0].path)
    return root
