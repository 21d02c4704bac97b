"""Detections of a whole dataset, as a training's evaluation finds them."""

import logging
import sys
import time
from datetime import timedelta
from typing import Any

import torch
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from tqdm import tqdm

from ..deploy.run import TrainedModel
from ..engine import limit_workers
from ..engine.evaluation import evaluation_loader
from ..wording import shown
from .dataset import EvaluationSet, config_for

_EVERY = 30  # seconds; where a terminal has a bar

logger = logging.getLogger(__name__)


def detect(trained: TrainedModel, dataset: EvaluationSet) -> list[dict[str, Any]]:
    """Run a detector on all images, in the order of the dataset.

    Returns:
        COCO's list of results: ``image_id``, ``category_id``, ``bbox`` and ``score``, of all classes that the dataset
        has.
    """
    cfg = config_for(trained.cfg, dataset)
    limit_workers(cfg)
    loader = evaluation_loader(cfg, shown(dataset.annotations), dataset.images)
    logger.info("Detecting in %d images", len(dataset.images))
    records: list[dict[str, Any]] = []
    said = began = time.monotonic()
    for number, inputs in enumerate(tqdm(loader, unit="image", disable=None)):
        if number and not sys.stderr.isatty() and time.monotonic() - said > _EVERY:
            said = time.monotonic()
            rest = timedelta(seconds=round((said - began) / number * (len(loader) - number)))
            logger.info("%d of %d images, about %s to go", number, len(loader), rest)
        with torch.no_grad():
            outputs = trained.detector(inputs)
        for image, output in zip(inputs, outputs, strict=True):
            for record in instances_to_coco_json(output["instances"].to("cpu"), image["image_id"]):
                category = dataset.categories[record["category_id"]]
                if category is not None:
                    records.append({**record, "category_id": category})
    return records
