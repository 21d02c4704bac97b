"""Write a dataset that is in order as a folder of its own."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from tqdm import tqdm

from ...errors import InputError
from ..normalise import CleanHalf, Normalised
from ..source import write_coco_file

_IMAGES = "images"


def write_folder(normalised: Normalised, out: Path, source: Path, *, progress: bool = False) -> None:
    """Write ``train.json``, ``val.json`` and ``test.json``, those that there are, and copies of all images.

    The folder appears when it is whole. Images are copied as they are, below ``images/``, each file once; where two
    files have the same name, the later one's half goes before it.

    Args:
        normalised: the dataset.
        out: the folder, which is new or empty.
        source: the dataset's own folder, or a file in it.
        progress: whether to show a progress bar on standard error.

    Raises:
        InputError: ``out`` has something in it, or is in a folder of the dataset; or it cannot be written.
    """
    check_out(normalised, out, source)
    unfinished = out.with_name(f"{out.name}.unfinished")
    try:
        unfinished.mkdir(parents=True)
        try:
            _write(normalised, unfinished, progress)
            os.replace(unfinished, out)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror or error}.") from error


def check_out(normalised: Normalised, out: Path, source: Path) -> None:
    """Refuse a folder that :func:`write_folder` would not write to.

    Raises:
        InputError: ``out`` has something in it, or is in a folder of the dataset.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()) or (out.is_dir() and any(out.iterdir())):
        raise InputError(f"{out} is there already: name a folder that is new or empty.")
    own = [source if source.is_dir() else source.parent] if source.suffix.lower() != ".zip" else []
    for folder in (*own, *(half.image_root for half in normalised.halves.values())):
        if out.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{out} is in the dataset's own folder, {folder}: name one elsewhere.")


def _write(normalised: Normalised, folder: Path, progress: bool) -> None:
    names: dict[str, str] = {}
    for name, half in normalised.halves.items():
        content = {**half.content, "images": list(_renamed(half, names))}
        write_coco_file(folder / f"{name}.json", content)
    for path, name in tqdm(names.items(), "Copying images", unit="image", disable=not progress):
        target = folder / _IMAGES / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _renamed(half: CleanHalf, names: dict[str, str]) -> Iterator[dict[str, Any]]:
    """The images of a half, by their new names; these are added to ``names``, by the files' paths."""
    taken = {name.casefold() for name in names.values()}
    for image in half.content["images"]:
        path = os.path.realpath(os.path.join(half.image_root, image["file_name"]))
        if path not in names:
            # What starts at the root, or leads out of the folder, is known by its last part.
            parts = PurePath(image["file_name"]).parts
            is_below = not os.path.isabs(image["file_name"]) and ".." not in parts
            name = "/".join(parts if is_below else parts[-1:])
            while name.casefold() in taken:
                name = f"{half.name}/{name}"
            taken.add(name.casefold())
            names[path] = name
        yield {**image, "file_name": names[path]}
