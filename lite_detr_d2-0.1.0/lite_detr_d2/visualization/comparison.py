"""A sheet of images, each twice: with what is to be found, and with what is found, and what became of either."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..data.images import read_image
from .boxes import Colour, LabelledBox, draw_boxes
from .detections import Pixels, made_smaller
from .figure_files import save_figure

_PAIRS = 2  # in a row
_CELL_INCHES = 4.4
_TALLEST, _LOWEST = 1.5, 0.3  # height over width of a cell; images beyond get narrower in it, or leave room
_GAP_INCHES, _GAP_OF_PAIRS = 0.06, 0.24
_CAPTION_INCHES, _LEGEND_INCHES = 0.4, 0.5
_MOST_PIXELS = 1200  # of a side; more are not seen in a cell
_PADDING = "0.85"
_POINTS = 72  # of an inch


class Outcome(Enum):
    """What became of an object, or of a detection: colour and line that it is drawn with, and words for the legend."""

    RIGHT = (0.05, 0.55, 0.15), "-", "found / right"
    CONFUSED = (0.55, 0.0, 0.75), "-.", "taken for / of another class"
    WRONG = (0.85, 0.0, 0.05), "--", "missed / too many"
    UNCOUNTED = (0.35, 0.35, 0.35), ":", "not counted: crowds, and what is found in them"

    def __init__(self, colour: Colour, line: str, words: str) -> None:
        self.colour, self.line, self.words = colour, line, words


@dataclass(frozen=True)
class JudgedBox:
    """An object or a detection.

    Attributes:
        corners: (x1, y1, x2, y2), in pixels of the image.
        label: what it is.
        outcome: what became of it.
    """

    corners: Sequence[float]
    label: str
    outcome: Outcome


@dataclass(frozen=True)
class ComparedImage:
    """What there is in an image, and what is found.

    Attributes:
        file_name: of the image.
        objects: that are to be found, and crowds.
        detections: that are taken.
        captions: that stand above either.
    """

    file_name: str
    objects: Sequence[JudgedBox]
    detections: Sequence[JudgedBox]
    captions: tuple[str, str]


def draw_predictions(
    images: Sequence[ComparedImage], path: str | Path, *, title: str = "", max_value: float = 0.0
) -> None:
    """Draw each image twice, side by side: with what is to be found, and with what is found.

    Args:
        images: one at least.
        path: the picture to write.
        title: stands before the legend.
        max_value: of images with more than 8 bits, the value that is shown as 255 (``INPUT.MAX_VALUE``).

    Raises:
        InputError: an image cannot be read, or the picture not be written.
    """
    save_figure(_draw_sheet([_Picture.of(image, max_value) for image in images], title), Path(path))


@dataclass(frozen=True)
class _Picture:
    """An image that is read: its pixels, fewer than it has where it is large, and its width and height."""

    compared: ComparedImage
    pixels: Pixels
    size: tuple[int, int]

    @classmethod
    def of(cls, image: ComparedImage, max_value: float) -> "_Picture":
        pixels = read_image(image.file_name, max_value=max_value)
        return cls(image, made_smaller(pixels, _MOST_PIXELS), (pixels.shape[1], pixels.shape[0]))

    @property
    def height(self) -> float:
        """Of its cell, in inches."""
        return _CELL_INCHES * min(max(self.size[1] / self.size[0], _LOWEST), _TALLEST)

    @property
    def scale(self) -> float:
        """Inches that a pixel takes."""
        return min(_CELL_INCHES / self.size[0], _CELL_INCHES * _TALLEST / self.size[1])


def _draw_sheet(pictures: Sequence[_Picture], title: str) -> Figure:
    pairs = min(_PAIRS, len(pictures))
    rows = [pictures[first : first + pairs] for first in range(0, len(pictures), pairs)]
    heights = [max(picture.height for picture in row) for row in rows]
    pair = 2 * _CELL_INCHES + _GAP_INCHES + _GAP_OF_PAIRS
    size = pairs * pair, _LEGEND_INCHES + sum(heights) + _CAPTION_INCHES * len(rows) + _GAP_OF_PAIRS
    figure = Figure(figsize=size)
    top = size[1] - _LEGEND_INCHES
    for row, height in zip(rows, heights, strict=True):
        top -= _CAPTION_INCHES + height
        for column, picture in enumerate(row):
            halves = (picture.compared.objects, picture.compared.detections)
            for half, (boxes, caption) in enumerate(zip(halves, picture.compared.captions, strict=True)):
                left = _GAP_OF_PAIRS / 2 + column * pair + half * (_CELL_INCHES + _GAP_INCHES)
                place = left / size[0], top / size[1], _CELL_INCHES / size[0], height / size[1]
                _draw(figure.add_axes(place), picture, height, boxes, caption)
    shown = {box.outcome for picture in pictures for box in (*picture.compared.objects, *picture.compared.detections)}
    # All three that count, so that it is seen what is not there.
    outcomes = [outcome for outcome in Outcome if outcome in shown or outcome is not Outcome.UNCOUNTED]
    figure.legend(
        [Line2D([], [], color=outcome.colour, linestyle=outcome.line, linewidth=2) for outcome in outcomes],
        [outcome.words for outcome in outcomes],
        title=title,
        loc="upper center",
        ncols=len(outcomes),
        frameon=False,
        borderpad=0.2,
        handlelength=3,
    )
    return figure


def _draw(axes: Axes, picture: _Picture, height: float, boxes: Sequence[JudgedBox], caption: str) -> None:
    extent = _CELL_INCHES / picture.scale, height / picture.scale
    axes.imshow(picture.pixels, extent=(0, picture.size[0], picture.size[1], 0))
    axes.set(xlim=(0, extent[0]), ylim=(extent[1], 0), xticks=[], yticks=[], facecolor=_PADDING)
    axes.set_title(caption, loc="left", fontsize="small", pad=3, parse_math=False)
    labelled = [LabelledBox(box.corners, box.label, box.outcome.colour, box.outcome.line) for box in boxes]
    draw_boxes(axes, labelled, extent, _POINTS * picture.scale)
