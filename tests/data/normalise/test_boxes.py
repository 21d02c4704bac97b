"""How boxes are meant is seen where it can be seen, and honest ones are never doubted."""

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from lite_detr_d2.data.normalise import boxes, checks
from lite_detr_d2.data.normalise.boxes import Reading, reading_of

from ..folders import SIZE, coco_content

Box = list[float]
Row = tuple[int, Any, Any, Any, tuple[int, int]]

IMAGE = (640, 480)


def anywhere(rng: Random) -> Box:
    left, right = sorted(rng.uniform(0, IMAGE[0]) for _ in range(2))
    top, bottom = sorted(rng.uniform(0, IMAGE[1]) for _ in range(2))
    return [left, top, right - left + 1e-2, bottom - top + 1e-2]


def small(rng: Random) -> Box:
    width, height = rng.uniform(2, 60), rng.uniform(2, 60)
    return [rng.uniform(0, IMAGE[0] - width), rng.uniform(0, IMAGE[1] - height), width, height]


def large(rng: Random) -> Box:
    """One object that fills most of its image."""
    left, top = rng.uniform(0, 100), rng.uniform(0, 80)
    return [left, top, rng.uniform(300, IMAGE[0] - left), rng.uniform(240, IMAGE[1] - top)]


def whole(rng: Random) -> Box:
    return [0, 0, IMAGE[0] - rng.randint(0, 3), IMAGE[1] - rng.randint(0, 3)]


def in_the_corner(rng: Random) -> Box:
    return [rng.randint(0, 9), rng.randint(0, 9), rng.randint(10, 60), rng.randint(10, 60)]


def rounded_up(rng: Random) -> Box:
    """Large, and a few pixels beyond the image."""
    left, top, width, height = large(rng)
    return [left, top, min(width * 1.1, 1.05 * IMAGE[0] - left), min(height * 1.1, 1.05 * IMAGE[1] - top)]


def polygon(left: float, top: float, width: float, height: float) -> list[list[float]]:
    return [
        [left, top + height / 2, left + width / 2, top, left + width, top + height / 2, left + width / 2, top + height]
    ]


def exact(rng: Random, box: Box) -> tuple[Any, Any]:
    return box[2] * box[3], None


def of_mask(rng: Random, box: Box) -> tuple[Any, Any]:
    return box[2] * box[3] * rng.uniform(0.05, 1), {"size": [480, 640], "counts": "x"}


def of_polygon(rng: Random, box: Box) -> tuple[Any, Any]:
    return box[2] * box[3] / 2, polygon(*box)


def unknown(rng: Random, box: Box) -> tuple[Any, Any]:
    return rng.choice([(None, None), (0, []), (1, [])])


Where = Callable[[Random], Box]
What = Callable[[Random, Box], tuple[Any, Any]]
PLACES: list[Where] = [anywhere, small, large, whole, in_the_corner, rounded_up]
KNOWN: list[What] = [exact, of_mask, of_polygon, unknown]


def rows(rng: Random, place: Where, know: What, change: Callable[[Box], Box] = list) -> Iterator[Row]:
    for number in range(rng.choice([1, 2, 3, 5, 8, 20, 100])):
        box = place(rng)
        yield (number, change(box), *know(rng, box), IMAGE)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("know", KNOWN)
def test_honest_boxes_are_never_doubted(place: Where, know: What) -> None:
    for seed in range(2000):
        assert reading_of(rows(Random(seed), place, know)) == Reading(), seed


def corners(box: Box) -> Box:
    return [box[0], box[1], box[0] + box[2], box[1] + box[3]]


def some(rng: Random, place: Where, count: int = 30) -> list[Box]:
    return [place(rng) for _ in range(count)]


@pytest.mark.parametrize("place", [anywhere, small])
@pytest.mark.parametrize("know", KNOWN)
def test_honest_boxes_of_several_in_an_image_are_never_doubted(place: Where, know: What) -> None:
    for seed in range(2000):
        rng = Random(seed)
        given = [(number // 3, box, *know(rng, box), IMAGE) for number, box in enumerate(some(rng, place, 12))]
        assert reading_of(given) == Reading(), seed


def test_boxes_that_may_be_corners_are_doubted_where_nothing_tells() -> None:
    content = coco_content()
    for area, doubtful in ((None, True), (0, True), (192, False), (150, False)):
        given = [(box["image_id"], corners(box["bbox"]), area, None, SIZE) for box in content["annotations"]]
        assert reading_of(given).doubtful is doubtful
        assert reading_of(given).corners is (area == 192)
        assert reading_of(given[:7]).doubtful is False
    alone = [(number, *row[1:]) for number, row in enumerate(given)]
    assert reading_of([(*row[:2], None, None, SIZE) for row in alone]) == Reading()  # large objects, one in an image


def fractions(box: Box) -> Box:
    return [box[0] / IMAGE[0], box[1] / IMAGE[1], box[2] / IMAGE[0], box[3] / IMAGE[1]]


# Of large objects near the image's corner, only an area or a polygon tells.
@pytest.mark.parametrize(
    ("place", "know"),
    [*((place, know) for place in (anywhere, small) for know in KNOWN), (large, exact), (large, of_polygon)],
)
def test_corners_are_seen(place: Where, know: What) -> None:
    for seed in range(200):
        rng = Random(seed)
        given = [(number // 2, corners(box), *know(rng, box), IMAGE) for number, box in enumerate(some(rng, place))]
        assert reading_of(given) == Reading(corners=True), seed


def test_corners_are_seen_where_the_area_is_made_of_them() -> None:
    for seed in range(200):
        rng = Random(seed)
        given = [(0, box, box[2] * box[3], None, IMAGE) for box in map(corners, some(rng, anywhere))]
        assert reading_of(given) == Reading(corners=True), seed


def test_a_few_that_are_wrong_do_not_hide_corners() -> None:
    rng = Random(0)
    given: list[Row] = [(0, corners(box), *exact(rng, box), IMAGE) for _ in range(4) for box in some(rng, small)]
    given[3:3] = [(0, box, 9, None, IMAGE) for box in ([5, 5, 2, 2], "x", [5, 5, 5, 9])]
    assert reading_of(given) == Reading(corners=True)


@pytest.mark.parametrize("place", [anywhere, small, large, whole])
def test_fractions_are_seen(place: Where) -> None:
    for seed in range(200):
        given = list(rows(Random(seed), place, unknown, fractions))
        box = [0, 0, 1, 1]  # of the whole image
        reading = reading_of([*given, *given, (0, box, None, None, IMAGE)])
        if place is not whole:
            assert reading == Reading(fractions=True), seed
            assert boxes.fitted(box, *IMAGE, reading) == (None, checks.BOX_FRACTION)
    assert boxes.fitted([0, 0, 1, 1], *IMAGE, Reading()) == ([0, 0, 1, 1], None)


@pytest.mark.parametrize(
    ("box", "result", "check"),
    [
        ([0, 0, 640, 480], [0, 0, 640, 480], None),
        ([-0.5, -0.5, 641, 481], [-0.5, -0.5, 641, 481], None),  # rounding
        ([-2, 0, 10, 10], [0, 0, 8, 10], checks.BOX_CLIPPED),
        ([636, 470, 10, 20], [636, 470, 4, 10], checks.BOX_CLIPPED),
        ([640, 0, 10, 10], None, checks.BOX_OUTSIDE),
        ([-10, 0, 10, 10], None, checks.BOX_OUTSIDE),
        ([-10, 0, 9, 10], None, checks.BOX_OUTSIDE),
        ([5, 5, 0, 10], None, checks.BOX_EMPTY),
        ([5, 5, 1e-4, 10], None, checks.BOX_EMPTY),
        ([5, 5, -1, 10], None, checks.BOX_NEGATIVE),
        ([700, 5, -1, 10], None, checks.BOX_NEGATIVE),
        ([0.25, 0.5, 0.5, 0.1], None, checks.BOX_FRACTION),
        ([0.9, 0.9, 0.4, 0.3], None, checks.BOX_FRACTION),
        ([-0.01, 0.2, 1.02, 0.3], None, checks.BOX_FRACTION),
        ([0.5, 0.5, 2, 2], [0.5, 0.5, 2, 2], None),
        ([1, 1, 1, 1], [1, 1, 1, 1], None),
        ([10**30, 0, 10, 10], None, checks.BOX_OUTSIDE),
    ],
)
def test_a_box_is_fitted_to_its_image(box: Box, result: Box | None, check: Any) -> None:
    assert boxes.fitted(box, *IMAGE, Reading()) == (result, check)


@pytest.mark.parametrize(
    ("area", "size", "possible"),
    [
        (60, (25, 40), True),
        (1000, (25, 40), True),
        (1020, (25, 40), True),
        (1.01, (25, 40), True),
        (2, (1, 2), True),
        (0.5, (2, 2), True),
        (1, (1, 1), True),
        (1, (25, 40), False),
        (0.1, (25, 40), False),
        (0, (1, 1), False),
        (-1, (25, 40), False),
        (1066, (25, 40), False),
        (float("nan"), (25, 40), False),
        (float("inf"), (25, 40), False),
        (10**400, (25, 40), False),
        (True, (1, 1), False),
        ("1000", (25, 40), False),
        (None, (25, 40), False),
    ],
)
def test_an_area_is_that_of_a_mask_in_the_box(area: Any, size: tuple[int, int], possible: bool) -> None:
    assert boxes.is_area(area, [3, 4, *size]) is possible


@pytest.mark.parametrize(
    ("box", "clipped"),
    [
        ([-5, 10, 20, 15], [0, 10, 15, 15]),
        ([10, -5, 15, 20], [10, 0, 15, 15]),
        ([90, 10, 20, 15], [90, 10, 10, 15]),
        ([10, 70, 15, 20], [10, 70, 15, 10]),
        ([-5, -5, 200, 200], [0, 0, 100, 80]),
    ],
    ids=["left", "top", "right", "bottom", "all around"],
)
def test_a_box_beyond_an_edge_is_cut_there(box: Box, clipped: Box) -> None:
    assert boxes.fitted(box, 100, 80, Reading()) == (clipped, checks.BOX_CLIPPED)


@pytest.mark.parametrize("box", [[-30, 10, 20, 15], [10, -30, 15, 20], [110, 10, 20, 15], [10, 90, 15, 20]])
def test_a_box_behind_an_edge_is_outside(box: Box) -> None:
    assert boxes.fitted(box, 100, 80, Reading()) == (None, checks.BOX_OUTSIDE)
