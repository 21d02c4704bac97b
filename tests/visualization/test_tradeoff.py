"""AP over GFLOPs, as a picture."""

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from lite_detr_d2.analysis import Detector, Model
from lite_detr_d2.errors import InputError
from lite_detr_d2.visualization import draw_tradeoff

LITE = (Model("H2L2", 110.0, 49.0), Model("H3L1", 150.0, 50.0))
DETECTORS = [
    Detector("A, R-50", Model("A", 235.0, 50.5), LITE),
    Detector("B, R-50", Model("B", 225.0, 48.0), (Model("H3L1", 140.0, 47.5),)),
]


def test_dashed_lines_lead_from_each_detector_to_its_lite_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    draw_tradeoff(DETECTORS, [Model("C $x$", 200.0, 46.0)], tmp_path / "figure.png")
    (axes,) = figures[0].axes
    dashed = [line for line in axes.get_lines() if line.get_linestyle() == "--"]
    assert [[list(line.get_xdata()), list(line.get_ydata())] for line in dashed] == [
        [[235.0, 110.0], [50.5, 49.0]],
        [[235.0, 150.0], [50.5, 50.0]],
        [[225.0, 140.0], [48.0, 47.5]],
    ]
    assert len({line.get_color() for line in dashed[:2]}) == 1
    assert dashed[0].get_color() != dashed[2].get_color()
    marks = {tuple(line.get_xydata()[0]): line.get_marker() for line in axes.get_lines() if len(line.get_xdata()) == 1}
    assert marks[150.0, 50.0] == marks[140.0, 47.5] != marks[110.0, 49.0]
    assert marks[235.0, 50.5] == marks[225.0, 48.0] == "o"
    assert [text.get_text() for text in axes.texts] == [r"C \$x\$"]
    (legend,) = figures[0].legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["A, R-50", "B, R-50", "as published", "H2L2", "H3L1"]


def test_it_is_a_picture_or_an_error(tmp_path: Path) -> None:
    draw_tradeoff(DETECTORS, [], tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match=r"gone/figure\.png cannot be written"):
        draw_tradeoff(DETECTORS, [], tmp_path / "gone" / "figure.png")


def test_names_cover_no_other_name_and_no_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    save = Figure.savefig

    def saved(figure: Figure, *arguments: Any, **options: Any) -> None:
        figures.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", saved)
    near = [Model(f"neighbour {number}", 110.0 + 8 * number, 49.0 + 0.1 * number) for number in range(4)]
    draw_tradeoff(DETECTORS, near, tmp_path / "figure.png")
    (axes,) = figures[0].axes
    boxes = [text.get_window_extent() for text in axes.texts]
    points = axes.transData.transform([(model.gflops, model.ap) for model in (*near, *LITE)])
    for number, box in enumerate(boxes):
        assert box.count_overlaps(boxes[:number] + boxes[number + 1 :]) == 0
        assert box.count_contains(points) == 0
