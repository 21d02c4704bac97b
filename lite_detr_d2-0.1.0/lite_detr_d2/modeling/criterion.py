"""The training losses of all query groups, all decoder layers, the encoder's proposals, and the encoder."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from detectron2.utils import comm
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from ..structures import (
    Assigner,
    EncoderResult,
    LayerPredictions,
    Match,
    Predictions,
    QueryGroup,
    Targets,
    TokenScores,
    query_slices,
)
from .geometry import box_xyxy, paired_giou


class Criterion:
    """Focal loss on the classes, L1 and generalised IoU losses on the boxes of matched queries.

    Losses are named as in DETR's family: ``loss_ce``, ``loss_bbox`` and ``loss_giou`` of the last decoder layer, with
    ``_0``, ``_1``, ... for the earlier layers where the group's suffix has them, and after the proposals' suffix for
    the encoder's layers. ``loss_mask_prediction`` is of an encoder's scores of tokens.
    """

    def __init__(
        self,
        *,
        class_weight: float,
        l1_weight: float,
        giou_weight: float,
        focal_alpha: float,
        focal_gamma: float,
        giou_eps: float,
        matcher: Assigner,
        proposal_suffix: str,
    ) -> None:
        """Make the criterion.

        Args:
            class_weight: of the focal loss.
            l1_weight: of the boxes' L1 loss.
            giou_weight: of the boxes' generalised IoU loss.
            focal_alpha: weight of positives in the focal loss, 0..1.
            focal_gamma: its exponent, at least 0.
            giou_eps: see ``geometry.pairwise_giou``.
            matcher: matches the encoder's proposals to the targets, and is there for groups of queries.
            proposal_suffix: what the names of the proposals' losses end with.
        """
        self.class_weight = class_weight
        self.l1_weight = l1_weight
        self.giou_weight = giou_weight
        self.focal_alpha = focal_alpha
        self.focal_gamma = focal_gamma
        self.giou_eps = giou_eps
        self.matcher = matcher
        self.proposal_suffix = proposal_suffix
        self._counted: tuple[int, int] | None = None

    @contextmanager
    def counting(self, num_boxes: int, num_images: int) -> Iterator[None]:
        """Divide losses by so many boxes, or images, in this process: those of a batch of which parts are seen."""
        self._counted = num_boxes, num_images
        try:
            yield
        finally:
            self._counted = None

    def __call__(
        self, predictions: Predictions, groups: Sequence[QueryGroup], targets: Sequence[Targets]
    ) -> dict[str, Tensor]:
        """Compute all losses, weighted: the training loss is their sum.

        Args:
            predictions: of the decoder on all ``groups`` side by side.
            groups: which queries are whose, and how each group's are matched.
            targets: of each image; any of them, or all, may be empty.
        """
        counted, num_images = self._counted or (sum(len(target) for target in targets), len(targets))
        num_boxes = sum_over_processes(counted, predictions.layers[-1].boxes)
        # DistributedDataParallel takes the mean of the processes' gradients, where one process would take their sum.
        share: int = comm.get_world_size()
        last = len(predictions.layers) - 1
        losses: dict[str, Tensor] = {}
        for group, queries in zip(groups, query_slices(groups), strict=True):
            repeated = [target.repeated(group.target_repeats) for target in targets]
            scale = group.loss_weight * share / (num_boxes * group.target_repeats).clamp(min=group.min_boxes)
            for index, layer in enumerate(predictions.layers):
                suffix = group.loss_suffix.format(layer="" if index == last else f"_{index}")
                losses |= self._layer_losses(layer.of_queries(queries), group.assign, repeated, scale, suffix)
        proposals, encoded, scale = predictions.proposals, predictions.encoded, share / num_boxes.clamp(min=1.0)
        if proposals is not None:
            wanted = [target.class_agnostic() for target in targets] if proposals.class_agnostic else targets
            losses |= self._layer_losses(proposals.predictions, self.matcher, wanted, scale, self.proposal_suffix)
        if encoded is not None:
            for index, layer in enumerate(_trained(encoded)):
                losses |= self._layer_losses(layer, self.matcher, targets, scale, f"{self.proposal_suffix}_{index}")
        if encoded is not None and encoded.token_scores is not None and predictions.attention is not None:
            # The mean over images, as that over the processes' gradients is: no share.
            loss = _score_loss(encoded.token_scores, predictions.attention)
            losses["loss_mask_prediction"] = loss * len(targets) / num_images
        return losses

    def _layer_losses(
        self,
        predictions: LayerPredictions,
        assign: Assigner,
        targets: Sequence[Targets],
        scale: Tensor,
        suffix: str,
    ) -> dict[str, Tensor]:
        logits, boxes = at_least_float32(predictions.logits), at_least_float32(predictions.boxes)
        matches = assign(logits, boxes, targets)
        image, query = _flat_indices(matches)
        labels = torch.cat([target.labels[index] for target, (_, index) in zip(targets, matches, strict=True)])
        target_boxes = torch.cat([target.boxes[index] for target, (_, index) in zip(targets, matches, strict=True)])
        matched_boxes = boxes[image, query]

        one_hot = torch.zeros_like(logits)
        one_hot[image, query, labels] = 1.0
        focal = sigmoid_focal_loss(logits, one_hot, self.focal_alpha, self.focal_gamma, reduction="sum")
        l1 = F.l1_loss(matched_boxes, target_boxes, reduction="sum")
        giou = paired_giou(box_xyxy(matched_boxes), box_xyxy(target_boxes), self.giou_eps)
        return {
            f"loss_ce{suffix}": self.class_weight * focal * scale,
            f"loss_bbox{suffix}": self.l1_weight * l1 * scale,
            f"loss_giou{suffix}": self.giou_weight * (1 - giou).sum() * scale,
        }


def _trained(encoded: EncoderResult) -> Sequence[LayerPredictions]:
    """The auxiliary predictions to train: as published, of as many tokens as the image with the most has chosen."""
    scores = encoded.token_scores
    if not encoded.auxiliary or scores is None:
        return encoded.auxiliary
    trained = slice(int(scores.chosen.max()))
    return [layer.of_queries(trained) for layer in encoded.auxiliary]


def _score_loss(scores: TokenScores, attention: Tensor) -> Tensor:
    """The binary cross-entropy of scores, (N, S), and of being among the ``chosen`` tokens that are looked at most."""
    places = torch.arange(attention.shape[1], device=attention.device)
    wanted = (places < scores.chosen[:, None]).to(scores.logits.dtype)
    target = torch.zeros_like(wanted).scatter(1, attention.argsort(dim=1, descending=True), wanted)
    return F.binary_cross_entropy_with_logits(scores.logits, target)


def sum_over_processes(number_here: int, like: Tensor) -> Tensor:
    """A number of each process, of all of them together; float32, on the device of ``like``."""
    number = like.new_tensor(float(number_here), dtype=torch.float32)
    if comm.get_world_size() > 1:
        torch.distributed.all_reduce(number)
    return number


def at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _flat_indices(matches: Sequence[Match]) -> tuple[Tensor, Tensor]:
    """Image and query index of every matched query of the batch."""
    image = torch.cat([torch.full_like(query, index) for index, (query, _) in enumerate(matches)])
    return image, torch.cat([query for query, _ in matches])
