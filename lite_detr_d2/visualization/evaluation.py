"""Pictures of what an evaluation says beyond AP."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from .figure_files import plain_text

# Of rows, up to which cells have their counts, and axes the names.
_MOST_WITH_COUNTS, _MOST_WITH_NAMES = 30, 100
_CELL_INCHES, _SMALL_CELL_INCHES, _MOST_INCHES = 0.42, 0.16, 20.0
_LONGEST_NAME = 24


def draw_confusion(
    matrix: npt.NDArray[np.int64], rows: Sequence[str], columns: Sequence[str], path: str | Path, threshold: float
) -> None:
    """Draw a confusion matrix: colours are shares of the row, so that each class of objects is comparable.

    Args:
        matrix: (R, C) counts.
        rows: what objects are.
        columns: what they are taken for.
        path: the picture to write.
        threshold: from which score on detections are taken, for the title.
    """
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    has_counts = len(rows) <= _MOST_WITH_COUNTS
    side = min(3.0 + (_CELL_INCHES if has_counts else _SMALL_CELL_INCHES) * len(columns), _MOST_INCHES)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(100 * shares, cmap="Blues", norm=PowerNorm(0.5, 0, 100))  # so that a few are seen
    axes.set(xlabel="detected", ylabel="object")
    axes.set_title(f"Objects, and what is detected with a score of {threshold:.3g} or more", fontsize="medium")
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
    figure.colorbar(image, label="% of the row", shrink=0.7, aspect=30)
    figure.savefig(path, dpi=100)


def draw_error_costs(costs: Mapping[str, tuple[int, float]], ap50: float, path: str | Path, remark: str = "") -> None:
    """Draw what each kind of error costs, and how often it happens.

    Args:
        costs: by name, the count, and the AP50 (0..100) that is gained where all of the kind are mended.
        ap50: as it is, for the title.
        path: the picture to write.
        remark: stands below.
    """
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    gains, counts = [gain for _, gain in costs.values()], [count for count, _ in costs.values()]
    for axes, values, form in ((left, gains, "{:.1f}"), (right, counts, "{:,}")):
        bars = axes.barh(list(costs), values, color=[f"C{number}" for number in range(len(costs))])
        axes.bar_label(bars, labels=[form.format(value) for value in values], padding=3)
        axes.set_xlim(min(0, *values), 1.2 * max(1, *values))
        axes.spines[["top", "right"]].set_visible(False)
    left.invert_yaxis()
    left.set(xlabel="AP50 gained by mending all of a kind", title=f"What errors cost, of AP50 {ap50:.1f}")
    right.set(xlabel="how many, whatever their score", title="How many there are")
    figure.supxlabel(remark, fontsize="small", parse_math=False)
    figure.savefig(path, dpi=100)


def _labels(names: Sequence[str]) -> list[str]:
    return [plain_text(name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 3]}...") for name in names]
