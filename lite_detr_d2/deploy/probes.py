"""What an exported model is checked on: real images, at several sizes within its bounds."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.transforms import ResizeTransform

from ..data.images import ImageError, read_image
from ..data.prepare import PreparedHalf, find_prepared
from ..data.source import Content, read_coco_file
from ..data.sources.tree import walk
from ..errors import InputError
from ..wording import listed, shown
from .bounds import Bounds
from .preparation import Preparation, PreparedImage

logger = logging.getLogger(__name__)

Pixels = npt.NDArray[np.uint8]

NUM_IMAGES = 8
NUM_CALIBRATION = 128
_UNREADABLE_SHOWN = 5

# What to do where no image can be read.
RESTORE = "Put the images back to where they were."
_TO_CHECK = "to check the exported file on"
_NAME_FOLDER = "Name a folder with images of what it detects, --images DIR."

_Item = TypeVar("_Item")


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


@dataclass(frozen=True)
class Dataset:
    """Images with annotations in COCO's format.

    Attributes:
        annotations: their file.
        images: of each image the file, by the id that it has there.
    """

    annotations: Path
    images: Mapping[Any, Path]


def find_dataset(cfg: CfgNode, *, training: bool) -> Dataset | None:
    """Find what a detector was trained or evaluated on.

    It is a half of the dataset that its training left in ``OUTPUT_DIR``, or else the first of ``DATASETS.TRAIN`` or
    ``DATASETS.TEST`` that is registered.

    Args:
        cfg: of the detector, see :class:`.TrainedModel`.
        training: whether to find what it was trained on.

    Raises:
        InputError: its annotations cannot be read.
    """
    names, halves = (cfg.DATASETS.TRAIN, ("train",)) if training else (cfg.DATASETS.TEST, ("val", "test"))
    prepared = find_prepared(Path(cfg.OUTPUT_DIR, "dataset"))
    half = prepared and next((prepared.halves[name] for name in halves if name in prepared.halves), None)
    if half:
        return dataset_of(half)
    for name in names:
        file = MetadataCatalog.get(name).get("json_file") if name in DatasetCatalog else None
        if file is not None and Path(file).is_file():
            records: list[dict[str, Any]] = DatasetCatalog.get(name)
            return Dataset(Path(file), {record["image_id"]: Path(record["file_name"]) for record in records})
    return None


def dataset_of(half: PreparedHalf) -> Dataset:
    """The images of a half that a training left.

    Raises:
        InputError: its annotations cannot be read.
    """
    records: list[dict[str, Any]] = read_annotations(half.annotations)["images"]
    return Dataset(half.annotations, {record["id"]: half.images / record["file_name"] for record in records})


def read_annotations(file: Path) -> Content:
    """Read the annotations of a :class:`Dataset`: an object of COCO's three lists.

    Raises:
        InputError: they cannot be read.
    """
    try:
        return read_coco_file(file)
    except InputError as error:
        raise InputError(f"The dataset of the training cannot be used: {error}. Restore that file.") from error


def find_images(cfg: CfgNode, folder: Path | None) -> list[Path]:
    """Find real images for a check.

    Args:
        cfg: of the detector, see :class:`.TrainedModel`.
        folder: that has them; None for those that the detector was evaluated on, see :func:`find_dataset`.

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
    dataset = find_dataset(cfg, training=False)
    if dataset is None or not dataset.images:
        raise InputError(
            "There are no images to check the exported file on, because the dataset that the detector was evaluated on "
            "is not found: name a folder with images of what it detects, --images DIR."
        )
    return list(dataset.images.values())


def chosen(items: Sequence[_Item], number: int) -> list[_Item]:
    """Some of the items, evenly chosen; all, if there are no more."""
    return [items[index] for index in np.unique(np.linspace(0, len(items) - 1, number).round().astype(int))]


def read_images(paths: Sequence[Path], cfg: CfgNode, number: int = NUM_IMAGES) -> list[Pixels]:
    """Read some of the images, evenly chosen, as :func:`readable` does."""
    return [pixels for _, pixels in readable(chosen(paths, number), cfg, _TO_CHECK, _NAME_FOLDER)]


def readable(paths: Sequence[Path], cfg: CfgNode, purpose: str, cure: str) -> Iterator[tuple[int, Pixels]]:
    """Read images one by one. Those that cannot be read are reported and passed over.

    Args:
        paths: of the images.
        cfg: of the detector that they are for.
        purpose: for messages: "to ...".
        cure: likewise, where none of them can be read: what to do then.

    Yields:
        The index in ``paths``, and the image, (H, W, 3) uint8, in RGB.

    Raises:
        InputError: none of them can be read.
    """
    problems: list[ImageError] = []
    for index, path in enumerate(paths):
        try:
            pixels = read_image(path, max_value=cfg.INPUT.MAX_VALUE)
        except ImageError as error:
            problems.append(error)
        else:
            yield index, pixels
    if len(problems) == len(paths):
        first = f"{shown(paths[0])}: {problems[0].cause}"
        raise InputError(f"None of {len(paths)} images can be read {purpose}, such as {first}. {cure}")
    if problems:
        title = f"{len(problems)} of {len(paths)} images {purpose} are passed over:"
        logger.warning("%s", listed(title, list(map(str, problems[:_UNREADABLE_SHOWN]))))


def calibration_batches(cfg: CfgNode, bounds: Bounds, number: int = NUM_CALIBRATION) -> list[Batch]:
    """Inputs that show which values a model computes: images that it was trained on, evenly chosen.

    Args:
        cfg: of the detector, see :class:`.TrainedModel`.
        bounds: of the exported model.
        number: of images.

    Raises:
        InputError: there are none, or none of them can be read.
    """
    dataset = find_dataset(cfg, training=True)
    if dataset is None or not dataset.images:
        raise InputError(
            "There are no images to calibrate int8 on, because the dataset that the detector was trained on is not "
            "found: export the OUTPUT_DIR of a training by --dataset, or register what DATASETS.TRAIN names."
        )
    paths = chosen(list(dataset.images.values()), number)
    logger.info("int8 is calibrated on %d images of %s", len(paths), shown(dataset.annotations))
    return evaluation_batches((pixels for _, pixels in readable(paths, cfg, "to calibrate on", RESTORE)), cfg, bounds)


def evaluation_batches(images: Iterable[Pixels], cfg: CfgNode, bounds: Bounds) -> list[Batch]:
    """Inputs at the size of evaluation, each of as few images as the bounds allow.

    Args:
        images: (H, W, 3) uint8, in RGB.
        cfg: of the detector.
        bounds: of the exported model.
    """
    preparation, number = Preparation(cfg, bounds), bounds.batch.smallest
    prepared = [_prepared(image, preparation) for image in images]
    return [_batch(_filled(prepared[start : start + number], number)) for start in range(0, len(prepared), number)]


def make_batches(images: Sequence[Pixels], cfg: CfgNode, bounds: Bounds) -> list[Batch]:
    """Make inputs within the bounds.

    All images come at the size of evaluation. Where the bounds leave a choice of sizes, further batches have one turned
    by a right angle, or a part of a square one, and two images of different sizes; where they leave any choice, two
    have exactly the smallest and the largest batch and size.

    Args:
        images: (H, W, 3) uint8, in RGB.
        cfg: of the detector.
        bounds: of the exported model.
    """
    evaluation, number = Preparation(cfg, bounds), bounds.batch.smallest
    groups = []
    if not (bounds.height.is_fixed and bounds.width.is_fixed):
        upright, turned = (_prepared(image, evaluation) for image in (images[0], _of_other_shape(images[0])))
        groups.append(_filled([turned], number))
        if bounds.batch.largest > 1:
            groups.append(_filled([upright, turned], max(number, 2)))
    if not bounds.is_fixed:
        # The largest batch of the largest size takes much memory. It is not cut down: what cannot be run here is not
        # known to be right, and a file is not to promise it.
        groups += [_of_shape(images, *shape) for shape in (bounds.smallest, bounds.largest)]
    return [*evaluation_batches(images, cfg, bounds), *map(_batch, groups)]


def _of_other_shape(image: Pixels) -> Pixels:
    """The image turned by a right angle; of a square one, the upper three quarters."""
    height, width = image.shape[:2]
    return np.rot90(image) if height != width else image[: max(3 * height // 4, 1)]


def _of_shape(images: Sequence[Pixels], number: int, height: int, width: int) -> list[PreparedImage]:
    """So many images, repeated in turn: the first one is stretched to the size, the others keep their shape in it."""
    prepared = []
    for index, image in enumerate(islice(cycle(images), number)):
        original = image.shape[0], image.shape[1]
        scale = min(height / original[0], width / original[1])
        size = tuple(max(round(side * scale), 1) for side in original) if index else (height, width)
        resized = ResizeTransform(*original, *size).apply_image(image)
        prepared.append(PreparedImage(resized.transpose(2, 0, 1), original, (height, width)))
    return prepared


def _prepared(image: Pixels, preparation: Preparation) -> PreparedImage:
    return preparation(image, "RGB", "The image")


def _filled(images: list[PreparedImage], number: int) -> list[PreparedImage]:
    """So many images, the last one repeated."""
    return images + images[-1:] * (number - len(images))


def _batch(images: Sequence[PreparedImage]) -> Batch:
    height, width = (max(image.padded[side] for image in images) for side in (0, 1))
    pixels = np.zeros((len(images), 3, height, width), dtype=np.uint8)
    for slot, image in zip(pixels, images, strict=True):
        slot[:, : image.size[0], : image.size[1]] = image.pixels
    return Batch(pixels, np.array([image.size for image in images], dtype=np.int64))
