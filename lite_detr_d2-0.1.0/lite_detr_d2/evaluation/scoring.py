"""COCO's evaluation of detections."""

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..data.source import Content
from ..engine.evaluation import counted_detections


def evaluate_boxes(content: Content, records: Sequence[dict[str, Any]]) -> COCOeval:
    """Score detections as the evaluation of a training does: as many per class and image count as there.

    Args:
        content: what there is to find, in COCO's format; its annotations get keys that pycocotools needs.
        records: what was found, as in COCO's list of results; they get ``id``, ``area`` and ``iscrowd``. There may be
            none.

    Returns:
        An evaluation that is accumulated. Its last number of counted detections is the one that AP is of.
    """
    with redirect_stdout(io.StringIO()):  # pycocotools' own lines
        truth, found = COCO(), COCO()
        truth.dataset = {"info": {}, **content}  # some versions of pycocotools fail without it
        truth.createIndex()
        if records:
            found = truth.loadRes(list(records))  # which does not take an empty list
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.params.maxDets = [1, 10, counted_detections(truth.imgToAnns.values())]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation
