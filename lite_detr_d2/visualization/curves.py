"""Pictures of how a training went."""

import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure


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


def _series(records: Sequence[dict[str, float]], key: str) -> tuple[list[float], list[float]]:
    """Return iterations and values of a metric. A run that went back, or began anew, replaces what it repeats."""
    points: list[tuple[float, float]] = []
    for record in records:
        if key in record:
            while points and points[-1][0] >= record["iteration"]:
                points.pop()
            points.append((record["iteration"], record[key]))
    return [iteration for iteration, _ in points], [value for _, value in points]
