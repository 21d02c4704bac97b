"""Pictures of how a training went."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ..errors import InputError
from ..wording import in_short, shown
from .figure_files import plain_text, save_figure


def draw_loss_curve(metrics_file: str | Path, path: str | Path) -> None:
    """Draw the total loss, and AP50 where it was measured, over the iterations.

    Args:
        metrics_file: the ``metrics.json`` that detectron2's trainer writes, one JSON object a line.
        path: the picture to write.
    """
    records = [json.loads(line) for line in Path(metrics_file).read_text(encoding="utf-8").splitlines()]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(*_series(records, "total_loss"), label="total loss")
    axes.set(xlabel="iteration", ylabel="total loss")
    axes.set_ylim(bottom=0)
    iterations, scores = _series(records, "bbox/AP50")
    if scores:
        score_axes = axes.twinx()
        score_axes.plot(iterations, scores, "o-", color="tab:green", label="AP50")
        score_axes.set(ylabel="AP50 (%)", ylim=(0, 100))
    figure.legend(loc="outside upper center", ncols=2)
    figure.savefig(path, dpi=100)


@dataclass(frozen=True)
class _Panel:
    """A picture of some figures of each run: what each is called, by the name that ``metrics.json`` has.

    Its axis is logarithmic, begins at 0, so that a small change looks small, or fits the figures.
    """

    title: str
    names: Mapping[str, str]
    logarithmic: bool = False
    from_zero: bool = False


_PANELS = (
    _Panel("total loss", {"total_loss": ""}),
    _Panel("AP (%)", {"bbox/AP": "", "bbox_ema/AP": "of the average of the weights"}, from_zero=True),
    _Panel(
        "AP at an IoU of 0.5 (%)", {"bbox/AP50": "", "bbox_ema/AP50": "of the average of the weights"}, from_zero=True
    ),
    _Panel("losses of the last layer", {"loss_ce": "class", "loss_bbox": "boxes", "loss_giou": "GIoU"}),
    _Panel("learning rate", {"lr": ""}),
    _Panel("gradient norm", {"grad_norm": ""}, logarithmic=True),
)
_STYLES = ("-", "--", ":")
_MARKED = 50  # points, beyond which marks would hide the line


def draw_curves(metrics: Mapping[str, str | Path], path: str | Path) -> None:
    """Draw how trainings went, in panels beside each other; what no run has measured has none.

    Args:
        metrics: by the name of a run, its ``metrics.json``.
        path: the picture to write.

    Raises:
        InputError: a file cannot be read, or has no figures; or the picture cannot be written.
    """
    runs = {name: _records(Path(file)) for name, file in metrics.items()}
    panels = [panel for panel in _PANELS if any(_series(run, name)[0] for run in runs.values() for name in panel.names)]
    if not panels:
        raise InputError(f"{in_short(list(map(str, metrics.values())))}: there are no figures of a training in them.")
    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(12, 3.2 * rows + 0.6), layout="constrained")
    grid = list(figure.subplots(rows, 2, squeeze=False).flat)
    for axes, panel in zip(grid, panels, strict=False):
        axes.set_title(panel.title, fontsize="medium")
        axes.set_xlabel("iteration")
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
        if panel.logarithmic:
            axes.set_yscale("log")
        styles = []
        for style, (name, label) in zip(_STYLES, panel.names.items(), strict=False):
            lines = [_series(run, name) for run in runs.values()]
            for number, (iterations, values) in enumerate(lines):
                is_marked = len(values) <= (_MARKED if "/" in name else 1)  # one point alone makes no line
                marker = "o" if is_marked else None
                axes.plot(iterations, values, style, color=f"C{number % 10}", marker=marker, markersize=3)
            if label and any(values for _, values in lines):
                styles.append(Line2D([], [], linestyle=style, color="gray", label=label))
        if styles:
            axes.legend(handles=styles, fontsize="small")
        axes.set_ylim(bottom=0 if panel.from_zero else None)
        axes.grid(alpha=0.3)
    _align(grid[: len(panels)])
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    if len(runs) > 1:
        handles = [Line2D([], [], color=f"C{number % 10}") for number in range(len(runs))]
        figure.legend(handles, list(map(plain_text, runs)), loc="outside upper center", ncols=3)
    save_figure(figure, Path(path))


def _align(panels: Sequence[Axes]) -> None:
    """Have an iteration at the same place in all panels: evaluations are fewer, and later, than losses."""
    limits = [axes.get_xlim() for axes in panels]
    for axes in panels:
        axes.set_xlim(min(left for left, _ in limits), max(right for _, right in limits))


def _records(file: Path) -> list[dict[str, float]]:
    """The lines of a ``metrics.json``; one that a killed training did not finish is none."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise InputError(f"{shown(file)} cannot be read: {reason}. Name the OUTPUT_DIR of a training.") from error
    records = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and "iteration" in record:
            records.append(record)
    return records


def _series(records: Sequence[dict[str, float]], key: str) -> tuple[list[float], list[float]]:
    """Return iterations and values of a metric. A run that went back, or began anew, replaces what it repeats."""
    points: list[tuple[float, float]] = []
    for record in records:
        if key in record:
            while points and points[-1][0] >= record["iteration"]:
                points.pop()
            points.append((record["iteration"], record[key]))
    return [iteration for iteration, _ in points], [value for _, value in points]
