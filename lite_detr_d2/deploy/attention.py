"""What trained detectors attend to in an image, as a picture."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.ops import box_iou

from ..data.images import read_image
from ..errors import InputError
from ..modeling.geometry import box_xyxy
from ..modeling.key_aware import KeyAwareDeformableAttention
from ..modeling.postprocess import ranked_pairs
from ..structures import LayerPredictions
from ..visualization import View, draw_attention
from ..visualization.sampling import Sampling, attention_layers, observe
from ..wording import shown
from .inference import InferenceModel
from .preparation import Preparation
from .run import TrainedModel

Point = tuple[float, float]

_DOUBTFUL = 0.3  # score

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NamedModel:
    """A model, and what it is called in the picture and in messages."""

    name: str
    model: TrainedModel


@dataclass(frozen=True)
class Wanted:
    """What is to be seen.

    Attributes:
        point: (x, y) in pixels of the image: the query is the token nearest to it; or None, for
        object: a detection, which count from 1, the best one: with ``decoder`` the query that detects it, else the
            token nearest to the centre of its box.
        decoder: look at the decoder's attention instead of the encoder's.
        layer: which, from 0; None for the last.
        level: of the token, from 0, the finest; None for the coarsest level that the layer updates.
    """

    point: Point | None = None
    object: int = 1
    decoder: bool = False
    layer: int | None = None
    level: int | None = None

    @property
    def part(self) -> str:
        """Of the detector, whose attention is looked at."""
        return "decoder" if self.decoder else "encoder"


@dataclass(frozen=True)
class Detected:
    """What a detector finds, D pairs of a query and a class, best first; ``boxes`` (x1, y1, x2, y2), 0..1."""

    boxes: Tensor
    scores: Tensor
    queries: Tensor
    classes: Tensor

    def at(self, box: Tensor) -> int | None:
        """The detection whose score times overlap (IoU) with a box (x1, y1, x2, y2) is the largest, if any overlaps."""
        fits = box_iou(box[None], self.boxes)[0] * self.scores
        return int(fits.argmax()) if bool(fits.any()) else None


@dataclass(frozen=True)
class Look:
    """One model at work on the image: ``name`` and ``title`` say which and where, and then what is seen."""

    name: str
    title: str
    class_names: list[str]
    sampling: Sampling
    detected: Detected


def attention_figure(models: Sequence[NamedModel], image: Path, wanted: Wanted, *, top: int) -> Figure:
    """Draw what models attend to, one row a model.

    All look from the same point of the image. Where that is an object, it is one that the first model detects; the
    decoder of another looks from the detection of its own whose score times overlap (IoU) with that is the largest.

    Args:
        models: one at least.
        image: file.
        wanted: what is to be seen.
        top: how many locations of the query to draw.

    Raises:
        InputError: the image cannot be used, or a model or the image has no such layer, level, point or object.
        FloatingPointError: a model has diverged.
    """
    pixels = read_image(image, max_value=models[0].model.cfg.INPUT.MAX_VALUE)
    height, width = pixels.shape[:2]
    if wanted.point is not None:
        _check_point(wanted.point, (width, height), image)
    looks = [_look(named.model, named.name, image, wanted) for named in models]
    return draw_attention(pixels, _views(looks, wanted, (width, height), image), top)


def _check_point(point: Point, size: tuple[int, int], image: Path) -> None:
    if not all(0 <= place <= side for place, side in zip(point, size, strict=True)):
        raise InputError(
            f"The point {_shown(point)} is outside of {shown(image)}, which is {size[0]} x {size[1]} (width x height, "
            "upright): choose one in it."
        )


def _look(model: TrainedModel, name: str, image: Path, wanted: Wanted) -> Look:
    """Detect, and watch."""
    layers = attention_layers(getattr(model.detector, wanted.part))
    if not layers:
        other = "encoder" if wanted.decoder else "decoder"
        raise InputError(
            f"The {wanted.part} of {name} has no deformable attention, of which a picture could be made: look at its "
            f"{other}, or name another model."
        )
    number = len(layers) - 1 if wanted.layer is None else wanted.layer
    if number >= len(layers):
        raise InputError(
            f"The {wanted.part} of {name} has no layer {number} of deformable attention: choose one from 0 to "
            f"{len(layers) - 1}."
        )
    layer = layers[number]
    prepared = Preparation(model.cfg)(str(image), "RGB", "The image")
    pixels, sizes = torch.tensor(prepared.pixels)[None], torch.tensor([prepared.size])
    inference, device = InferenceModel(model.detector), model.detector.device
    sampling, inspection = observe(layer, lambda: inference.inspect(pixels.to(device), sizes.to(device)))
    detected = _detected(inspection.predictions, model.detector.max_detections)
    kind = "key-aware" if isinstance(layer, KeyAwareDeformableAttention) else "deformable"
    title = f"{name}: {kind} attention, {wanted.part} layer {number}"
    return Look(name, title, model.class_names, sampling, detected)


def _detected(predictions: LayerPredictions, number: int) -> Detected:
    """What is found in the first image."""
    scores, queries, classes = (found[0].cpu() for found in ranked_pairs(predictions.logits, number))
    boxes = box_xyxy(predictions.boxes[0].float().cpu())[queries]
    if not bool(boxes.isfinite().all() and scores.isfinite().all()):
        raise FloatingPointError("predictions are not finite: the weights have diverged. Take others.")
    return Detected(boxes, scores, queries, classes)


def _views(looks: Sequence[Look], wanted: Wanted, size: tuple[int, int], image: Path) -> list[View]:
    if wanted.point is not None:
        x, y = (place / side for place, side in zip(wanted.point, size, strict=True))
        return [_view_of_token(look, (x, y), wanted, f"point {_shown(wanted.point)}") for look in looks]
    first, number = looks[0], wanted.object
    if number > len(first.detected.scores):
        raise InputError(
            f"There is no object {number}: {first.name} detects {len(first.detected.scores)} in {shown(image)}. They "
            "count from 1, the best one."
        )
    box, score = first.detected.boxes[number - 1], float(first.detected.scores[number - 1])
    if score < _DOUBTFUL:
        logger.warning(
            "In %s, %s may be nothing: its score is low. Choose another object or image, or a --point.",
            *(shown(image), _object(first, number - 1)),
        )
    if not wanted.decoder:
        x, y = ((box[:2] + box[2:]) / 2).tolist()
        what = f"centre of {_object(first, number - 1)}"
        others = [_view_of_token(look, (x, y), wanted, f"{what} of the first model") for look in looks[1:]]
        return [_view_of_token(first, (x, y), wanted, what), *others]
    views = [_view_of_object(first, number - 1)]
    for look in looks[1:]:
        index = look.detected.at(box)
        if index is None:
            raise InputError(
                f"{look.name} detects nothing where {first.name} detects object {number}: choose another object."
            )
        views.append(_view_of_object(look, index))
    return views


def _view_of_token(look: Look, point: Point, wanted: Wanted, what: str) -> View:
    try:
        query = look.sampling.query_at(point, wanted.level)
    except InputError as error:
        raise InputError(f"{look.title}: {error}") from error
    return View(
        look.title, look.sampling, query, f"token of level {look.sampling.level_of(query)} nearest to the {what}"
    )


def _view_of_object(look: Look, index: int) -> View:
    return View(look.title, look.sampling, int(look.detected.queries[index]), f"query of {_object(look, index)}")


def _object(look: Look, index: int) -> str:
    name, score = look.class_names[int(look.detected.classes[index])], float(look.detected.scores[index])
    return f"object {index + 1} ({name}, {score:.0%})"


def _shown(point: Point) -> str:
    return f"{point[0]:g}, {point[1]:g}"
