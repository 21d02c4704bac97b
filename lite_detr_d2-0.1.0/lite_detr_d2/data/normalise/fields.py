"""Fields that a box detector does not need, and that detectron2 reads all the same."""

import math
from typing import Any

from .boxes import is_polygon

# pycocotools counts the pixels of a mask in 32 bits.
_MOST_PIXELS = 2**31


def usable_segmentation(value: Any) -> Any:
    """What of a ``segmentation`` can be read: polygons, or a run-length encoding; None for nothing.

    An empty one stays: detectron2 passes over it.
    """
    if isinstance(value, list):
        polygons = [points for points in value if is_polygon(points)]
        return value if len(polygons) == len(value) else polygons or None
    if isinstance(value, dict):
        return value if not value or _is_rle(value) else None
    return None


def _is_rle(value: dict[str, Any]) -> bool:
    size, counts = value.get("size"), value.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)):
        return False
    pixels = size[0] * size[1]
    if pixels > _MOST_PIXELS:
        return False
    return isinstance(counts, str) or (
        isinstance(counts, list) and all(type(count) is int and 0 <= count <= pixels for count in counts)
    )


def usable_keypoints(value: Any) -> Any:
    """``keypoints`` if they are triples of finite numbers, x, y and visibility; else None."""
    if not isinstance(value, list) or len(value) % 3:
        return None
    try:
        return value if math.isfinite(sum(value)) else None
    except (TypeError, OverflowError):
        return None
