"""detectron2's dataset mapper with DETR's augmentation."""

import copy
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T

from ..errors import InputError
from .augmentation import BoundedResize, NonEmptyCrop
from .images import ImageError, read_header, read_image
from .normalise import checks

_CROP_TYPES = ("absolute", "absolute_range", "relative", "relative_range")


class DetrDatasetMapper(DatasetMapper):
    """detectron2's ``DatasetMapper`` with :func:`read_image`, the crop of DETR, and errors that name the image.

    In training with ``INPUT.CROP.ENABLED``, half of the images first get their short side resized to one of
    ``INPUT.CROP.MIN_SIZE_TRAIN`` and are then cropped as ``INPUT.CROP.TYPE`` and ``SIZE`` say. All images are resized
    and flipped afterwards, by detectron2's own keys. In evaluation, all images are resized only. Strips, too, keep a
    pixel a side and grow to no more than 20 megapixels (:class:`BoundedResize`).

    Precomputed proposals and semantic segmentation, for which these detectors have no use, are not read.

    Source: DETR, arXiv 2005.12872, Sec. 4; detectron2 alone crops every image, at its original size.
    """

    @configurable
    def __init__(self, is_train: bool, *, max_value: float = 0.0, **options: Any) -> None:
        """
        Args:
            is_train: whether annotations are read.
            max_value: of images with more than 8 bits, the value that becomes 255; see :func:`read_image`.
            options: the other arguments of detectron2's ``DatasetMapper``, such as ``augmentations``.
        """
        super().__init__(is_train, **options)
        self.max_value = max_value

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        crops = is_train and cfg.INPUT.CROP.ENABLED
        if crops and cfg.INPUT.CROP.TYPE not in _CROP_TYPES:
            raise InputError(f"INPUT.CROP.TYPE is {cfg.INPUT.CROP.TYPE!r}: expected one of {', '.join(_CROP_TYPES)}.")
        arguments: dict[str, Any] = super().from_config(cfg, is_train)
        augmentations = arguments["augmentations"][1:] if crops else arguments["augmentations"]
        augmentations = [_bounded(augmentation) for augmentation in augmentations]
        if crops:
            resize = BoundedResize(cfg.INPUT.CROP.MIN_SIZE_TRAIN, sample_style="choice")
            crop = NonEmptyCrop(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE)
            augmentations.insert(0, T.RandomApply(T.AugmentationList([resize, crop]), prob=0.5))
        max_value = cfg.INPUT.get("MAX_VALUE", 0.0)  # not a key of detectron2's own config
        return {**arguments, "augmentations": augmentations, "max_value": max_value}

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Read and transform one image.

        Args:
            dataset_dict: one image in detectron2's dataset format; it is not modified.

        Returns:
            The same, with ``image``, a uint8 tensor (3, H, W), and without ``annotations``: in training they become
            ``instances`` with ``gt_boxes`` (XYXY, in pixels of ``image``) and ``gt_classes``, less empty boxes.

        Raises:
            InputError: the image cannot be read, or its size is not the stated one.
        """
        mapped = copy.deepcopy(dataset_dict)
        augmented = T.AugInput(self._read(mapped))
        transforms = self.augmentations(augmented)
        image = augmented.image
        # A copy also of a column of pixels that was flipped, which numpy calls contiguous, and torch does not take.
        mapped["image"] = torch.from_numpy(image.transpose(2, 0, 1).copy())
        if not self.is_train:
            mapped.pop("annotations", None)
        elif "annotations" in mapped:
            self._transform_annotations(mapped, transforms, image.shape[:2])
        return mapped

    def _read(self, record: dict[str, Any]) -> np.ndarray[Any, Any]:
        """Return the image (H, W, C), and see that ``width`` and ``height`` are stated and right."""
        path = record["file_name"]
        name = f"Image {path} (image id {record.get('image_id')})"
        try:
            image = read_image(path, self.image_format, self.max_value)
        except ImageError as error:
            raise ImageError(f"{name} cannot be read: {error.reason_in_dataset}", error.cause) from error
        height, width = image.shape[:2]
        stated = (record.setdefault("width", width), record.setdefault("height", height))
        if stated != (width, height):
            wrong = checks.wrong_size(read_header(path), stated)
            sizes = f"it is {width} x {height}, not {stated[0]} x {stated[1]}"
            raise InputError(f"{name}: {wrong.message}; {wrong.cure}: {sizes}.")
        return image


def _bounded(augmentation: T.Augmentation) -> T.Augmentation:
    if not isinstance(augmentation, T.ResizeShortestEdge):
        return augmentation
    return BoundedResize(
        augmentation.short_edge_length, augmentation.max_size, augmentation.sample_style, augmentation.interp
    )
