"""Of how two models are compared: what counts as the same, and that every difference that matters is seen."""

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lite_detr_d2.deploy.comparison import LIMITS, Agreement, compare_detections, count_shared, difference

Array = npt.NDArray[Any]
FLOAT32 = LIMITS["float32"]
SIZE = 200.0


def detections(seed: int, number: int = 20, images: int = 2) -> list[Array]:
    """Boxes of 20 to 100 pixels, scores far apart, three classes."""
    random = np.random.default_rng(seed)
    corners = random.uniform(0, SIZE / 2, (images, number, 2))
    boxes = np.concatenate((corners, corners + random.uniform(20, SIZE / 2, (images, number, 2))), axis=2)
    scores = np.linspace(0.95, 0.05, number)[None] + random.uniform(0, 0.01, (images, number))
    return [boxes.astype(np.float32), scores.astype(np.float32), random.integers(0, 3, (images, number))]


def compare(found: list[Array], expected: list[Array]) -> Agreement:
    return compare_detections(found, expected, FLOAT32)


def changed(base: list[Array], **values: Array) -> list[Array]:
    names = "boxes", "scores", "labels"
    return [values.get(name, array) for name, array in zip(names, base, strict=True)]


@pytest.mark.parametrize("seed", range(3))
def test_the_same_matches(seed: int) -> None:
    base = detections(seed)
    agreement = compare(base, base)
    assert agreement == Agreement((38, 38), (38, 38), 0.0)  # the last of each image is not compared
    assert (agreement.compared, agreement.matched) == (38, 1.0)


def test_small_differences_match_and_are_measured() -> None:
    base = detections(0)
    near = [base[0] + 0.01, base[1] + np.float32(4e-4), base[2]]
    assert compare(near, base).matched == 1.0
    assert compare(near, base).score_difference == pytest.approx(4e-4, abs=1e-7)


def shifted(base: list[Array], image: int, detection: int) -> list[Array]:
    boxes = base[0].copy()
    boxes[image, detection, 0] += 2.5  # IoU below 0.99 for widths up to 250
    return changed(base, boxes=boxes)


def with_score(base: list[Array], image: int, detection: int) -> list[Array]:
    scores = base[1].copy()
    scores[image, detection] += 1.1e-3
    return changed(base, scores=scores)


def with_label(base: list[Array], image: int, detection: int) -> list[Array]:
    labels = base[2].copy()
    labels[image, detection] += 3
    return changed(base, labels=labels)


@pytest.mark.parametrize("change", [shifted, with_score, with_label])
@given(image=st.integers(0, 1), number=st.integers(0, 18))
@settings(max_examples=20, deadline=None)
def test_each_changed_detection_is_missed_on_both_sides(change: Any, image: int, number: int) -> None:
    base = detections(1)
    other = change(base, image, number)
    assert compare(other, base) == Agreement((38, 37), (38, 37), compare(other, base).score_difference)


def test_the_order_of_detections_does_not_matter() -> None:
    base = detections(2)
    scores = base[1].copy()
    scores[:, 1] = scores[:, 0] - 1e-5  # two ranks that rounding swaps
    base = changed(base, scores=scores)
    order = [1, 0, *range(2, 20)]
    assert compare([array[:, order] for array in base], base).matched == 1.0


def test_what_only_one_side_finds_counts() -> None:
    base = detections(3)
    fewer = [array.copy() for array in base]
    fewer[1][:, 5:] = 0.001  # the rest is nothing
    assert compare(fewer, base) == Agreement((10, 10), (38, 10), 0.0)
    assert compare(base, fewer) == Agreement((38, 10), (10, 10), 0.0)
    assert compare(fewer, base).matched == compare(base, fewer).matched == pytest.approx(10 / 38)


def test_a_detection_is_matched_once() -> None:
    base = detections(4, images=1)
    doubled = [array.copy() for array in base]
    for array in doubled:
        array[:, 1] = array[:, 0]  # found twice, and another not at all
    assert compare(doubled, base).found == (19, 18)
    assert compare(doubled, base).expected == (19, 18)


def test_a_largest_matching_is_found() -> None:
    """Taken greedily, best difference first, the middle would take what its neighbour needs."""
    box = np.array([10.0, 10.0, 60.0, 60.0], dtype=np.float32)
    boxes = np.stack([box, box, box * 3])[None]
    labels = np.zeros((1, 3), dtype=np.int64)
    ours = [boxes, np.array([[0.5006, 0.5, 0.1]]), labels]
    theirs = [boxes, np.array([[0.5002, 0.4992, 0.1]]), labels]
    # 0.5 is nearest to 0.5002, which alone 0.5006 can be matched with; 0.4992 goes with 0.5.
    agreement = compare(ours, theirs)
    assert agreement.found == agreement.expected == (2, 2)
    assert agreement.score_difference == pytest.approx(8e-4)


@given(edges=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=15), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_no_other_matching_has_more_pairs(edges: list[tuple[int, int]], seed: int) -> None:
    """Scores near each other or not, as a graph: all matchings of five and five are tried."""
    random = np.random.default_rng(seed)
    box = np.array([10.0, 10.0, 60.0, 60.0])
    scores = [np.sort(random.choice(np.linspace(0.5, 0.5045, 10), 5))[::-1] for _ in range(2)]
    sides = [
        [np.tile(box, (1, 6, 1)), np.append(values, 0.1)[None], np.zeros((1, 6), dtype=np.int64)] for values in scores
    ]
    for index, (row, column) in enumerate(edges):  # some pairs are of a class of their own
        sides[0][2][0, row] = sides[1][2][0, column] = index % 3
    near = np.abs(scores[0][:, None] - scores[1][None]) <= FLOAT32.score_difference
    near &= sides[0][2][0, :5, None] == sides[1][2][0, None, :5]
    most = max(sum(near[row, column] for row, column in enumerate(order)) for order in itertools.permutations(range(5)))
    assert compare(sides[0], sides[1]).found == (5, most)
    assert compare(sides[0], sides[1]).expected == (5, most)


def test_what_scores_like_the_last_is_not_compared_but_may_match() -> None:
    base = detections(5, images=1)
    scores = base[1].copy()
    scores[0, 15:] = scores[0, 15] - np.arange(5) * 1e-4
    base = changed(base, scores=scores)
    assert compare(base, base).found == (15, 15)
    # One side's last detection is lower, so that five more of it count; they are found among the other's rest.
    lower = changed(base, scores=np.where(np.arange(20) == 19, 0.0, scores).astype(np.float32))
    assert compare(lower, base) == Agreement((19, 19), (15, 15), 0.0)


def test_nothing_above_the_last_score_is_nothing_known() -> None:
    base = detections(6)
    flat = changed(base, scores=np.full_like(base[1], 0.01))
    agreement = compare(flat, flat)
    assert (agreement.compared, agreement.matched) == (0, 0.0)


def test_boxes_clipped_to_nothing_are_the_same_where_their_corners_are() -> None:
    base = detections(7, images=1)
    boxes = base[0].copy()
    boxes[0, 0] = [SIZE, 10, SIZE, 50]
    boxes[0, 1] = [0, 10, 1e-4, 50]
    base = changed(base, boxes=boxes)
    moved = changed(base, boxes=boxes + np.float32(2e-3))
    assert compare(moved, base).matched == 1.0
    boxes = boxes.copy()
    boxes[0, :2, 1] += 0.5
    assert compare(changed(base, boxes=boxes), base).found == (19, 17)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("array", [0, 1])
@pytest.mark.parametrize("where", [0, 10, 19])
@pytest.mark.filterwarnings("error")
def test_values_that_are_not_finite_are_missed(value: float, array: int, where: int) -> None:
    base = detections(8)
    broken = [values.copy() for values in base]
    broken[array][0, where] = value
    if array == 0 and where == 19:
        assert compare(broken, base).found == (38, 38)  # the last one is not compared
    else:
        assert compare(broken, base).matched < FLOAT32.matched


@given(seed=st.integers(0, 20))
@settings(max_examples=10, deadline=None)
def test_it_does_not_matter_which_is_which(seed: int) -> None:
    base, other = detections(seed), detections(seed)
    for index in range(0, 19, 3):
        other = (shifted, with_score, with_label)[index % 3](other, index % 2, index)
    forth, back = compare(other, base), compare(base, other)
    assert forth.found == back.expected
    assert forth.expected == back.found
    assert forth.matched == back.matched < 1.0


@pytest.mark.parametrize("norm", ["max", "rms"])
def test_a_difference_is_in_units_of_the_values(norm: str) -> None:
    values = np.array([3.0, -3.0, 3.0, -3.0])
    assert difference(values, values, norm) == 0.0
    assert difference(values + 0.3, values, norm) == pytest.approx(0.1)
    assert difference(values / 30 + 0.1, values / 30, norm) == pytest.approx(0.1)  # small values: absolute
    assert difference(np.zeros((1, 0, 4)), np.zeros((1, 0, 4)), "rms") == 0.0


def test_one_value_far_off_is_the_largest_difference_and_little_of_the_mean() -> None:
    values = np.ones(10_000, dtype=np.float32)
    spike = values.copy()
    spike[77] = 1.5
    assert difference(spike, values, "max") == pytest.approx(0.5)
    assert difference(spike, values, "rms") == pytest.approx(0.005)


@pytest.mark.parametrize("norm", ["max", "rms"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.filterwarnings("error")
def test_what_is_not_finite_is_infinitely_far(norm: str, value: float) -> None:
    values = np.ones(5)
    broken = np.array([1.0, 1.0, value, 1.0, 1.0])
    assert difference(broken, values, norm) == math.inf
    assert difference(values, broken, norm) == math.inf
    assert difference(broken, broken, norm) == math.inf


def test_tokens_that_both_select() -> None:
    expected, usable = np.array([[1, 2, 3, 4], [5, 6, 7, 8]]), np.ones((2, 10), dtype=bool)
    assert count_shared(expected[:, ::-1], expected, usable) == (8, 8)  # ranks do not matter
    assert count_shared(np.array([[1, 2, 3, 9], [5, 6, 7, 8]]), expected, usable) == (7, 8)
    assert count_shared(np.array([[5, 6, 7, 8], [1, 2, 3, 4]]), expected, usable) == (0, 8)  # those of the other image
    assert count_shared(np.array([[1, 1, 1, 1], [5, 6, 7, 8]]), expected, usable) == (5, 8)
    # Those that fill up a selection are alike.
    usable[0, 3:] = False
    assert count_shared(np.array([[1, 2, 9, 7], [5, 6, 7, 8]]), expected, usable) == (6, 6)
    assert count_shared(np.array([[1, 9, 8, 7], [5, 6, 7, 8]]), expected, usable) == (5, 6)
