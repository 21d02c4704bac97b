"""A DETR with multi-scale features, as one flow from images to losses or detections."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from detectron2.config import configurable
from detectron2.modeling.backbone import Backbone
from detectron2.structures import ImageList
from torch import Tensor, nn
from torchvision.ops import box_convert

from .errors import InputError
from .modeling.attention_map import attention_map
from .modeling.criterion import Criterion
from .modeling.decoder import DecodedLayer, Decoder
from .modeling.denoising import ContrastiveDenoising
from .modeling.flatten import FeatureFlattener
from .modeling.neck import ChannelMapper
from .modeling.one_to_many import OneToMany
from .modeling.postprocess import at_original_size, top_detections
from .modeling.query_selection import LearnedQueries, QuerySelection
from .structures import (
    EncoderResult,
    FlattenedFeatures,
    LayerPredictions,
    PixelStats,
    Predictions,
    Proposals,
    Queries,
    QueryGroup,
    Targets,
    attention_mask,
)
from .wording import in_short

Inputs = Sequence[dict[str, Any]]
WeightReader: TypeAlias = Callable[[Mapping[str, Any], nn.Module], Mapping[str, Any]]
"""Takes weights and the detector that is to load them, and returns those that it loads, or raises an error."""

_weight_readers: list[WeightReader] = []


def read_weights_by(reader: WeightReader) -> None:
    """Let ``reader`` see, and translate, whatever weights a detector is given from now on, after those before it."""
    _weight_readers.append(reader)


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
        query_selection: QuerySelection | LearnedQueries,
        denoising: ContrastiveDenoising | None,
        one_to_many: OneToMany | None,
        decoder: Decoder,
        criterion: Criterion,
        pixel_stats: PixelStats,
        max_detections: int,
    ) -> None:
        """Assemble a detector.

        Args:
            backbone: detectron2 backbone.
            in_features: which of its outputs to use, fine to coarse.
            neck: maps those to one width and adds coarser levels.
            flatten: makes one sequence of the levels.
            encoder: refines its tokens, see ``modeling.encoder``.
            query_selection: makes the queries, selected or learned.
            denoising: makes a further group of queries in training; None for none.
            one_to_many: makes another, of extra queries; None for none.
            decoder: decodes all groups side by side, and predicts.
            criterion: computes the losses; its matcher assigns targets to the queries.
            pixel_stats: of the input images; a pair of mean and standard deviation is of RGB.
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
        self.one_to_many = one_to_many
        self.decoder = decoder
        self.criterion = criterion
        self.max_detections = max_detections
        *stats, self.input_format = PixelStats(*pixel_stats)
        mean, std = (torch.tensor(list(values), dtype=torch.float32).view(-1, 1, 1) for values in stats)
        self.register_buffer("pixel_mean", mean, persistent=False)
        self.register_buffer("pixel_std", std, persistent=False)
        self.trains_channels_last = _can_train_channels_last(backbone)

    @property
    def device(self) -> torch.device:
        """Where the model's inputs go."""
        device: torch.device = self.pixel_mean.device  # type: ignore[assignment]
        return device

    @property
    def num_classes(self) -> int:
        """K, the number of classes that the detector tells apart."""
        return self.decoder.num_classes

    def load_state_dict(self, state_dict: Mapping[str, Any], *options: Any, **named: Any) -> Any:
        """As of ``nn.Module``; whoever calls it, published weights are converted.

        The weights of another model do not pass for ours with all missing.

        Raises:
            InputError: not one tensor is called as one of this detector's; or the weights are published ones that do
                not fit, or of another implementation.
        """
        for reader in _weight_readers:
            state_dict = reader(state_dict, self)
        if state_dict and not state_dict.keys() & self.state_dict().keys():
            raise InputError(
                f"These weights have none of this detector's tensors, but {in_short(list(state_dict))}. Give a "
                "checkpoint of this package, or a published one that it converts: docs/weights.md lists them."
            )
        return super().load_state_dict(state_dict, *options, **named)

    def forward(self, batched_inputs: Inputs) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Detect, or compute the losses in training.

        Args:
            batched_inputs: per image, ``image`` (3, H, W), and in training ``instances`` with ``gt_boxes`` and
                ``gt_classes``; ``height`` and ``width`` of the wanted result are optional.

        Raises:
            InputError: in training, when an image has no annotations field, or a class id outside 0..K - 1.
            FloatingPointError: when predictions are not finite; in training, naming the image.
        """
        images, padding = self.preprocess(batched_inputs)
        if not self.training:
            return self.postprocess(self.detect(images.tensor, padding, _is_padded(images)), images, batched_inputs)
        targets = self.prepare_targets(batched_inputs)
        denoising = () if self.denoising is None else (self.denoising(targets),)
        predictions, groups = self.learn(images.tensor, padding, denoising)
        return self.criterion(predictions, groups, targets)

    def detect(self, images: Tensor, padding: Tensor, is_padded: bool = True) -> LayerPredictions:
        """The last layer's predictions of what ``preprocess`` makes: a function of tensors, for ``torch.compile``.

        ``is_padded`` is as of :meth:`encode`: a compiled model is compiled for both.
        """
        features = self.encode(images, padding, is_padded)
        queries, _ = self.query_selection(features)
        return self.predict(queries, features)

    def learn(
        self, images: Tensor, padding: Tensor, denoising: Sequence[QueryGroup]
    ) -> tuple[Predictions, list[QueryGroup]]:
        """All that is trained, in training: a function of tensors, for ``torch.compile``.

        Args:
            images: of ``preprocess``, as is ``padding``.
            padding: (N, H, W) bool.
            denoising: the groups that are made of the targets.

        Returns:
            The predictions of all groups, and these, ``denoising`` last.
        """
        if images.device.type == "cpu" and self.trains_channels_last:
            # The backbone is faster so; in bfloat16, the whole step by a quarter.
            images = images.contiguous(memory_format=torch.channels_last)
        features = self.extract(images, padding)
        encoded = self._encoded(features)
        features = features.with_tokens(encoded.tokens)
        groups, proposals = self._groups_of_features(features)
        groups.extend(denoising)
        decoded = self._decode(groups, features)
        layers = tuple(self.decoder.predict(decoded, index) for index in range(len(decoded)))
        attention = None
        if encoded.token_scores is not None:  # they learn what the queries that detect look at
            attention = attention_map(self.decoder, decoded, features, len(groups[0]))
        return Predictions(layers, proposals, encoded, attention), groups

    def extract(self, images: Tensor, padding: Tensor, is_padded: bool = True) -> FlattenedFeatures:
        """Make features of normalised images (N, 3, H, W), whose ``padding``, (N, H, W) bool, is zero.

        ``is_padded`` says whether there may be any, as in :class:`.FlattenedFeatures`.
        """
        maps = self.backbone(images)
        levels = self.neck([maps[name] for name in self.in_features])
        features: FlattenedFeatures = self.flatten(levels, padding, is_padded)
        return features

    def encode(self, images: Tensor, padding: Tensor, is_padded: bool = True) -> FlattenedFeatures:
        """As ``extract``, and refine them by the encoder."""
        features = self.extract(images, padding, is_padded)
        return features.with_tokens(self._encoded(features).tokens)

    def _encoded(self, features: FlattenedFeatures) -> EncoderResult:
        encoded = self.encoder(features)
        if not isinstance(encoded, EncoderResult):
            names = f"{type(self.encoder).__name__} returns {type(encoded).__name__}"
            raise TypeError(f"{names}: let it return EncoderResult(tokens), of lite_detr_d2.structures")
        return encoded

    def predict(self, queries: Queries, features: FlattenedFeatures) -> LayerPredictions:
        """Decode the queries that detect, and return the last layer's predictions."""
        return self.decoder.predict(self._decode([self._matching(queries)], features), -1)

    def preprocess(self, batched_inputs: Inputs) -> tuple[ImageList, Tensor]:
        """Normalise the images and pad them to the largest height and width among them.

        Returns:
            The batch, and (N, H, W) bool, True where a pixel is padding.
        """
        images = ImageList.from_tensors([self.normalise(item["image"].to(self.device)) for item in batched_inputs])
        count, _, *size = images.tensor.shape
        padding = torch.ones(count, *size, dtype=torch.bool, device=self.device)
        for mask, (height, width) in zip(padding, images.image_sizes, strict=True):
            mask[:height, :width] = False
        return images, padding

    def normalise(self, images: Tensor) -> Tensor:
        """Take the mean off images (..., 3, H, W), and divide them by the standard deviation."""
        return (images - self.pixel_mean) / self.pixel_std  # type: ignore[operator]

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
            results.append({"instances": at_original_size(instances, *size)})
        return results

    def _matching(self, queries: Queries) -> QueryGroup:
        return QueryGroup(name="matching", queries=queries, assign=self.criterion.matcher)

    def _groups_of_features(self, features: FlattenedFeatures) -> tuple[list[QueryGroup], Proposals | None]:
        """The matching queries, the one-to-many ones where there are such, and the encoder's proposals."""
        extra = 0 if self.one_to_many is None else self.one_to_many.num_queries
        queries, proposals = self.query_selection(features, extra)
        first = self.query_selection.num_queries
        groups = [self._matching(queries[:first])]
        if self.one_to_many is not None:
            groups.append(self.one_to_many(queries[first:]))
        return groups, proposals

    def _decode(self, groups: Sequence[QueryGroup], features: FlattenedFeatures) -> tuple[DecodedLayer, ...]:
        queries = Queries.concatenated([group.queries for group in groups])
        decoded: tuple[DecodedLayer, ...] = self.decoder(queries, features, attention_mask(groups))
        return decoded


def _can_train_channels_last(backbone: nn.Module) -> bool:
    """Whether no convolution is of the kind whose gradient PyTorch 2.14 writes beyond its memory, on the CPU.

    Those are convolutions of 1 x 1 with a stride, of fewer than 16 channels (seen with 4, 8 and 12): widths that are no
    multiple of 16 are avoided.
    """
    convolutions = [module for module in backbone.modules() if isinstance(module, nn.Conv2d)]
    strided = [each for each in convolutions if each.kernel_size == (1, 1) and max(each.stride) > 1]
    return all(each.in_channels % 16 == 0 for each in strided)


def _is_padded(images: ImageList) -> bool:
    height, width = images.tensor.shape[-2:]
    return any((int(size[0]), int(size[1])) != (height, width) for size in images.image_sizes)
