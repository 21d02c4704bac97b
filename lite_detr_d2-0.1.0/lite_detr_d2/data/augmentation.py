"""detectron2's resize and crop, for images of any shape."""

from typing import Any

import numpy as np
import numpy.typing as npt
from detectron2.data import transforms as T

MAX_PIXELS = 20_000_000


class BoundedResize(T.ResizeShortestEdge):
    """detectron2's ``ResizeShortestEdge``, whose images have at least one pixel a side, and ``MAX_PIXELS`` at most.

    detectron2 makes no pixel of a strip of 3000 x 1, and, where the long side has no limit, 240 million of 3000 x 2.
    """

    def get_transform(self, image: npt.NDArray[Any]) -> T.Transform:
        resize = super().get_transform(image)
        if not isinstance(resize, T.ResizeTransform):
            return resize  # a short side of 0: the image as it is
        height, width = bounded_size(resize.new_h, resize.new_w)
        return T.ResizeTransform(resize.h, resize.w, height, width, resize.interp)


class NonEmptyCrop(T.RandomCrop):
    """detectron2's ``RandomCrop``, at least one pixel a side."""

    def get_crop_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        height, width = super().get_crop_size(image_size)
        return max(height, 1), max(width, 1)


def bounded_size(height: int, width: int) -> tuple[int, int]:
    """Return a size within the bounds, of as nearly the same shape as they allow."""
    height, width = max(height, 1), max(width, 1)
    shrink = min(1.0, float(np.sqrt(MAX_PIXELS / (height * width))))
    short = max(int(min(height, width) * shrink), 1)
    long = min(int(max(height, width) * shrink), MAX_PIXELS // short)
    return (short, long) if height <= width else (long, short)
