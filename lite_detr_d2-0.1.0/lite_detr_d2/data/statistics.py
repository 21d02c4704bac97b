"""What a dataset is made of, in figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from detectron2.structures import BoxMode

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

SMALL, LARGE = 32**2, 96**2
"""COCO's small boxes have less than the first area, in square pixels, its large ones the second at least."""


@dataclass(frozen=True)
class Statistics:
    """Of I images, B boxes without those of crowds, and K classes.

    Attributes:
        class_names: of the K classes.
        image_sizes: (at most I, 2) as (width, height), in pixels, of those images that state them.
        boxes_per_image: (I,).
        box_sizes: (B, 2) as (width, height), in pixels.
        boxes_per_class: (K,).
        images_per_class: (K,): with a box of it at least.
        crowds: number of boxes of crowds.
    """

    class_names: list[str]
    image_sizes: Integers
    boxes_per_image: Integers
    box_sizes: Floats
    boxes_per_class: Integers
    images_per_class: Integers
    crowds: int

    @classmethod
    def of(cls, images: Sequence[dict[str, Any]], class_names: Sequence[str] = ()) -> "Statistics":
        """Count.

        Args:
            images: in detectron2's dataset format.
            class_names: of the classes; numbers stand for those that have none.
        """
        every = [image.get("annotations", ()) for image in images]
        kept = [[box for box in boxes if not box.get("iscrowd", 0)] for boxes in every]
        numbers = [np.array([box["category_id"] for box in boxes], np.int64) for boxes in kept]
        classes = np.concatenate([np.zeros(0, np.int64), *numbers])
        present = np.concatenate([np.zeros(0, np.int64), *map(np.unique, numbers)])
        names = [*class_names, *map(str, range(len(class_names), int(classes.max(initial=-1)) + 1))]
        sizes = [
            BoxMode.convert(box["bbox"], box["bbox_mode"], BoxMode.XYWH_ABS)[2:] for boxes in kept for box in boxes
        ]
        shapes = [(image["width"], image["height"]) for image in images if {"width", "height"} <= image.keys()]
        return cls(
            class_names=names,
            image_sizes=np.array(shapes, np.int64).reshape(-1, 2),
            boxes_per_image=np.array([len(boxes) for boxes in kept], np.int64),
            box_sizes=np.array(sizes, np.float64).reshape(-1, 2),
            boxes_per_class=np.bincount(classes, minlength=len(names)),
            images_per_class=np.bincount(present, minlength=len(names)),
            crowds=sum(map(len, every)) - len(classes),
        )

    @property
    def areas(self) -> Floats:
        """(B,) in square pixels."""
        areas: Floats = self.box_sizes.prod(axis=1)
        return areas

    def by_size(self) -> dict[str, float]:
        """The parts, 0..1, of the boxes that are small, medium and large by COCO's sizes; there has to be a box."""
        small, large = float((self.areas < SMALL).mean()), float((self.areas >= LARGE).mean())
        return {"small": small, "medium": 1 - small - large, "large": large}

    def sizes_in_words(self) -> str:
        """The sizes of the images, "" where none is stated."""
        if not len(self.image_sizes):
            return ""
        (low, lowest), (high, highest) = self.image_sizes.min(0), self.image_sizes.max(0)
        if (low, lowest) == (high, highest):
            return f"{low} x {lowest}"
        return f"{low} to {high} x {lowest} to {highest} pixels"
