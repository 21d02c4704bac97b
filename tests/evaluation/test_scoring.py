"""COCO's evaluation, as a training does it."""

import copy
import io
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lite_detr_d2.evaluation.scoring import evaluate_boxes

from .boxes import Box, content, found, random_case


def by_pycocotools(truth: Any, detections: list[dict[str, Any]]) -> COCOeval:
    with redirect_stdout(io.StringIO()):
        api = COCO()
        api.dataset = {"info": {}, **copy.deepcopy(truth)}
        api.createIndex()
        result = COCOeval(api, api.loadRes(copy.deepcopy(detections)), "bbox")
        result.evaluate()
        result.accumulate()
    return result


@pytest.mark.parametrize("seed", range(10))
def test_it_is_pycocotools(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    truth, detections = random_case(seed)
    expected = by_pycocotools(truth, detections)
    ours = evaluate_boxes(truth, detections)
    for key in ("precision", "recall", "scores"):
        np.testing.assert_array_equal(ours.eval[key], expected.eval[key])
    assert capsys.readouterr().out == ""


def test_without_detections_nothing_is_found() -> None:
    evaluation = evaluate_boxes(content((1, 10, (10, 10, 40, 40))), [])
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    assert (precision[:, :, 0] == 0).all()
    assert (precision[:, :, 1:] == -1).all()


def test_as_many_detections_count_as_there_are_boxes() -> None:
    boxes: list[Box] = [(14.0 * column, 14.0 * row, 10.0, 10.0) for column in range(12) for row in range(10)]
    evaluation = evaluate_boxes(content(*((1, 10, box) for box in boxes)), found(*((1, 10, box, 0.9) for box in boxes)))
    assert evaluation.params.maxDets == [1, 10, 120]
    assert evaluation.eval["recall"][0, 0, 0, -1] == 1
