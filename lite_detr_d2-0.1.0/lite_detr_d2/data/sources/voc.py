"""Datasets in Pascal VOC's format: an XML file for each image."""

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ...errors import InputError
from ...wording import shown
from ..source import Source, SourceHalf
from .pairs import Labels, by_half
from .tree import Tree
from .voc_xml import VocItem, VocReader
from .words import half_of_name, is_plain, settle_all
from .yolo_config import read_text

logger = logging.getLogger("lite_detr_d2")

KIND = "Pascal VOC"
_HEAD = 2048
_ROOT = re.compile(rb"<annotation[\s>]")
_LISTS = "imagesets"  # the folder of the lists of a half's images, with Main/ in it
_EVERYTHING = "default"  # the list of what is in no half


def find(tree: Tree) -> Source | None:
    """Find XML files of Pascal VOC's format below a folder.

    The lists ImageSets/Main/train.txt, val.txt, test.txt and trainval.txt say the halves; without these, folders called
    train, valid, test and so on do. An image has the XML file of its stem: beside it, in Annotations/ or elsewhere.
    Without lists, an image without an XML file is left out.

    Returns:
        The source, or None where no XML file is of this format.

    Raises:
        InputError: an image may belong to several files, or none of the lists names what is there.
    """
    files = _annotation_files(tree)
    if not files:
        return None
    items = _items(tree, files)
    lists = [file for file in tree.with_suffix(".txt") if file.parent.parent.name.lower() == _LISTS and _is_list(file)]
    halves = _listed(tree, lists, items) if lists else _unlisted(tree, items)
    reader = VocReader(tree.root, halves)
    return Source(tree.root, KIND, {half: _half(reader, half, lists) for half in halves})


def _annotation_files(tree: Tree) -> list[Path]:
    """All XML files in folders of which one of the first few is of the format: what is broken there is to be said."""
    folders: dict[Path, list[Path]] = {}
    for file in tree.with_suffix(".xml"):
        folders.setdefault(file.parent, []).append(file)
    return [file for files in folders.values() if any(map(_is_annotation, files[:20])) for file in files]


def _is_annotation(file: Path) -> bool:
    try:
        with open(file, "rb") as stream:
            return _ROOT.search(stream.read(_HEAD).replace(b"\0", b"")) is not None
    except OSError:
        return False


def _is_list(file: Path) -> bool:
    return is_plain(file.stem) or file.stem.lower() == _EVERYTHING


def _items(tree: Tree, files: Sequence[Path]) -> list[VocItem]:
    """Put images and XML files together; either may come alone."""
    labels = Labels.of(tree, files)
    images: dict[Path, list[Path]] = {file: [] for file in files}
    alone = []
    for image in tree.images:
        file = labels.of_image(image, ".xml")
        if file in images:
            images[file].append(image)
        else:
            alone.append(VocItem(image.stem, None, (image,)))
    return [*(VocItem(file.stem, file, tuple(found)) for file, found in images.items()), *alone]


def _unlisted(tree: Tree, items: Sequence[VocItem]) -> dict[str, list[VocItem]]:
    of_file = {item.file: item for item in items if item.file}
    alone = [item.images[0] for item in items if not item.file]
    if alone:
        logger.warning(
            "%s: %d images without an XML file are left out (%s)", shown(tree.root), len(alone), tree.names(alone)
        )
    return {half: [of_file[file] for file in files] for half, files in by_half(of_file, tree.root).items()}


def _listed(tree: Tree, lists: Sequence[Path], items: Sequence[VocItem]) -> dict[str, list[VocItem]]:
    by_stem: dict[str, list[VocItem]] = {}
    for item in items:
        by_stem.setdefault(item.name, []).append(item)
    found: dict[str, list[VocItem]] = {}
    for file in lists:
        chosen = [_item(name, file.parent.parent.parent, by_stem) for name in _names_in(file)]
        if chosen:
            found.setdefault(half_of_name(file.stem), []).extend(chosen)
    halves = settle_all(found)
    if not any(item.file for chosen in halves.values() for item in chosen):
        raise InputError(f"None of the names in {tree.names(lists)} is that of an XML file in {shown(tree.root)}.")
    return halves


def _names_in(file: Path) -> Iterator[str]:
    """The names of images in a list; what may follow them says whether they show a class."""
    for line in read_text(file).splitlines():
        name = re.sub(r"\s+-?[01]$", "", line.strip()).strip('"')
        if name:
            yield name.replace("\\", "/")


def _item(name: str, folder: Path, by_stem: dict[str, list[VocItem]]) -> VocItem:
    """Find what has a name, with or without folders before it, below the folder around the lists."""
    for item in by_stem.get(Path(name).name, ()):
        place = (item.file or item.images[0]).with_suffix("")
        if place.is_relative_to(folder) and f"/{place.as_posix()}".endswith(f"/{name}"):
            return item
    return VocItem(name, None, ())


def _half(reader: VocReader, half: str, lists: Iterable[Path]) -> SourceHalf:
    items = reader.halves[half]
    files = [item.file for item in items if item.file]
    return SourceHalf(
        origin=files[0].parent if files else reader.base,
        folders=(reader.base, *dict.fromkeys(image.parent for item in items for image in item.images)),
        read=lambda: reader.content(half),
        files=(*lists, *files),
        images=tuple(image for item in items for image in item.images),
    )
