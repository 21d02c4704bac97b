"""A sheet of what a detector is trained on: augmented images with their boxes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data.detection_utils import convert_image_to_rgb
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..wording import counted, in_short, shortened
from .boxes import draw_boxes
from .detections import Pixels, labelled

_COLUMNS = 4
_CELL_INCHES = 3.6
_TALLEST = 2.0  # height over width of a cell; images that are taller get narrower in it
_CAPTION_INCHES = 0.45
_PADDING = "0.85"
_POINTS = 72  # of an inch


@dataclass(frozen=True)
class TrainingImage:
    """An image as a model gets it, and what the dataset has of it.

    Attributes:
        name: of its file.
        pixels: (H, W, 3), RGB.
        boxes: of each box (x1, y1, x2, y2), in pixels.
        classes: of each box its number.
        original: (width, height) of the file.
        annotated: how many boxes the file has, without those of crowds.
        crowds: how many those are.
    """

    name: str
    pixels: Pixels
    boxes: list[list[float]]
    classes: list[int]
    original: tuple[int, int]
    annotated: int
    crowds: int

    @classmethod
    def of(cls, sample: dict[str, Any], record: dict[str, Any], channels: str) -> "TrainingImage":
        """Take what the mapper made of a record; ``channels`` is ``INPUT.FORMAT``."""
        pixels = convert_image_to_rgb(sample["image"].permute(1, 2, 0), channels)
        instances = sample.get("instances")
        annotations = record.get("annotations", ())
        crowds = sum(bool(box.get("iscrowd", 0)) for box in annotations)
        return cls(
            name=Path(sample["file_name"]).name,
            pixels=np.clip(pixels, 0, 255).astype(np.uint8),
            boxes=[] if instances is None else instances.gt_boxes.tensor.tolist(),
            classes=[] if instances is None else instances.gt_classes.tolist(),
            original=(sample["width"], sample["height"]),
            annotated=len(annotations) - crowds,
            crowds=crowds,
        )

    @property
    def lost(self) -> int:
        """How many boxes augmentation has left nothing of."""
        return self.annotated - len(self.boxes)

    def caption(self) -> str:
        """The file, its size and the size that it got, and how many of its boxes there are."""
        height, width = self.pixels.shape[:2]
        of = f" of {self.annotated}" if self.lost else ""
        boxes = f"{len(self.boxes)}{of} box{'' if self.annotated == 1 else 'es'}"
        crowds = f", {self.crowds} of crowds left out" if self.crowds else ""
        return f"{shortened(self.name)}\n{self.original[0]} x {self.original[1]} as {width} x {height}, {boxes}{crowds}"


def losses(images: Sequence[TrainingImage]) -> str:
    """Say how many boxes of images are left, and how many are not and why."""
    kept, crowds = sum(len(image.boxes) for image in images), sum(image.crowds for image in images)
    lost = {image.name: image.lost for image in images if image.lost}
    said = [counted(kept, "box", "boxes")]
    if lost:
        examples = in_short([f"{count} of {shortened(name)}" for name, count in lost.items()])
        said.append(f"cut away or empty: {sum(lost.values())} ({examples})")
    if crowds:
        said.append(f"of crowds, and left out: {crowds}")
    return ", ".join(said)


def draw_training_images(images: Sequence[TrainingImage], class_names: Sequence[str]) -> Figure:
    """Draw images with their boxes, all to the same scale.

    The grey beside an image is what the largest of them would fill, as padding does in a batch.

    Args:
        images: one at least.
        class_names: of all classes; numbers stand for those that have none.
    """
    extent = max(image.pixels.shape[1] for image in images), max(image.pixels.shape[0] for image in images)
    columns = min(_COLUMNS, len(images))
    rows = -(-len(images) // columns)
    cell = _CELL_INCHES * min(extent[1] / extent[0], _TALLEST) + _CAPTION_INCHES
    figure = Figure(figsize=(columns * _CELL_INCHES, rows * cell), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, image in zip(grid, images, strict=False):
        _draw(axes, image, extent, class_names)
        axes.set(xlim=(0, extent[0]), ylim=(extent[1], 0), xticks=[], yticks=[], facecolor=_PADDING)
    for axes in grid[len(images) :]:
        axes.set_visible(False)
    return figure


def _draw(axes: Axes, image: TrainingImage, extent: tuple[int, int], class_names: Sequence[str]) -> None:
    height, width = image.pixels.shape[:2]
    axes.imshow(image.pixels, extent=(0, width, height, 0))
    axes.set_title(image.caption(), fontsize="x-small", parse_math=False)
    boxes = []
    for corners, number in zip(image.boxes, image.classes, strict=True):
        name = shortened(class_names[number]) if number < len(class_names) else str(number)
        boxes.append(labelled(corners, name, number))
    scale = _POINTS * _CELL_INCHES * min(1 / extent[0], _TALLEST / extent[1])
    draw_boxes(axes, boxes, extent, scale)
