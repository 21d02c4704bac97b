"""From any image to what a detector takes: the pixels that training would see, resized."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeGuard

import numpy as np
import numpy.typing as npt
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from torch import Tensor

from ..data.augmentation import BoundedResize
from ..data.images import read_image
from ..errors import InputError
from .bounds import Bounds

Image: TypeAlias = str | os.PathLike[str] | npt.NDArray[np.uint8] | Tensor
"""A file, an array (H, W, 3) or a tensor (3, H, W)."""

Size: TypeAlias = tuple[int, int]
"""Height and width, in pixels."""

CHANNELS = ("RGB", "BGR")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedImage:
    """An image that is ready for a detector.

    Attributes:
        pixels: (3, h, w) uint8, resized, in the channels that :class:`~.inference.InferenceModel` takes.
        original: what it was before it was resized.
        padded: what it is with the padding that it needs.
    """

    pixels: npt.NDArray[np.uint8]
    original: Size
    padded: Size

    @property
    def size(self) -> Size:
        """Without padding."""
        return self.pixels.shape[1], self.pixels.shape[2]


class Preparation:
    """Reads, checks and resizes images as evaluation does, and fits them to the bounds of an exported model."""

    def __init__(self, cfg: CfgNode, bounds: Bounds | None = None) -> None:
        """Prepare images for a detector of ``cfg``, which takes any size, or what is within ``bounds``."""
        self.format: str = "RGB" if cfg.INPUT.FORMAT in CHANNELS else cfg.INPUT.FORMAT
        self.max_value: float = cfg.INPUT.MAX_VALUE
        self.resize = BoundedResize(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST, sample_style="choice")
        self.bounds = bounds
        self._said: set[str] = set()

    def __call__(self, image: Image, format: str, name: str) -> PreparedImage:
        """Prepare an image.

        Args:
            image: a file; an array, (H, W, 3) uint8; or a tensor, (3, H, W) uint8.
            format: of an array's or a tensor's channels: "RGB" or "BGR".
            name: what an error calls an array or a tensor.

        Raises:
            ImageError: the file cannot be read.
            InputError: it is none of these, or empty.
        """
        if isinstance(image, str | os.PathLike):
            pixels = read_image(image, self.format, self.max_value)
        else:
            pixels = self._converted(_checked(image, name), format)
        original = pixels.shape[0], pixels.shape[1]
        resize = self.resize.get_transform(pixels)
        wanted = (resize.new_h, resize.new_w) if isinstance(resize, T.ResizeTransform) else original
        size, padded = self._fitted(wanted)
        resized = T.ResizeTransform(*original, *size, self.resize.interp).apply_image(pixels)
        return PreparedImage(resized.transpose(2, 0, 1), original, padded)

    def _fitted(self, wanted: Size) -> tuple[Size, Size]:
        """The size within the bounds that is nearest to a wanted one, of the same shape; and that with its padding."""
        if self.bounds is None:
            return wanted, wanted
        limits = self.bounds.height, self.bounds.width
        shrink = min(1.0, *(limit.largest / side for limit, side in zip(limits, wanted, strict=True)))
        if shrink < 1.0:
            self._say_once(
                f"Images are made smaller than the config says, such as {_shown(wanted)}: the exported model takes up "
                f"to {_shown(self.bounds.largest[1:])}. Their detections are not those of the size that it says."
            )
        height, width = (
            min(max(round(side * shrink), 1), limit.largest) for limit, side in zip(limits, wanted, strict=True)
        )
        padded = limits[0].clamp(height), limits[1].clamp(width)
        # What one size costs, its export says.
        if padded != (height, width) and not (limits[0].is_fixed or limits[1].is_fixed):
            self._say_once(
                f"Images are padded, such as one of {_shown((height, width))} to {_shown(padded)}: the exported model "
                f"takes none whose sides are below {limits[0].smallest} and {limits[1].smallest}. Their detections are "
                "not those without padding."
            )
        return (height, width), padded

    def _say_once(self, message: str) -> None:
        kind = message.partition(",")[0]
        if kind not in self._said:
            self._said.add(kind)
            logger.warning("%s", message)

    def _converted(self, pixels: npt.NDArray[np.uint8], format: str) -> npt.NDArray[np.uint8]:
        if self.format not in CHANNELS:
            raise InputError(
                f"INPUT.FORMAT is {self.format!r}, into which arrays are not converted: give the image's file."
            )
        return pixels if format == self.format else pixels[:, :, ::-1]


def is_image(value: object) -> TypeGuard[Image]:
    """Whether a value is one image rather than several."""
    return isinstance(value, str | os.PathLike | np.ndarray | Tensor)


def _checked(image: object, name: str) -> npt.NDArray[np.uint8]:
    """An array (H, W, 3), uint8."""
    if isinstance(image, Tensor):
        expected, dtype, channels = "a tensor (3, H, W) of torch.uint8", image.dtype == torch.uint8, 0
    elif isinstance(image, np.ndarray):
        expected, dtype, channels = "an array (H, W, 3) of uint8", image.dtype == np.uint8, 2
    else:
        raise InputError(
            f"{name} is of {type(image).__name__}: expected a path, an array (H, W, 3) or a tensor (3, H, W), of "
            "uint8. numpy.asarray makes an array of Pillow's images."
        )
    shape = tuple(image.shape)
    found = f"{name} is {shape} of {image.dtype}: expected {expected}"
    if not dtype:
        raise InputError(f"{found}, with values from 0 to 255. Scale and round what is in another range.")
    if len(shape) == 2:
        raise InputError(f"{found}. Repeat a gray image as three channels.")
    if len(shape) != 3:
        raise InputError(f"{found}. Give several images as a list.")
    if shape[channels] != 3:
        hint = " Leave the alpha channel out." if shape[channels] == 4 else ""
        raise InputError(f"{found}.{' Move the channels.' if shape[2 - channels] == 3 else hint}")
    if 0 in shape:
        raise InputError(f"{found}, at least one pixel a side.")
    return image.permute(1, 2, 0).cpu().numpy() if isinstance(image, Tensor) else image


def _shown(size: Sequence[int]) -> str:
    return f"{size[0]} x {size[1]} (height x width)"
