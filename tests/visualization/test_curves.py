"""The axes of curves."""

import json
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from lite_detr_d2.visualization import curves


@pytest.mark.parametrize("scores", [(26.0, 29.0), (29.0,), (0.0, 0.0)])
def test_axes_of_ap_begin_at_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scores: tuple[float, ...]) -> None:
    """So that a small change looks small; others fit the figures."""
    drawn: list[Figure] = []
    monkeypatch.setattr(curves, "save_figure", lambda figure, path: drawn.append(figure))
    records = [
        {"iteration": place, "bbox/AP": score, "bbox_ema/AP50": score, "total_loss": 90.0 + place, "grad_norm": 2.0}
        for place, score in enumerate(scores)
    ]
    metrics = tmp_path / "metrics.json"
    metrics.write_text("\n".join(map(json.dumps, records)))
    curves.draw_curves({"run": metrics}, tmp_path / "curves.png")
    bottoms = {axes.get_title(): axes.get_ylim()[0] for axes in drawn[0].axes}
    assert bottoms["AP (%)"] == bottoms["AP at an IoU of 0.5 (%)"] == 0
    assert bottoms["total loss"] > 80
    assert bottoms["gradient norm"] > 0
    assert all(axes.get_ylim()[1] > max(scores) for axes in drawn[0].axes if axes.get_title().startswith("AP"))
