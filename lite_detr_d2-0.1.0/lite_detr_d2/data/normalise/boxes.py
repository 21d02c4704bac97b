"""Boxes: what of them can be used, and how.

A box is COCO's: x, y, width, height in pixels, x and y from the image's top left corner.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ..findings import Check
from . import checks

Box = list[float]

# Annotation tools round: a box may reach this far, in pixels, beyond its image.
_TOLERANCE = 1.0
# Shorter sides are none: detectron2 drops boxes below 1e-5 pixels of the resized image.
_SHORTEST_SIDE = 1e-3
# Boxes in fractions of 1 may be rounded, or reach beyond their images.
_LEAST_FRACTION, _LARGEST_FRACTION = -0.1, 1.1
# By how much an area may exceed its box's.
_EXCESS = 0.02

# How many boxes show how all of a file are meant; one in so many may be wrong.
_BOXES_READ = 10_000
_FEW = 50
# What no annotator's hand does: boxes that end behind so many times the image's side.
_FAR = 1.1
# So many boxes that may be corners, not at the image's very edges, are no chance.
_DOUBTFUL = 8
_EDGE = 0.05
# How near an area, or a polygon's extent, is to what it should be, besides 1 pixel.
_NEAR = 0.005


@dataclass(frozen=True)
class Reading:
    """How the boxes of a file are meant, if not as COCO's.

    Attributes:
        corners: they are x, y of the top left corner, and x, y of the bottom right one.
        fractions: they are in fractions of the image's sides.
        doubtful: they may be corners, and nothing tells.
    """

    corners: bool = False
    fractions: bool = False
    doubtful: bool = False


def as_box(value: Any) -> tuple[Box | None, bool]:
    """Four finite numbers, or None; and whether they had to be converted from text."""
    if not isinstance(value, list) or len(value) != 4:
        return None, False
    is_text = any(isinstance(number, str) for number in value)
    try:
        box = [float(number) for number in value] if is_text else value
        usable = math.isfinite(sum(map(float, box))) and not any(isinstance(number, bool) for number in value)
    except (TypeError, ValueError, OverflowError):  # the last of an integer beyond floating point
        usable = False
    return (box, is_text) if usable else (None, False)


def fitted(box: Box, width: int, height: int, reading: Reading) -> tuple[Box | None, Check | None]:
    """The box within an image of this size, and what was done to it; or None, and why it cannot be used."""
    left, top, right, bottom = box[0], box[1], box[0] + box[2], box[1] + box[3]
    if box[2] < 0 or box[3] < 0:
        return None, checks.BOX_NEGATIVE
    if min(box[2:]) < _SHORTEST_SIDE:
        return None, checks.BOX_EMPTY
    if reading.corners:
        return None, checks.BOX_CORNERS
    if _is_fraction(box) or (reading.fractions and _are_within_fractions(box)):
        return None, checks.BOX_FRACTION
    beyond = min(left, top, width - right, height - bottom) < -_TOLERANCE
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    if min(right - left, bottom - top) < _SHORTEST_SIDE:
        return None, checks.BOX_OUTSIDE
    return ([left, top, right - left, bottom - top], checks.BOX_CLIPPED) if beyond else (box, None)


def _is_fraction(box: Box) -> bool:
    # In pixels, it would be a box of about one pixel in the very corner.
    return _are_within_fractions(box) and any(number % 1 for number in box)


def _are_within_fractions(box: Box) -> bool:
    return min(box) >= _LEAST_FRACTION and max(box) <= _LARGEST_FRACTION


def is_area(area: Any, box: Box) -> bool:
    """Whether ``area`` can be that of an object with this box: COCO scores small and large objects apart by it."""
    if not _is_number(area):
        return False
    whole = box[2] * box[3]
    # Tools that do not know the area write 0 or 1, or it is in fractions of 1.
    is_placeholder = area <= 1 and whole > 4
    return 0 < area <= whole * (1 + _EXCESS) + 1 and not is_placeholder


def reading_of(boxes: Iterable[tuple[int, Any, Any, Any, tuple[int, int]]]) -> Reading:
    """How the boxes of a file are meant, by what they would be otherwise.

    They are fractions if most are between 0 and 1. They are corners if, but for a few, the second one lies right below
    the first, and they cannot be sizes: of those whose polygon or area tells, most tell that they are corners, and a
    few at most that they are not; or a quarter of all, two at least, would reach far beyond their images, in which they
    lie as corners. They are doubtful if none has an area or a polygon that tells, and all of several in each image
    might be corners, which happens by chance only to few boxes, or to large ones.

    Args:
        boxes: of each annotation the image's number, ``bbox``, ``area``, ``segmentation``, and the width and height of
            the image.
    """
    count = fractions = swapped = beyond = telling = corners = sizes = 0
    inner: Counter[int] = Counter()
    for image, value, area, segmentation, (width, height) in islice(boxes, _BOXES_READ):
        box, _ = as_box(value)
        if box is None:
            continue
        left, top, right, bottom = box
        count += 1
        fractions += _is_fraction(box)
        swapped += right < left or bottom < top
        is_within = right <= width + _TOLERANCE and bottom <= height + _TOLERANCE
        beyond += is_within and (left + right > _FAR * width or top + bottom > _FAR * height)
        inner[image] += left > _EDGE * width or top > _EDGE * height
        told = _evidence(box, area, segmentation)
        telling += told is not None
        corners += told == (True, False)
        sizes += told == (False, True)
    if fractions > count / 2:
        return Reading(fractions=True)
    few = count // _FEW
    are_told = corners >= max(2, telling / 2) and sizes <= few
    if swapped <= few and (are_told or beyond >= max(2, count / 4)):
        return Reading(corners=True)
    several = sum(number for number in inner.values() if number > 1)
    return Reading(doubtful=swapped == telling == 0 and several >= _DOUBTFUL)


def _evidence(box: Box, area: Any, segmentation: Any) -> tuple[bool, bool] | None:
    """Whether the polygon, or else the area, is that of two corners, and of a corner and a size; None if of both."""
    left, top, third, fourth = box
    as_corners, as_sizes = (third - left, fourth - top), (third, fourth)
    if isinstance(segmentation, list) and len(segmentation) == 1 and is_polygon(segmentation[0]):
        _, _, width, height = extent(segmentation)
        told = tuple(_is_near(width, w) and _is_near(height, h) for w, h in (as_corners, as_sizes))
    elif _is_number(area) and area > 1:
        told = tuple(_is_near(area, w * h) for w, h in (as_corners, as_sizes))
    else:
        return None
    return None if all(told) else (told[0], told[1])


def _is_near(value: float, expected: float) -> bool:
    return abs(value - expected) <= 1 + _NEAR * abs(expected)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_polygon(points: Any) -> bool:
    """Whether ``points`` are three at least, as x, y, x, y and so on, all finite."""
    if not isinstance(points, list) or len(points) < 6 or len(points) % 2:
        return False
    try:
        return math.isfinite(sum(points))
    except (TypeError, OverflowError):
        return False


def extent(polygons: list[list[float]]) -> Box:
    """The box around polygons."""
    xs = [x for points in polygons for x in points[::2]]
    ys = [y for points in polygons for y in points[1::2]]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
