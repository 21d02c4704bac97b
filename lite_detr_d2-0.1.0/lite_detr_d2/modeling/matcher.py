"""One-to-one matching of predictions to targets."""

from collections.abc import Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..structures import Match, Targets
from .geometry import box_xyxy, pairwise_giou


class HungarianMatcher:
    """The cheapest one-to-one assignment of an image's targets to queries.

    The cost of a pair is a weighted sum of a focal classification cost, the L1 distance of the boxes, and their
    negative generalised IoU.

    Source: DETR, arXiv 2005.12872, Sec. 3.1; the focal cost is Deformable DETR's.
    """

    def __init__(
        self,
        *,
        class_cost: float,
        l1_cost: float,
        giou_cost: float,
        focal_alpha: float,
        focal_gamma: float,
        giou_eps: float,
    ) -> None:
        self.class_cost = class_cost
        self.l1_cost = l1_cost
        self.giou_cost = giou_cost
        self.focal_alpha = focal_alpha
        self.focal_gamma = focal_gamma
        self.giou_eps = giou_eps

    @torch.no_grad()
    def __call__(self, logits: Tensor, boxes: Tensor, targets: Sequence[Targets]) -> list[Match]:
        """Match each image's targets.

        Args:
            logits: (N, Q, K), any floating type; costs are computed in float32.
            boxes: (N, Q, 4).
            targets: of each image.

        Returns:
            Per image, min(Q, T) pairs of a query and a target, on the device of ``logits``.

        Raises:
            FloatingPointError: when a cost is not finite, naming the image and the terms.
        """
        costs = [
            self._costs(image_logits.float(), image_boxes.float(), target)
            for image_logits, image_boxes, target in zip(logits, boxes, targets, strict=True)
        ]
        # One transfer for the whole batch: every device-to-host copy waits for the device.
        on_host = torch.cat([cost.flatten() for cost in costs]).cpu().split([cost.numel() for cost in costs])
        matches = []
        for cost, flat, target, image_logits, image_boxes in zip(costs, on_host, targets, logits, boxes, strict=True):
            if not bool(flat.isfinite().all()):
                raise FloatingPointError(_describe_non_finite(target, image_logits, image_boxes))
            queries, indices = linear_sum_assignment(flat.view(cost.shape).numpy())
            matches.append(
                (torch.as_tensor(queries, device=logits.device), torch.as_tensor(indices, device=logits.device))
            )
        return matches

    def _costs(self, logits: Tensor, boxes: Tensor, target: Targets) -> Tensor:
        """(Q, T) costs of (Q, K) logits and (Q, 4) boxes."""
        logits = logits[:, target.labels]
        probability = logits.sigmoid()
        # As published: the focal loss of calling the query this class, less that of calling it background, with 1e-8
        # inside the logarithms.
        positive = self.focal_alpha * (1 - probability) ** self.focal_gamma * -(probability + 1e-8).log()
        negative = (1 - self.focal_alpha) * probability**self.focal_gamma * -(1 - probability + 1e-8).log()
        l1 = torch.cdist(boxes, target.boxes, p=1)
        giou = pairwise_giou(box_xyxy(boxes), box_xyxy(target.boxes), self.giou_eps)
        return self.class_cost * (positive - negative) + self.l1_cost * l1 - self.giou_cost * giou


def _describe_non_finite(target: Targets, logits: Tensor, boxes: Tensor) -> str:
    terms = {"class logits": logits, "predicted boxes": boxes, "target boxes": target.boxes}
    culprits = [name for name, values in terms.items() if not bool(values.isfinite().all())]
    return (
        f"Image {target.name}: the matching cost is not finite ({', '.join(culprits) or 'overflow'}). If the target "
        "boxes are to blame, correct the annotations; else training has diverged: lower SOLVER.BASE_LR, lengthen the "
        "warm-up (SOLVER.WARMUP_ITERS), or turn off SOLVER.AMP.ENABLED."
    )
