"""Annotation files in COCO format, in whatever folders tools and people put them."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from ...errors import InputError
from ...wording import shown
from ..source import Source, SourceHalf, read_coco_file
from .sniff import look
from .tree import Tree, is_junk
from .words import PURPOSES, TRAINVAL, half_of_file, half_of_folder, half_of_name, is_plain, settle, without_half

KIND = "COCO"
_PREFIX = "instances_"
# COCO's other files list the same images. They count where nothing else is there.
_OTHER_PREFIXES = ("captions_", "person_keypoints_", "stuff_", "panoptic_", "image_info_")
_IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages", "data")
_ANNOTATION_FOLDERS = ("annotations", "annotation", "anns", "ann", "labels", "label", "json", "jsons", "coco")
_CHOOSE = (
    "Leave the one to use there and move the others elsewhere, or name your choice: --train-json FILE --val-json FILE "
    "--images FOLDER."
)


def find(tree: Tree) -> Source | None:
    """Find the annotation files in COCO format below a folder, one for each half.

    A file's half is what its name speaks of (train2017, training; val, valid, validation; test, testing), or else the
    nearest folder's. Of several for a half, those count that come as one export's train and val (or test), those
    nearest to the root before others, and ``instances_*`` before others beside it. One file alone is "train",
    whatever its name.

    Returns:
        The source, or None where no file is in COCO format.

    Raises:
        InputError: several files would do for a half, none is named as one for it, or one that is named so is of
            another format.
    """
    looks = {file: look(file) for file in tree.with_suffix(".json")}
    files = [file for file in looks if looks[file].is_coco]
    if not files:
        return None
    usual = [file for file in files if not file.name.lower().startswith(_OTHER_PREFIXES)] or files
    _check_others(tree, usual, {file: seen.what for file, seen in looks.items() if not seen.is_coco})
    chosen = _choose(tree, usual)
    halves = settle({half: (half, file) for half, file in chosen.items()})
    used = {file for _, file in halves.values()}
    return Source(
        tree.root,
        KIND,
        {half: _half(tree, file, named if len(used) > 1 else "") for half, (named, file) in halves.items()},
        tuple(file for file in files if file not in used),
    )


def source_of_files(files: Mapping[str, Path], images: Path | None) -> Source:
    """Make a source of annotation files, by half, and the folder of their images, or where images usually are."""
    for file in files.values():
        seen = look(file)
        if not seen.is_coco:
            raise InputError(f"{shown(file)} is no annotation file in COCO format: it {seen.what}.")
    halves = {}
    for half, file in files.items():
        own = [images] if images else []
        halves[half] = _source_half(file, [*own, *_image_folders(file, half, own or _bases_of(file))])
    return Source(next(iter(files.values())), KIND, halves)


def _bases_of(file: Path) -> list[Path]:
    """The folders around a file in which its images, or folders of them, may be.

    What is above its own folder may be anything, unless that one is for annotation files or a half.
    """
    folder = file.parent
    special = folder.name.lower() in _ANNOTATION_FOLDERS or half_of_name(folder.name)
    return [folder, folder.parent] if special else [folder]


def _check_others(tree: Tree, files: Sequence[Path], others: Mapping[Path, str]) -> None:
    """Raise if a half that none of the files is for has one in its name that is of another format."""
    present = {half_of_file(file, tree.root) for file in files}
    needed = {"train", "val"} if present & {"val", TRAINVAL} else set(PURPOSES)
    for file, what in others.items():
        half = half_of_name(file.stem)
        if half in needed - present and is_plain(file.stem):
            raise InputError(f"{shown(file)} is named as an annotation file {PURPOSES[half]}, but {what}.")


def _choose(tree: Tree, files: Sequence[Path]) -> dict[str, Path]:
    """Choose one file for each half that there is one for; the result may lack any of them."""
    if len(files) == 1:
        return {"train": files[0]}
    families: dict[tuple[str, ...], dict[str, list[Path]]] = {}
    halves: dict[str, list[Path]] = {}
    for file in files:
        half = half_of_file(file, tree.root)
        family = without_half(file.relative_to(tree.root))
        families.setdefault(family, {}).setdefault(half, []).append(file)
        halves.setdefault(half, []).append(file)
    complete = [family for family in families.values() if {"train", "val"} <= settle(family).keys()]
    if complete:
        ranks = [min(_rank(tree, found) for found in family.values()) for family in complete]
        best = [family for family, rank in zip(complete, ranks, strict=True) if rank == min(ranks)]
        if len(best) > 1:
            raise InputError(
                _several(tree, "to train on", [file for family in best for file in settle(family)["train"]])
            )
        chosen = best[0]
        # What the export lacks may lie elsewhere, if there is no doubt which it is.
        chosen |= {half: found for half, found in halves.items() if half not in chosen and len(found) == 1}
    else:
        chosen = {half: _nearest(tree, found) for half, found in halves.items()}
        _check_named(tree, chosen)
    for half, found in chosen.items():
        if half and len(found) > 1:
            raise InputError(_several(tree, PURPOSES.get(half, "to train on"), found))
    return {half: found[0] for half, found in chosen.items() if half}


def _rank(tree: Tree, files: Iterable[Path]) -> tuple[int, bool]:
    return min((len(file.relative_to(tree.root).parts), not file.name.startswith(_PREFIX)) for file in files)


def _nearest(tree: Tree, files: Sequence[Path]) -> list[Path]:
    best = _rank(tree, files)
    return [file for file in files if _rank(tree, [file]) == best]


def _check_named(tree: Tree, found: Mapping[str, Sequence[Path]]) -> None:
    """Raise if a half is missing that one of the files without a half in its name may be."""
    present = settle(found)
    missing = next((half for half in ("train", "val") if half not in present), None)
    if "" in found and missing:
        files = [file for half in found for file in found[half]]
        raise InputError(
            f"None of the annotation files in {shown(tree.root)} is named as one {PURPOSES[missing]}: "
            f"{tree.names(files)}. Call it {missing}.json, {_PREFIX}{missing}.json or "
            f"{missing}/_annotations.coco.json, or name your choice: --train-json FILE --val-json FILE --images FOLDER."
        )


def _several(tree: Tree, purpose: str, files: Sequence[Path]) -> str:
    return f"{shown(tree.root)} has several annotation files {purpose}: {tree.names(files)}. {_CHOOSE}"


def _half(tree: Tree, file: Path, half: str) -> SourceHalf:
    folders = _image_folders(file, half, [folder for folder in file.parents if folder.is_relative_to(tree.root)])
    # Whatever else it is called: a folder with images that is the only one, and not another half's.
    others = {image.parent for image in tree.images}.difference(folders)
    usable = [folder for folder in others if half_of_folder(folder, tree.root) in ("", half)]
    return _source_half(file, [*folders, *(usable if len(usable) == 1 else ())])


def _source_half(file: Path, folders: Iterable[Path]) -> SourceHalf:
    return SourceHalf(file, tuple(dict.fromkeys(folders)), partial(read_coco_file, file), (file,))


def _image_folders(file: Path, half: str, bases: Sequence[Path]) -> list[Path]:
    """List where the images of an annotation file may be, the most likely first.

    In each of ``bases``: the folder that is called as the file or as its half, also below images/ or data/ or with
    images/ or data/ below it; then images/ or data/; then itself.
    """
    names = (file.stem.removeprefix(_PREFIX), file.stem)
    folders = []
    for base in bases:
        inside = [*_folders_called(base, _IMAGE_FOLDERS)]
        for own in _own_folders([base, *inside], names, half):
            folders += [own, *_folders_called(own, _IMAGE_FOLDERS)]
        folders += [*inside, base]
    return folders


def _own_folders(bases: Sequence[Path], names: Sequence[str], half: str) -> Iterator[Path]:
    for base in bases:
        yield from _folders_called(base, names)
    for base in bases:
        yield from (folder for folder in _folders_in(base) if half and half_of_name(folder.name) == half)


def _folders_called(base: Path, names: Sequence[str]) -> list[Path]:
    wanted = [name.lower() for name in names]
    found = [folder for folder in _folders_in(base) if folder.name.lower() in wanted]
    return sorted(found, key=lambda folder: wanted.index(folder.name.lower()))


def _folders_in(base: Path) -> list[Path]:
    try:
        with os.scandir(base) as listing:
            return sorted(Path(entry.path) for entry in listing if not is_junk(entry.name) and entry.is_dir())
    except OSError:
        return []
