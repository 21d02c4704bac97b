"""A picture of what AP costs: Figure 1 of the Lite DETR paper."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..analysis import Detector, Model
from .detections import plain_text
from .figure_files import save_figure

_MARKS = "s^D*vPX"
_SIZES = {"*": 11.0}
_OTHERS = "0.45"  # a grey


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
    for other in others:
        axes.plot(other.gflops, other.ap, "x", color=_OTHERS, markersize=5)
        axes.annotate(
            plain_text(other.name),
            (other.gflops, other.ap),
            (4, 3),
            textcoords="offset points",
            color=_OTHERS,
            fontsize=7,
        )
    encoders = list(dict.fromkeys(lite.name for detector in detectors for lite in detector.lite))
    marks = {name: _MARKS[number % len(_MARKS)] for number, name in enumerate(encoders)}
    for number, detector in enumerate(detectors):
        colour, plain = f"C{number % 10}", detector.plain
        for lite in detector.lite:
            axes.plot((plain.gflops, lite.gflops), (plain.ap, lite.ap), "--", color=colour, linewidth=0.8, zorder=1)
            axes.plot(
                lite.gflops, lite.ap, marks[lite.name], color=colour, markersize=_SIZES.get(marks[lite.name], 6.5)
            )
        axes.plot(plain.gflops, plain.ap, "o", color=colour, markersize=8)
    axes.set(
        xlabel="GFLOPs of an image: counted by us; of those in grey, the paper's",
        ylabel="AP on COCO val2017 (the paper's)",
    )
    axes.grid(alpha=0.3)
    colours = [
        Line2D([], [], color=f"C{number % 10}", marker="o", label=plain_text(each.name))
        for number, each in enumerate(detectors)
    ]
    shapes = [
        Line2D([], [], color="black", linestyle="", marker=marks.get(name, "o"), label=name)
        for name in ("as published", *encoders)
    ]
    figure.legend(handles=[*colours, *shapes], loc="outside upper center", ncols=4, fontsize="small")
    save_figure(figure, Path(path))
