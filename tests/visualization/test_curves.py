"""The axes of curves."""

import json
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from lite_detr_d2.visualization import curves


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    figures: list[Figure] = []
    monkeypatch.setattr(curves, "save_figure", lambda figure, path: figures.append(figure))
    return figures


@pytest.mark.parametrize("scores", [(26.0, 29.0), (29.0,), (0.0, 0.0)])
def test_axes_of_ap_begin_at_0(tmp_path: Path, drawn: list[Figure], scores: tuple[float, ...]) -> None:
    """So that a small change looks small; others fit the figures."""
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


@pytest.mark.parametrize("count", [1, 2, 40])
def test_a_short_training_is_seen_and_iterations_are_whole(tmp_path: Path, drawn: list[Figure], count: int) -> None:
    """A point alone makes no line."""
    records = [
        {"iteration": 2 + place, "total_loss": 90.0 - place, "lr": 0.1, "grad_norm": 2.0} for place in range(count)
    ]
    metrics = tmp_path / "metrics.json"
    metrics.write_text("\n".join(map(json.dumps, records)))
    curves.draw_curves({"run": metrics}, tmp_path / "curves.png")
    assert len(drawn[0].axes) >= 3
    for axes in drawn[0].axes:
        if axes.get_visible():
            assert [line.get_marker() for line in axes.lines] == ["o" if count == 1 else "None"] * len(axes.lines)
            assert axes.lines
            assert all(tick == round(tick) for tick in axes.get_xticks())


def test_iterations_are_at_the_same_place_in_all_panels(tmp_path: Path, drawn: list[Figure]) -> None:
    """Evaluations are fewer, and later, than losses."""
    records: list[dict[str, float]] = [
        {"iteration": place, "total_loss": 9.0, "lr": 0.1} for place in range(19, 1500, 20)
    ]
    records += [{"iteration": place, "bbox/AP": 20.0, "bbox/AP50": 40.0} for place in (1000, 1500)]
    (tmp_path / "metrics.json").write_text("\n".join(map(json.dumps, records)))
    curves.draw_curves({"run": tmp_path / "metrics.json"}, tmp_path / "curves.png")
    (limits,) = {axes.get_xlim() for axes in drawn[0].axes if axes.get_visible()}
    assert limits[0] <= 19
    assert limits[1] >= 1500
