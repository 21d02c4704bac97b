"""Pictures of what was found, alone or beside what was to be found."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from detectron2.structures import BoxMode, Instances
from detectron2.utils.colormap import colormap
from detectron2.utils.visualizer import VisImage
from PIL import Image

from ..data.images import read_image
from ..errors import InputError
from ..wording import in_short
from .boxes import FONT_SIZE, LabelledBox, draw_boxes

Pixels = npt.NDArray[np.uint8]

_LONGEST_SIDE = 2**16 - 1  # of matplotlib's pictures
_PIXELS_OF_POINT = 90  # of the square root of a picture's area, that its labels' font is a point larger for
_POINTS_OF_INCH = 72
_THRESHOLD = 0.3


def draw_detections(pixels: Pixels, detections: Instances, class_names: Sequence[str]) -> Pixels:
    """Draw boxes with their classes and scores; a class always has the same colour.

    Detections whose boxes have the same corners, of a query that several classes fit or of several queries, are drawn
    as one box in the colour of the class of the highest score. Their labels stand in a row, highest first, and only the
    first few of many. No label is wider than the picture, and none covers another: see :func:`draw_boxes`.

    Args:
        pixels: (H, W, 3) uint8, RGB.
        detections: ``pred_boxes`` in pixels of the image, ``scores``, ``pred_classes``.
        class_names: of all classes.

    Returns:
        A picture of the same shape.

    Raises:
        InputError: a side is too long to be drawn.
    """
    labels: dict[tuple[float, ...], list[str]] = {}
    numbers: list[int] = []
    detections = detections.to("cpu")
    found = detections[detections.scores.argsort(descending=True, stable=True)]
    fields = (found.pred_boxes.tensor.tolist(), found.pred_classes.tolist(), found.scores.tolist())
    for corners, number, score in zip(*fields, strict=True):
        box, label = tuple(corners), f"{_name(number, class_names)} {score:.0%}"
        if box not in labels:
            numbers.append(number)
        labels.setdefault(box, []).append(label)
    boxes = zip(labels.items(), numbers, strict=True)
    return _draw_boxes(pixels, [labelled(corners, in_short(row), number) for (corners, row), number in boxes])


def draw_annotations(pixels: Pixels, image: Mapping[str, Any], class_names: Sequence[str]) -> Pixels:
    """Draw the boxes of an image with their classes, in the colours of :func:`draw_detections`.

    Args:
        pixels: (H, W, 3) uint8, RGB.
        image: in detectron2's dataset format; it need not have annotations.
        class_names: of all classes.

    Returns:
        A picture of the same shape.

    Raises:
        InputError: a side is too long to be drawn.
    """
    boxes = []
    for box in image.get("annotations", ()):
        number = box["category_id"]
        label = _name(number, class_names) + (" (crowd)" if box.get("iscrowd") else "")
        boxes.append(labelled(BoxMode.convert(box["bbox"], box["bbox_mode"], BoxMode.XYXY_ABS), label, number))
    return _draw_boxes(pixels, boxes)


def draw_beside(
    image: Mapping[str, Any],
    detections: Instances,
    class_names: Sequence[str],
    *,
    max_value: float = 0.0,
    score_threshold: float = _THRESHOLD,
    longest_side: int = 640,
) -> Pixels:
    """Draw an image twice, side by side: with its annotations, and with its detections.

    Args:
        image: in detectron2's dataset format; it need not have annotations.
        detections: at the image's size: ``pred_boxes``, ``scores``, ``pred_classes``.
        class_names: of all classes.
        max_value: of images with more than 8 bits, the value that is shown as 255 (``INPUT.MAX_VALUE``).
        score_threshold: detections below it are left out.
        longest_side: of either half, in pixels: a larger image is made smaller.

    Returns:
        (H, 2 * W, 3) uint8, RGB.

    Raises:
        InputError: the image cannot be read.
    """
    pixels = read_image(image["file_name"], max_value=max_value)
    smaller = made_smaller(pixels, longest_side)
    size = smaller.shape[1], smaller.shape[0]
    factors = size[0] / pixels.shape[1], size[1] / pixels.shape[0]
    boxes = [
        {**box, "bbox": _scaled(box, factors), "bbox_mode": BoxMode.XYXY_ABS} for box in image.get("annotations", ())
    ]
    found = detections[detections.scores >= score_threshold].to("cpu")
    shown = Instances((size[1], size[0]), scores=found.scores, pred_classes=found.pred_classes)
    shown.pred_boxes = found.pred_boxes.clone()
    shown.pred_boxes.scale(*factors)
    left = draw_annotations(smaller, {"annotations": boxes}, class_names)
    return np.concatenate((left, draw_detections(smaller, shown, class_names)), axis=1)


def made_smaller(pixels: Pixels, longest_side: int) -> Pixels:
    """An image (H, W, 3) of at most so many pixels a side, as it is if it has no more."""
    height, width = pixels.shape[:2]
    scale = longest_side / max(height, width)
    if scale >= 1:
        return pixels
    size = max(1, round(scale * width)), max(1, round(scale * height))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))


def _draw_boxes(pixels: Pixels, boxes: Sequence[LabelledBox]) -> Pixels:
    if max(pixels.shape) > _LONGEST_SIDE:
        raise InputError(f"pictures have sides of {_LONGEST_SIDE} pixels at most: cut the image into tiles.")
    height, width = pixels.shape[:2]
    canvas = VisImage(pixels)
    font_size = max(FONT_SIZE, math.sqrt(height * width) / _PIXELS_OF_POINT)
    draw_boxes(canvas.ax, boxes, (width, height), _POINTS_OF_INCH / canvas.dpi, font_size)
    picture: Pixels = canvas.get_image()
    return picture


def _scaled(box: Mapping[str, Any], factors: tuple[float, float]) -> list[float]:
    """Left, top, right and bottom of an annotation, in an image whose width and height are multiplied."""
    corners = BoxMode.convert(box["bbox"], box["bbox_mode"], BoxMode.XYXY_ABS)
    return [value * factor for value, factor in zip(corners, (*factors, *factors), strict=True)]


def _name(number: int, class_names: Sequence[str]) -> str:
    return class_names[number] if class_names else str(number)


def labelled(corners: Sequence[float], label: str, number: int) -> LabelledBox:
    """A box in the colour of the class of a number."""
    red, green, blue = (value / 255 for value in colour_of_class(number))
    return LabelledBox(corners, label, (red, green, blue))


def colour_of_class(number: int) -> list[int]:
    """The colour of a class in every picture: red, green, blue, 0..255."""
    palette = colormap(rgb=True)
    colour: list[int] = palette[number % len(palette)].astype(int).tolist()
    return colour
