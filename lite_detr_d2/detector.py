"""A DETR with multi-scale features, as one flow from images to losses or detections."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import configurable
from detectron2.modeling.backbone import Backbone
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import ImageList
from torch import Tensor, nn
from torchvision.ops import box_convert

from .errors import InputError
from .modeling.criterion import Criterion
from .modeling.decoder import DecodedLayer, Decoder
from .modeling.denoising import ContrastiveDenoising
from .modeling.flatten import FeatureFlattener
from .modeling.matcher import HungarianMatcher
from .modeling.neck import ChannelMapper
from .modeling.postprocess import top_detections
from .modeling.query_selection import QuerySelection
from .structures import FlattenedFeatures, LayerPredictions, Predictions, QueryGroup, Targets, attention_mask

Inputs = Sequence[dict[str, Any]]


class DetrDetector(nn.Module):
    """Images -> backbone -> neck -> encoder -> query groups -> decoder -> losses or detections.

    It takes detectron2's batched inputs and gives what detectron2 expects: in training a dict of losses, else a list of
    ``{"instances": Instances}`` at each image's original size.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        in_features: Sequence[str],
        neck: ChannelMapper,
        flatten: FeatureFlattener,
        encoder: nn.Module,
        query_selection: QuerySelection,
        denoising: ContrastiveDenoising | None,
        decoder: Decoder,
        matcher: HungarianMatcher,
        criterion: Criterion,
        pixel_stats: tuple[Sequence[float], Sequence[float]],
        max_detections: int,
    ) -> None:
        """Assemble a detector.

        Args:
            backbone: detectron2 backbone.
            in_features: which of its outputs to use, fine to coarse.
            neck: maps those to one width and adds coarser levels.
            flatten: makes one sequence of the levels.
            encoder: refines its tokens, see ``modeling.encoder``.
            query_selection: makes the matching queries.
            denoising: makes a further group of queries in training; None for none.
            decoder: decodes all groups side by side, and predicts.
            matcher: assigns targets to the matching queries.
            criterion: computes the losses.
            pixel_stats: mean and standard deviation of each channel, in the units of the input images.
            max_detections: how many detections to keep per image.
        """
        super().__init__()
        self.backbone = backbone
        self.in_features = tuple(in_features)
        self.neck = neck
        self.flatten = flatten
        self.encoder = encoder
        self.query_selection = query_selection
        self.denoising = denoising
        self.decoder = decoder
        self.matcher = matcher
        self.criterion = criterion
        self.max_detections = max_detections
        mean, std = (torch.tensor(list(values), dtype=torch.float32).view(-1, 1, 1) for values in pixel_stats)
        self.register_buffer("pixel_mean", mean, persistent=False)
        self.register_buffer("pixel_std", std, persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the model's inputs go."""
        device: torch.device = self.pixel_mean.device  # type: ignore[assignment]
        return device

    @property
    def num_classes(self) -> int:
        """K, the number of classes that the detector tells apart."""
        return int(self.query_selection.head.class_embed.out_features)

    def forward(self, batched_inputs: Inputs) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Detect, or compute the losses in training.

        Args:
            batched_inputs: per image, ``image`` (3, H, W), and in training ``instances`` with ``gt_boxes`` and
                ``gt_classes``; ``height`` and ``width`` of the wanted result are optional.

        Raises:
            InputError: in training, when an image has no annotations field, or a class id outside 0..K - 1.
            FloatingPointError: in training, when predictions are not finite, naming the image.
        """
        images, padding = self.preprocess(batched_inputs)
        maps = self.backbone(images.tensor)
        features = self.flatten(self.neck([maps[name] for name in self.in_features]), padding)
        features = features.with_tokens(self.encoder(features))
        matching, proposals = self._matching_queries(features)
        if not self.training:
            last = self.decoder.predict(self._decode([matching], features), -1)
            return self.postprocess(last, images, batched_inputs)
        targets = self.prepare_targets(batched_inputs)
        groups = [matching] if self.denoising is None else [matching, self.denoising(targets)]
        decoded = self._decode(groups, features)
        layers = tuple(self.decoder.predict(decoded, index) for index in range(len(decoded)))
        return self.criterion(Predictions(layers, proposals), groups, targets)

    def preprocess(self, batched_inputs: Inputs) -> tuple[ImageList, Tensor]:
        """Normalise the images and pad them to the largest height and width among them.

        Returns:
            The batch, and (N, H, W) bool, True where a pixel is padding.
        """
        normalised = [(item["image"].to(self.device) - self.pixel_mean) / self.pixel_std for item in batched_inputs]
        images = ImageList.from_tensors(normalised)
        padding = torch.ones_like(images.tensor[:, 0], dtype=torch.bool)
        for mask, (height, width) in zip(padding, images.image_sizes, strict=True):
            mask[:height, :width] = False
        return images, padding

    def prepare_targets(self, batched_inputs: Inputs) -> list[Targets]:
        """Move the ground truth to the device, boxes relative to each image's size."""
        targets = []
        for item in batched_inputs:
            name = str(item.get("file_name", item.get("image_id", "without a file_name")))
            if "instances" not in item:
                raise InputError(f"Image {name} has no instances: training needs a dataset with annotations.")
            instances = item["instances"]
            labels = instances.gt_classes
            if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
                raise InputError(
                    f"Image {name} has a class id outside 0..{self.num_classes - 1}: {sorted(set(labels.tolist()))}. "
                    "MODEL.LITE_DETR.NUM_CLASSES must be the number of classes of the dataset."
                )
            height, width = instances.image_size
            size = torch.tensor([width, height, width, height], dtype=torch.float32)
            boxes = box_convert(
                instances.gt_boxes.tensor.float() / size.to(instances.gt_boxes.device), "xyxy", "cxcywh"
            )
            targets.append(Targets(labels=labels.to(self.device), boxes=boxes.to(self.device), name=name))
        return targets

    def postprocess(
        self, predictions: LayerPredictions, images: ImageList, batched_inputs: Inputs
    ) -> list[dict[str, Any]]:
        """Make detections at each image's original size."""
        sizes = [(int(height), int(width)) for height, width in images.image_sizes]
        results = []
        for instances, item, (height, width) in zip(
            top_detections(predictions, sizes, self.max_detections), batched_inputs, sizes, strict=True
        ):
            size = (item.get("height", height), item.get("width", width))
            results.append({"instances": detector_postprocess(instances, *size)})
        return results

    def _matching_queries(self, features: FlattenedFeatures) -> tuple[QueryGroup, LayerPredictions]:
        content, reference, proposals = self.query_selection(features)
        return QueryGroup(name="matching", content=content, reference=reference, assign=self.matcher), proposals

    def _decode(self, groups: Sequence[QueryGroup], features: FlattenedFeatures) -> tuple[DecodedLayer, ...]:
        content = torch.cat([group.content for group in groups], dim=1)
        reference = torch.cat([group.reference for group in groups], dim=1)
        decoded: tuple[DecodedLayer, ...] = self.decoder(content, reference, features, attention_mask(groups))
        return decoded
