"""Use a folder in COCO format as a dataset of detectron2."""

import logging
from dataclasses import dataclass
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances

from ..errors import InputError
from .validation import validate_dataset

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CocoFolder:
    """The names under which a folder's two halves are registered with detectron2, and their classes."""

    train: str
    val: str
    classes: tuple[str, ...]


def register_coco_folder(directory: str | Path) -> CocoFolder:
    """Validate and register a folder that holds ``train.json``, ``val.json`` or ``test.json``, and ``images/``.

    Both files are in COCO's format for boxes, list the same categories, and name images relative to ``images/``;
    ``val.json`` wins over ``test.json``. The datasets are called ``<folder>_train`` and ``<folder>_val``. Their classes
    are the categories in the order of their ids. Registering a folder again changes nothing.

    Raises:
        InputError: with all the problems of both files, as :func:`validate_dataset` finds them; or because another
            folder of the same name is registered. What is wrong but harmless is logged.
    """
    root = Path(directory).resolve()
    if not (root / "images").is_dir():
        raise InputError(
            f"{root} is no dataset: it needs a folder images/ beside train.json and val.json or test.json."
        )
    train_file = root / "train.json"
    # With neither, val.json is the one to miss.
    val_file = next((file for file in (root / "val.json", root / "test.json") if file.is_file()), root / "val.json")
    train, val = validate_dataset(train_file, root / "images"), validate_dataset(val_file, root / "images", scored=True)

    problems = [
        (file.name, problem) for file, report in ((train_file, train), (val_file, val)) for problem in report.problems
    ]
    errors = [f"{name}: {problem}" for name, problem in problems if problem.fatal]
    if train.categories and val.categories and train.categories != val.categories:
        differing = sorted(set(train.categories.items()) ^ set(val.categories.items()))
        listed = ", ".join(f"{identifier}: {name}" for identifier, name in differing)
        errors.append(f"{train_file.name} and {val_file.name} must list the same categories; they differ in {listed}")
    if errors:
        raise InputError("\n  ".join([f"The dataset in {root} cannot be used:", *errors]))
    for name, problem in problems:
        logger.warning("%s: %s", root / name, problem)

    classes = tuple(train.categories[identifier] for identifier in sorted(train.categories))
    names = [
        _register(f"{root.name}_{half}", file, classes) for half, file in (("train", train_file), ("val", val_file))
    ]
    return CocoFolder(names[0], names[1], classes)


def _register(name: str, json_file: Path, classes: tuple[str, ...]) -> str:
    if name not in DatasetCatalog:
        metadata = {"thing_classes": list(classes)}
        register_coco_instances(name, metadata, str(json_file), str(json_file.parent / "images"))
    elif MetadataCatalog.get(name).get("json_file") != str(json_file):
        raise InputError(f"A dataset called {name!r} is registered already, not from {json_file}. Rename the folder.")
    return name
