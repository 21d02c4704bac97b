"""From the last layer's predictions to detectron2's ``Instances``."""

from collections.abc import Sequence

from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from torch import Tensor

from ..structures import LayerPredictions
from .geometry import box_xyxy


def top_detections(
    predictions: LayerPredictions, image_sizes: Sequence[tuple[int, int]], max_detections: int
) -> list[Instances]:
    """Keep the best pairs of a query and a class.

    Args:
        predictions: of the last decoder layer.
        image_sizes: (height, width) of each image, without its padding.
        max_detections: how many pairs to keep per image; a query can be kept with several classes.

    Returns:
        Per image, ``pred_boxes`` in pixels (not clipped), ``scores`` (0..1, falling) and ``pred_classes``.
    """
    boxes, scores, classes = best_pairs(predictions, max_detections)
    return [_instances(boxes[index], scores[index], classes[index], size) for index, size in enumerate(image_sizes)]


def best_pairs(predictions: LayerPredictions, number: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best pairs of a query and a class, D = ``number`` or all, best first.

    Returns:
        (N, D, 4) float32 boxes as (x1, y1, x2, y2), parts of the image's width and height, not clipped; (N, D) float32
        scores, 0..1; and (N, D) int64 classes.
    """
    scores, queries, classes = ranked_pairs(predictions.logits, number)
    return box_xyxy(predictions.boxes.float()).gather(1, queries[..., None].expand(-1, -1, 4)), scores, classes


def ranked_pairs(logits: Tensor, number: int) -> tuple[Tensor, Tensor, Tensor]:
    """Which pairs of a query and a class are the best, D = ``number`` or all, best first.

    Args:
        logits: (N, Q, K).
        number: how many to keep.

    Returns:
        (N, D) float32 scores, 0..1; (N, D) int64 queries; and (N, D) int64 classes.
    """
    num_classes = logits.shape[-1]
    scores = logits.float().sigmoid().flatten(1)
    scores, pairs = scores.topk(min(number, scores.shape[1]), dim=1)
    return scores, pairs // num_classes, pairs % num_classes


def at_original_size(instances: Instances, height: int, width: int) -> Instances:
    """Scale detections to the size of the image as it was, and clip them to it, by detectron2.

    Raises:
        FloatingPointError: a box is not finite.
    """
    try:
        result: Instances = detector_postprocess(instances, height, width)
    except AssertionError as error:  # detectron2 looks anyway, which takes a wait for the device
        raise FloatingPointError(
            "predicted boxes are not finite: the weights have diverged, or values overflow in this precision. Take "
            "other weights, or train with a lower SOLVER.BASE_LR."
        ) from error
    return result


def _instances(boxes: Tensor, scores: Tensor, classes: Tensor, size: tuple[int, int]) -> Instances:
    result = Instances(size)
    result.pred_boxes = Boxes(boxes)
    result.pred_boxes.scale(size[1], size[0])
    result.scores = scores
    result.pred_classes = classes
    return result
