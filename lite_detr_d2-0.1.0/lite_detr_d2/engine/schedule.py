"""Fit a recipe's schedule to the size of a dataset.

As many epochs as on COCO are too few iterations for a small set: 12 epochs of 300 images are 225 batches of 16. As many
iterations are too many epochs: 90,000 batches are 4,800. The fitted schedule is the geometric mean of the two: the
number of images seen goes with the square root of the set's size, and so the epochs with its inverse. Who knows better
says how many epochs; and whoever decides the length, all other times keep their ratio to it.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer

logger = logging.getLogger(__name__)

# Fewer steps of AdamW at the recipes' learning rate hardly leave the initial weights.
FEWEST_ITERATIONS = 1000
# A short run is not to be spent on evaluations, nor a disk on its checkpoints.
SHORTEST_PERIOD = 100


@dataclass(frozen=True)
class Schedule:
    """How long to train, and what happens when; all but ``batch`` in iterations.

    Attributes:
        batch: images per iteration, in all processes together.
        max_iter: iterations in all.
        steps: when the learning rate falls.
        warmup_iters: how long it rises at first; 0 for not at all.
        checkpoint_period: between checkpoints.
        eval_period: between evaluations; 0 for one at the end.
    """

    batch: int
    max_iter: int
    steps: tuple[int, ...]
    warmup_iters: int
    checkpoint_period: int
    eval_period: int

    @classmethod
    def from_config(cls, cfg: CfgNode) -> "Schedule":
        return cls(
            batch=cfg.SOLVER.IMS_PER_BATCH,
            max_iter=cfg.SOLVER.MAX_ITER,
            steps=tuple(cfg.SOLVER.STEPS),
            warmup_iters=cfg.SOLVER.WARMUP_ITERS,
            checkpoint_period=cfg.SOLVER.CHECKPOINT_PERIOD,
            eval_period=cfg.TEST.EVAL_PERIOD,
        )

    def to_overrides(self) -> list[object]:
        """Return ``KEY VALUE`` pairs for ``CfgNode.merge_from_list``; the batch is not one of them."""
        keys = {
            "SOLVER.MAX_ITER": self.max_iter,
            "SOLVER.STEPS": self.steps,
            "SOLVER.WARMUP_ITERS": self.warmup_iters,
            "SOLVER.CHECKPOINT_PERIOD": self.checkpoint_period,
            "TEST.EVAL_PERIOD": self.eval_period,
        }
        return [word for pair in keys.items() for word in pair]

    def epochs(self, num_images: int) -> float:
        """Return how often each of ``num_images`` training images is seen."""
        return self.max_iter * self.batch / num_images

    def fitted(self, num_images: int, reference: int, batch: int) -> "Schedule":
        """Return the schedule for ``num_images`` training images, at ``batch`` images per iteration.

        This one is for ``reference`` images. Of any size and batch, at least ``FEWEST_ITERATIONS`` remain, if there are
        as many.
        """
        images_seen = self.max_iter * self.batch * math.sqrt(num_images / reference)
        return self.stretched(max(round(images_seen / batch), min(self.max_iter, FEWEST_ITERATIONS)), batch)

    def over(self, epochs: float, num_images: int, batch: int) -> "Schedule":
        """Return the schedule that shows each of ``num_images`` images ``epochs`` (> 0) times, the last batch whole."""
        # Rounded first: 1.1 times 10 is a little more than 11.
        return self.stretched(math.ceil(round(epochs * num_images / batch, 6)) or 1, batch)

    def stretched(self, max_iter: int, batch: int) -> "Schedule":
        """Return the schedule over ``max_iter`` iterations, to which all times keep their ratio.

        Only 0 becomes 0; but steps are left out that would come before the first iteration or after the last, and
        periods do not become shorter than ``SHORTEST_PERIOD``.
        """
        steps = (step * max_iter // self.max_iter for step in self.steps)

        # Rounded up, as many periods as before make a whole training, and none ends just before it does.
        def scaled(time: int) -> int:
            return math.ceil(time * max_iter / self.max_iter)

        def period(time: int) -> int:
            return max(scaled(time), min(time, SHORTEST_PERIOD))

        return Schedule(
            batch=batch,
            max_iter=max_iter,
            steps=tuple(step for step in steps if 0 < step < max_iter),
            warmup_iters=scaled(self.warmup_iters),
            checkpoint_period=period(self.checkpoint_period),
            eval_period=period(self.eval_period),
        )


def fit_schedule(
    cfg: CfgNode, recipe: CfgNode, overrides: Sequence[str], num_images: int, epochs: float | None = None
) -> None:
    """Fit the schedule of ``cfg`` to ``num_images`` training images, in place, and log what was chosen and why.

    Without ``epochs`` and with ``SOLVER.REFERENCE_NUM_IMAGES`` 0, nothing changes; else the key becomes ``num_images``.

    Args:
        cfg: the config, with the overrides.
        recipe: the config without them, whose schedule is for ``SOLVER.REFERENCE_NUM_IMAGES`` images.
        overrides: ``KEY VALUE`` pairs. They win; if ``SOLVER.MAX_ITER`` is one of them, the rest keeps its ratio to it.
        num_images: at least 1.
        epochs: how often each image is to be seen, above 0; None for as often as the recipe means for so many images.
    """
    if cfg.SOLVER.REFERENCE_NUM_IMAGES == 0 and epochs is None:
        return
    whole = Schedule.from_config(recipe)
    fitted, reason = _chosen(whole, cfg, "SOLVER.MAX_ITER" in overrides[::2], num_images, epochs)
    cfg.merge_from_list(fitted.to_overrides())
    cfg.merge_from_list(list(overrides))
    # So that a config that is written and read again is not fitted again.
    cfg.SOLVER.REFERENCE_NUM_IMAGES = num_images
    chosen = Schedule.from_config(cfg)
    words = [str(word) for word in chosen.to_overrides()]
    logger.info(
        "Schedule for %d training images at batch %d, %.1f epochs: %s. %s.",
        *(num_images, chosen.batch, chosen.epochs(num_images)),
        *(", ".join(f"{key} {value}" for key, value in zip(words[::2], words[1::2], strict=True)), reason),
    )


def scale_rates(cfg: CfgNode) -> None:
    """Fit the learning rates of ``cfg`` to its batch, linearly, where ``SOLVER.REFERENCE_BATCH`` is another.

    The key becomes the batch, so that a config that is written, or given to a trainer, is not fitted again.

    Source: Goyal et al., arXiv 1706.02677, Sec. 2.1.
    """
    solver = cfg.SOLVER
    reference, batch = solver.REFERENCE_BATCH, solver.IMS_PER_BATCH
    if reference in (0, batch):
        return
    for key in ("BASE_LR", "BASE_LR_END"):
        solver[key] = solver[key] * batch / reference
    solver.REFERENCE_BATCH = batch
    logger.info(
        "SOLVER.REFERENCE_BATCH is %d, and SOLVER.IMS_PER_BATCH %d: SOLVER.BASE_LR becomes %g, and BASE_LR_END %g.",
        *(reference, batch, solver.BASE_LR, solver.BASE_LR_END),
    )


def scaled_to_processes(cfg: CfgNode, processes: int) -> CfgNode:
    """Return ``cfg`` with the rates of its batch, and what ``SOLVER.REFERENCE_WORLD_SIZE`` makes of both, once.

    detectron2's scaling keeps the images per process, and with the batch it scales the rate: after ours.
    """
    if cfg.SOLVER.REFERENCE_BATCH == 0:
        return DefaultTrainer.auto_scale_workers(cfg, processes)
    cfg = cfg.clone()
    cfg.defrost()
    scale_rates(cfg)
    cfg = DefaultTrainer.auto_scale_workers(cfg, processes)
    cfg.SOLVER.REFERENCE_BATCH = cfg.SOLVER.IMS_PER_BATCH
    cfg.freeze()
    return cfg


def _chosen(
    whole: Schedule, cfg: CfgNode, length_is_given: bool, num_images: int, epochs: float | None
) -> tuple[Schedule, str]:
    """Return the recipe's schedule ``whole``, fitted to the set; and why it is this one."""
    reference, batch = cfg.SOLVER.REFERENCE_NUM_IMAGES, cfg.SOLVER.IMS_PER_BATCH
    ratio = "the rest keeps the ratio to it that it has in the config file"
    unfitted = "SOLVER.REFERENCE_NUM_IMAGES 0 keeps the config file's schedule"
    if length_is_given:
        instead = unfitted if epochs is None else f"--epochs {epochs:g} yields to it"
        return whole.stretched(cfg.SOLVER.MAX_ITER, batch), f"SOLVER.MAX_ITER is as given, and {ratio}; {instead}"
    if epochs is not None:
        return whole.over(epochs, num_images, batch), f"SOLVER.MAX_ITER makes --epochs {epochs:g}, and {ratio}"
    return whole.fitted(num_images, reference, batch), (
        f"The config file's {whole.max_iter} iterations at batch {whole.batch} are for {reference} images; the images "
        f"seen go with the square root of that number, and {FEWEST_ITERATIONS} iterations are the fewest. To choose "
        f"otherwise, give --epochs, or SOLVER.MAX_ITER, to which the rest keeps its ratio; {unfitted}"
    )
