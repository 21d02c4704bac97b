"""Which bounds an exported detector gets, and which it can have."""

import logging
from collections.abc import Sequence
from itertools import count

from detectron2.config import CfgNode

from ..detector import DetrDetector
from ..errors import InputError
from ..modeling.backbones import shifts_windows
from ..modeling.query_selection import QuerySelection
from .bounds import Bounds, Range, fixed

logger = logging.getLogger(__name__)

SMALLEST_STEP = 32  # the smallest side of dynamic sizes is a multiple of this, in pixels


def choose_bounds(
    cfg: CfgNode, detector: DetrDetector, *, size: Sequence[int] | None = None, batch: int = 1, dynamic: bool = False
) -> Bounds:
    """Choose the images that an exported detector takes.

    Args:
        cfg: the detector's.
        detector: of which the smallest size of dynamic ones is: its queries have to have tokens to start from.
        size: height and width in pixels; None for the square that holds all images as evaluation resizes them.
        batch: how many images.
        dynamic: whether sizes and batches may be smaller than that, too.

    Raises:
        InputError: they are impossible.
    """
    if batch < 1 or (size is not None and min(size) < 1):
        raise InputError(f"The size {size} and the batch {batch} are not all positive.")
    if size is None:
        if cfg.INPUT.MIN_SIZE_TEST == 0:
            raise InputError(
                "INPUT.MIN_SIZE_TEST is 0, so that images are not resized, and can be of any size: give the exported "
                "model's, --size HEIGHT WIDTH."
            )
        size = (cfg.INPUT.MAX_SIZE_TEST,) * 2
    height, width = size
    bounds = fixed(batch, height, width)
    if dynamic:
        # Of a level that has one row at some sizes only, torch.export makes no program.
        start = SMALLEST_STEP * (1 + strides(detector)[-1] // SMALLEST_STEP)
        least = next(side for side in count(start, SMALLEST_STEP) if _has_tokens(detector, side, side))
        bounds = Bounds(Range(1, batch), Range(min(least, height), height), Range(min(least, width), width))
        if bounds.is_fixed:
            raise InputError(
                f"There is no size smaller than {height} x {width} (height x width): the smallest of dynamic ones is "
                f"{least} x {least}. Leave --dynamic out, or give a larger --size."
            )
    check_bounds(detector, bounds)
    return bounds


def check_bounds(detector: DetrDetector, bounds: Bounds) -> None:
    """See that a detector can be exported with these bounds.

    Raises:
        InputError: it cannot.
    """
    height, width = bounds.height.smallest, bounds.width.smallest
    if not _has_tokens(detector, height, width):
        raise InputError(
            f"Images of {height} x {width} (height x width) have {num_tokens(detector, height, width)} tokens, fewer "
            f"than the {detector.query_selection.num_queries} queries that start from them: export a larger size."
        )
    if not bounds.is_fixed and shifts_windows(detector.backbone):
        raise InputError(
            "Swin Transformers, detectron2's and timm's, can be exported at one size and batch only: leave --dynamic "
            "out, and give --size."
        )


def report_unused(cfg: CfgNode, bounds: Bounds) -> None:
    """Say if bounds are of larger images than any that is resized as ``cfg`` says."""
    most, sides = cfg.INPUT.MAX_SIZE_TEST, (bounds.height, bounds.width)
    if cfg.INPUT.MIN_SIZE_TEST and max(side.largest for side in sides) > most:
        logger.warning(
            "Images are resized to %d pixels a side at most (INPUT.MAX_SIZE_TEST), and the file is for %s x %s (height "
            "x width): what is beyond is padding, or never used, and takes memory and time to check.",
            *(most, *sides),
        )


def strides(detector: DetrDetector) -> list[int]:
    """How many pixels of an image are one token, a side, of each level."""
    shapes = detector.backbone.output_shape()
    levels = [int(shapes[name].stride) for name in detector.in_features]
    while len(levels) < len(detector.flatten.level_embed):
        levels.append(2 * levels[-1])
    return levels


def num_tokens(detector: DetrDetector, height: int, width: int) -> int:
    """S, the number of encoder tokens of images of a size in pixels."""
    return sum(-(-height // stride) * -(-width // stride) for stride in strides(detector))


def _has_tokens(detector: DetrDetector, height: int, width: int) -> bool:
    is_selecting = isinstance(detector.query_selection, QuerySelection)
    return not is_selecting or num_tokens(detector, height, width) >= detector.query_selection.num_queries
