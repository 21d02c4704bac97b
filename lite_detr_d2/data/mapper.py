"""detectron2's dataset mapper with DETR's augmentation."""

from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from PIL import Image

from ..errors import InputError

# What Pillow raises for a file that is missing, not an image, truncated, or broken inside (a PNG's SyntaxError).
UNREADABLE_IMAGE = (OSError, SyntaxError, Image.DecompressionBombError)
_CROP_TYPES = ("absolute", "absolute_range", "relative", "relative_range")


class DetrDatasetMapper(DatasetMapper):
    """detectron2's ``DatasetMapper``, whose crop is that of DETR, and whose errors name the image.

    In training with ``INPUT.CROP.ENABLED``, half of the images first get their short side resized to one of
    ``INPUT.CROP.MIN_SIZE_TRAIN`` and are then cropped as ``INPUT.CROP.TYPE`` and ``SIZE`` say. All images are resized
    and flipped afterwards, by detectron2's own keys. In evaluation, this is ``DatasetMapper``.

    Source: DETR, arXiv 2005.12872, Sec. 4; detectron2 alone crops every image, at its original size.
    """

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        crops = is_train and cfg.INPUT.CROP.ENABLED
        if crops and cfg.INPUT.CROP.TYPE not in _CROP_TYPES:
            raise InputError(f"INPUT.CROP.TYPE is {cfg.INPUT.CROP.TYPE!r}: expected one of {', '.join(_CROP_TYPES)}.")
        arguments: dict[str, Any] = super().from_config(cfg, is_train)
        if crops:
            crop, *rest = arguments["augmentations"]
            resize = T.ResizeShortestEdge(cfg.INPUT.CROP.MIN_SIZE_TRAIN, sample_style="choice")
            arguments["augmentations"] = [T.RandomApply(T.AugmentationList([resize, crop]), prob=0.5), *rest]
        return arguments

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Read and transform one image.

        Args:
            dataset_dict: one image in detectron2's dataset format; it is not modified.

        Returns:
            The same, with ``image``, a uint8 tensor (3, H, W), and without ``annotations``: in training they become
            ``instances`` with ``gt_boxes`` (XYXY, in pixels of ``image``) and ``gt_classes``, less empty boxes.

        Raises:
            InputError: the image cannot be read.
            detectron2.data.detection_utils.SizeMismatchError: its size is not the stated one.
        """
        try:
            mapped: dict[str, Any] = super().__call__(dataset_dict)
        except UNREADABLE_IMAGE as error:
            raise InputError(
                f"Image {dataset_dict['file_name']} (image id {dataset_dict.get('image_id')}) cannot be read: {error}. "
                "Restore the file, or remove the image from the annotation file."
            ) from error
        return mapped
