"""Average precision of a detector and of its exported file: whether rounding to int8 leaves what a detector is for."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from detectron2.config import CfgNode

from ..data.source import Content
from ..errors import InputError
from ..evaluation.per_class import percent
from ..evaluation.scoring import evaluate_boxes
from ..wording import shown
from .bounds import Bounds
from .fitting import fitted_predictor
from .formats import Runtime
from .manifest import Precision
from .media import Media
from .predictor import Predictor
from .probes import RESTORE, Pixels, chosen, find_dataset, read_annotations, readable
from .results import Names
from .run import TrainedModel
from .self_check import CheckFailed

logger = logging.getLogger(__name__)

NUM_IMAGES = 500
KEPT = 0.95  # of AP, at least; less is no rounding


@dataclass(frozen=True)
class Annotated:
    """Images to score detections on.

    Attributes:
        images: of each the file, by its id.
        content: COCO's, of these images alone.
        categories: by class, as detectron2 takes them: in the order of their ids.
    """

    images: Mapping[Any, Path]
    content: Content
    categories: Sequence[Any]


def find_annotated(cfg: CfgNode, num_classes: int, number: int = NUM_IMAGES) -> Annotated:
    """Find so many of the annotated images that a detector is evaluated on, evenly chosen; all, if there are no more.

    Args:
        cfg: of the detector, see :class:`.TrainedModel`.
        num_classes: of the detector.
        number: of images.

    Raises:
        InputError: there are none, or their classes are not the detector's.
    """
    dataset = find_dataset(cfg, training=False)
    cure = "export the OUTPUT_DIR of a training that was evaluated on some, or register what DATASETS.TEST names."
    if dataset is None or not dataset.images:
        raise InputError(f"There are no annotated images, on which AP tells what int8 costs: {cure}")
    content = read_annotations(dataset.annotations)
    ids = set(chosen(list(dataset.images), number))
    boxes = [box for box in content["annotations"] if box["image_id"] in ids]
    if all(box.get("iscrowd", 0) for box in boxes):
        raise InputError(
            f"Nothing is annotated in {len(ids)} images of {shown(dataset.annotations)}, on which AP is to tell what "
            f"int8 costs: {cure}"
        )
    categories = sorted(category["id"] for category in content["categories"])
    if len(categories) != num_classes:
        raise InputError(
            f"{shown(dataset.annotations)} has {len(categories)} categories, and the detector {num_classes} classes: "
            f"{cure}"
        )
    images = [image for image in content["images"] if image["id"] in ids]
    return Annotated(
        {identifier: dataset.images[identifier] for identifier in dataset.images if identifier in ids},
        {"info": {}, "categories": content["categories"], "images": images, "annotations": boxes},
        categories,
    )


def compare_precision(trained: TrainedModel, runtime: Runtime, bounds: Bounds, annotated: Annotated) -> Precision:
    """Measure AP of a detector in PyTorch, in float32, and of its exported file.

    Raises:
        CheckFailed: the file has lost too much of it.
        InputError: the detector finds nothing; or no image can be read.
    """
    logger.info("AP is measured on %d images, which takes a while", len(annotated.images))
    names = trained.class_names
    predictors = fitted_predictor(trained, bounds), Predictor(trained.cfg, names, runtime, bounds=bounds)
    before, after = (average_precision(predictor, annotated, bounds.batch.smallest) for predictor in predictors)
    images = f"{len(annotated.images)} images"
    if before == 0.0:
        raise InputError(
            f"The detector's AP on {images} is 0, of which nothing tells what int8 costs: export weights that are "
            "trained, with the --size that their images are resized to."
        )
    if not after >= KEPT * before:
        raise CheckFailed(
            f"In int8, AP falls from {before:.2f} to {after:.2f} on {images}, and {KEPT:.0%} of it are to remain: "
            "export the detector in float32 or bfloat16."
        )
    return Precision(len(annotated.images), before, after)


def average_precision(predictor: Predictor, annotated: Annotated, batch: int = 1) -> float:
    """COCO's AP, 0..100, of all that a predictor finds; ``batch`` images at a time.

    Images that cannot be read are reported, and their boxes count as not found.

    Raises:
        InputError: no image can be read.
    """
    media = {Media(path, PurePath(str(key))): (key, path.name) for key, path in annotated.images.items()}
    names = Names(media, annotated.categories, predictor.class_names)
    read: list[Media] = []

    def images() -> Iterator[Pixels]:
        every = list(media)
        for index, pixels in readable([item.path for item in every], predictor.cfg, "to measure AP on", RESTORE):
            read.append(every[index])
            yield pixels

    found = predictor(images(), batch=batch)
    records = (names.records(item, each["instances"]) for item, each in zip(read, found, strict=True))
    evaluation = evaluate_boxes(annotated.content, [record for group in records for record in group])
    return percent(evaluation.eval["precision"][:, :, :, 0, -1]) or 0.0  # of objects of all sizes
