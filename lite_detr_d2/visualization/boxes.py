"""Boxes with their labels over an image, on axes of matplotlib."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke

from .detections import plain_text

Colour = tuple[float, float, float]
_Place = tuple[float, float, float, float]  # x1, y1, x2, y2

_FONT_SIZE, _SMALL_FONT_SIZE = 6.5, 5.0  # points
_MANY = 40  # boxes, beyond which labels are small
_MOST_COVERED = 0.2  # of a label, by others
_LINE_WIDTH = 1.2  # points
_HALO = [Stroke(linewidth=2.4, foreground="white", alpha=0.4), Normal()]  # for dark colours on dark images
_LINE_HEIGHT, _CHARACTER_WIDTH = 1.45, 0.66  # of a label, over its font size; most characters are narrower
_DARK = 1.5  # sum of a colour's parts, below which white is read on it


@dataclass(frozen=True)
class LabelledBox:
    """A box and what stands beside it.

    Attributes:
        corners: (x1, y1, x2, y2), in pixels.
        label: of any length; it is cut where it is wider than the picture.
        colour: red, green and blue, 0..1, of the frame and behind the label.
        line: of the frame, a line style of matplotlib.
    """

    corners: Sequence[float]
    label: str
    colour: Colour
    line: str = "-"


def draw_boxes(axes: Axes, boxes: Sequence[LabelledBox], extent: tuple[float, float], scale: float) -> None:
    """Draw boxes, small ones above large ones, which would hide them, and each label beside its box.

    A label stands where it covers none before it: above the box or below it, within, or a line away. One that has no
    such place is left out, as neither of the two would be read.

    Args:
        axes: with an image whose left upper corner is at (0, 0).
        boxes: in pixels of the image.
        extent: width and height of the axes, in pixels of the image.
        scale: points (1/72 inch) that a pixel takes.
    """
    font_size = _FONT_SIZE if len(boxes) <= _MANY else _SMALL_FONT_SIZE
    height, character = _LINE_HEIGHT * font_size / scale, _CHARACTER_WIDTH * font_size / scale
    taken: list[_Place] = []
    for box in sorted(boxes, key=lambda each: -_area(each.corners)):
        left, top, right, bottom = box.corners
        frame = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=box.colour, linestyle=box.line)
        frame.set(linewidth=_LINE_WIDTH, path_effects=_HALO)
        axes.add_patch(frame)
        label = _cut(box.label, int(extent[0] / character))
        place = _place(box.corners, (len(label) * character, height), extent, taken)
        if place is None:
            continue
        taken.append(place)
        axes.text(
            place[0],
            (place[1] + place[3]) / 2,
            plain_text(label),
            fontsize=font_size,
            color="white" if sum(box.colour) < _DARK else "black",
            horizontalalignment="left",
            verticalalignment="center_baseline",
            clip_on=True,
            bbox={"facecolor": box.colour, "alpha": 0.9, "pad": 0.6, "edgecolor": "none"},
        )


def _place(
    box: Sequence[float], size: tuple[float, float], extent: tuple[float, float], taken: Sequence[_Place]
) -> _Place | None:
    """Where a label of a size (width, height) stands; None if it has no place."""
    width, height = size
    left, top, right, bottom = box
    places = []
    for y in (
        top - height,
        bottom,
        top,
        bottom - height,
        (top + bottom - height) / 2,
        top - 2 * height,
        bottom + height,
    ):
        for x in (left, right - width):
            x1, y1 = max(min(x, extent[0] - width), 0.0), max(min(y, extent[1] - height), 0.0)
            places.append((x1, y1, x1 + width, y1 + height))
    covered = [sum(_overlap(place, other) for other in taken) for place in places]
    least = min(covered)
    return places[covered.index(least)] if least <= _MOST_COVERED * width * height else None


def _overlap(one: _Place, other: _Place) -> float:
    sides = (min(one[axis + 2], other[axis + 2]) - max(one[axis], other[axis]) for axis in (0, 1))
    width, height = (max(side, 0.0) for side in sides)
    return width * height


def _cut(label: str, most: int) -> str:
    return label if len(label) <= most else f"{label[: max(most - 3, 1)]}..."


def _area(box: Sequence[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
