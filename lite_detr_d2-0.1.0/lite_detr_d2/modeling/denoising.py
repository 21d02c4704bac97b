"""Contrastive denoising: a training-only group of queries that start from noised ground truth."""

from collections.abc import Sequence

import torch
from detectron2.utils import comm
from torch import Tensor, nn

from ..structures import Match, Queries, QueryGroup, Targets
from .geometry import box_xyxy, inverse_sigmoid

SMALLEST_SHARED_DENOISING = 50  # fewer denoising queries are not divided among groups, as published


class ContrastiveDenoising(nn.Module):
    """Queries made from noised copies of the targets: positives to reconstruct, negatives to reject.

    A denoising group holds ``most`` positives and then ``most`` negatives, where ``most`` is the largest number of
    targets in the batch, that of all processes; slots that an image does not fill are empty queries, trained as
    background. Groups do not see each other; all see the matching queries, which do not see them.

    Source: DINO, arXiv 2203.03605, Sec. 3.3.
    """

    def __init__(
        self,
        *,
        num_channels: int,
        num_classes: int,
        num_queries: int,
        label_noise: float,
        box_noise: float,
        logit_eps: float,
    ) -> None:
        """Make the group's builder.

        Args:
            num_channels: C.
            num_classes: K; the label embedding has a further row, which published checkpoints carry and nothing reads.
            num_queries: about how many positives, and as many negatives, a batch gets; at least 1.
            label_noise: a label becomes a random one with half this probability.
            box_noise: how far corners move, in halves of the box's size.
            logit_eps: clamp of the inverse sigmoid of boxes.
        """
        super().__init__()
        self.num_classes = num_classes
        self.num_queries = num_queries
        self.label_noise = label_noise
        self.box_noise = box_noise
        self.logit_eps = logit_eps
        self.label_embed = nn.Embedding(num_classes + 1, num_channels)

    def forward(self, targets: Sequence[Targets]) -> QueryGroup:
        """Build the group for a batch; it is empty, but there, when no image has a target."""
        weight = self.label_embed.weight
        most = _most_targets(targets, weight)
        num_groups = self._num_groups(most)
        # (N, G, 2, most): per group, positives then negatives, padded with empty slots.
        size = (len(targets), num_groups, 2, most)
        labels = weight.new_zeros(size, dtype=torch.long)
        boxes = weight.new_zeros((*size, 4))
        filled = weight.new_zeros(size, dtype=torch.bool)
        for index, target in enumerate(targets):
            labels[index, ..., : len(target)] = target.labels
            boxes[index, ..., : len(target), :] = target.boxes
            filled[index, ..., : len(target)] = True
        # Flattened first: of views, torch.compile would look at what they are views of, too.
        occupied = filled.flatten(1)[..., None]
        content = self.label_embed(self._noised_labels(labels).flatten(1)) * occupied
        reference = inverse_sigmoid(self._noised_boxes(boxes).flatten(1, 3), self.logit_eps) * occupied
        return QueryGroup(
            name="denoising",
            queries=Queries(content, reference),
            assign=DenoisingAssigner(num_groups, most),
            sees=("matching",),
            blocks=torch.arange(num_groups, device=weight.device).repeat_interleave(2 * most),
            target_repeats=num_groups,
            min_boxes=num_groups,  # as published: of one box, in every group
            loss_suffix="_dn{layer}",
        )

    def _num_groups(self, most: int) -> int:
        """How many groups the queries make."""
        total = 2 * self.num_queries
        if most == 0:
            return 1
        return max(1, total // (2 * most)) if self.num_queries >= SMALLEST_SHARED_DENOISING else total

    def _noised_labels(self, labels: Tensor) -> Tensor:
        flip = torch.rand(labels.shape, device=labels.device) < self.label_noise / 2
        return torch.where(flip, torch.randint_like(labels, self.num_classes), labels)

    def _noised_boxes(self, boxes: Tensor) -> Tensor:
        """Move the corners of (N, G, 2, T, 4) boxes, each coordinate by its own amount and in its own direction."""
        amount = torch.rand_like(boxes)
        amount[:, :, 1] += 1.0  # negatives
        sign = torch.randint_like(boxes, 2) * 2 - 1
        half_size = boxes[..., 2:].repeat(1, 1, 1, 1, 2) / 2
        corners = (box_xyxy(boxes) + amount * sign * half_size * self.box_noise).clamp(0, 1)
        low, high = corners.chunk(2, dim=-1)
        return torch.cat(((low + high) / 2, high - low), dim=-1)


def _most_targets(targets: Sequence[Targets], like: Tensor) -> int:
    """The largest number of targets of an image, of all processes' batches: they train as one does on all images."""
    most = max(len(target) for target in targets)
    if comm.get_world_size() == 1:
        return most
    shared = torch.tensor(most, device=like.device)
    torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
    return int(shared)


class DenoisingAssigner:
    """Each positive is trained on the target that it was made from; negatives and empty slots on none."""

    def __init__(self, num_groups: int, most: int) -> None:
        self.num_groups = num_groups
        self.most = most

    def __call__(self, logits: Tensor, boxes: Tensor, targets: Sequence[Targets]) -> list[Match]:
        """Assign a group built by ``ContrastiveDenoising`` for these ``targets``, repeated ``num_groups`` times."""
        starts = torch.arange(self.num_groups, device=logits.device)[:, None] * (2 * self.most)
        matches = []
        for target in targets:
            count = len(target) // self.num_groups
            queries = (starts + torch.arange(count, device=logits.device)).flatten()
            matches.append((queries, torch.arange(len(target), device=logits.device)))
        return matches
