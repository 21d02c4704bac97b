"""A picture of what AP costs: Figure 1 of the Lite DETR paper."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from ..analysis import Detector, Model
from .figure_files import plain_text, save_figure

_MARKS = "s^D*vPX"
_SIZES = {"*": 11.0}
_OTHERS = "0.45"  # a grey
# Where a name may stand: how far from its point, in points, and its side that is there.
_Place = tuple[tuple[int, int], str, str]
_PLACES: tuple[_Place, ...] = (
    *(
        ((5, 0), "left", "center"),
        ((-5, 0), "right", "center"),
        ((0, 5), "center", "bottom"),
        ((0, -5), "center", "top"),
    ),
    *(((5, -5), "left", "top"), ((-5, -5), "right", "top"), ((5, 5), "left", "bottom"), ((-5, 5), "right", "bottom")),
)
_SAMPLES = 50  # of a line


def draw_tradeoff(detectors: Sequence[Detector], others: Sequence[Model], path: str | Path) -> None:
    """Draw AP over GFLOPs, with dashed lines from each detector to its Lite versions.

    Args:
        detectors: one colour each; a mark for each name of a Lite version.
        others: models whose GFLOPs are the paper's, as are all AP; grey, with their names beside them.
        path: the picture to write.

    Raises:
        InputError: it cannot be written.
    """
    figure = Figure(figsize=(10, 6.5), layout="constrained")
    axes = figure.subplots()
    encoders = list(dict.fromkeys(lite.name for detector in detectors for lite in detector.lite))
    marks = {name: _MARKS[number % len(_MARKS)] for number, name in enumerate(encoders)}
    for number, detector in enumerate(detectors):
        colour, plain = f"C{number % 10}", detector.plain
        for lite in detector.lite:
            mark = marks[lite.name]
            axes.plot((plain.gflops, lite.gflops), (plain.ap, lite.ap), "--", color=colour, linewidth=0.8, zorder=1)
            axes.plot(lite.gflops, lite.ap, mark, color=colour, markersize=_SIZES.get(mark, 6.5))
        axes.plot(plain.gflops, plain.ap, "o", color=colour, markersize=8)
    for other in others:
        axes.plot(other.gflops, other.ap, "x", color=_OTHERS, markersize=5)
    axes.set(
        xlabel="GFLOPs of an image (ours; of what is grey, the paper's)", ylabel="AP on COCO val2017 (the paper's)"
    )
    axes.margins(0.08)
    axes.grid(alpha=0.3)
    colours = [
        Line2D([], [], color=f"C{number % 10}", marker="o", label=plain_text(each.name))
        for number, each in enumerate(detectors)
    ]
    shapes = [
        Line2D([], [], color="black", linestyle="", marker=marks.get(name, "o"), label=plain_text(name))
        for name in ("as published", *encoders)
    ]
    figure.legend(handles=[*colours, *shapes], loc="outside upper center", ncols=4, fontsize="small")
    figure.draw_without_rendering()  # from here on, places in the picture are final
    _name(axes, others)
    save_figure(figure, Path(path))


def _name(axes: Axes, models: Sequence[Model]) -> None:
    """Write the names of models beside their points, where each covers the least of lines, points and other names."""
    drawn = np.concatenate([_along(line.get_xydata()) for line in axes.get_lines()])
    pixels = axes.transData.transform(drawn)
    names: list[Bbox] = []
    for model in models:
        text = axes.annotate(
            *(plain_text(model.name), (model.gflops, model.ap), (0, 0)),
            textcoords="offset points",
            color=_OTHERS,
            fontsize=7,
        )
        costs = []
        for place in _PLACES:
            box = _put(text, place)
            inside = np.all((pixels > box.min) & (pixels < box.max), axis=1).sum()
            costs.append(inside + _SAMPLES * box.count_overlaps(names))
        names.append(_put(text, _PLACES[int(np.argmin(costs))]))


def _put(text: Annotation, place: _Place) -> Bbox:
    offset, beside, above = place
    text.set(position=offset, ha=beside, va=above)
    return text.get_window_extent()


def _along(ends: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """(P, 2) points of a line, (E, 2), from its first point to its last one."""
    first, last = np.asarray(ends)[[0, -1]]
    return np.linspace(first, last, _SAMPLES)
