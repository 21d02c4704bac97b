"""AP by class, and the score from which on a detection is best taken."""

from typing import Any

import numpy as np
import pytest

from lite_detr_d2.evaluation.matches import matches_of
from lite_detr_d2.evaluation.per_class import ClassScore, class_table, score_classes
from lite_detr_d2.evaluation.scoring import evaluate_boxes
from lite_detr_d2.evaluation.threshold import Threshold, best_threshold

from .boxes import CLASSES, Box, content, found, random_case

A: Box = (10, 10, 40, 40)
B: Box = (100, 100, 40, 40)
FAR: Box = (10, 150, 40, 40)
NAMES = list(CLASSES.values())


def scores(truth: Any, *detections: tuple[int, int, Box, float]) -> tuple[list[ClassScore], Threshold]:
    evaluation = evaluate_boxes(truth, found(*detections))
    return score_classes(evaluation, NAMES), best_threshold(matches_of(evaluation), len(NAMES))


def test_by_hand() -> None:
    truth = content((1, 10, A), (1, 10, B), (2, 20, A), crowds=((2, 20, B),))
    detections = [
        (1, 10, A, 0.9),  # right
        (1, 10, FAR, 0.6),
        (1, 10, B, 0.5),  # right: F1 is 2 * (2/3) / (5/3)
        (1, 10, FAR, 0.4),
        (2, 20, (10, 10, 40, 26), 0.3),  # an IoU of 0.65
    ]
    (ant, bee, cat), threshold = scores(truth, *detections)
    # A precision of 1 for the 51 recalls up to a half, and then of 2/3.
    assert ant == ClassScore("ant", 2, *[pytest.approx(100 * (51 + 50 * 2 / 3) / 101)] * 2, pytest.approx(80), 0.5)
    # Four of COCO's ten thresholds: 0.5, 0.55, 0.6, 0.65.
    assert bee == ClassScore("bee", 1, pytest.approx(40), pytest.approx(100), pytest.approx(100), 0.3)
    assert cat == ClassScore("cat", 0, None, None, None, None)
    # Of all detections 2 of 4 are right about ants, an F1 of 2/3: that, and 1, is more than 0.8 and 0.
    assert threshold == Threshold(0.3, pytest.approx(100 * (2 / 3 + 1) / 2))
    assert class_table([ant, bee, cat]).splitlines() == [
        "class      objects    AP    AP50    best F1    at score",
        "-------  ---------  ----  ------  ---------  ----------",
        "ant              2  83.5    83.5       80.0       0.500",
        "bee              1  40.0   100.0      100.0       0.300",
        "Without objects: 1 (cat)",
    ]


def test_nothing_is_found() -> None:
    for detections in ([], [(1, 10, FAR, 0.9)]):
        (ant, bee, _), threshold = scores(content((1, 10, A)), *detections)
        assert ant == ClassScore("ant", 1, 0.0, 0.0, 0.0, None)
        assert bee.ap is None
        assert threshold == Threshold(None, 0.0)


def test_there_is_nothing_to_find() -> None:
    classes, threshold = scores(content(crowds=((1, 10, A),)), (1, 10, B, 0.9))
    assert classes == [ClassScore(name, 0, None, None, None, None) for name in NAMES]
    assert threshold == Threshold(None, None)


@pytest.mark.parametrize("seed", range(20))
def test_f1_is_that_of_the_detections_taken(seed: int) -> None:
    """Thresholds are tried one by one, on the detections themselves; of a class, to a hundredth of recall."""
    truth, detections = random_case(seed)
    evaluation = evaluate_boxes(truth, detections)
    images = matches_of(evaluation)
    candidates = np.unique([detection["score"] for detection in detections])
    curves = []
    for label, score in enumerate(score_classes(evaluation, NAMES)[:2]):
        objects = sum(int((image.objects == label).sum()) for image in images)
        assert score.objects == objects > 0
        taken, right = np.zeros(len(candidates)), np.zeros(len(candidates))
        for image in images:
            is_taken = (image.scores[:, None] >= candidates) & (image.labels == label)[:, None]
            taken += is_taken.sum(axis=0)
            right += (is_taken & (image.found >= 0)[:, None]).sum(axis=0)
        curves.append(100 * 2 * right / (taken + objects))
        assert score.best_f1 == pytest.approx(curves[-1].max(), abs=1)
        assert score.threshold is not None
        assert curves[-1][np.searchsorted(candidates, score.threshold)] == pytest.approx(curves[-1].max(), abs=1)
    mean = np.mean(curves, axis=0)
    assert best_threshold(images, len(NAMES)) == Threshold(
        pytest.approx(candidates[np.flatnonzero(mean == mean.max())[-1]]), pytest.approx(mean.max())
    )
