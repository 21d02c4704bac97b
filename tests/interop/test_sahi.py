"""SAHI runs a training's config and weights, and knows its classes' names; what it does to colours."""

from typing import Any

import numpy as np
import pytest
from detectron2.structures import Instances
from sahi import AutoDetectionModel
from sahi.predict import get_prediction, get_sliced_prediction
from sahi.prediction import ObjectPrediction

import lite_detr_d2
from lite_detr_d2.data.images import read_image

from .conftest import Run

CLASSES = {"0": "ant", "1": "cat", "2": "dog"}


@pytest.fixture
def model(run: Run) -> Any:
    return AutoDetectionModel.from_pretrained(
        model_type="detectron2",
        config_path=str(run.output / "config.yaml"),
        model_path=str(run.output / "model_final.pth"),
        confidence_threshold=0.0,
        device="cpu",
    )


def assert_equal(found: list[ObjectPrediction], expected: Instances) -> None:
    """SAHI leaves boxes and scores as they are."""
    assert len(found) == len(expected) > 0
    boxes = np.array([each.bbox.to_xyxy() for each in found])
    np.testing.assert_allclose(boxes, expected.pred_boxes.tensor.numpy(), atol=1e-3)
    np.testing.assert_allclose([each.score.value for each in found], expected.scores.numpy(), atol=1e-5)
    names = [CLASSES[str(number)] for number in expected.pred_classes.tolist()]
    assert [each.category.name for each in found] == names


def test_it_knows_the_names_of_the_classes(model: Any) -> None:
    assert model.category_mapping == CLASSES


def test_told_that_nothing_is_to_be_swapped_it_finds_what_we_find(run: Run, model: Any) -> None:
    model.model.input_format = None
    expected = lite_detr_d2.load(run.output)(run.image)["instances"]
    for image in (str(run.image), read_image(run.image)):
        assert_equal(get_prediction(image, model).object_prediction_list, expected)


def test_it_takes_our_detector_in_the_place_of_its_own(run: Run) -> None:
    detector = lite_detr_d2.load(run.output)
    names = {str(number): name for number, name in enumerate(detector.class_names)}
    model = AutoDetectionModel.from_pretrained(
        model_type="detectron2", load_at_init=False, category_mapping=names, confidence_threshold=0.0
    )
    model.model = detector
    found = get_prediction(str(run.image), model).object_prediction_list
    assert_equal(found, detector(run.image)["instances"])


def test_left_alone_it_gives_red_for_blue(run: Run, model: Any) -> None:
    """Where this fails, SAHI has been mended, and the page on it has to be, too.

    Its arrays are RGB. It swaps red and blue where the config says BGR, so as to give detectron2's DefaultPredictor
    what that takes, BGR; and leaves them where it says RGB, where DefaultPredictor swaps them.
    """
    swapped = lite_detr_d2.load(run.output)(read_image(run.image), format="BGR")["instances"]
    assert_equal(get_prediction(str(run.image), model).object_prediction_list, swapped)


def test_slices_are_put_together(run: Run, model: Any) -> None:
    model.model.input_format = None
    detector, picture = lite_detr_d2.load(run.output), read_image(run.image)
    result = get_sliced_prediction(
        str(run.image),
        model,
        slice_height=48,
        slice_width=32,
        overlap_width_ratio=0.0,
        perform_standard_pred=False,
        postprocess_type="NMS",
        postprocess_match_threshold=1.1,  # IoU: nothing is thrown away
    )
    found = result.object_prediction_list
    assert {each.category.name for each in found} <= set(CLASSES.values())
    scores, boxes = [], []
    for left in (0, 32):
        expected = detector(np.ascontiguousarray(picture[:, left : left + 32]))["instances"]
        scores += expected.scores.tolist()
        boxes += (expected.pred_boxes.tensor + expected.pred_boxes.tensor.new_tensor([left, 0, left, 0])).tolist()
    assert len(found) == len(scores)
    order, expected_order = np.argsort([each.score.value for each in found]), np.argsort(scores)
    np.testing.assert_allclose(
        np.array([each.score.value for each in found])[order], np.array(scores)[expected_order], atol=1e-5
    )
    np.testing.assert_allclose(
        np.array([each.bbox.to_xyxy() for each in found])[order], np.array(boxes)[expected_order], atol=1e-3
    )
