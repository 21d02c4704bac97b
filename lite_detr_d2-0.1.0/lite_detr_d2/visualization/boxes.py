"""Boxes with their labels over an image, on axes of matplotlib."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke
from matplotlib.text import Text

Colour = tuple[float, float, float]
_Place = tuple[float, float, float, float]  # x1, y1, x2, y2

FONT_SIZE = 6.5  # points
_MANY, _SMALLER = 40, 0.77  # boxes, beyond which labels are as much smaller
_MOST_COVERED = 0.05  # of a label, by others
_LINE_WIDTH, _HALO_WIDTH = 0.18, 0.37  # over the font size; the halo is for dark colours on dark images
_LINE_HEIGHT, _PADDING = 1.45, 0.1  # of a label, and of the colour around it: over the font size
_POINTS_OF_INCH = 72
_DARK = 1.5  # sum of a colour's parts, below which white is read on it


@dataclass(frozen=True)
class LabelledBox:
    """A box and what stands beside it.

    Attributes:
        corners: (x1, y1, x2, y2), in pixels.
        label: of any length; it is cut where it is wider than the picture, and left out where nothing of it fits.
        colour: red, green and blue, 0..1, of the frame and behind the label.
        line: of the frame, a line style of matplotlib.
    """

    corners: Sequence[float]
    label: str
    colour: Colour
    line: str = "-"


def draw_boxes(
    axes: Axes,
    boxes: Sequence[LabelledBox],
    extent: tuple[float, float],
    scale: float,
    font_size: float = FONT_SIZE,
) -> None:
    """Draw boxes, small ones above large ones, which would hide them, and each label beside its box.

    A label stands where it covers none before it: above the box or below it, within, or a line away. One that has no
    such place is left out, as neither of the two would be read.

    Args:
        axes: with an image whose left upper corner is at (0, 0).
        boxes: in pixels of the image.
        extent: width and height of the axes, in pixels of the image.
        scale: points (1/72 inch) that a pixel takes.
        font_size: of the labels, in points, which lines go by; labels of many boxes are smaller.
    """
    halo = [Stroke(linewidth=_HALO_WIDTH * font_size, foreground="white", alpha=0.4), Normal()]
    label_size = font_size if len(boxes) <= _MANY else _SMALLER * font_size
    height, padding = _LINE_HEIGHT * label_size / scale, _PADDING * label_size / scale
    dots = scale * axes.figure.dpi / _POINTS_OF_INCH
    renderer = RendererAgg(1, 1, axes.figure.dpi)  # that measures: without it, each text makes one of the whole figure
    taken: list[_Place] = []
    for box in sorted(boxes, key=lambda each: -_area(each.corners)):
        left, top, right, bottom = box.corners
        frame = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=box.colour, linestyle=box.line)
        frame.set(linewidth=_LINE_WIDTH * font_size, path_effects=halo)
        axes.add_patch(frame)
        text = axes.text(0, 0, box.label, fontsize=label_size, parse_math=False)
        text.set(
            color="white" if sum(box.colour) < _DARK else "black",
            verticalalignment="center_baseline",
            clip_on=True,
            bbox={"facecolor": box.colour, "alpha": 0.9, "pad": padding * scale, "edgecolor": "none"},
        )
        width = _fit(text, renderer, extent[0] - 2 * padding, dots) + 2 * padding
        place = _place(box.corners, (width, height), extent, taken)
        if place is None or not text.get_text():
            text.remove()
            continue
        taken.append(place)
        text.set_position((place[0] + padding, (place[1] + place[3]) / 2))


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


def _fit(text: Text, renderer: RendererAgg, room: float, dots: float) -> float:
    """Cut a text where it is wider than the room for it; return its width. Both are pixels of so many dots."""
    label = text.get_text()
    length, width = len(label), _width(text, renderer, dots)
    while width > room and length > 0:
        length = min(int(length * max(room, 0) / width), length - 1)
        text.set_text(f"{label[:length]}..." if length > 0 else "")
        width = _width(text, renderer, dots)
    return width


def _width(text: Text, renderer: RendererAgg, dots: float) -> float:
    return float(Text.get_window_extent(text, renderer).width) / dots  # without what is around it


def _area(box: Sequence[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
