"""Which classes are taken for which, and which images are worst."""

from typing import Any

import numpy as np
import pytest

from lite_detr_d2.evaluation.confusion import Confusion, ImageErrors, confusion_of, most_confused

from .boxes import Box, content, found, matches, random_case

A: Box = (10, 10, 40, 40)
B: Box = (100, 100, 40, 40)
FAR: Box = (10, 150, 40, 40)


def confusion(truth: Any, *detections: tuple[int, int, Box, float], threshold: float = 0.3) -> Confusion:
    return confusion_of(*matches(truth, found(*detections)), threshold)


def test_by_hand() -> None:
    truth = content((1, 10, A), (1, 10, B), (2, 20, A), (2, 20, B), (2, 20, FAR), images=3)
    result = confusion(
        truth,
        (1, 10, A, 0.9),
        (1, 20, B, 0.8),  # an ant taken for a bee
        (1, 10, A, 0.7),  # once too often
        (2, 20, A, 0.9),
        (2, 30, B, 0.4),  # a bee taken for a cat
        (2, 20, FAR, 0.2),  # below the threshold
        (3, 30, A, 0.5),  # nothing
    )
    expected = [
        [1, 1, 0, 0],
        [0, 1, 1, 1],
        [0, 0, 0, 0],
        [1, 0, 1, 0],
    ]
    assert result.matrix.tolist() == expected
    assert result.images == [ImageErrors(1, 1, 1, 1, 0), ImageErrors(2, 1, 1, 0, 1), ImageErrors(3, 0, 0, 1, 0)]
    assert [image.image_id for image in result.worst(9)] == [1, 2, 3]
    assert [image.image_id for image in result.worst(1)] == [1]
    assert most_confused(result) == [(0, 1, 1), (1, 2, 1)]
    assert result.matched == {1: 1, 2: 2, 3: None, 4: 3, 5: 4, 7: None}  # by the places in both lists, from 1
    assert result.totals() == ImageErrors(None, 2, 2, 2, 1)


def test_a_right_detection_comes_before_a_confused_one_of_a_higher_score() -> None:
    result = confusion(content((1, 10, A)), (1, 20, A, 0.9), (1, 10, A, 0.8))
    assert result.matrix[0].tolist() == [1, 0, 0, 0]
    assert result.matrix[3].tolist() == [0, 1, 0, 0]


def test_of_confused_ones_the_highest_score_comes_first_and_takes_the_nearest() -> None:
    near: Box = (12, 10, 40, 40)
    result = confusion(content((1, 10, A), (1, 20, near)), (1, 30, near, 0.9), (1, 30, near, 0.8), (1, 30, near, 0.7))
    assert result.matrix[:, 2].tolist() == [1, 1, 0, 1]
    assert confusion(content((1, 10, A), (1, 20, near)), (1, 30, near, 0.9)).matrix[:, 2].tolist() == [0, 1, 0, 0]


def test_crowds_are_nothing_to_find_nor_what_is_in_them_an_error() -> None:
    truth = content((1, 10, A), crowds=((1, 10, B),))
    result = confusion(truth, (1, 10, A, 0.9), (1, 10, (102, 102, 10, 10), 0.9))
    assert result.matrix.sum() == 1
    assert result.worst(9) == []
    assert result.matched == {1: 1}


@pytest.mark.parametrize("detections", [(), ((1, 10, A, 0.2),)], ids=["none", "none that counts"])
def test_no_detections(detections: Any) -> None:
    result = confusion(content((1, 10, A), (2, 20, B)), *detections)
    assert result.matrix[:, 3].tolist() == [1, 1, 0, 0]
    assert result.matrix.sum() == 2


def test_fewer_right_ones_are_worse_among_equals() -> None:
    truth = content((1, 10, A), (1, 10, B), (2, 10, A))
    assert [image.image_id for image in confusion(truth, (1, 10, A, 0.9)).worst(9)] == [2, 1]


@pytest.mark.parametrize("seed", range(20))
def test_every_object_and_every_detection_counts_once(seed: int) -> None:
    truth, detections = random_case(seed, crowds=0)
    result = confusion_of(*matches(truth, detections), 0.4)
    objects = [sum(box["category_id"] == key for box in truth["annotations"]) for key in (10, 20, 30)]
    taken = [
        sum(record["category_id"] == key and record["score"] >= 0.4 for record in detections) for key in (10, 20, 30)
    ]
    np.testing.assert_array_equal(result.matrix[:-1].sum(axis=1), objects)
    np.testing.assert_array_equal(result.matrix[:, :-1].sum(axis=0), taken)
    assert sum(image.right for image in result.images) == np.trace(result.matrix)
    assert sum(image.false for image in result.images) == result.matrix[-1].sum()
    assert sum(image.missed for image in result.images) == result.matrix[:, -1].sum()
    assert sum(image.confused for image in result.images) == sum(count for _, _, count in most_confused(result))
