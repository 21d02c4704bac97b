"""Which classes are taken for which, and in which images most is wrong, where detections are taken from a score on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .matches import FOUND, Flags, ImageMatches, Indices


@dataclass(frozen=True)
class ImageErrors:
    """What is wrong with an image's detections.

    Attributes:
        image_id: of the image.
        right: how many detections are.
        confused: how many are of an object, with an IoU of 0.5 at least, and of another class.
        false: how many are of no object, or of one that another detection is of.
        missed: how many objects no detection is of.
    """

    image_id: Any
    right: int
    confused: int
    false: int
    missed: int

    @property
    def mistakes(self) -> int:
        """How many there are."""
        return self.confused + self.false + self.missed


@dataclass(frozen=True)
class Confusion:
    """Detections against objects.

    Attributes:
        matrix: (K + 1, K + 1) counts. Rows are of the objects' classes, columns of the detections'; the last row is of
            detections of no object, the last column of objects without a detection.
        images: of each image what is wrong, in the order of their ids.
        matched: by the id of each detection that is taken and counts, the id of its object; None if it has none.
    """

    matrix: Indices
    images: list[ImageErrors]
    matched: dict[int, int | None]

    def totals(self) -> ImageErrors:
        """The counts of all images together; of no image's id."""
        counts = [(image.right, image.confused, image.false, image.missed) for image in self.images]
        return ImageErrors(None, *map(sum, zip(*counts, strict=True)))

    def worst(self, most: int) -> list[ImageErrors]:
        """The images with the most mistakes, and those with the fewest right detections first among equals."""
        wrong = [image for image in self.images if image.mistakes]
        return sorted(wrong, key=lambda image: (-image.mistakes, image.right))[:most]


def confusion_of(images: Sequence[ImageMatches], num_classes: int, threshold: float) -> Confusion:
    """Match each detection with at most one object, and each object with at most one detection.

    First come COCO's matches, of detections with objects of their class; then the rest, highest score first, with the
    object of any class that has the largest IoU, if that is 0.5 at least.

    Args:
        images: all of them.
        num_classes: of the dataset.
        threshold: detections below it are left out.
    """
    matrix = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    errors = []
    matched: dict[int, int | None] = {}
    for image in (every.above(threshold) for every in images):
        of = _matched(image)
        is_matched, is_found = of >= 0, np.isin(np.arange(len(image.objects)), of)
        true = np.where(is_matched, np.append(image.objects, num_classes)[of], num_classes)
        np.add.at(matrix, (true, image.labels), 1)
        matrix[:, num_classes] += np.bincount(image.objects[~is_found], minlength=num_classes + 1)
        right, confused = _count(image.found >= 0), _count(is_matched & (image.found < 0))
        errors.append(ImageErrors(image.image_id, right, confused, _count(~is_matched), _count(~is_found)))
        objects = [*image.object_ids.tolist(), None]  # the last is that of -1
        matched |= {key: objects[place] for key, place in zip(image.ids.tolist(), of.tolist(), strict=True)}
    return Confusion(matrix, errors, matched)


def most_confused(confusion: Confusion) -> list[tuple[int, int, int]]:
    """The pairs of classes that are confused, most often first: the object's, the detection's, how often."""
    counts = confusion.matrix[:-1, :-1].copy()
    np.fill_diagonal(counts, 0)
    pairs = [(int(true), int(taken), int(counts[true, taken])) for true, taken in zip(*counts.nonzero(), strict=True)]
    return sorted(pairs, key=lambda pair: -pair[2])


def _matched(image: ImageMatches) -> Indices:
    """The object of each detection; -1 if none."""
    of = image.found.copy()
    free = ~np.isin(np.arange(len(image.objects)), of)
    for number in np.flatnonzero(of < 0):
        overlaps = np.where(free, image.ious[number], 0.0)
        if overlaps.size and overlaps.max() >= FOUND:
            of[number] = overlaps.argmax()
            free[of[number]] = False
    return of


def _count(flags: Flags) -> int:
    return int(flags.sum())
