"""The sheet of what is to be found beside what is found."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from lite_detr_d2.errors import InputError
from lite_detr_d2.visualization import ComparedImage, JudgedBox, Outcome, comparison, draw_predictions

Captured = list[Figure]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Captured:
    """The figures that are written."""
    drawn: Captured = []
    save = comparison.save_figure

    def noted(figure: Figure, path: Path) -> None:
        drawn.append(figure)
        save(figure, path)

    monkeypatch.setattr(comparison, "save_figure", noted)
    return drawn


def image(folder: Path, objects: Any = (), detections: Any = (), size: tuple[int, int] = (60, 40)) -> ComparedImage:
    file = folder / f"{size[0]}x{size[1]}.png"
    Image.new("RGB", size, (128, 128, 128)).save(file)
    return ComparedImage(str(file), objects, detections, ("the $left\nabove", "the right"))


def legend_of(figure: Figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_frames_and_labels_say_what_became_of_a_box(tmp_path: Path, figures: Captured) -> None:
    kinds = [JudgedBox((5.0 * place, 3, 5.0 * place + 4, 9), f"${place}", kind) for place, kind in enumerate(Outcome)]
    draw_predictions([image(tmp_path, kinds[:1], kinds)], tmp_path / "sheet.png", title="the title")
    left, right = figures[0].axes
    assert (left.get_title("left"), right.get_title("left")) == ("the $left\nabove", "the right")
    assert len(left.patches) == 1
    frames = {patch.get_x(): patch for patch in right.patches}
    for place, kind in enumerate(Outcome):
        frame = frames[5.0 * place]
        assert frame.get_bbox().extents.tolist() == [5 * place, 3, 5 * place + 4, 9]
        assert frame.get_edgecolor()[:3] == pytest.approx(kind.colour)
        assert frame.get_linestyle() == kind.line
    assert {text.get_text() for text in right.texts} == {f"${place}" for place in range(4)}
    assert legend_of(figures[0]) == [kind.words for kind in Outcome]
    assert figures[0].legends[0].get_title().get_text() == "the title"


def test_outcomes_look_different() -> None:
    assert len({kind.colour for kind in Outcome}) == len({kind.line for kind in Outcome}) == len(Outcome) == 4


def test_without_crowds_the_legend_has_none(tmp_path: Path, figures: Captured) -> None:
    draw_predictions([image(tmp_path)], tmp_path / "sheet.png")
    assert legend_of(figures[0]) == [kind.words for kind in Outcome if kind is not Outcome.UNCOUNTED]


@pytest.mark.parametrize("number", [1, 2, 5])
def test_there_are_two_cells_for_each(tmp_path: Path, figures: Captured, number: int) -> None:
    draw_predictions([image(tmp_path)] * number, tmp_path / "sheet.png")
    (figure,) = figures
    assert len(figure.axes) == 2 * number
    places = [axes.get_position() for axes in figure.axes]
    assert all(0 <= place.x0 < place.x1 <= 1 and 0 <= place.y0 < place.y1 <= 1 for place in places)
    for one in range(len(places)):
        for other in range(one):
            assert not places[one].overlaps(places[other])


@pytest.mark.parametrize("size", [(1, 1), (6000, 2), (2, 6000), (3000, 2000)])
def test_images_of_any_shape(tmp_path: Path, figures: Captured, size: tuple[int, int]) -> None:
    boxes = [JudgedBox((0, 0, *size), "all of it", Outcome.RIGHT)]
    draw_predictions([image(tmp_path, boxes, boxes, size), image(tmp_path)], tmp_path / "sheet.png")
    for axes in figures[0].axes[:2]:
        assert tuple(axes.images[0].get_extent()) == (0, size[0], size[1], 0)
        assert axes.get_xlim()[1] >= size[0]
        assert axes.get_ylim()[0] >= size[1]
        assert axes.get_aspect() == 1
        assert max(axes.images[0].get_size()) <= 1200
        # The cell has the shape of its limits, so that nothing is moved to keep the image's shape.
        np.testing.assert_allclose(axes.get_position().bounds, axes.get_position(original=True).bounds, atol=1e-3)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert 1500 < sheet.width < 2400
        assert 150 < sheet.height < 1500


def test_an_image_that_is_not_there(tmp_path: Path) -> None:
    gone = ComparedImage(str(tmp_path / "gone.png"), [], [], ("", ""))
    with pytest.raises(InputError, match=r"gone\.png"):
        draw_predictions([gone], tmp_path / "sheet.png")
