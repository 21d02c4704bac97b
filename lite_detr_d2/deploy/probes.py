"""What an exported model is checked on: real images, at several sizes within its bounds."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ..data.images import ImageError, read_image
from ..data.prepare import find_prepared
from ..data.sources.tree import walk
from ..errors import InputError
from ..wording import listed, shown
from .bounds import Bounds
from .preparation import Preparation, PreparedImage

logger = logging.getLogger(__name__)

Pixels = npt.NDArray[np.uint8]

NUM_IMAGES = 8
_UNREADABLE_SHOWN = 5


@dataclass(frozen=True)
class Batch:
    """Inputs of an exported model: ``images`` (N, 3, H, W) uint8 and ``sizes`` (N, 2) int64."""

    images: Pixels
    sizes: npt.NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Batch, height and width."""
        number, _, height, width = self.images.shape
        return number, height, width


def find_images(cfg: CfgNode, folder: Path | None) -> list[Path]:
    """Find real images for a check.

    Args:
        cfg: of the detector, with the path of its weights.
        folder: that has them; None for those that the detector was evaluated on: the dataset that its training left
            beside the weights, or else those of ``DATASETS.TEST`` that are registered.

    Returns:
        Their files, at least one.

    Raises:
        InputError: there are none.
    """
    if folder is not None:
        images = walk(folder).images
        if not images:
            raise InputError(f"{shown(folder)} has no images to check the exported file on: name a folder that has.")
        return images
    images = _evaluated_on(cfg)
    if not images:
        raise InputError(
            "There are no images to check the exported file on, because the dataset that the detector was evaluated on "
            "is not found: name a folder with images of what it detects, --images DIR."
        )
    return images


def read_images(paths: Sequence[Path], cfg: CfgNode, number: int = NUM_IMAGES) -> list[Pixels]:
    """Read some of the images, evenly chosen: (H, W, 3) each. Those that cannot be read are reported and passed over.

    Raises:
        InputError: none of them can be read.
    """
    chosen = np.unique(np.linspace(0, len(paths) - 1, number).round().astype(int))
    images, problems = [], []
    for index in chosen:
        try:
            images.append(read_image(paths[index], cfg.INPUT.FORMAT, cfg.INPUT.MAX_VALUE))
        except ImageError as error:
            problems.append(str(error))
    if not images:
        raise InputError(f"None of {len(chosen)} images can be read to check the exported file on: {problems[0]}")
    if problems:
        title = f"{len(problems)} of {len(chosen)} images for the check are passed over:"
        logger.warning("%s", listed(title, problems[:_UNREADABLE_SHOWN]))
    return images


def make_batches(images: Sequence[Pixels], cfg: CfgNode, bounds: Bounds) -> list[Batch]:
    """Make inputs within the bounds.

    All images come at the size of evaluation. Where the bounds leave a choice, further batches have the smallest and
    the largest size, one turned by a right angle, and two images of different sizes.

    Args:
        images: (H, W, 3) uint8, in ``INPUT.FORMAT``.
        cfg: of the detector.
        bounds: of the exported model.
    """

    def prepared(image: Pixels, preparation: Preparation) -> PreparedImage:
        return preparation(image, cfg.INPUT.FORMAT, "The image")

    evaluation = Preparation(cfg, bounds)
    usual = [prepared(image, evaluation) for image in images]
    number = bounds.batch.smallest
    groups = [_filled(usual[start : start + number], number) for start in range(0, len(usual), number)]
    if not (bounds.height.is_fixed and bounds.width.is_fixed):
        smallest = max(bounds.height.smallest, bounds.width.smallest)
        largest = min(bounds.height.largest, bounds.width.largest)
        small, large = (
            prepared(images[0], Preparation(_with_sizes(cfg, short, largest), bounds)) for short in (smallest, largest)
        )
        turned = prepared(np.rot90(images[0]), evaluation)
        groups += [_filled([image], number) for image in (small, large, turned)]
        if bounds.batch.largest > 1:
            groups.append(_filled([small, turned], max(number, 2)))
    elif not bounds.batch.is_fixed:
        groups.append(_filled(usual[:2], max(number, 2)))
    return [_batch(group) for group in groups]


def _filled(images: list[PreparedImage], number: int) -> list[PreparedImage]:
    """So many images, the last one repeated."""
    return images + images[-1:] * (number - len(images))


def _batch(images: Sequence[PreparedImage]) -> Batch:
    height, width = (max(image.padded[side] for image in images) for side in (0, 1))
    pixels = np.zeros((len(images), 3, height, width), dtype=np.uint8)
    for slot, image in zip(pixels, images, strict=True):
        slot[:, : image.size[0], : image.size[1]] = image.pixels
    return Batch(pixels, np.array([image.size for image in images], dtype=np.int64))


def _with_sizes(cfg: CfgNode, min_size: int, max_size: int) -> CfgNode:
    changed = cfg.clone()
    changed.defrost()
    changed.INPUT.MIN_SIZE_TEST, changed.INPUT.MAX_SIZE_TEST = min_size, max_size
    return changed


def _evaluated_on(cfg: CfgNode) -> list[Path]:
    prepared = find_prepared(Path(cfg.MODEL.WEIGHTS).parent / "dataset")
    half = prepared and next((prepared.halves[name] for name in ("val", "test") if name in prepared.halves), None)
    if half:
        records: list[dict[str, Any]] = json.loads(half.annotations.read_bytes())["images"]
        return [half.images / record["file_name"] for record in records]
    for name in cfg.DATASETS.TEST:
        file = MetadataCatalog.get(name).get("json_file") if name in DatasetCatalog else None
        if file is not None and Path(file).is_file():
            return [Path(record["file_name"]) for record in DatasetCatalog.get(name)]
    return []
