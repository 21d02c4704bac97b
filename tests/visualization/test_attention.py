"""The picture of what attention samples: every point is where it should be, in the colour of its level."""

import io
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from lite_detr_d2.visualization import View, draw_attention
from lite_detr_d2.visualization.attention import TOP_OF_ALL
from lite_detr_d2.visualization.sampling import Sampling

SIZE = (60, 90)
PIXELS = np.zeros((*SIZE, 3), np.uint8)


def view(shapes: tuple[tuple[int, int], ...] = ((4, 6), (2, 3), (1, 1)), box: bool = False, queries: int = 5) -> View:
    generator = torch.Generator().manual_seed(len(shapes))
    weights = torch.rand(queries, 2, len(shapes), 30, generator=generator)
    sampling = Sampling(
        locations=torch.rand(queries, 2, len(shapes), 30, 2, generator=generator) * 1.4 - 0.2,
        weights=weights / weights.sum((-2, -1), keepdim=True),
        references=torch.tensor([[0.25, 0.5, 0.2, 0.1] if box else [0.25, 0.5]]).expand(queries, -1),
        shapes=shapes,
        levels=range(0),
    )
    return View("a $model", sampling, 3, "the $query")


def axes_of(figure: Figure) -> list[list[Axes]]:
    return [[axes for axes in row.axes if axes.axison] for row in figure.subfigs]


def points_of(axes: Axes) -> list[tuple[tuple[float, ...], int, float, float]]:
    """Place, level by the colour, opacity and area of each point."""
    found = []
    for collection in axes.collections:
        assert isinstance(collection, PathCollection)
        colours = [tuple(np.round(colour[:3], 3)) for colour in collection.get_facecolors()]
        level_of = {tuple(np.round(to_rgb(colour), 3)): level for level, colour in enumerate(LEVEL_COLOURS)}
        if colours[0] in level_of:
            fields = (
                collection.get_offsets().tolist(),
                colours,
                collection.get_facecolors()[:, 3],
                collection.get_sizes(),
            )
            found += [
                (tuple(place), level_of[colour], float(opacity), float(area))
                for place, colour, opacity, area in zip(*fields, strict=True)
            ]
    return found


LEVEL_COLOURS = ("#ff2a2a", "#ffb000", "#1f8fff")


def expected(view: View, number: int, query: int | None, level: int | None) -> list[tuple[tuple[float, ...], int]]:
    strongest = view.sampling.strongest(number, query=query, level=level)
    places = (strongest.locations * torch.tensor([SIZE[1], SIZE[0]])).tolist()
    return list(zip(map(tuple, places), strongest.levels.tolist(), strict=True))


def assert_drawn(axes: Axes, wanted: Sequence[tuple[tuple[float, ...], int]]) -> None:
    drawn = sorted((level, *place) for place, level, _, _ in points_of(axes))
    assert np.array(drawn) == pytest.approx(np.array(sorted((level, *place) for place, level in wanted)), abs=1e-4)
    assert (axes.get_xlim(), axes.get_ylim()) == ((0, SIZE[1]), (SIZE[0], 0))


def test_the_points_of_a_query_and_of_all_queries() -> None:
    shown = view()
    ((of_query, middle, finest),) = axes_of(draw_attention(PIXELS, [shown], top=100))
    assert_drawn(of_query, expected(shown, 100, 3, None))
    assert of_query.images[0].get_extent() == [0, SIZE[1], SIZE[0], 0]  # edges, as 0 and 1 of locations are
    assert_drawn(middle, expected(shown, TOP_OF_ALL, None, 1))
    assert_drawn(finest, expected(shown, TOP_OF_ALL, None, 0))
    assert "level 1 (2 x 3)" in middle.get_title()
    assert "level 0 (4 x 6)" in finest.get_title()
    assert f"top {TOP_OF_ALL} of 300 points" in finest.get_title()


def test_larger_weights_are_larger_and_more_opaque() -> None:
    shown = view()
    strongest = shown.sampling.strongest(20, query=3)
    ((axes, *_),) = axes_of(draw_attention(PIXELS, [shown], top=20))
    points = {place: (opacity, area) for place, _, opacity, area in points_of(axes)}
    marks = [
        points[min(points, key=lambda other: abs(other[0] - place[0]) + abs(other[1] - place[1]))]
        for place, _ in expected(shown, 20, 3, None)
    ]
    assert marks == sorted(marks, reverse=True)
    for collection in axes.collections:  # later ones cover those before
        assert collection.get_sizes().tolist() == sorted(collection.get_sizes())
    assert len(set(marks)) == len(strongest.weights)


def test_the_legend_counts_and_says_the_shares() -> None:
    shown = view()
    ((axes, *others),) = axes_of(draw_attention(PIXELS, [shown], top=50))
    strongest = shown.sampling.strongest(50, query=3)
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts[-1] == "query"
    for level, (height, width) in enumerate(shown.sampling.shapes):
        of_level = strongest.levels == level
        share = float(strongest.weights[of_level].sum()) / 2  # two heads, whose weights sum to 1 each
        assert texts[level] == f"level {level} ({height} x {width}): {int(of_level.sum())} points, {share:.0%}"
    assert not any(other.get_legend() for other in others)


def test_points_outside_of_the_image_are_counted() -> None:
    shown = view()
    ((axes, *_),) = axes_of(draw_attention(PIXELS, [shown], top=1000))
    locations = shown.sampling.locations[3].reshape(-1, 2)
    outside = sum(not (0 <= x <= 1 and 0 <= y <= 1) for x, y in locations.tolist())
    assert outside > 10
    assert axes.get_title() == f"the $query\nall 180 points, {outside} outside of the image"


@pytest.mark.parametrize("box", [False, True])
def test_the_query_is_marked(box: bool) -> None:
    ((axes, *others),) = axes_of(draw_attention(PIXELS, [view(box=box)]))
    crosses = [collection for collection in axes.collections if len(collection.get_offsets()) == 1][-2:]
    assert [cross.get_offsets()[0].tolist() for cross in crosses] == [[22.5, 30.0]] * 2
    outlines = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert len(outlines) == int(box)
    if box:
        assert outlines[0].get_bbox().extents.tolist() == pytest.approx([13.5, 27, 31.5, 33])
        assert axes.get_legend().get_texts()[-1].get_text() == "its reference box"
    assert not any(other.patches for other in others)


@pytest.mark.parametrize(("levels", "panels"), [(1, 2), (2, 3), (4, 3)])
def test_models_of_other_levels_side_by_side(levels: int, panels: int) -> None:
    shapes = ((8, 9), (4, 5), (2, 3), (1, 2))[:levels]
    figure = draw_attention(PIXELS, [view(shapes), view()])
    assert [len(row) for row in axes_of(figure)] == [panels, 3]
    assert [row.get_suptitle() for row in figure.subfigs] == ["a $model"] * 2


@pytest.mark.parametrize("size", [(1, 1), (2000, 3), (3, 2000), (20, 30)])
def test_images_of_any_shape_become_pictures(size: tuple[int, int]) -> None:
    figure = draw_attention(np.zeros((*size, 3), np.uint8), [view(), view()])
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=40)
    width, height = Image.open(file).size
    assert 200 < width < 1000
    assert 100 < height < 1500
