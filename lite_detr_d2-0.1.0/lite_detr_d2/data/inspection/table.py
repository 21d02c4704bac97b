"""The halves of a dataset in order, as arrays: what the checks of boxes, classes and images look at."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..normalise import CleanHalf

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class HalfTable:
    """One half; crowds are not in it.

    Attributes:
        half: the half.
        classes: the names of its categories, in their order.
        sizes: (images, 2), the width and height of each image in pixels.
        boxes: (boxes, 4), XYWH in pixels.
        image_of: (boxes,), which image each box is in, as its index.
        class_of: (boxes,), which class each box is of, as its index.
        ids: (boxes,), the boxes' annotation ids.
    """

    half: CleanHalf
    classes: tuple[str, ...]
    sizes: Floats
    boxes: Floats
    image_of: Integers
    class_of: Integers
    ids: Integers

    @classmethod
    def of(cls, half: CleanHalf) -> "HalfTable":
        """The arrays of a half."""
        images, categories = half.content["images"], half.content["categories"]
        boxes = [box for box in half.content["annotations"] if not box["iscrowd"]]
        image_index = {image["id"]: index for index, image in enumerate(images)}
        class_index = {category["id"]: index for index, category in enumerate(categories)}
        sides = np.array([[image["width"], image["height"]] for image in images], dtype=np.float64)
        corners = np.array([box["bbox"] for box in boxes], dtype=np.float64)
        return cls(
            half,
            tuple(category["name"] for category in categories),
            sides.reshape(-1, 2),
            corners.reshape(-1, 4),
            np.array([image_index[box["image_id"]] for box in boxes], dtype=np.int64),
            np.array([class_index[box["category_id"]] for box in boxes], dtype=np.int64),
            np.array([box["id"] for box in boxes], dtype=np.int64),
        )

    @property
    def name(self) -> str:
        """ "train", "val" or "test"."""
        return self.half.name

    @cached_property
    def files(self) -> list[str]:
        """The images' file names, as messages name them."""
        return [image["file_name"] for image in self.half.content["images"]]

    @cached_property
    def boxes_per_image(self) -> Integers:
        """(images,), the number of boxes in each image."""
        return np.bincount(self.image_of, minlength=len(self.sizes))

    def paths(self) -> list[str]:
        """Where the images are."""
        return [os.path.join(self.half.image_root, file) for file in self.files]

    def place(self, box: Any) -> str:
        """Name the box of this index."""
        return f"annotation {self.ids[box]} of {self.files[self.image_of[box]]}"


def tables_of(halves: Mapping[str, CleanHalf]) -> list[HalfTable]:
    """The halves, training first, then in the order in which they are evaluated on."""
    return [HalfTable.of(half) for half in halves.values()]
