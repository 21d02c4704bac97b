"""What was found in each image, and of what: COCO's matches at an IoU of 0.5, of all classes together."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools.cocoeval import COCOeval
from pycocotools.mask import iou

FOUND = 0.5  # IoU, at least

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ImageMatches:
    """Detections of an image that count, highest score first, and its objects. Crowds are neither.

    Detections that COCO does not count are left out: those in a crowd of their class, and those beyond the number that
    counts.

    Attributes:
        image_id: of the image.
        ids: (D,) of detections, in COCO's list of results.
        boxes: (D, 4) of detections, as (x, y, w, h) in pixels.
        labels: (D,) index of the class, in the order of the ids.
        scores: (D,) 0..1.
        found: (D,) index of the object that a detection is right about; -1 if none.
        object_ids: (G,) of the objects' annotations.
        objects: (G,) index of each object's class.
        ious: (D, G) of each detection with each object.
    """

    image_id: Any
    ids: Indices
    boxes: Floats
    labels: Indices
    scores: Floats
    found: Indices
    object_ids: Indices
    objects: Indices
    ious: Floats

    def above(self, threshold: float) -> "ImageMatches":
        """The same of detections that score so much, or more. COCO matches these no otherwise without the rest."""
        kept = self.scores >= threshold
        return ImageMatches(
            self.image_id,
            self.ids[kept],
            self.boxes[kept],
            self.labels[kept],
            self.scores[kept],
            self.found[kept],
            self.object_ids,
            self.objects,
            self.ious[kept],
        )


def matches_of(evaluation: COCOeval) -> list[ImageMatches]:
    """Gather the matches of each image, in the order of their ids."""
    images = np.array(evaluation.params.imgIds).tolist()
    per_class = len(evaluation.params.areaRng) * len(images)  # results of objects of all sizes come first
    return [
        _of_image(evaluation, image, evaluation.evalImgs[position::per_class]) for position, image in enumerate(images)
    ]


def _of_image(evaluation: COCOeval, image: Any, results: list[dict[str, Any] | None]) -> ImageMatches:
    truth, objects = [], []
    detections: list[tuple[float, int, int, Any]] = []  # score, class, id, id of the object
    for label, result in enumerate(results):
        if result is None:
            continue
        kept = [
            identifier for identifier, ignored in zip(result["gtIds"], result["gtIgnore"], strict=True) if not ignored
        ]
        truth += kept
        objects += [label] * len(kept)
        fields = (result["dtScores"], result["dtIds"], result["dtMatches"][0], result["dtIgnore"][0])
        detections += [
            (score, label, identifier, match)
            for score, identifier, match, ignored in zip(*fields, strict=True)
            if not ignored
        ]
    detections.sort(key=lambda detection: -detection[0])
    places = {identifier: place for place, identifier in enumerate(truth)}
    boxes = [evaluation.cocoDt.anns[identifier]["bbox"] for _, _, identifier, _ in detections]
    found_boxes = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    true_boxes = np.array([evaluation.cocoGt.anns[each]["bbox"] for each in truth], dtype=np.float64).reshape(-1, 4)
    return ImageMatches(
        image,
        np.array([identifier for _, _, identifier, _ in detections], dtype=np.int64),
        found_boxes,
        np.array([label for _, label, _, _ in detections], dtype=np.int64),
        np.array([score for score, _, _, _ in detections], dtype=np.float64),
        np.array([places[match] if match else -1 for _, _, _, match in detections], dtype=np.int64),
        np.array(truth, dtype=np.int64),
        np.array(objects, dtype=np.int64),
        np.array(iou(found_boxes, true_boxes, [0] * len(true_boxes))).reshape(len(found_boxes), len(true_boxes)),
    )
