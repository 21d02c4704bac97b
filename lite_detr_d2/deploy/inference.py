"""A detector as a function of tensors: the form of a model that is exported.

Letters in shapes: N images, H and W their padded size, S encoder tokens, Q queries, K classes, D detections.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..detector import DetrDetector
from ..modeling.postprocess import best_pairs
from ..modeling.query_selection import QuerySelection
from ..structures import LayerPredictions

Check = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Refuses images and sizes that a model is not exported for, and returns those that it is."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""In which products can be computed, and what follows from them, by name."""

INPUTS = ("images", "sizes")
OUTPUTS = ("boxes", "scores", "labels")
INSPECTED = ("tokens", "selected", "logits", "query_boxes")


@dataclass(frozen=True)
class Detections:
    """The best detections of each image, best first.

    Attributes:
        boxes: (N, D, 4) float32, (x1, y1, x2, y2) in pixels of the resized image, clipped to it.
        scores: (N, D) float32, 0..1, falling.
        labels: (N, D) int64, 0..K - 1.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Inspection:
    """What a model computes on the way to detections, to be compared between runtimes.

    Attributes:
        tokens: (N, S, C), the encoder's.
        padding: (N, S) bool, True where a token lies in the padding of its image: what it is does not matter.
        selected: (N, Q) int64, the tokens whose proposals the queries start from; None where queries are learned.
        usable: (N, S) bool, which tokens have proposals. All others are alike, so that it does not matter which of them
            is selected where there are too few; None where queries are learned.
        predictions: of the last decoder layer.
    """

    tokens: Tensor
    padding: Tensor
    selected: Tensor | None
    usable: Tensor | None
    predictions: LayerPredictions


class InferenceModel(nn.Module):
    """Images and their sizes -> boxes, scores and labels, with everything inside that a runtime is to compute.

    Nothing in it depends on values: sizes and batch may be symbols of ``torch.export``.
    """

    def __init__(self, detector: DetrDetector, check: Check | None = None, dtype: str = "float32") -> None:
        """Wrap a detector.

        Args:
            detector: in evaluation mode.
            check: looks at the inputs first.
            dtype: "bfloat16" for autocast to it; of others it computes in float32, as of files in int8.
        """
        super().__init__()
        self.detector = detector
        self.check = check
        self.dtype = dtype

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Detect.

        Args:
            images: (N, 3, H, W) uint8, in RGB, resized, zero-padded right and bottom. The images of a detector whose
                ``INPUT.FORMAT`` is neither RGB nor BGR are in that, with as many channels as it has.
            sizes: (N, 2) int64, (height, width) of each image without its padding.

        Returns:
            ``boxes``, ``scores`` and ``labels`` of :class:`Detections`.
        """
        images, sizes = self.checked(images, sizes)
        found = self.detections(self.inspect(images, sizes), sizes)
        return found.boxes, found.scores, found.labels

    def checked(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """The inputs, if they pass the check."""
        return (images, sizes) if self.check is None else self.check(images, sizes)

    def detect(self, images: Tensor, sizes: Tensor, *, is_padded: bool = True) -> Detections:
        """Detect, by the detector's function of tensors, which may be compiled.

        ``images`` and ``sizes`` are as of :meth:`forward`; ``is_padded`` says whether any image may be padded.
        """
        with self.precision(images.device):
            predictions = self.detector.detect(*self._normalised(images, sizes), is_padded)
        return self._best(predictions, sizes)

    def inspect(
        self, images: Tensor, sizes: Tensor, selected: Tensor | None = None, *, is_padded: bool = True
    ) -> Inspection:
        """Compute what detections are made of; with ``selected``, of these tokens instead of the best ones.

        ``is_padded`` says whether any of the images may be padded.
        """
        with self.precision(images.device):
            return self._inspect(images, sizes, selected, is_padded)

    def precision(self, device: torch.device) -> AbstractContextManager[Any]:
        """The context in which a device computes the detector in the type that was asked for."""
        # Without autocast no context at all: torch.export would make a subprogram of it.
        return torch.autocast(device.type, torch.bfloat16) if self.dtype == "bfloat16" else nullcontext()

    def _inspect(self, images: Tensor, sizes: Tensor, selected: Tensor | None, is_padded: bool) -> Inspection:
        detector = self.detector
        features = detector.encode(*self._normalised(images, sizes), is_padded)
        selection = detector.query_selection
        if isinstance(selection, QuerySelection):
            tokens, anchors = selection.candidates(features)
            if selected is None:
                selected = selection.rank(tokens, selection.num_queries)
            queries, _, _ = selection.select(tokens, anchors, selected, features.tokens)
            usable = anchors[..., 0].isfinite()
        else:
            queries, _ = selection(features)
            usable = None
        return Inspection(features.tokens, features.padding, selected, usable, detector.predict(queries, features))

    def detections(self, inspection: Inspection, sizes: Tensor) -> Detections:
        """Keep the best pairs of a query and a class."""
        return self._best(inspection.predictions, sizes)

    def _normalised(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """What the detector takes: normalised images that are zero where they are padded, and (N, H, W) where."""
        padding = _padding(images, sizes)
        ordered = images.flip(1) if self.detector.input_format == "BGR" else images
        return self.detector.normalise(ordered).masked_fill(padding[:, None], 0.0), padding

    def _best(self, predictions: LayerPredictions, sizes: Tensor) -> Detections:
        boxes, scores, labels = best_pairs(predictions, self.detector.max_detections)
        limits = sizes.flip(1).repeat(1, 2)[:, None].float()
        return Detections(boxes.clamp(0, 1) * limits, scores, labels)


class InspectedModel(nn.Module):
    """An :class:`InferenceModel` that also puts out what it computes on the way."""

    def __init__(self, model: InferenceModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """``OUTPUTS``, then ``INSPECTED``, without ``selected`` where queries are learned; floats are float32."""
        images, sizes = self.model.checked(images, sizes)
        inspection = self.model.inspect(images, sizes)
        found = self.model.detections(inspection, sizes)
        selected = () if inspection.selected is None else (inspection.selected,)
        predictions = inspection.predictions.logits.float(), inspection.predictions.boxes.float()
        return found.boxes, found.scores, found.labels, inspection.tokens.float(), *selected, *predictions


def _padding(images: Tensor, sizes: Tensor) -> Tensor:
    """(N, H, W) bool, True where a pixel is padding."""
    rows = torch.arange(images.shape[2], device=sizes.device)[None, :, None]
    columns = torch.arange(images.shape[3], device=sizes.device)[None, None, :]
    return (rows >= sizes[:, 0, None, None]) | (columns >= sizes[:, 1, None, None])
