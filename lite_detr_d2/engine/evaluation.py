"""COCO's evaluation of sets that are not COCO: crowded images, sets without annotations, metrics that are not there."""

import io
import json
import logging
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.evaluation import COCOEvaluator
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import log_first_n
from torch.utils.data import DataLoader

from ..data import DetrDatasetMapper
from ..files import write_atomically
from .stop import leave_signals_to_main

# COCO counts so many detections of a class in an image. None of its own images has more boxes.
_COCO_DETECTIONS = 100
_METRICS_FILE = "eval_metrics.json"
# As detectron2's COCOEvaluator calls them: at all IoUs, at one, and of small, medium and large boxes.
_SAID = ("AP", "AP50", "AP75", "APs", "APm", "APl")

logger = logging.getLogger(__name__)


class BoxEvaluator(COCOEvaluator):
    """detectron2's ``COCOEvaluator`` of boxes, which counts as many detections per image as there can be right ones.

    That is COCO's 100, or if an image has more boxes the most that one has; the log says so, once. Of a set without
    annotations, detections are written and nothing is scored, which the log says, too.
    """

    def __init__(self, dataset_name: str, output_dir: str) -> None:
        """Make an evaluator of a registered dataset, which writes detections to ``output_dir``."""
        super().__init__(dataset_name, tasks=("bbox",), output_dir=output_dir)
        self._name = dataset_name
        self._coco_api.dataset.setdefault("info", {})  # some versions of pycocotools fail without it
        boxes = {image: _num_boxes(found) for image, found in self._coco_api.imgToAnns.items()}
        fullest = max(boxes, key=lambda image: boxes[image], default=None)
        if fullest is None or boxes[fullest] == 0:
            _warn_once(
                f"{dataset_name!r} ({self._metadata.json_file}) has no boxes to find: there is nothing to score. "
                f"Detections are written to {output_dir}."
            )
        elif boxes[fullest] > _COCO_DETECTIONS:
            crowded = _images(count > _COCO_DETECTIONS for count in boxes.values())
            _warn_once(
                f"Image {fullest} of {dataset_name!r} ({self._metadata.json_file}) has {boxes[fullest]} boxes, and "
                f"{crowded} more than {_COCO_DETECTIONS}: AP counts up to {boxes[fullest]} detections per image "
                f"instead of COCO's {_COCO_DETECTIONS}. TEST.DETECTIONS_PER_IMAGE is how many a model gives."
            )
            self._max_dets_per_image = [1, 10, counted_detections(self._coco_api.imgToAnns.values())]

    def evaluate(self, img_ids: Any = None) -> Any:
        """As ``COCOEvaluator``; pycocotools' own lines go to the log, and one with the result is said."""
        written = io.StringIO()
        with redirect_stdout(written):
            results = super().evaluate(img_ids)
        if written.getvalue():
            logger.debug("pycocotools:\n%s", written.getvalue())
        found = (results or {}).get("bbox")
        if found:
            logger.info("%s: %s", self._name, ", ".join(f"{name} {_shown(found[name])}" for name in _SAID))
        return results


def _shown(percent: float) -> str:
    return "-" if math.isnan(percent) else f"{percent:.2f}"


def counted_detections(images: Iterable[Any]) -> int:
    """How many detections of a class count in an image: COCO's 100, or as many as an image has boxes.

    Args:
        images: of each the list of its annotations, as in COCO's files.
    """
    return max([_COCO_DETECTIONS, *map(_num_boxes, images)])


def check_box_counts(cfg: CfgNode, name: str, images: object, is_train: bool) -> None:
    """Warn, once, where an image has more boxes than a detector can find.

    Args:
        cfg: ``MODEL.LITE_DETR.NUM_QUERIES`` and, of a set to evaluate on, ``TEST.DETECTIONS_PER_IMAGE`` are limits.
        name: what the dataset is called.
        images: a list in detectron2's dataset format; of anything else nothing is known.
        is_train: whether they are to train on.
    """
    if not isinstance(images, list):
        return
    boxes = [_num_boxes(image.get("annotations", ())) for image in images]
    fullest = max(range(len(boxes)), key=boxes.__getitem__)
    limits = {"MODEL.LITE_DETR.NUM_QUERIES": cfg.MODEL.LITE_DETR.NUM_QUERIES}
    if not is_train:
        limits["TEST.DETECTIONS_PER_IMAGE"] = cfg.TEST.DETECTIONS_PER_IMAGE
    for key, limit in limits.items():
        if limit < boxes[fullest]:
            crowded = _images(count > limit for count in boxes)
            _warn_once(
                f"{key} is {limit}, and image {images[fullest].get('image_id')} of {name} "
                f"({images[fullest].get('file_name')}) has {boxes[fullest]} boxes: of {crowded} with more than {limit} "
                f"some cannot be found. To find all of them takes {boxes[fullest]}."
            )


def evaluation_loader(cfg: CfgNode, name: str, images: Sequence[dict[str, Any]]) -> DataLoader[Any]:
    """The images of a set to evaluate on, one at a time, as detectors take them.

    Args:
        cfg: how to read and resize them, and in how many processes.
        name: what the dataset is called; warns as :func:`check_box_counts` does.
        images: in detectron2's dataset format.
    """
    check_box_counts(cfg, name, images, is_train=False)
    loader: DataLoader[Any] = build_detection_test_loader(
        images, mapper=DetrDatasetMapper(cfg, False), num_workers=cfg.DATALOADER.NUM_WORKERS
    )
    loader.worker_init_fn = leave_signals_to_main
    return loader


def write_metrics(folder: str, results: Mapping[str, Any]) -> None:
    """Write ``eval_metrics.json`` to ``folder``, with ``null`` for what is no finite number.

    Raises:
        InputError: it cannot be written.
    """
    PathManager.mkdirs(folder)
    content = json.dumps(_as_json(results), indent=2, allow_nan=False).encode()
    write_atomically(os.path.join(folder, _METRICS_FILE), lambda file: file.write(content))


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    number = float(value)  # NumPy's and torch's are no numbers of JSON
    return number if math.isfinite(number) else None


def _num_boxes(annotations: Any) -> int:
    """How many are to be found; the regions that COCO calls a crowd are not."""
    return sum(not annotation.get("iscrowd", 0) for annotation in annotations)


def _images(chosen: Iterable[bool]) -> str:
    count = sum(chosen)
    return f"{count} image{'s' if count > 1 else ''}"


def _warn_once(message: str) -> None:
    """An evaluation that is repeated in training says the same again."""
    log_first_n(logging.WARNING, message, name=__name__, key="message")
