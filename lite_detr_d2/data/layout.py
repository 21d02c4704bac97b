"""Find the annotation files and the image folders of a dataset in COCO format."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from .validation import read_annotations

_PLAIN_NAMES = ("train.json", "val.json", "test.json")
_PREFIX = "instances_"
_EXPECTED = (
    "train.json and val.json or test.json beside a folder images/, or as COCO has it annotations/instances_train*.json "
    "and annotations/instances_val*.json or instances_test*.json. One annotation file alone, train.json or "
    "annotations/instances_*.json, can be split in two"
)


@dataclass(frozen=True)
class Half:
    """What to train on, or what to evaluate on: an annotation file, and where its ``file_name`` start from."""

    annotations: Path
    images: Path


@dataclass(frozen=True)
class Halves:
    """The two halves of a dataset; ``val`` is None if its only annotation file, that of ``train``, is to be split."""

    train: Half
    val: Half | None


def find_halves(root: Path) -> Halves:
    """Find the halves of the dataset in the folder ``root``.

    Two layouts are known. ``train.json``, ``val.json`` and ``test.json`` have their images in ``images/``. COCO's
    ``annotations/instances_NAME.json`` have theirs in ``NAME/``, ``images/NAME/``, ``images/`` or ``root`` itself,
    whichever comes first and has the file of the first image that is anywhere. A NAME that starts with "train" is the
    training half; one that starts with "val" is the validation half, or without one what starts with "test".
    So it is with ``val.json`` and ``test.json``, and COCO's files give way to a ``train.json`` in ``root``.

    Args:
        root: the folder, as an absolute path.

    Returns:
        The halves. Whether their files are in order is left to :func:`validate_dataset`, which also finds a
        ``train.json`` that is missing beside ``val.json`` or ``test.json``.

    Raises:
        InputError: there is no such folder; it has neither layout; several files would do for a half; or none of the
            images is found.
    """
    if not root.is_dir():
        raise InputError(f"There is no folder {root}.")
    plain = [name for name in _PLAIN_NAMES if (root / name).is_file()]
    files = sorted((root / "annotations").glob(f"{_PREFIX}*.json"))
    # Beside COCO's files, a test.json alone may be anything.
    if "train.json" in plain or (plain and not files):
        return _plain_halves(root, plain)
    if files:
        return _coco_halves(root, files)
    raise InputError(f"{root} is no dataset: it needs {_EXPECTED}.")


def _plain_halves(root: Path, present: Sequence[str]) -> Halves:
    train, val, test = (Half(root / name, root / "images") for name in _PLAIN_NAMES)
    if not train.images.is_dir():
        raise InputError(f"{root} is no dataset: it needs a folder images/ beside {' and '.join(present)}.")
    return Halves(train, next((half for half in (val, test) if half.annotations.name in present), None))


def _coco_halves(root: Path, files: Sequence[Path]) -> Halves:
    if len(files) == 1:
        return Halves(_coco_half(root, files[0]), None)
    train, val = _choose(files, "train"), _choose(files, "val") or _choose(files, "test")
    if train is None or val is None:
        listed = ", ".join(file.name for file in files)
        wanted = "to train on" if train is None else "to evaluate on"
        raise InputError(
            f"None of the files in {root / 'annotations'} is named as one {wanted}: {listed}. A dataset needs "
            f"{_EXPECTED}."
        )
    return Halves(_coco_half(root, train), _coco_half(root, val))


def _choose(files: Sequence[Path], start: str) -> Path | None:
    found = [file for file in files if _name(file).lower().startswith(start)]
    if len(found) > 1:
        raise InputError(
            f"{found[0].parent} has several files that start with {_PREFIX}{start}: "
            f"{', '.join(file.name for file in found)}. Leave the one to use, and move the others elsewhere; or "
            "register your choice with detectron2 (register_coco_instances), and name it in DATASETS.TRAIN and "
            "DATASETS.TEST."
        )
    return found[0] if found else None


def _name(file: Path) -> str:
    return file.stem.removeprefix(_PREFIX)


def _coco_half(root: Path, file: Path) -> Half:
    folders = (root / _name(file), root / "images" / _name(file), root / "images", root)
    content, _ = read_annotations(file)
    names = [image.get("file_name") for image in content.get("images", ()) if isinstance(image, dict)]
    usable = [name for name in names if isinstance(name, str)]
    found = (folder for name in usable for folder in folders if (folder / name).is_file())
    images = next(found, None)
    # Without a usable name, what is wrong is the annotation file: validation says how.
    if images is None and usable:
        listed = ", ".join(f"{folder}/" for folder in folders)
        raise InputError(
            f"None of the images of {file} is there, such as {usable[0]}. They are looked for in {listed}."
        )
    return Half(file, images or folders[0])
