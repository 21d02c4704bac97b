"""The datasets of a config: whether they are there and fit the model, and what is said of them."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import log_first_n

from ..config import class_names_of
from ..data import Report, Severity, validate_dataset
from ..errors import InputError
from ..wording import in_short, listed

logger = logging.getLogger("lite_detr_d2")

_CLASSES_SHOWN = 10


def check_datasets(cfg: CfgNode, *halves: str) -> None:
    """Check that the datasets of ``cfg`` are there, and have as many classes as the model.

    Args:
        cfg: the config.
        halves: keys of ``cfg.DATASETS``: "TRAIN", "TEST", or both.

    Raises:
        InputError: naming the dataset and the key.
    """
    for key in halves:
        for name in cfg.DATASETS[key]:
            if name not in DatasetCatalog:
                raise InputError(
                    f"DATASETS.{key}: no dataset {name!r} is registered. --dataset DIR registers a folder."
                )
            json_file = MetadataCatalog.get(name).get("json_file")
            if json_file is not None and not PathManager.isfile(json_file):
                raise InputError(
                    f"DATASETS.{key}: the annotation file {json_file} of {name!r} is missing. detectron2 looks for its "
                    "own datasets, such as COCO, in the folder that the environment variable DETECTRON2_DATASETS names."
                )
            if json_file is not None and os.path.getsize(PathManager.get_local_path(json_file)) == 0:
                raise InputError(f"DATASETS.{key}: the annotation file {json_file} of {name!r} is empty.")
            with annotation_errors(key, name):
                _look_into(name, scored=key == "TEST")
                _check_class_count(cfg.MODEL.LITE_DETR.NUM_CLASSES, name)
                if key == "TRAIN":
                    _compare_names(class_names_of(cfg), name)


def check_trainable(names: Sequence[str], images: object) -> None:
    """Check that there is something to train on.

    Args:
        names: what the datasets are called.
        images: a list in detectron2's dataset format; of anything else nothing is known.

    Raises:
        InputError: no image has a box that is not a crowd's.
    """
    if not isinstance(images, list):
        return
    boxes = [box for image in images for box in image.get("annotations", ())]
    if all(box.get("iscrowd", 0) for box in boxes):
        found = f"all {len(boxes)} annotations are of crowds ('iscrowd' 1)" if boxes else "there are no annotations"
        raise InputError(
            f"DATASETS.TRAIN: nothing to train on in {', '.join(map(repr, names))}: {found}. Annotate objects one by "
            "one, with 'iscrowd' 0."
        )


@contextmanager
def annotation_errors(key: str, *names: str) -> Iterator[None]:
    """When loading datasets fails, name the annotation file and all that is wrong with it, if that is the reason.

    Looking before would read the large files of real datasets twice.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        for name in names:
            problems = _annotation_problems(name)
            if problems:
                file = MetadataCatalog.get(name).json_file
                title = f"DATASETS.{key}: the annotation file {file} of {name!r} cannot be used:"
                raise InputError(listed(title, problems)) from error
        if isinstance(error, UnicodeDecodeError):
            raise InputError(
                f"DATASETS.{key}: an annotation file of {', '.join(names)} is not in {error.encoding}, the encoding of "
                "this system's locale, in which it is read. Set the environment variable PYTHONUTF8=1."
            ) from error
        raise


def _look_into(name: str, *, scored: bool) -> None:
    """Say what is wrong with a dataset that is read as it is, once."""
    metadata = MetadataCatalog.get(name)
    file = metadata.get("json_file")
    # Not those in another format, and not those that were made ready.
    if file is not None and metadata.get("source") is None and comm.is_main_process():
        local = PathManager.get_local_path(file)
        _say_what_is_not_used(name, local, os.path.getmtime(local), scored)


@cache
def _say_what_is_not_used(name: str, file: str, _changed: float, scored: bool) -> None:
    """detectron2 drops boxes without a word, such as those whose 'segmentation' it cannot use."""
    problems = Report(validate_dataset(file, None, scored=scored).problems)
    lines = problems.lines(Severity.ERROR, Severity.WARNING)
    if lines:
        title = f"Dataset {name!r} ({file}) is read by detectron2 as it is, which may drop or misread without a word:"
        logger.warning("%s", listed(title, lines))


def _annotation_problems(name: str) -> list[str]:
    metadata = MetadataCatalog.get(name)
    if metadata.get("json_file") is None:
        return []
    report = validate_dataset(PathManager.get_local_path(metadata.json_file), None)
    problems = [str(problem) for problem in report.problems if problem.fatal]
    classes = [report.categories[identifier] for identifier in sorted(report.categories)]
    if not problems and classes != metadata.get("thing_classes", classes):
        problems = [f"its categories are not the classes of {name!r}"]
    return problems


def class_names(name: str) -> list[str] | None:
    """Return the names of a dataset's classes; None if it does not tell."""
    if MetadataCatalog.get(name).get("thing_classes") is None:
        DatasetCatalog.get(name)  # some datasets get to know their classes when they are loaded
    classes: list[str] | None = MetadataCatalog.get(name).get("thing_classes")
    return classes


def classes_for_checkpoints(cfg: CfgNode, half: str) -> dict[str, Any]:
    """Return what :class:`SafeCheckpointer` is to know of the classes: those of the first of ``cfg.DATASETS[half]``."""
    name = cfg.DATASETS[half][0]
    with annotation_errors(half, name):
        names = class_names(name)
        if MetadataCatalog.get(name).get("thing_dataset_id_to_contiguous_id") is None:
            DatasetCatalog.get(name)
    by_id = MetadataCatalog.get(name).get("thing_dataset_id_to_contiguous_id")
    ids = None if by_id is None else sorted(by_id, key=by_id.__getitem__)
    return {"class_names": names, "class_ids": ids, "class_rows": cfg.MODEL.LITE_DETR.CLASS_ROWS}


def _check_class_count(expected: int, name: str) -> None:
    classes = class_names(name)
    if classes is not None and len(classes) != expected:
        raise InputError(
            f"MODEL.LITE_DETR.NUM_CLASSES is {expected}, and dataset {name!r} has {len(classes)} classes "
            f"({in_short(classes, _CLASSES_SHOWN)}). "
            f"Set the key to {len(classes)}."
        )


def _compare_names(configured: Sequence[str], name: str) -> None:
    """Say where a config calls the classes otherwise than the dataset that they are learnt from."""
    classes = class_names(name)
    if configured and classes is not None and list(configured) != list(classes):
        log_first_n(
            logging.WARNING,
            f"MODEL.LITE_DETR.CLASS_NAMES calls the classes {in_short(configured, _CLASSES_SHOWN)}, and dataset "
            f"{name!r} {in_short(classes, _CLASSES_SHOWN)}: predictions will have the former names. For the dataset's, "
            "set the key to [].",
            name=logger.name,
            key="message",
        )
