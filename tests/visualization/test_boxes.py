"""Labels are beside their boxes, within the picture, and do not cover each other where there is room."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from lite_detr_d2.visualization.boxes import LabelledBox, draw_boxes

SIDE = 400.0
PADDING = 100 * 0.65 / 72  # pixels, of the colour around a label
RED, YELLOW = (0.8, 0.0, 0.0), (1.0, 1.0, 0.0)


def drawn(boxes: list[LabelledBox], inches: float = 4.0) -> tuple[Axes, list[Bbox]]:
    """The axes, of 400 pixels a side, and what their labels fill, in inches from the lower left corner."""
    figure = Figure(figsize=(inches, inches), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, SIDE), ylim=(SIDE, 0))
    draw_boxes(axes, boxes, (SIDE, SIDE), 72 * inches / SIDE)
    figure.draw_without_rendering()
    return axes, [Bbox(text.get_window_extent().padded(PADDING).get_points() / 100) for text in axes.texts]


def box(*corners: float, label: str = "platelets 45%", colour: tuple[float, float, float] = RED) -> LabelledBox:
    return LabelledBox(corners, label, colour)


def overlapping(labels: list[Bbox]) -> int:
    shrunk = [label.padded(-0.01) for label in labels]
    return sum(shrunk[one].overlaps(shrunk[other]) for one in range(len(shrunk)) for other in range(one))


@pytest.mark.parametrize("copies", [1, 2, 5])
def test_labels_of_the_same_box_do_not_cover_each_other(copies: int) -> None:
    _, labels = drawn([box(150, 150, 250, 250)] * copies)
    assert len(labels) == copies
    assert overlapping(labels) == 0


def test_a_label_stands_on_its_box() -> None:
    _, (label,) = drawn([box(150, 150, 250, 250)])
    assert label.x0 == pytest.approx(1.5, abs=0.04)
    assert label.y0 == pytest.approx(2.5, abs=0.05)


@pytest.mark.parametrize("corners", [(0, 0, 10, 10), (390, 390, 400, 400), (0, 390, 10, 400), (390, 0, 400, 10)])
@pytest.mark.parametrize("label", ["a", "platelets 45%", "W" * 200])
def test_labels_are_within_the_picture(corners: tuple[float, ...], label: str) -> None:
    axes, (place,) = drawn([box(*corners, label=label)])
    assert min(place.x0, place.y0) >= -0.03
    assert max(place.x1, place.y1) <= 4.03
    (text,) = axes.texts
    assert (text.get_text() == label) == (len(label) < 50)
    if len(label) >= 50:  # no more is cut than has to be
        assert place.width > 3.8


def test_of_many_boxes_all_frames_are_drawn_and_the_labels_that_can_be_read() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 350, (100, 2))
    axes, labels = drawn([box(x, y, x + 40, y + 40, label="RBC") for x, y in corners.tolist()])
    assert len(axes.patches) == 100
    assert 90 <= len(labels) <= 100
    assert overlapping(labels) < 25  # of 4950 pairs


def test_of_many_times_the_same_box_a_few_labels_are_read() -> None:
    axes, labels = drawn([box(150, 150, 250, 250)] * 60)
    assert len(axes.patches) == 60
    assert 5 <= len(labels) < 20
    assert overlapping(labels) == 0


def test_labels_are_read_on_dark_and_on_light_colours() -> None:
    axes, _ = drawn([box(10, 10, 50, 50), box(100, 100, 120, 120, colour=YELLOW)])
    assert [text.get_color() for text in axes.texts] == ["white", "black"]


def test_small_boxes_are_above_large_ones() -> None:
    axes, _ = drawn([box(10, 10, 20, 20, label="small"), box(0, 0, 300, 300, label="large")])
    assert [text.get_text() for text in axes.texts] == ["large", "small"]


def test_texts_are_measured_without_a_canvas_of_the_whole_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sheet of pictures is large, and has many texts."""
    monkeypatch.delattr(Figure, "_get_renderer")
    figure = Figure()
    axes = figure.add_axes((0, 0, 1, 1))
    draw_boxes(axes, [box(150, 150, 250, 250)] * 3, (SIDE, SIDE), 1.0)
    assert len(axes.texts) == 3
