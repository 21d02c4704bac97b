"""What padding costs: how much of what a detector finds remains where images are made to fit an exported model."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from .bounds import Bounds
from .comparison import Agreement, Limits, compare_detections
from .inference import InferenceModel
from .predictor import Detection, Predictor
from .run import TrainedModel

logger = logging.getLogger(__name__)

# Padding changes what is computed near it, in every detector: the same object, at about the same place and score.
_SAME_OBJECT = Limits(tolerance=0.0, norm="max", selected=None, matched=0.95, iou=0.7, score_difference=0.1)


def report_fitting(trained: TrainedModel, bounds: Bounds, images: Sequence[npt.NDArray[np.uint8]]) -> float:
    """Say how much of what the detector finds in images it finds in them as they have to be for an exported model, too.

    A file does not differ from its detector in this: it is a property of the detector, and of the bounds.

    Args:
        trained: the detector.
        bounds: what the exported model takes.
        images: (H, W, 3) uint8, in RGB.

    Returns:
        The part, 0..1, of the detections that score 0.1 above the lowest of their image.
    """
    free = Predictor(trained.cfg, trained.class_names, trained.detector)(images)
    fitted = fitted_predictor(trained, bounds)(images)
    pairs = zip(fitted, free, strict=True)
    agreement = sum((_compare(*pair) for pair in pairs), start=Agreement())
    remaining = agreement.matched if agreement.compared else 1.0
    if remaining < _SAME_OBJECT.matched:
        logger.warning(
            "With images made smaller or padded to fit the exported model, the detector finds %.0f %% of what it finds "
            "in %d images without (same class, IoU %g, score to %g). Export it with --dynamic, or with the --size that "
            "its images are resized to; or train it on padded images, as batches of different shapes are.",
            *(100 * remaining, len(images), _SAME_OBJECT.iou, _SAME_OBJECT.score_difference),
        )
    return remaining


def fitted_predictor(trained: TrainedModel, bounds: Bounds) -> Predictor:
    """The detector, on the CPU and in float32, of images that are made to fit ``bounds`` as those of a file are."""
    model = InferenceModel(trained.detector).eval()

    @torch.no_grad()
    def runtime(pixels: npt.NDArray[Any], sizes: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], ...]:
        return tuple(output.numpy() for output in model(torch.from_numpy(pixels), torch.from_numpy(sizes)))

    return Predictor(trained.cfg, trained.class_names, runtime, bounds=bounds)


def _compare(found: Detection, expected: Detection) -> Agreement:
    ours, theirs = (
        [
            instances.pred_boxes.tensor.numpy()[None],
            instances.scores.numpy()[None],
            instances.pred_classes.numpy()[None],
        ]
        for instances in (found["instances"], expected["instances"])
    )
    return compare_detections(ours, theirs, _SAME_OBJECT) if len(ours[1][0]) and len(theirs[1][0]) else Agreement()
