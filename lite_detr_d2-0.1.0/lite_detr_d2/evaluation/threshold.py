"""From which score on detections are best taken, whatever their class."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .matches import ImageMatches


@dataclass(frozen=True)
class Threshold:
    """A score from which on to take detections.

    Attributes:
        score: 0..1; None where no detection is right.
        f1: the mean of F1 at an IoU of 0.5 over the classes that have objects, 0..100; None if none has.
    """

    score: float | None
    f1: float | None


def best_threshold(images: Sequence[ImageMatches], num_classes: int) -> Threshold:
    """Find the one score for all classes at which the mean of their F1 is highest."""
    scores, labels = (np.concatenate([getattr(image, name) for image in images]) for name in ("scores", "labels"))
    is_right = np.concatenate([image.found for image in images]) >= 0
    objects = np.bincount(np.concatenate([image.objects for image in images]), minlength=num_classes)
    if not objects.any():
        return Threshold(None, None)
    candidates = np.unique(scores[is_right])  # to go below the score of a right one adds wrong ones only
    if not candidates.size:
        return Threshold(None, 0.0)
    total = np.zeros(len(candidates))
    for label in np.flatnonzero(objects):
        order = np.argsort(-scores[labels == label], kind="stable")
        falling, right = -scores[labels == label][order], np.append(0, is_right[labels == label][order].cumsum())
        taken = np.searchsorted(falling, -candidates, side="right")
        total += 2 * right[taken] / (taken + objects[label])
    best = int(total.argmax())
    return Threshold(float(candidates[best]), 100 * float(total[best]) / int((objects > 0).sum()))
