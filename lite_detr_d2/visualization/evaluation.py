"""Pictures of what an evaluation says beyond AP."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from .figure_files import plain_text

# Of rows, up to which cells have their counts, and axes the names.
_MOST_WITH_COUNTS, _MOST_WITH_NAMES = 30, 100
_CELL_INCHES, _SMALL_CELL_INCHES, _MOST_INCHES = 0.42, 0.16, 20.0
_LONGEST_NAME = 24
_TICKS = (0, 1, 5, 20, 50, 100)  # %, of a scale on which a few are seen
_MOST_CLASSES = 8


def draw_confusion(
    matrix: npt.NDArray[np.int64], rows: Sequence[str], columns: Sequence[str], path: str | Path, threshold: float
) -> None:
    """Draw a confusion matrix: colours are shares of the row, so that each class of objects is comparable.

    What is right, on the diagonal, is blue, and what is not red. Classes without objects and detections are left out.

    Args:
        matrix: (K + 1, K + 1) counts.
        rows: what objects are: the classes, and at the end none.
        columns: what they are taken for: likewise.
        path: the picture to write.
        threshold: from which score on detections are taken, for the title.
    """
    kept = [number for number in range(len(rows)) if matrix[number].any() or matrix[:, number].any()]
    kept += [len(rows) - 1] if len(rows) - 1 not in kept else []
    left_out = len(rows) - len(kept)
    matrix, rows, columns = matrix[np.ix_(kept, kept)], [rows[each] for each in kept], [columns[each] for each in kept]
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    has_counts = len(rows) <= _MOST_WITH_COUNTS
    side = min(3.0 + (_CELL_INCHES if has_counts else _SMALL_CELL_INCHES) * len(columns), _MOST_INCHES)
    figure = Figure(figsize=(side + 1.5, side), layout="constrained")
    axes = figure.subplots()
    is_right = np.eye(*matrix.shape, dtype=np.bool_)
    is_right[-1, -1] = False  # is of no class
    images = [
        axes.imshow(np.ma.masked_array(100 * shares, hidden), cmap=colours, norm=PowerNorm(0.5, 0, 100))
        for hidden, colours in ((~is_right, "Blues"), (is_right | (matrix == 0), "Reds"))
    ]
    axes.set(xlabel="detected", ylabel="object")
    title = f"Objects, and what is detected with a score of {threshold:.3g} or more;\ncolours: shares of the row"
    if left_out:
        classes = "1 class" if left_out == 1 else f"{left_out} classes"
        title += f";\n{classes} with neither objects nor such detections left out"
    axes.set_title(title, fontsize="small")
    if len(rows) <= _MOST_WITH_NAMES:
        axes.set_xticks(range(len(columns)), _labels(columns), rotation=90, fontsize="x-small")
        axes.set_yticks(range(len(rows)), _labels(rows), fontsize="x-small")
    if has_counts:
        for row, column in zip(*matrix.nonzero(), strict=True):
            colour = "white" if shares[row, column] > 0.3 else "black"
            text = str(matrix[row, column])
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize="x-small")
    for line in (axes.axhline, axes.axvline):
        line(len(rows) - 1.5, color="grey", linewidth=0.8)
    for image, label in zip(images, ("right", "wrong"), strict=True):
        bar = figure.colorbar(image, shrink=0.7, aspect=30, ticks=_TICKS, format="%g%%")
        bar.ax.set_title(label, fontsize="small")
        bar.ax.tick_params(labelsize="x-small")
    figure.savefig(path, dpi=100)


def draw_error_costs(
    costs: Mapping[str, tuple[int, float]],
    ap50: float,
    classes: Sequence[tuple[str, float]],
    path: str | Path,
    remark: str = "",
) -> None:
    """Draw what each kind of error costs, and how often it happens; and the classes that are found worst.

    Args:
        costs: by name, the count, and the AP50 (0..100) that is gained where all of the kind are mended.
        ap50: as it is, for the title.
        classes: name and AP50 of each class that has one, in any order.
        path: the picture to write.
        remark: stands below.
    """
    figure = Figure(figsize=(14, 3.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    kinds, colours = list(costs), [f"C{number}" for number in range(len(costs))]
    _draw_bars(left, kinds, [gain for _, gain in costs.values()], "{:.1f}", colours)
    _draw_bars(middle, kinds, [count for count, _ in costs.values()], "{:,}", colours)
    worst = sorted(classes, key=lambda each: each[1])[:_MOST_CLASSES]
    _draw_bars(right, _labels([name for name, _ in worst]), [value for _, value in worst], "{:.1f}", ["0.4"])
    left.set(
        xlabel="AP50 gained by mending all of a kind,\nwhich do not add up",
        title=f"What errors cost, of AP50 {ap50:.1f}",
    )
    middle.set(xlabel="how many, whatever their score", title="How many there are")
    few = f": the lowest {len(worst)} of {len(classes)}" if len(worst) < len(classes) else ""
    right.set(xlabel="AP50", title=f"AP50 by class{few}", xlim=(0, 110))
    figure.supxlabel(remark, fontsize="small", parse_math=False)
    figure.savefig(path, dpi=100)


def _draw_bars(axes: Axes, names: Sequence[str], values: Sequence[float], form: str, colours: Sequence[str]) -> None:
    """Draw lying bars, the first on top, each with its figure."""
    places = range(len(names))  # and not names, of which there may be the same twice
    bars = axes.barh(places, values, color=colours)
    axes.bar_label(bars, labels=[form.format(value) for value in values], padding=3)
    axes.set_yticks(places, names)
    axes.set_xlim(min([0, *values]), 1.2 * max([1, *values]))
    axes.spines[["top", "right"]].set_visible(False)
    axes.invert_yaxis()


def _labels(names: Sequence[str]) -> list[str]:
    return [plain_text(name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 3]}...") for name in names]
