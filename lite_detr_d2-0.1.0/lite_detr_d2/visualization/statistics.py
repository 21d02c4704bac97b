"""A picture of what a dataset is made of."""

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from ..data.statistics import LARGE, SMALL, Statistics
from ..wording import in_short, shortened
from .figure_files import plain_text

_SIZE = 15.0, 8.0  # inches
_MOST_BARS = 40  # classes, beyond which their names would not be read
_FEWEST_PLACES = 8  # so that bars of few classes are no blocks
_LONGEST_NAME = 24
_BINS = 40
_ROOM = 0.03  # of an axis, on either side of its bars
_BINS_TO_LARGE = 8  # from the limit of small boxes to that of large ones, so that no bar is of two sizes
_EMPTY_BINS = 3  # before and after all boxes, so that a power of two is on the axis
_COLOURS = {"small": "tab:red", "medium": "tab:orange", "large": "tab:blue"}
_NOTHING = "nothing to show"


def draw_statistics(found: Statistics, title: str) -> Figure:
    """Draw how many boxes and images each class has, how large and of which shape boxes are, and what images are like.

    Args:
        found: of any number of images, boxes and classes, also of none.
        title: of the dataset.
    """
    figure = Figure(figsize=_SIZE)
    figure.set_layout_engine("constrained", h_pad=0.12)
    figure.suptitle(f"{shortened(title)}: {_in_words(found)}", parse_math=False)
    panels: dict[str, Axes] = figure.subplot_mosaic([["classes", "sizes", "shapes"], ["classes", "images", "counts"]])
    _draw_classes(panels["classes"], found)
    _draw_box_sizes(panels["sizes"], found)
    _draw_box_shapes(panels["shapes"], found)
    _draw_image_sizes(panels["images"], found)
    _draw_counts(panels["counts"], found)
    for axes in panels.values():
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _in_words(found: Statistics) -> str:
    empty = int((found.boxes_per_image == 0).sum())
    boxless = f" ({empty:,} without a box)" if empty else ""
    crowds = f", and {found.crowds:,} of crowds" if found.crowds else ""
    images, boxes = _counted(len(found.boxes_per_image), "image", "s"), _counted(len(found.box_sizes), "box", "es")
    return f"{images}{boxless}, {boxes}{crowds}, {_counted(len(found.class_names), 'class', 'es')}"


def _counted(number: int, name: str, ending: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else ending}"


def _draw_classes(axes: Axes, found: Statistics) -> None:
    """Bars with names, the class of the most boxes on top; of many classes, curves."""
    order = np.argsort(-found.boxes_per_class, kind="stable")
    boxes, images = found.boxes_per_class[order], found.images_per_class[order]
    names = [_label(found.class_names[number]) for number in order]
    axes.set_title("boxes and images of each class", fontsize="medium")
    if not names:
        _say_nothing(axes)
    elif len(names) <= _MOST_BARS:
        places = np.arange(len(names))
        for offset, counts, label, colour in (
            (-0.2, boxes, "boxes", "tab:blue"),
            (0.2, images, "images", "tab:cyan"),
        ):
            bars = axes.barh(places + offset, counts, 0.4, label=label, color=colour)
            if len(names) <= _MOST_BARS // 2:
                axes.bar_label(bars, [f"{count:,}" for count in counts], padding=3, fontsize="x-small")
        axes.set_yticks(places, names, fontsize="small" if len(names) <= 20 else "x-small")
        axes.set(ylim=(max(len(names), _FEWEST_PLACES) - 0.5, -0.5), xlim=(0, 1.15 * max(boxes.max(), 1)))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.04), ncols=2, fontsize="small")
    else:
        ranks = np.arange(1, len(names) + 1)
        axes.plot(ranks, boxes, label="boxes", color="tab:blue", drawstyle="steps-mid", linewidth=1, zorder=3)
        axes.plot(ranks, images, label="images", color="tab:cyan", drawstyle="steps-mid", linewidth=3)
        axes.set_yscale("symlog", linthresh=1)  # it has a place for 0
        axes.set_ylim(bottom=0)
        axes.set_xlabel(_ends(names, boxes), fontsize="small")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.legend(fontsize="small")


def _ends(names: list[str], boxes: npt.NDArray[np.int64]) -> str:
    """The classes of the most boxes, and of the fewest."""
    counted = [f"{name} ({count:,})" for name, count in zip(names, boxes, strict=True)]
    without = int((boxes == 0).sum())
    none = f"\n{without:,} without a box" if without else ""
    most, fewest = in_short(counted[:2]), in_short(counted[:-3:-1])
    return f"classes, that of the most boxes first\nmost: {most}\nfewest: {fewest}{none}"


def _draw_box_sizes(axes: Axes, found: Statistics) -> None:
    axes.set_title("sizes of boxes, and their parts by COCO's", fontsize="medium")
    axes.set(xlabel="square root of the area, in pixels of the image", ylabel="boxes")
    sides = np.sqrt(found.areas[found.areas > 0])
    if not len(sides):
        _say_nothing(axes)
        return
    small, large = np.sqrt([SMALL, LARGE])
    place = np.log(sides / small) / np.log(large / small) * _BINS_TO_LARGE  # in bins from the limit on
    first, last = np.floor(place.min()) - _EMPTY_BINS, np.floor(place.max()) + 1 + _EMPTY_BINS
    edges = small * (large / small) ** (np.arange(first, last + 1) / _BINS_TO_LARGE)
    parts = found.by_size()
    limits = {"small": (0, SMALL), "medium": (SMALL, LARGE), "large": (LARGE, np.inf)}
    for name, (least, most) in limits.items():
        mine = sides[(sides**2 >= least) & (sides**2 < most)]
        axes.hist(mine, edges.tolist(), color=_COLOURS[name], label=f"{name}: {parts[name]:.0%}")
    _logarithmic(axes)
    axes.set_ylim(top=1.2 * axes.get_ylim()[1])
    axes.legend(loc="upper center", ncols=3, fontsize="small")


def _draw_box_shapes(axes: Axes, found: Statistics) -> None:
    axes.set_title("shapes of boxes", fontsize="medium")
    axes.set(xlabel="width over height", ylabel="boxes")
    width, height = found.box_sizes[found.areas > 0].T
    if not len(width):
        _say_nothing(axes)
        return
    ratios = width / height
    axes.hist(ratios, _edges(ratios).tolist(), color="tab:blue")
    axes.axvline(1, color="grey", linewidth=0.8)
    _logarithmic(axes)


def _draw_image_sizes(axes: Axes, found: Statistics) -> None:
    axes.set_title(f"sizes of images: {found.sizes_in_words() or 'not stated'}", fontsize="medium")
    axes.set(xlabel="width", ylabel="height")
    if not len(found.image_sizes):
        _say_nothing(axes)
        return
    sizes, counts = np.unique(found.image_sizes, axis=0, return_counts=True)
    areas = 6 + max(300 / len(sizes), 12) * counts / counts.max()  # square points
    axes.scatter(sizes[:, 0], sizes[:, 1], areas, alpha=0.5, linewidths=0)
    axes.margins(0.15)
    axes.set(xlim=(0, None), ylim=(0, None))
    axes.grid(alpha=0.3)


def _draw_counts(axes: Axes, found: Statistics) -> None:
    axes.set_title("boxes in an image", fontsize="medium")
    axes.set(xlabel="boxes", ylabel="images")
    counts = found.boxes_per_image
    if not len(counts):
        _say_nothing(axes)
        return
    step = -(-(int(counts.max()) + 1) // _BINS)
    edges = np.arange(0, counts.max() + 1 + step, step) - 0.5
    axes.hist(counts, edges.tolist(), color="tab:blue")
    last = max(edges[-1], 3.5)
    room = _ROOM * (last - edges[0])
    axes.set(xlim=(edges[0] - room, last + room), ylim=(0, 1.2 * axes.get_ylim()[1]))
    median = float(np.median(counts))
    axes.axvline(median, color="grey", linewidth=0.8, label=f"median: {median:g}; most: {counts.max():,}")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, integer=True))
    axes.legend(fontsize="small")


def _edges(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Of bins that are equal by the logarithm."""
    low, high = np.log(values.min()), np.log(values.max())
    middle, half = (low + high) / 2, max((high - low) / 2, 0.35) * 1.001  # also where all values are one
    edges: npt.NDArray[np.float64] = np.exp(np.linspace(middle - half, middle + half, _BINS + 1))
    return edges


def _logarithmic(axes: Axes) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if value >= 1 else f"1/{1 / value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))


def _say_nothing(axes: Axes) -> None:
    axes.text(0.5, 0.5, _NOTHING, transform=axes.transAxes, ha="center", va="center", color="grey")
    axes.set(xticks=[], yticks=[])


def _label(name: str) -> str:
    return plain_text(name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 3]}...")
