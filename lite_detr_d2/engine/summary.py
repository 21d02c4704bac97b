"""What a training is about to do, in the words of a person who reads it: data, model, schedule, and what it runs on."""

import logging
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.logger import log_first_n

from ..analysis import cost_of, count_operations
from ..data.augmentation import BoundedResize
from ..data.statistics import Statistics
from ..detector import DetrDetector
from ..modeling.interleaved import InterleavedEncoder
from ..modeling.sparse import SparseEncoder
from ..ops.deform_attn import compiled_ops_status
from ..wording import in_short, shown

if TYPE_CHECKING:
    from .trainer import Trainer

logger = logging.getLogger(__name__)

_EXAMPLE = (600, 800)  # height and width of an image that no one resizes


def log_dataset(name: str, images: object, classes: Sequence[str]) -> None:
    """Say, once, what a dataset is made of: how many images and boxes, how large, how many in an image.

    Args:
        name: what it is called.
        images: in detectron2's dataset format; of anything else than a list nothing is known.
        classes: the names of its classes.
    """
    if not isinstance(images, list) or not images or not comm.is_main_process():
        return
    found = Statistics.of(images, classes)
    counts, sizes = found.boxes_per_image, found.sizes_in_words()
    of_sizes = f" of {sizes}" if sizes else ""
    told = f"{name}: {len(images):,} images{of_sizes}, {counts.sum():,} boxes of {len(classes)} classes"
    if counts.any():
        small, medium, large = found.by_size().values()
        told += (
            f" ({np.median(counts):.0f} in the median image, {counts.max()} at most); by COCO's sizes {small:.0%} are "
            f"small, {medium:.0%} medium and {large:.0%} large"
        )
    log_first_n(logging.INFO, f"{told}.", name=__name__, key="message")


def log_start(trainer: "Trainer") -> None:
    """Say what the training of ``trainer`` is about to do. Its model's operations are counted, which takes seconds."""
    if comm.is_main_process():
        logger.info("%s", "\n".join(["The training:", *(f"  {line}" for line in _lines(trainer))]))


def _lines(trainer: "Trainer") -> Iterator[str]:
    cfg, model = trainer.cfg, trainer.checkpointer.model
    if isinstance(model, DetrDetector):
        yield from _of_model(cfg, model)
    yield from _of_schedule(cfg, trainer)
    yield from _of_machine(cfg)


def log_model(cfg: CfgNode) -> None:
    """Say which detector is evaluated."""
    if comm.is_main_process():
        logger.info("The detector is %s", model_in_words(cfg))


def model_in_words(cfg: CfgNode) -> str:
    """The detector of a config, in short. Which encoder it has is the config's alone: weights fit several."""
    encoder = cfg.MODEL.LITE_DETR.ENCODER
    named = encoder.NAME
    if named == InterleavedEncoder.__name__:
        named = f"encoder {encoder.SPEC} with {'key-aware' if encoder.KEY_AWARE else 'plain'} attention"
    elif named == SparseEncoder.__name__:
        named = f"{named} of rho {encoder.RHO:g}"
    return f"{cfg.MODEL.META_ARCHITECTURE}, {named}, backbone {cfg.MODEL.BACKBONE.NAME}"


def _of_model(cfg: CfgNode, model: DetrDetector) -> Iterator[str]:
    parameters = list(model.parameters())
    total = sum(parameter.numel() for parameter in parameters)
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    yield (
        f"model      {model_in_words(cfg)}: {total / 1e6:.1f} M parameters, of which {trained / 1e6:.1f} M are trained"
    )
    size = _training_size(cfg)
    was_training = model.training
    with torch.no_grad():
        cost = cost_of(model, count_operations(model, size))
    model.train(was_training)
    parts = ", ".join(f"{name.replace('_', ' ')} {value / 1e9:.2f}" for name, value in cost.parts.items())
    yield f"           {cost.multiply_adds / 1e9:.2f} GFLOPs an image of {size[0]} x {size[1]}: {parts}"


def _training_size(cfg: CfgNode) -> tuple[int, int]:
    """Height and width that an image of 3 to 4 gets in training, at most."""
    shortest = max(cfg.INPUT.MIN_SIZE_TRAIN)
    if shortest == 0:  # images are left as they are
        return _EXAMPLE
    resize = BoundedResize(shortest, cfg.INPUT.MAX_SIZE_TRAIN).get_transform(np.zeros((*_EXAMPLE, 3), np.uint8))
    return resize.new_h, resize.new_w


def _of_schedule(cfg: CfgNode, trainer: "Trainer") -> Iterator[str]:
    solver, first, last = cfg.SOLVER, trainer.start_iter, trainer.max_iter
    length = f"{last:,} iterations" if first == 0 else f"iterations {first:,} to {last:,}"
    yield f"schedule   {length} of {solver.IMS_PER_BATCH} images"
    steps = [f"{step:,}" for step in solver.STEPS if step < last]
    falls = f", times {solver.GAMMA:g} after {in_short(steps)}" if steps else ""
    rises = f", after {solver.WARMUP_ITERS:,} iterations in which it rises" if solver.WARMUP_ITERS else ""
    yield f"           learning rate {solver.BASE_LR:g}{rises}{falls}"
    evaluated = in_short(list(cfg.DATASETS.TEST)) or "nothing"
    evaluation, checkpoint = (_every(period, last) for period in (cfg.TEST.EVAL_PERIOD, solver.CHECKPOINT_PERIOD))
    yield f"           evaluates {evaluated} {evaluation}; a checkpoint {checkpoint}"


def _every(period: int, last: int) -> str:
    return f"every {period:,} iterations and at the end" if 0 < period < last else "at the end"


def _of_machine(cfg: CfgNode) -> Iterator[str]:
    device = torch.device(cfg.MODEL.DEVICE)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    processes = f", {comm.get_world_size()} processes" if comm.get_world_size() > 1 else ""
    compiled, reason = compiled_ops_status()
    if not compiled:
        ops = f"in plain PyTorch, which is slower: {reason}"
    elif device.type == "cpu":
        ops = f"compiled, for {torch.ops.lite_detr.cpu_capability()}"
    else:
        ops = "compiled"
    yield f"runs on    {device} ({name}){processes}; attention ops {ops}"
    if cfg.SOLVER.COMPILE:
        yield "           compiled by torch.compile, which takes minutes before the first step"
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if device.type == "cpu" and torch.get_num_threads() > 1 and load > cores:
        yield (
            f"           other programs keep the {cores} cores busy (a load of {load:.1f}), and threads wait for one "
            "another: with OMP_NUM_THREADS=1 before the command it can be several times as fast"
        )
    yield f"writes to  {shown(cfg.OUTPUT_DIR)}, where log.txt has what is not shown here"
