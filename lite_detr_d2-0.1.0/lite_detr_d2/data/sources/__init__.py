"""From what the user names to a :class:`~lite_detr_d2.data.source.Source`: one file for each format.

Whatever does not depend on the format is here: what was named, and what is said where nothing fits.
"""

import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ...errors import InputError
from ...wording import shown
from ..source import Source
from . import coco, voc, yolo
from .archive import unpack
from .sniff import EXPORT_AGAIN, look
from .tree import IMAGE_SUFFIXES, Tree, walk

__all__ = ["find_source", "source_of_files"]

# Tried in this order; the first that finds its format has it.
_FINDERS: tuple[Callable[[Tree], Source | None], ...] = (coco.find, yolo.find, voc.find)
_ARCHIVES = (".tar", ".tgz", ".gz", ".bz2", ".xz", ".rar", ".7z", ".zst")
_TABLES = (".csv", ".tsv", ".xlsx", ".parquet", ".tfrecord", ".record", ".jsonl", ".ndjson", ".mat", ".h5", ".pkl")
_OTHER = f"is in a format that is not read: {EXPORT_AGAIN}"
_READ = (
    "What is read: COCO (train.json and val.json beside images/, annotations/instances_train.json, "
    "train/_annotations.coco.json and the like), YOLO (data.yaml, images/ and labels/) and Pascal VOC (an XML file for "
    "each image)"
)


def find_source(path: str | Path, workspace: Path) -> Source:
    """Find out what a dataset's folder, .zip or annotation file is.

    Args:
        path: the folder; or a .zip of one; or a file in COCO's format, or a YAML file of YOLO's.
        workspace: a folder of ours, where a .zip is unpacked.

    Returns:
        The dataset; nothing of it has been checked yet. Its ``root`` is absolute, and no link.

    Raises:
        InputError: there is no such thing; it is no dataset in a known format; or, as each format says, it cannot be
            told which of its files to use.
    """
    place = _place(path)
    if _is_folder(place):
        return _find_in(place, place)
    suffix = place.suffix.lower()
    if suffix == ".zip":
        return _find_in(unpack(place, workspace), place)
    if suffix == ".json":
        return coco.source_of_files({"train": place}, None)
    if suffix in (".yaml", ".yml"):
        return yolo.source_of_yaml(place)
    raise InputError(f"{shown(place)} is no dataset, but {_what_it_is(place)}.")


def source_of_files(
    *, train_json: str | Path | None = None, val_json: str | Path | None = None, images: str | Path | None = None
) -> Source:
    """Make a source of annotation files in COCO's format.

    Args:
        train_json: what to train on; without ``val_json`` it is to be split.
        val_json: what to evaluate on.
        images: the folder of both files' images; None for where these usually are, beside the files and their folders.

    Raises:
        InputError: no file is named; one of them is missing or in another format; or there is no such folder.
    """
    given = {"train": train_json, "val": val_json}
    files = {half: _place(file) for half, file in given.items() if file}
    if not files:
        raise InputError("Name an annotation file to train on or to evaluate on.")
    folder = _place(images) if images else None
    if folder and not _is_folder(folder):
        raise InputError(f"There is no folder {shown(folder)}.")
    return coco.source_of_files(files, folder)


def _place(path: str | Path) -> Path:
    """What is named, as an absolute path: a link to a folder is that folder, a link to a file lies where it lies."""
    place = os.path.abspath(os.path.expanduser(path))
    try:
        if os.path.isdir(place):
            return Path(os.path.realpath(place))
        return Path(os.path.realpath(os.path.dirname(place)), os.path.basename(place))
    except (OSError, ValueError):  # whoever opens it says why
        return Path(place)


def _is_folder(path: Path) -> bool:
    """Whether a path is a folder.

    Raises:
        InputError: nothing is there, or it cannot be said.
    """
    try:
        os.stat(path)
    except FileNotFoundError as error:
        what = "file" if path.suffix else "folder"
        raise InputError(f"There is no {what} {shown(path)}.") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{shown(path)} cannot be read ({reason}).") from error
    return path.is_dir()


def _find_in(folder: Path, named: Path) -> Source:
    tree = walk(folder)
    for find in _FINDERS:
        source = find(tree)
        if source is not None:
            return replace(source, root=named)
    raise InputError(f"{shown(named)} is no dataset: {_what_is_there(tree)}. {_READ}.")


def _what_is_there(tree: Tree) -> str:
    """Say what lies in a folder that no format fits."""
    images, found = tree.images, []
    if images:
        folders = list(dict.fromkeys(image.parent for image in images))
        found.append(f"it has {len(images)} images (in {tree.names(folders)})")
    seen: dict[str, list[Path]] = {}
    for file in [*tree.with_suffix(".json")[:5], *tree.with_suffix(*_TABLES)]:
        seen.setdefault(_OTHER if file.suffix.lower() in _TABLES else look(file).what, []).append(file)
    for what, files in seen.items():
        found.append(f"{tree.name(files[0])}{' (and others)' if files[1:] else ''} {what}")
    found += [f"{tree.name(file)} {_what_xml_is(file)}" for file in tree.with_suffix(".xml")[:1]]
    archives = [file for file in tree.with_suffix(".zip", *_ARCHIVES)]
    if archives:
        found.append(f"{tree.names(archives)} is packed: name the .zip itself, or unpack it")
    if tree.unreadable:
        found.append(f"{tree.names(tree.unreadable)} cannot be listed")
    others = sum(len(files) for files in tree.files.values()) - len(images)
    return "; ".join(found) or (f"none of its {others} files is an annotation file" if others else "it is empty")


def _what_xml_is(file: Path) -> str:
    try:
        with open(file, "rb") as stream:
            head = stream.read(2048)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if b"<annotations" in head:
        return f"looks like CVAT's own XML: {EXPORT_AGAIN}"
    return "is not Pascal VOC's XML of one image"


def _what_it_is(file: Path) -> str:
    suffix = file.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return "an image: name the folder that holds the annotations too"
    if suffix in (".xml", ".txt", ".data", ".names"):
        return "one file of one: name the folder that holds the images too"
    if suffix in _ARCHIVES or zipfile.is_zipfile(file):
        return "an archive of another kind than .zip: unpack it, and name the folder"
    return f"a file of another kind. {_READ}"
