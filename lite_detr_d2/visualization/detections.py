"""Pictures of what was found, alone or beside what was to be found."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from detectron2.data import Metadata
from detectron2.structures import Instances
from detectron2.utils.colormap import colormap
from detectron2.utils.visualizer import ColorMode, VisImage, Visualizer
from matplotlib.figure import Figure

from ..data.images import read_image
from ..errors import InputError
from ..wording import in_short

Pixels = npt.NDArray[np.uint8]

_COLUMNS = 3
_CELL_INCHES = 3.0
_LONGEST_SIDE = 2**16 - 1  # of matplotlib's pictures
_LABEL_MARGIN = 2  # pixels, of the black that lies behind a label


def draw_detections(pixels: Pixels, detections: Instances, class_names: Sequence[str]) -> Pixels:
    """Draw boxes with their classes and scores, by detectron2's ``Visualizer``; a class always has the same colour.

    Detections whose boxes have the same corners, of a query that several classes fit or of several queries, are drawn
    as one box in the colour of the class of the highest score: their labels would cover each other. The labels stand in
    a row, highest first, and only the first few of many. No label is wider than the picture.

    Args:
        pixels: (H, W, 3) uint8, RGB.
        detections: ``pred_boxes`` in pixels of the image, ``scores``, ``pred_classes``.
        class_names: of all classes.

    Returns:
        A picture of the same shape.

    Raises:
        InputError: a side is too long to be drawn.
    """
    if max(pixels.shape) > _LONGEST_SIDE:
        raise InputError(f"pictures have sides of {_LONGEST_SIDE} pixels at most: cut the image into tiles.")
    metadata = _to_draw(class_names)
    labels: dict[tuple[float, ...], list[str]] = {}
    colours: list[npt.NDArray[np.float64]] = []
    detections = detections.to("cpu")
    found = detections[detections.scores.argsort(descending=True, stable=True)]
    fields = (found.pred_boxes.tensor.tolist(), found.pred_classes.tolist(), found.scores.tolist())
    for corners, number, score in zip(*fields, strict=True):
        box, label = tuple(corners), f"{metadata.thing_classes[number] if class_names else number} {score:.0%}"
        if box not in labels:
            colours.append(np.array(colour_of_class(number)) / 255)
        labels.setdefault(box, []).append(label)
    visualizer = Visualizer(pixels, metadata, instance_mode=ColorMode.SEGMENTATION)
    boxes = np.array(list(labels)).reshape(-1, 4)
    rows = [in_short(row) for row in labels.values()]
    drawn = visualizer.overlay_instances(boxes=boxes, labels=rows, assigned_colors=colours)
    _fit_labels(drawn)
    picture: Pixels = drawn.get_image()
    return picture


def draw_predictions(
    images: Sequence[dict[str, Any]],
    predictions: Sequence[Instances],
    metadata: Metadata,
    path: str | Path,
    score_threshold: float = 0.3,
    max_value: float = 0.0,
    captions: Sequence[str] = (),
) -> None:
    """Draw each image twice, side by side: with its annotations, and with its detections.

    Args:
        images: in detectron2's dataset format, with annotations.
        predictions: of each image, at its original size: ``pred_boxes``, ``scores``, ``pred_classes``.
        metadata: of the dataset; ``thing_classes`` names the boxes.
        path: the picture to write.
        score_threshold: detections below it are left out.
        max_value: of images with more than 8 bits, the value that is shown as 255 (``INPUT.MAX_VALUE``).
        captions: of each image; they stand above the predictions.
    """
    rows = -(-len(images) // _COLUMNS)
    figure = Figure(figsize=(2 * _COLUMNS * _CELL_INCHES, rows * _CELL_INCHES), layout="tight")
    class_names = metadata.get("thing_classes", [])
    cells = figure.subplots(rows, 2 * _COLUMNS, squeeze=False).reshape(-1, 2)
    above = captions or [f"predictions (score at least {score_threshold:g})"] * len(images)
    for (left, right), image, instances, caption in zip(cells, images, predictions, above, strict=False):
        pixels = read_image(image["file_name"], max_value=max_value)
        left.imshow(Visualizer(pixels, _to_draw(class_names)).draw_dataset_dict(image).get_image())
        left.set_title("ground truth", fontsize="small")
        right.imshow(draw_detections(pixels, instances[instances.scores >= score_threshold], class_names))
        right.set_title(plain_text(caption), fontsize="small")
    for cell in cells.flat:
        cell.axis("off")
    figure.savefig(path, dpi=100)


def _fit_labels(drawn: VisImage) -> None:
    """Cut the labels that are wider than a picture, and move those into it that reach beyond its right edge."""
    renderer, room = drawn.canvas.get_renderer(), drawn.width - 2 * _LABEL_MARGIN
    for label in drawn.ax.texts:
        text = label.get_text()
        length, width = len(text), label.get_window_extent(renderer).width
        while width > room and length > 0:
            length = min(int(length * room / width), length - 1)
            # Without half of an escaped dollar sign.
            label.set_text(text[:length].rstrip("\\") + "..." if length > 0 else "")
            width = label.get_window_extent(renderer).width
        label.set_x(max(min(label.get_position()[0], _LABEL_MARGIN + room - width), _LABEL_MARGIN))


def plain_text(name: str) -> str:
    """A name as matplotlib writes it as it is: text between dollar signs it takes for mathematics."""
    return name.replace("$", r"\$")


def _to_draw(class_names: Sequence[str]) -> Metadata:
    """What ``Visualizer`` needs to know of classes."""
    return Metadata(
        thing_classes=[plain_text(name) for name in class_names],
        thing_colors=[colour_of_class(number) for number in range(len(class_names))],
    )


def colour_of_class(number: int) -> list[int]:
    """The colour of a class in every picture: red, green, blue, 0..255."""
    palette = colormap(rgb=True)
    colour: list[int] = palette[number % len(palette)].astype(int).tolist()
    return colour
