"""Use a folder in COCO format as a dataset of detectron2."""

import logging
from dataclasses import dataclass
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances

from ..errors import InputError
from .layout import Half, find_halves
from .split import split_annotations
from .validation import DatasetReport, validate_dataset

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CocoFolder:
    """The names under which a folder's two halves are registered with detectron2, their classes, and their sizes."""

    train: str
    val: str
    classes: tuple[str, ...]
    num_images: dict[str, int]


def register_coco_folder(
    directory: str | Path, *, split_folder: str | Path | None = None, keep_split: bool = False
) -> CocoFolder:
    """Validate and register a folder in one of the layouts that :func:`find_halves` knows.

    All files are in COCO's format for boxes, and list the same categories. The datasets are called ``<folder>_train``
    and ``<folder>_val``. Their classes are the categories in the order of their ids. Registering a folder again changes
    nothing.

    Args:
        directory: the folder.
        split_folder: where :func:`split_annotations` keeps the two halves of an only annotation file; None to ask for
            two.
        keep_split: whether results rest on the split that is there already.

    Raises:
        InputError: with all the problems of both files, as :func:`validate_dataset` finds them; because another folder
            of the same name is registered; or as :func:`find_halves` and :func:`split_annotations` say. What is wrong
            but harmless is logged.
    """
    root = Path(directory).resolve()
    halves = find_halves(root)
    train, val = halves.train, halves.val
    if val is not None:
        reports = {
            train: validate_dataset(train.annotations, train.images),
            val: validate_dataset(val.annotations, val.images, scored=True),
        }
        classes = _usable_classes(root, reports)
        num_images = [report.num_images for report in reports.values()]
    elif split_folder is not None:
        classes = _usable_classes(root, {train: validate_dataset(train.annotations, train.images, scored=True)})
        split = split_annotations(train.annotations, Path(split_folder).resolve(), keep=keep_split)
        train, val = (Half(file, halves.train.images) for file in split)
        num_images = list(split.values())
    else:
        raise InputError(
            f"{train.annotations} is the only annotation file in {root}: add one to evaluate on, such as val.json, or "
            "pass split_folder, a folder for the two halves to split it into."
        )
    names = [_register(f"{root.name}_{name}", half, classes) for name, half in (("train", train), ("val", val))]
    return CocoFolder(names[0], names[1], classes, dict(zip(names, num_images, strict=True)))


def _usable_classes(root: Path, reports: dict[Half, DatasetReport]) -> tuple[str, ...]:
    """Return the classes of one or two validated files, unless there is something wrong with these."""
    names = [str(half.annotations.relative_to(root)) for half in reports]
    problems = [
        (name, problem) for name, report in zip(names, reports.values(), strict=True) for problem in report.problems
    ]
    errors = [f"{name}: {problem}" for name, problem in problems if problem.fatal]
    first, *others = (report.categories for report in reports.values())
    for other in others:
        if first and other and first != other:
            differing = sorted(set(first.items()) ^ set(other.items()))
            listed = ", ".join(f"{identifier}: {name}" for identifier, name in differing)
            errors.append(f"{' and '.join(names)} must list the same categories; they differ in {listed}")
    if errors:
        raise InputError("\n  ".join([f"The dataset in {root} cannot be used:", *errors]))
    for name, problem in problems:
        logger.warning("%s: %s", root / name, problem)
    return tuple(first[identifier] for identifier in sorted(first))


def _register(name: str, half: Half, classes: tuple[str, ...]) -> str:
    json_file, image_root = str(half.annotations), str(half.images)
    if name not in DatasetCatalog:
        register_coco_instances(name, {"thing_classes": list(classes)}, json_file, image_root)
    elif MetadataCatalog.get(name).get("json_file") != json_file:
        raise InputError(f"A dataset called {name!r} is registered already, not from {json_file}. Rename the folder.")
    return name
