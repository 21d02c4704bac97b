"""Pictures of what attention samples: Fig. 5 of Lite DETR (arXiv 2303.07335) for any image."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba_array
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from torch import Tensor

from .detections import Pixels
from .sampling import Sampling, Strongest

TOP_OF_QUERY, TOP_OF_ALL = 100, 200
"""How many locations the paper draws of one query, and of all queries on a level."""

_QUERY_COLOUR = "#00e000"
# Distinct from each other and from the query, on most photographs; the finest level is a triangle as in the paper.
_COLOURS = ("#ff2a2a", "#ffb000", "#1f8fff", "#e040fb", "#00d5d5", "#ffffff")
_CELL_INCHES = 4.2
_LEGEND_INCHES = 1.5
_TALLEST = 2.0  # height over width of a cell; an image that is taller gets narrower in it
_MARKER_AREAS = 8.0, 45.0  # square points, of the weakest and the strongest location
_OPACITIES = 0.35, 0.95


@dataclass(frozen=True)
class View:
    """One row of the picture: a layer of a model, and a query of it.

    Attributes:
        title: of the row, such as the model's name.
        sampling: of the layer.
        query: number of the query.
        query_name: what it is called.
    """

    title: str
    sampling: Sampling
    query: int
    query_name: str


def draw_attention(pixels: Pixels, views: Sequence[View], top: int = TOP_OF_QUERY) -> Figure:
    """Draw where attention samples, one row a view.

    The first picture of a row has the strongest locations of the view's query on all levels. The others have those of
    all queries together on the second-finest level and on the finest one, where there are as many levels. The larger
    and the more opaque a mark, the larger the weight, beside the largest of its picture.

    Args:
        pixels: (H, W, 3) uint8, RGB.
        views: one at least.
        top: how many locations of the query to draw; of all queries it is ``TOP_OF_ALL`` a level.
    """
    finest = [range(len(view.sampling.shapes))[1::-1] for view in views]
    columns = 1 + max(map(len, finest))
    cell = _CELL_INCHES * min(pixels.shape[0] / pixels.shape[1], _TALLEST) + _LEGEND_INCHES
    figure = Figure(figsize=(columns * _CELL_INCHES, len(views) * cell), layout="constrained")
    rows = figure.subfigures(len(views), 1, squeeze=False)[:, 0]
    for row, view, levels in zip(rows, views, finest, strict=True):
        row.suptitle(view.title, fontsize="medium", parse_math=False, wrap=True)
        first, *others = row.subplots(1, columns, squeeze=False)[0]
        _draw_query(first, pixels, view, top)
        for axes, level in zip(others, levels, strict=False):
            _draw_level(axes, pixels, view.sampling, level)
        for axes in others[len(levels) :]:
            axes.axis("off")
    return figure


def _draw_query(axes: Axes, pixels: Pixels, view: View, top: int) -> None:
    strongest = view.sampling.strongest(top, query=view.query)
    _draw_locations(axes, pixels, strongest)
    axes.set_title(f"{view.query_name}\n{_counted(strongest)}", fontsize="small", parse_math=False, wrap=True)
    height, width = pixels.shape[:2]
    x, y, *box = view.sampling.references[view.query].tolist()
    handles = _handles_of_levels(view, strongest)
    for colour, line in (("black", 5.0), (_QUERY_COLOUR, 2.5)):
        axes.scatter(x * width, y * height, marker="+", s=180, linewidths=line, color=colour, zorder=3)
    handles.append(
        Line2D([], [], linestyle="none", marker="+", markeredgewidth=2.5, color=_QUERY_COLOUR, label="query")
    )
    if box:
        box_width, box_height = box[0] * width, box[1] * height
        corner = x * width - box_width / 2, y * height - box_height / 2
        outline = Rectangle(corner, box_width, box_height, fill=False, edgecolor=_QUERY_COLOUR, linestyle="--")
        outline.set_label("its reference box")
        handles.append(axes.add_patch(outline))
    axes.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.02),
        ncols=2,
        fontsize="x-small",
        facecolor="0.85",  # every colour is seen on it
    )


def _handles_of_levels(view: View, strongest: Strongest) -> list[Artist]:
    """What the legend says of each level: how many of the locations, and of all that the query's heads give."""
    total = view.sampling.weights[view.query].sum()
    handles: list[Artist] = []
    for level, (height, width) in enumerate(view.sampling.shapes):
        mine = strongest.levels == level
        share = float(strongest.weights[mine].sum() / total)
        label = f"level {level} ({height} x {width}): {int(mine.sum())} points, {share:.0%}"
        marker, colour = _mark_of(level)
        handles.append(
            Line2D([], [], linestyle="none", marker=marker, color=colour, markeredgecolor="black", label=label)
        )
    return handles


def _draw_level(axes: Axes, pixels: Pixels, sampling: Sampling, level: int) -> None:
    strongest = sampling.strongest(TOP_OF_ALL, level=level)
    _draw_locations(axes, pixels, strongest)
    height, width = sampling.shapes[level]
    axes.set_title(f"all queries, level {level} ({height} x {width})\n{_counted(strongest)}", fontsize="small")


def _draw_locations(axes: Axes, pixels: Pixels, strongest: Strongest) -> None:
    """Draw the image, and the locations of each level as a collection of its own, the strongest above the others."""
    height, width = pixels.shape[:2]
    axes.imshow(pixels, extent=(0, width, height, 0))
    scale = strongest.weights / strongest.weights.max()
    for level in strongest.levels.unique().tolist():
        mine = (strongest.levels == level).nonzero()[:, 0].flip(0)
        marker, colour = _mark_of(level)
        x, y = (strongest.locations[mine] * torch.tensor([width, height])).T
        axes.scatter(
            x,
            y,
            s=_between(_MARKER_AREAS, scale[mine]),
            color=to_rgba_array(colour, _between(_OPACITIES, scale[mine])),
            marker=marker,
            edgecolors="black",
            linewidths=0.3,
        )
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])


def _between(ends: tuple[float, float], scale: Tensor) -> list[float]:
    between: list[float] = (ends[0] + (ends[1] - ends[0]) * scale).tolist()
    return between


def _mark_of(level: int) -> tuple[str, str]:
    """Marker and colour."""
    return "o" if level else "^", _COLOURS[level % len(_COLOURS)]


def _counted(strongest: Strongest) -> str:
    outside = int(((strongest.locations < 0) | (strongest.locations > 1)).any(1).sum())
    beyond = f", {outside} outside of the image" if outside else ""
    number = len(strongest.weights)
    which = f"all {number:,}" if number == strongest.candidates else f"top {number:,} of {strongest.candidates:,}"
    return f"{which} points{beyond}"
