"""supervision takes detections as they are, and draws them."""

import numpy as np
import supervision as sv

import lite_detr_d2
from lite_detr_d2.data.images import read_image

from .conftest import Run


def test_detections_are_ours(run: Run) -> None:
    detector = lite_detr_d2.load(run.output)
    found = detector(run.image)
    detections, ours = sv.Detections.from_detectron2(found), found["instances"]
    assert len(detections) == len(ours) > 0
    np.testing.assert_array_equal(detections.xyxy, ours.pred_boxes.tensor.numpy())
    np.testing.assert_array_equal(detections.confidence, ours.scores.numpy())
    np.testing.assert_array_equal(detections.class_id, ours.pred_classes.numpy())
    assert {detector.class_names[number] for number in detections.class_id} <= {"ant", "cat", "dog"}


def test_none_are_none(run: Run) -> None:
    found = lite_detr_d2.load(run.output)(run.image, threshold=1.0)
    assert sv.Detections.from_detectron2(found).is_empty()


def test_they_are_filtered_and_drawn(run: Run) -> None:
    detector = lite_detr_d2.load(run.output)
    detections = sv.Detections.from_detectron2(detector(run.image))
    best = detections[detections.confidence >= np.sort(detections.confidence)[-3]].with_nms(0.5)
    assert 1 <= len(best) <= 3
    picture = read_image(run.image)
    drawn = sv.BoxAnnotator(thickness=1).annotate(picture.copy(), best)
    labels = [detector.class_names[number] for number in best.class_id]
    drawn = sv.LabelAnnotator().annotate(drawn, best, labels)
    assert drawn.shape == picture.shape
    assert (drawn != picture).any()
