"""Which images a detector is evaluated on, and which of their classes its own are."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.structures import BoxMode

from ..data import Source, find_source
from ..data.prepare import Prepared, find_prepared, prepare
from ..data.source import Content
from ..deploy.probes import Dataset, dataset_of, find_dataset, read_annotations
from ..deploy.results import match_categories
from ..deploy.run import TrainedModel
from ..errors import InputError
from ..wording import in_short, shortened, shown

logger = logging.getLogger(__name__)

_OTHER = "Name another dataset: --dataset DIR."


@dataclass(frozen=True)
class EvaluationSet:
    """Annotated images.

    Attributes:
        origin: where they are of: what the user named, or the training's file.
        annotations: their file.
        content: of it.
        images: in detectron2's dataset format, with annotations.
        class_names: of the categories, in the order of their ids.
        categories: of each of the detector's classes its category; None of one that the dataset does not have.
        max_value: what ``INPUT.MAX_VALUE`` is to be.
    """

    origin: str
    annotations: Path
    content: Content
    images: list[dict[str, Any]]
    class_names: list[str]
    categories: Sequence[Any]
    max_value: float


def own_dataset(trained: TrainedModel, *, split: str = "val") -> EvaluationSet:
    """What a training evaluated on, or else what ``DATASETS.TEST`` names; or the test half of its dataset.

    Args:
        trained: the detector.
        split: "val", or "test" for the half that is kept for the end.

    Raises:
        InputError: it is not there, cannot be read, has nothing to find, or other classes than the detector.
    """
    found = _own_test_half(trained) if split == "test" else find_dataset(trained.cfg, training=False)
    if found is None:
        where = shown(_own_folder(trained))
        raise InputError(
            f"What to evaluate on? There is no dataset in {where}, where a training leaves its own, and the files of "
            f"DATASETS.TEST ({in_short(list(trained.cfg.DATASETS.TEST))}) are not here: name one, --dataset DIR."
        )
    content = read_annotations(found.annotations)
    categories = _by_order(trained, found.annotations, content)
    return _scored(shown(os.path.abspath(found.annotations)), found, content, categories, trained.cfg.INPUT.MAX_VALUE)


def _own_test_half(trained: TrainedModel) -> Dataset | None:
    own = find_prepared(_own_folder(trained))
    if own is None:
        return None
    if "test" not in own.halves:
        raise _no_test_half(_own_folder(trained), own)
    return dataset_of(own.halves["test"])


def _own_folder(trained: TrainedModel) -> Path:
    """Where a training leaves its dataset."""
    return Path(trained.cfg.OUTPUT_DIR, "dataset")


def _no_test_half(path: str | Path, prepared: Prepared) -> InputError:
    return InputError(f"--split test: {shown(path)} has no half of that name, but {' and '.join(prepared.halves)}.")


def named_dataset(trained: TrainedModel, path: str, *, split: str = "val", on_bad: str = "error") -> EvaluationSet:
    """A dataset that a user names, in whatever format.

    A file of annotations that stands alone is taken in full; but in the split that the training made, if it is what the
    detector was trained on.

    Args:
        trained: the detector, whose classes are looked for by their names.
        path: of the dataset, see :func:`find_source`.
        split: "val", or "test" for the half that is kept for the end.
        on_bad: what becomes of images and boxes that cannot be used: "error" or "drop".

    Raises:
        InputError: it cannot be used, has no such half, nothing to find, or none of the detector's classes.
    """
    own = find_prepared(_own_folder(trained))

    def find(workspace: Path) -> Source:
        source = find_source(path, workspace)
        if set(source.halves) == {"train"} and (own is None or source.root != own.root):
            logger.info("All of %s is evaluated on", shown(source.halves["train"].origin))
            return replace(source, halves={"val": source.halves["train"]})
        return source

    prepared = prepare(find, None, on_bad=on_bad, training=False)
    prepared.report.log(f"Dataset {prepared.root}")
    if split == "test" and "test" not in prepared.halves:
        raise _no_test_half(path, prepared)
    name = split if split in prepared.halves else "test"
    half, origin = prepared.halves[name], f"{shown(os.path.abspath(path))}, {name}"
    content = read_annotations(half.annotations)
    images = {image["id"]: half.images / image["file_name"] for image in content["images"]}
    if own is not None and own.root == prepared.root:
        categories = _by_order(trained, half.annotations, content)
    else:
        categories = match_categories(prepared.root, trained.class_names, content)
        _say_unknown(prepared.root, content, categories)
    return _scored(origin, Dataset(half.annotations, images), content, categories, prepared.max_value)


def config_for(cfg: CfgNode, dataset: EvaluationSet) -> CfgNode:
    """The config, with what the dataset's images need; not frozen."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.INPUT.MAX_VALUE = dataset.max_value
    return cfg


def _by_order(trained: TrainedModel, file: Path, content: Content) -> list[Any]:
    """The categories in the order of their ids, as trainings number them."""
    categories = sorted(category["id"] for category in content["categories"])
    if len(categories) != len(trained.class_names):
        raise InputError(
            f"{shown(file)} has {len(categories)} categories, and the detector {len(trained.class_names)} classes "
            f"({in_short(trained.class_names)}). {_OTHER}"
        )
    return categories


def _say_unknown(root: Path, content: Content, known: Sequence[Any]) -> None:
    unknown = [shortened(str(category["name"])) for category in content["categories"] if category["id"] not in known]
    if unknown:
        logger.warning(
            "Classes of %s that the model does not know, whose objects count as not found (%d): %s",
            *(shown(root), len(unknown), in_short(unknown)),
        )


def _scored(
    origin: str, found: Dataset, content: Content, categories: Sequence[Any], max_value: float
) -> EvaluationSet:
    if all(box.get("iscrowd", 0) for box in content["annotations"]):
        raise InputError(f"{shown(found.annotations)} has no boxes to find: there is nothing to score. {_OTHER}")
    ordered = sorted(content["categories"], key=lambda category: category["id"])
    numbers = {category["id"]: number for number, category in enumerate(ordered)}
    boxes: dict[Any, list[dict[str, Any]]] = {}
    for box in content["annotations"]:
        record = {"bbox": box["bbox"], "bbox_mode": BoxMode.XYWH_ABS, "iscrowd": box.get("iscrowd", 0)}
        boxes.setdefault(box["image_id"], []).append({**record, "category_id": numbers[box["category_id"]]})
    images = [
        {
            "file_name": str(found.images[image["id"]]),
            "image_id": image["id"],
            "height": image["height"],
            "width": image["width"],
            "annotations": boxes.get(image["id"], []),
        }
        for image in content["images"]
    ]
    names = [str(category["name"]) for category in ordered]
    return EvaluationSet(origin, found.annotations, content, images, names, categories, max_value)
