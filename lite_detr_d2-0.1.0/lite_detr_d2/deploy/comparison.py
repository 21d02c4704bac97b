"""How far an exported model is from the one that it was made of, in two comparisons.

The first is of what is computed on the way: the encoder's tokens, and the last layer's predictions *for the same
selected tokens*. Two runtimes add in different orders, and where the proposals of two tokens score all but the same,
the smallest difference swaps their ranks. In DINO a query's content goes by its rank, so that such a swap changes the
detections of both; given the same tokens, all is continuous, and there is a bound.

The second is of detections, as users see them: nearly all have to be found by both. In bfloat16 and int8, whose
rounding swaps many ranks, they are those of the same selected tokens, too; and nearly all of these have to be selected
by both.

All arrays are numpy's. Letters in shapes: N images, S encoder tokens, C channels, D detections.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

Array = npt.NDArray[Any]

CORNER_DIFFERENCE = 0.01  # in pixels: boxes thinner than some of these have no meaningful IoU


@dataclass(frozen=True)
class Limits:
    """How far apart two models of a type may be.

    Attributes:
        tolerance: of encoder tokens and of predictions, see :func:`difference`.
        norm: which difference of an array's values counts: the largest ("max"), or the root of the mean square ("rms").
        selected: None where detections are compared as they are. Else they are those of the same selected tokens, of
            which at least this part has to be selected by both.
        matched: at least this part of the detections has to be found by both.
        iou: of two that match, at least.
        score_difference: of two that match, at most.
    """

    tolerance: float
    norm: str
    selected: float | None
    matched: float
    iou: float
    score_difference: float


# In float32, other kernels of PyTorch were 1e-5 off at most, and all of 721 detections of a trained Lite-DINO matched.
# bfloat16 has 8 bits: tokens of a size of 4 are rounded by up to 0.016 each time. With other kernels, the largest
# difference among millions of values was 0.09, and the root mean square 0.013. Of the selected tokens, 2 to 3 % were
# others and the rest had other ranks, by which a fifth of the detections scored otherwise; those of the same tokens
# all scored within 0.013.
# int8 has 256 values for all that a layer's channel takes: of the same detector, quantised, the root mean square was
# 0.05 for the tokens of most images and 0.25 for one, and 0.06 for predictions. 97 % of the selected tokens were the
# same, and 98 to 99 % of the detections matched. Such limits are for what is broken alone: a fault of the conversion is
# seen before it is quantised, in float32, and what rounding costs is AP.
LIMITS = {
    "float32": Limits(tolerance=1e-4, norm="max", selected=None, matched=0.98, iou=0.99, score_difference=1e-3),
    "bfloat16": Limits(tolerance=2e-2, norm="rms", selected=0.9, matched=0.98, iou=0.95, score_difference=2e-2),
    "int8": Limits(tolerance=0.5, norm="rms", selected=0.9, matched=0.9, iou=0.85, score_difference=0.1),
}


@dataclass(frozen=True)
class Agreement:
    """Of two models' detections; those of several batches add up.

    Attributes:
        found: how many of the first one's were compared, and how many of these the second one has, too.
        expected: how many of the second one's were, and how many of these the first one has.
        score_difference: the largest of two that match.
    """

    found: tuple[int, int] = (0, 0)
    expected: tuple[int, int] = (0, 0)
    score_difference: float = 0.0

    @property
    def compared(self) -> int:
        """How many detections were, of the model that has more of them."""
        return max(self.found[0], self.expected[0])

    @property
    def matched(self) -> float:
        """Which part of a model's detections the other one has, 0..1: of the model where it is the smaller part.

        Where there is nothing to compare, it is 0: nothing is known.
        """
        parts = [same / total for total, same in (self.found, self.expected) if total]
        return min(parts, default=0.0)

    def __add__(self, other: "Agreement") -> "Agreement":
        return Agreement(
            (self.found[0] + other.found[0], self.found[1] + other.found[1]),
            (self.expected[0] + other.expected[0], self.expected[1] + other.expected[1]),
            max(self.score_difference, other.score_difference),
        )


def difference(found: Array, expected: Array, norm: str) -> float:
    """How far apart two arrays of one shape are, in units of their size.

    The unit is the root mean square of ``expected``, or 1 if that is larger. The difference is infinite where a value
    is not finite.

    Args:
        found: of any number type.
        expected: likewise.
        norm: "max" for the largest difference of two values, or "rms" for the root of the mean square.
    """
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    if not (np.isfinite(found).all() and np.isfinite(expected).all()):
        return math.inf
    apart = np.abs(found - expected).max() if norm == "max" else _rms(found - expected)
    return float(apart) / max(1.0, _rms(expected))


def count_shared(found: Array, expected: Array, usable: Array) -> tuple[int, int]:
    """How many of the tokens (N, Q) that are selected in each image are selected by both, of how many, at any rank.

    Where an image has fewer ``usable`` tokens, (N, S) bool, than queries, the others that fill up the selection are all
    alike, and do not count.
    """
    same = total = 0
    for ours, theirs, counts in zip(found, expected, usable, strict=True):
        same += len(np.intersect1d(ours[counts[ours]], theirs[counts[theirs]]))
        total += max(int(counts[ours].sum()), int(counts[theirs].sum()))
    return same, total


def compare_detections(found: Sequence[Array], expected: Sequence[Array], limits: Limits) -> Agreement:
    """Match the detections of each image that score above the lowest of the image by more than the limit of scores.

    Two match if they are of one class, and their scores and boxes within the limits: by the IoU, or because no corner
    is further than ``CORNER_DIFFERENCE`` off. Each is matched once. Lower scores are not compared, because what scores
    like the lowest may be the first one that is left out; but they may match what is.

    Args:
        found: boxes (N, D, 4) as (x1, y1, x2, y2), scores (N, D), falling, and labels (N, D).
        expected: likewise.
        limits: what is a match.
    """
    with np.errstate(invalid="ignore"):  # of values that are not finite, which match nothing
        images = zip(zip(*found, strict=True), zip(*expected, strict=True), strict=True)
        return sum((_compare_image(ours, theirs, limits) for ours, theirs in images), start=Agreement())


def _compare_image(found: tuple[Array, ...], expected: tuple[Array, ...], limits: Limits) -> Agreement:
    (boxes, scores, labels), (their_boxes, their_scores, their_labels) = found, expected
    differences = np.abs(scores[:, None].astype(np.float64) - their_scores[None])
    edges = (labels[:, None] == their_labels[None]) & (differences <= limits.score_difference)
    edges &= _same_box(boxes[:, None].astype(np.float64), their_boxes[None].astype(np.float64), limits.iou)
    rows, columns = (_is_compared(side, limits.score_difference) for side in (scores, their_scores))
    pairs = [_match(edges[rows], differences[rows]), _match(edges[:, columns], differences[:, columns])]
    return Agreement(
        (int(rows.sum()), len(pairs[0])),
        (int(columns.sum()), len(pairs[1])),
        max((float(pair) for pair in np.concatenate(pairs)), default=0.0),
    )


def _is_compared(scores: Array, margin: float) -> npt.NDArray[np.bool_]:
    """(D,) bool. What is not a number is, so that it is missed."""
    compared: npt.NDArray[np.bool_] = ~(scores <= scores.min() + margin)
    return compared


def _match(edges: npt.NDArray[np.bool_], differences: Array) -> Array:
    """Pair as many rows with columns as can be, by edges alone; return the differences of the pairs.

    Of all ways to do so, it is one of the smallest sum of differences.
    """
    if not edges.any():
        return np.zeros(0)
    # A pair counts more than all the differences together.
    unit = 2 * min(edges.shape) * max(differences[edges].max(), np.finfo(np.float64).tiny)
    rows, columns = linear_sum_assignment(np.where(edges, differences / unit - 1.0, 0.0))
    is_pair = edges[rows, columns]
    pairs: Array = differences[rows[is_pair], columns[is_pair]]
    return pairs


def _same_box(ours: Array, theirs: Array, iou: float) -> npt.NDArray[np.bool_]:
    sides = np.minimum(ours[..., 2:], theirs[..., 2:]) - np.maximum(ours[..., :2], theirs[..., :2])
    intersection = sides.clip(0).prod(-1)
    union = _area(ours) + _area(theirs) - intersection
    overlaps = (union > 0) & (intersection >= iou * union)
    same: npt.NDArray[np.bool_] = overlaps | (np.abs(ours - theirs).max(-1) <= CORNER_DIFFERENCE)
    return same


def _area(boxes: Array) -> Array:
    area: Array = (boxes[..., 2:] - boxes[..., :2]).clip(0).prod(-1)
    return area


def _rms(values: Array) -> float:
    return math.sqrt(np.mean(values**2)) if values.size else 0.0
