"""Each kind of error, by hand: how many there are, and what AP50 gains where they are mended."""

from typing import Any

import numpy as np
import pytest

from lite_detr_d2.evaluation.errors import ERRORS, ap50_by_class, error_costs
from lite_detr_d2.evaluation.matches import matches_of
from lite_detr_d2.evaluation.scoring import evaluate_boxes

from .boxes import Box, content, found, matches, random_case

A: Box = (10, 10, 40, 40)
B: Box = (100, 100, 40, 40)
NEAR_B: Box = (120, 100, 40, 40)  # an IoU of 1/3
BESIDE_B: Box = (130, 100, 40, 40)  # an IoU of 1/7
FAR: Box = (10, 150, 40, 40)
HALF = 100 * 51 / 101  # AP50 of what finds half of the objects, and nothing else

TWO = content((1, 10, A), (1, 10, B))
RIGHT = (1, 10, A, 0.9)


def counted(truth: Any, *detections: tuple[int, int, Box, float]) -> dict[str, tuple[int, float]]:
    """The kinds of errors that there are: how many, and what they cost."""
    result = error_costs(*matches(truth, found(*detections)))
    assert tuple(result) == ERRORS
    assert all(cost.ap50_gain == 0 for cost in result.values() if cost.count == 0)
    return {name: (cost.count, cost.ap50_gain) for name, cost in result.items() if cost.count}


def test_nothing_is_wrong() -> None:
    assert counted(TWO, RIGHT, (1, 10, B, 0.8)) == {}


def test_missed() -> None:
    assert counted(TWO, RIGHT) == {"missed": (1, pytest.approx(100 - HALF))}


def test_classification() -> None:
    # It is about B, which is not missed.
    assert counted(TWO, RIGHT, (1, 20, B, 0.8)) == {"classification": (1, pytest.approx(100 - HALF))}


def test_localisation() -> None:
    assert counted(TWO, RIGHT, (1, 10, NEAR_B, 0.8)) == {"localisation": (1, pytest.approx(100 - HALF))}


def test_both() -> None:
    """As there are objects of its class, it costs half of what is found below it."""
    truth = content((1, 10, A), (1, 10, B), (2, 20, A))
    result = counted(truth, RIGHT, (1, 20, NEAR_B, 0.95), (2, 20, A, 0.9))
    assert result == {"both": (1, pytest.approx(50 / 2)), "missed": (1, pytest.approx((100 - HALF) / 2))}


def test_duplicate() -> None:
    # Above the second object stand the first and its duplicate: a precision of 2/3 for recalls above 0.5.
    result = counted(TWO, RIGHT, (1, 10, (11, 10, 40, 40), 0.8), (1, 10, B, 0.7))
    assert result == {"duplicate": (1, pytest.approx(100 * 50 / 101 / 3))}


@pytest.mark.parametrize("box", [FAR, (136.5, 100, 40, 40)], ids=["nothing", "an IoU below 0.1"])
def test_background(box: Box) -> None:
    result = counted(TWO, (1, 10, box, 0.95), RIGHT, (1, 10, B, 0.7))
    assert result == {"background": (1, pytest.approx(100 / 3))}


def test_in_an_image_without_objects_all_is_background() -> None:
    assert counted(content((1, 10, A)), RIGHT, (2, 10, A, 0.95)) == {"background": (1, pytest.approx(50))}


def test_the_limits() -> None:
    """An IoU of 0.5 is right, and one of 0.1 localisation."""
    one = content((1, 10, (0, 0, 40, 40)))
    assert counted(one, (1, 10, (0, 0, 20, 40), 0.8)) == {}
    assert counted(one, (1, 10, (0, 0, 4, 40), 0.8)) == {"localisation": (1, pytest.approx(100))}


def test_of_several_about_an_object_the_highest_score_is_mended() -> None:
    """The others go away: what is left is right."""
    result = counted(TWO, RIGHT, (1, 10, NEAR_B, 0.8), (1, 10, (118, 100, 40, 40), 0.7))
    assert result == {"localisation": (2, pytest.approx(100 - HALF))}
    # Of two kinds, mending the lower one alone removes it.
    result = counted(TWO, RIGHT, (1, 10, NEAR_B, 0.8), (1, 20, B, 0.7))
    assert result == {"localisation": (1, pytest.approx(100 - HALF)), "classification": (1, pytest.approx(0))}


def test_what_is_about_a_found_object_goes_away() -> None:
    # Its class has no objects, and it is about one that is found.
    assert counted(TWO, RIGHT, (1, 10, B, 0.8), (1, 20, B, 0.95)) == {"classification": (1, pytest.approx(0))}
    result = counted(TWO, RIGHT, (1, 10, NEAR_B, 0.95), (1, 10, B, 0.8))
    assert result == {"localisation": (1, pytest.approx(100 / 3))}


def test_classes_that_are_missed_altogether() -> None:
    truth = content((1, 10, A), (1, 20, B))
    assert counted(truth, RIGHT) == {"missed": (1, pytest.approx(50))}
    assert counted(truth, RIGHT, (1, 20, FAR, 0.1)) == {
        "background": (1, pytest.approx(0)),
        "missed": (1, pytest.approx(50)),
    }


def test_no_detections_at_all() -> None:
    assert counted(TWO) == {"missed": (2, pytest.approx(100))}


def test_nothing_to_find() -> None:
    assert counted(content(), RIGHT) == {"background": (1, 0.0)}
    assert counted(content()) == {}


class TestCrowds:
    """They are nothing to find; what is in one of its class does not count."""

    truth = content((1, 10, A), crowds=((1, 10, B),))

    def test_a_crowd_is_not_missed(self) -> None:
        assert counted(self.truth, RIGHT) == {}

    def test_detections_in_it_are_no_errors(self) -> None:
        inside = [(1, 10, (102.0 + 5 * number, 102.0, 10.0, 10.0), 0.95) for number in range(3)]
        assert counted(self.truth, RIGHT, *inside) == {}

    def test_of_another_class_they_are(self) -> None:
        assert counted(self.truth, RIGHT, (1, 20, (102, 102, 10, 10), 0.95)) == {"background": (1, pytest.approx(0))}

    def test_beside_it_there_is_background(self) -> None:
        """However much of the crowd a detection covers: nothing is there that it could be moved to."""
        assert counted(self.truth, (1, 10, BESIDE_B, 0.95), RIGHT) == {"background": (1, pytest.approx(50))}


@pytest.mark.parametrize("seed", range(20))
def test_errors_are_what_is_not_right(seed: int) -> None:
    truth, detections = random_case(seed)
    images, num_classes = matches(truth, detections)
    wrong = sum(int((image.found < 0).sum()) for image in images)
    result = error_costs(images, num_classes)
    assert wrong > 0
    assert sum(cost.count for name, cost in result.items() if name != "missed") == wrong
    unfound = sum(len(image.objects) - int((image.found >= 0).sum()) for image in images)
    assert 0 < result["missed"].count <= unfound
    assert all(cost.ap50_gain >= 0 for cost in result.values())


@pytest.mark.parametrize("seed", range(20))
def test_ap50_is_cocos(seed: int) -> None:
    truth, detections = random_case(seed)
    for detection in detections:  # equal scores are ordered as COCO orders them
        detection["score"] = round(detection["score"], 1)
    evaluation = evaluate_boxes(truth, detections)
    images = matches_of(evaluation)
    objects = np.bincount(np.concatenate([image.objects for image in images]), minlength=3)
    ours = ap50_by_class(
        np.concatenate([image.scores for image in images]),
        np.concatenate([image.labels for image in images]),
        np.concatenate([image.found for image in images]) >= 0,
        objects,
    )
    theirs = evaluation.eval["precision"][0, :, :, 0, -1].mean(axis=0)
    assert (theirs[objects > 0] > 0).all()
    np.testing.assert_allclose(ours, np.where(objects > 0, theirs, 0), rtol=0, atol=1e-12)
