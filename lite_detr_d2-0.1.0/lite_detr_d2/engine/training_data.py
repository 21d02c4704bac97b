"""From ``DATASETS.TRAIN`` to the batches that a training sees."""

import logging
from itertools import chain, islice
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import get_detection_dataset_dicts
from detectron2.data.build import filter_images_with_only_crowd_annotations

from ..data import DetrDatasetMapper, TrainingLoader, sampler_factory
from .datasets import annotation_errors, check_trainable, class_names
from .evaluation import check_box_counts
from .stop import leave_signals_to_main
from .summary import log_dataset

logger = logging.getLogger(__name__)


def load_images(cfg: CfgNode) -> Any:
    """The images of all ``DATASETS.TRAIN``: a list in detectron2's dataset format, or what else a dataset may be.

    Raises:
        InputError: an annotation file cannot be used.
    """
    names = cfg.DATASETS.TRAIN
    with annotation_errors("TRAIN", *names):
        return get_detection_dataset_dicts(names, filter_empty=False)


def usable_images(cfg: CfgNode, images: Any) -> Any:
    """Those that are trained on: with ``DATALOADER.FILTER_EMPTY_ANNOTATIONS``, such as have a box. Says what they are.

    Raises:
        InputError: there is no box to train on.
    """
    names = cfg.DATASETS.TRAIN
    if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS and isinstance(images, list) and "annotations" in images[0]:
        usable = filter_images_with_only_crowd_annotations(images)
        if 0 < len(usable) < len(images):
            logger.info(
                "%d of the %d images of %s have no box, and are not trained on (DATALOADER.FILTER_EMPTY_ANNOTATIONS).",
                *(len(images) - len(usable), len(images), ", ".join(names)),
            )
    else:
        usable = images
    check_trainable(names, usable)
    log_dataset(", ".join(names), usable, class_names(names[0]) or ())
    check_box_counts(cfg, ", ".join(map(repr, names)), usable, is_train=True)
    return usable


def training_loader(cfg: CfgNode, images: Any) -> TrainingLoader:
    """The batches of these images, augmented, see :class:`TrainingLoader`."""
    return TrainingLoader(
        images,
        DetrDatasetMapper(cfg, True),
        sampler_factory(cfg, images),
        batch_size=cfg.SOLVER.IMS_PER_BATCH,
        group_by_shape=cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        worker_init_fn=leave_signals_to_main,
    )


def first_samples(cfg: CfgNode, images: Any, number: int, seed: int) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The first inputs that a training of this seed gives to the model, each with the image that it was made of.

    Args:
        cfg: the config.
        images: as of :func:`usable_images`.
        number: of inputs.
        seed: as of ``SEED``.

    Returns:
        Pairs of what :class:`DetrDatasetMapper` makes, and of the image in detectron2's dataset format.
    """
    loader = training_loader(cfg, images)
    loader.start(seed, images_seen=0)
    samples = list(islice(chain.from_iterable(loader), number))
    wanted = set(map(_key, samples))
    records = {_key(image): image for image in images if _key(image) in wanted}
    return [(sample, records[_key(sample)]) for sample in samples]


def _key(image: dict[str, Any]) -> tuple[Any, ...]:
    return image["file_name"], image.get("image_id")
