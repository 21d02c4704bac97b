"""Use a dataset of any layout as datasets of detectron2."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances

from ..metadata import take_back
from .findings import Report, logger
from .inspection import TrainingSizes, doubts, summary
from .prepare import Prepared, PreparedHalf, prepare
from .source import HALVES, Source
from .sources import find_source


@dataclass(frozen=True)
class CocoFolder:
    """A dataset that is registered with detectron2.

    Attributes:
        train: the name of its training half; "" if it has none.
        val: the name of the half to evaluate on.
        classes: in the order of their ids.
        num_images: by name.
        test: the name of a third half; "" if it has none.
        max_value: what ``INPUT.MAX_VALUE`` should be for its images of more than 8 bits; 0 if there are none.
    """

    train: str
    val: str
    classes: tuple[str, ...]
    num_images: dict[str, int]
    test: str = ""
    max_value: float = 0.0


def register_coco_folder(
    directory: str | Path,
    *,
    split_folder: str | Path | None = None,
    keep_split: bool = False,
    on_bad: str = "error",
) -> CocoFolder:
    """Make a dataset ready (:func:`prepare`), and register it with detectron2.

    The datasets are called ``<folder>_train``, ``<folder>_val`` and ``<folder>_test``, with a number behind the folder
    if another dataset has that name. Registering the same again changes nothing. All that was repaired or left out is
    said in one warning of the logger ``lite_detr_d2``.

    Args:
        directory: a folder in one of the layouts that :func:`find_source` knows, a ``.zip`` file of one, or an
            annotation file.
        split_folder: where the datasets are made ready; None for a temporary folder. The user's own is not written to.
        keep_split: whether results rest on what is there already.
        on_bad: what becomes of images and boxes that cannot be used: "error" or "drop".

    Raises:
        InputError: as :func:`find_source` and :func:`prepare` say, with all problems at once.
    """
    return register_source(
        lambda workspace: find_source(directory, workspace),
        split_folder=split_folder,
        keep_split=keep_split,
        on_bad=on_bad,
    )


def register_source(
    find: Callable[[Path], Source],
    *,
    split_folder: str | Path | None = None,
    keep_split: bool = False,
    on_bad: str = "error",
    training: bool = True,
    sizes: TrainingSizes | None = None,
) -> CocoFolder:
    """As :func:`register_coco_folder`, for what ``find`` returns when it is given a folder to unpack files to.

    ``training`` and ``sizes`` are :func:`prepare`'s: whether there is to be a training half, and to which sizes
    training resizes images.
    """
    folder = Path(split_folder).resolve() if split_folder is not None else None
    return register_prepared(prepare(find, folder, keep=keep_split, on_bad=on_bad, training=training, sizes=sizes))


def register_prepared(prepared: Prepared) -> CocoFolder:
    """As :func:`register_coco_folder`, for what was made ready before."""
    prepared.report.log(f"Dataset {prepared.root}")
    found = Report.of(prepared.report.findings, prepared.inspection.findings)
    lines = [summary(found, str(prepared.root)), *doubts(prepared.inspection)]  # what was repaired is said before
    logger.info("%s", "\n  ".join(lines))
    names = _register(prepared)
    return CocoFolder(
        train=names.get("train", ""),
        val=names.get("val") or names["test"],
        classes=tuple(prepared.categories.values()),
        num_images={names[half]: prepared.halves[half].num_images for half in names},
        test=names.get("test", ""),
        max_value=prepared.max_value,
    )


def is_name_of(name: str, prepared: Prepared, half: str) -> bool:
    """Whether a half is called ``name`` by :func:`register_prepared`, in this program or another."""
    # What was a file may be gone.
    bases = "|".join(map(re.escape, (prepared.root.name, prepared.root.stem)))
    return half in prepared.halves and re.fullmatch(rf"({bases})(_\d+)?_{half}", name) is not None


def _base_name(root: Path) -> str:
    return root.stem if root.is_file() else root.name


def _register(prepared: Prepared) -> dict[str, str]:
    """Register all halves under names that are free, or that they have already; return these by half."""
    root = prepared.root
    base = start = _base_name(root)
    number = 1
    while any(_is_taken(f"{base}_{half}", root) for half in HALVES):
        number += 1
        base = f"{start}_{number}"
    names = {half: f"{base}_{half}" for half in prepared.halves}
    for half in HALVES:
        name = f"{base}_{half}"
        if name in DatasetCatalog and not (half in names and _is_registered(name, prepared.halves[half], prepared)):
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
    for half, name in names.items():
        if name not in DatasetCatalog:
            files = prepared.halves[half]
            take_back(name)
            register_coco_instances(name, _metadata(prepared), str(files.annotations), str(files.images))
    return names


def _is_registered(name: str, half: PreparedHalf, prepared: Prepared) -> bool:
    known = MetadataCatalog.get(name).as_dict()
    wanted = {**_metadata(prepared), "json_file": str(half.annotations), "image_root": str(half.images)}
    return all(known.get(key) == value for key, value in wanted.items())


def _is_taken(name: str, root: Path) -> bool:
    return name in DatasetCatalog and MetadataCatalog.get(name).get("source") != str(root)


def _metadata(prepared: Prepared) -> dict[str, Any]:
    return {
        "thing_classes": list(prepared.categories.values()),
        "thing_dataset_id_to_contiguous_id": {
            identifier: index for index, identifier in enumerate(prepared.categories)
        },
        "source": str(prepared.root),
    }
