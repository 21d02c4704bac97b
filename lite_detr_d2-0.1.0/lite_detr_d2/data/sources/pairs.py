"""Which label file belongs to which image."""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ...errors import InputError
from ...wording import in_short, shown
from .tree import Tree
from .words import half_of_folder, settle_all

logger = logging.getLogger("lite_detr_d2")

_IMAGE_FOLDERS = ("images", "image", "imgs", "img")


@dataclass(frozen=True)
class Labels:
    """The label files of a format below a folder.

    Attributes:
        tree: the folder.
        by_stem: the files by the stem of their names.
    """

    tree: Tree
    by_stem: Mapping[str, Sequence[Path]]

    @classmethod
    def of(cls, tree: Tree, files: Iterable[Path]) -> "Labels":
        """Sort the files by their stems."""
        by_stem: dict[str, list[Path]] = {}
        for file in files:
            by_stem.setdefault(file.stem, []).append(file)
        return cls(tree, by_stem)

    def of_image(self, image: Path, suffix: str) -> Path | None:
        """Find an image's label file.

        It lies in labels/ where the image lies in images/, or beside the image; else it is the file of the same stem
        below the root, that of the image's half where there are several, and of those the one nearest to the image.

        Raises:
            InputError: several are equally near.
        """
        for folder in (_beside_images(image.parent), image.parent):
            if folder is not None and os.path.isfile(os.path.join(folder, f"{image.stem}{suffix}")):
                return folder / f"{image.stem}{suffix}"
        found = self.by_stem.get(image.stem, ())
        if len(found) > 1:
            half = half_of_folder(image.parent, self.tree.root)
            found = [file for file in found if half_of_folder(file.parent, self.tree.root) == half]
        if not found:
            return None
        shared = [len(os.path.commonpath((image, file))) for file in found]
        nearest = [file for file, length in zip(found, shared, strict=True) if length == max(shared)]
        if len(nearest) > 1:
            raise InputError(
                f"{shown(image)} may belong to several label files: {self.tree.names(nearest)}. Put images into "
                "images/ and label files into labels/, in the same folders below them."
            )
        return nearest[0]

    def without_image(self, used: Iterable[Path], images: Iterable[Path]) -> list[Path]:
        """List the files beside those in use that have no image of their stem."""
        used, stems = set(used), {image.stem for image in images}
        folders = {file.parent for file in used}
        files = (file for stem, found in self.by_stem.items() if stem not in stems for file in found)
        return sorted(file for file in files if file.parent in folders and file not in used)


def by_half(files: Iterable[Path], root: Path) -> dict[str, list[Path]]:
    """Sort files by the halves that their folders speak of."""
    found: dict[str, list[Path]] = {}
    folders: dict[Path, str] = {}
    for file in files:
        half = folders.get(file.parent)
        if half is None:
            half = folders[file.parent] = half_of_folder(file.parent, root)
        found.setdefault(half, []).append(file)
    halves = settle_all(found)
    kept = {file for files in halves.values() for file in files}
    left_out = [file for files in found.values() for file in files if file not in kept]
    if left_out:
        names = in_short([shown(file.relative_to(root)) for file in left_out])
        logger.warning(
            "%s: %d files are left out, as they are not in a folder of %s: %s",
            shown(root),
            len(left_out),
            " or ".join(halves),
            names,
        )
    return halves


@lru_cache(maxsize=256)
def _beside_images(folder: Path) -> Path | None:
    """The folder of labels for a folder of images: the last images/ becomes labels/."""
    parts = folder.parts
    places = [place for place, part in enumerate(parts) if part.lower() in _IMAGE_FOLDERS]
    if not places:
        return None
    return Path(*parts[: places[-1]], "labels", *parts[places[-1] + 1 :])
