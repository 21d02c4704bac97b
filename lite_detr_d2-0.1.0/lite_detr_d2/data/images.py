"""The one reader of images: training, evaluation, prediction, checks and pictures see the same pixels.

Orientation: an image is turned upright as its orientation tag says (EXIF, or else XMP; what
``PIL.ImageOps.exif_transpose`` does). A tag that cannot be read, or is none of 1 to 8, is as good as none.

Depth: an image with more than 8 bits a channel, gray or RGB, becomes 8 bits as ``value * 255 / range``, rounded, within
0 to 255. The range is that of the whole set where it is given (``INPUT.MAX_VALUE``), so that equal values look equal in
all images; else the smallest standard range that holds the image's largest value (:func:`range_for`). Values that are
not finite count as 0.

Of several frames or pages, the first is read.
"""

import errno
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from detectron2.data.detection_utils import convert_PIL_to_numpy
from detectron2.utils.file_io import PathManager
from PIL import ExifTags, Image, UnidentifiedImageError

from ..errors import InputError
from ..wording import shown
from .deep_color import combined, load_lower, lower_rawmode
from .png_metadata import metadata_behind_pixels

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPPING = (5, 6, 7, 8)
_INTEGER_RANGES = (255.0, 1023.0, 4095.0, 16383.0, 65535.0, 2.0**31 - 1)
_NAME_SHOWN = 120


class _Cure(NamedTuple):
    """What to do: for one who named the file, and for one whose annotations name it."""

    of_file: str
    of_dataset: str


_IN_ANNOTATIONS = "Restore the file, or remove the image from the annotation file."
_RESTORE = _Cure("Restore the file, or leave it out.", _IN_ANNOTATIONS)
_NAME_ANOTHER = _Cure("Correct the name.", _IN_ANNOTATIONS)
_SHRINK = _Cure(*["Make the image smaller, or cut it into tiles."] * 2)
_REASONS: dict[type[Exception], tuple[str, _Cure]] = {
    MemoryError: ("it does not fit into the memory", _SHRINK),
    FileNotFoundError: ("there is no such file", _NAME_ANOTHER),
    NotADirectoryError: ("there is no such file", _NAME_ANOTHER),
    PermissionError: (
        "there is no permission to read it",
        _Cure(*["Give the permission to read the file and its folders."] * 2),
    ),
    IsADirectoryError: ("it is a folder, not a file", _Cure("Name a file.", _IN_ANNOTATIONS)),
    UnidentifiedImageError: ("it is not an image, its header is broken, or its format is unknown", _RESTORE),
}


class ImageError(InputError):
    """An image that cannot be read.

    Attributes:
        cause: why, without the file's name and the cure.
    """

    def __init__(self, message: str, cause: str = "", cure: _Cure = _RESTORE) -> None:
        # Data-loading processes pass an error on as its message alone.
        super().__init__(message)
        self.cause = cause or message
        self._cure = cure

    @property
    def reason_in_dataset(self) -> str:
        """Why, and what to do about an image that annotations name; the message is for those who named the file."""
        return f"{self.cause}. {self._cure.of_dataset}"


@dataclass(frozen=True)
class ImageHeader:
    """What is known of an image before its pixels are decoded.

    Attributes:
        width: in pixels, as displayed: turned upright.
        height: likewise.
        stored: (width, height) of the pixels in the file, before they are turned.
        mode: Pillow's name of the kind of pixels, such as "RGB" or "I;16".
        depth: whether a channel has more than 8 bits, so that it is read by the range of its values.
        frames: the number of frames or pages, of which the first is read.
        turned: whether an orientation tag turns or mirrors the image (by 180 degrees, too).
    """

    width: int
    height: int
    stored: tuple[int, int]
    mode: str
    depth: bool
    frames: int
    turned: bool

    def is_unturned(self, stated: tuple[Any, Any]) -> bool:
        """Whether a stated (width, height) is not the displayed one, but as if the orientation tag did not count."""
        return self.turned and stated == self.stored != (self.width, self.height)


def read_image(path: str | os.PathLike[str], format: str = "RGB", max_value: float = 0.0) -> npt.NDArray[np.uint8]:
    """Read an image, upright.

    Args:
        path: the file.
        format: "RGB", "BGR", or another of detectron2's ``INPUT.FORMAT``.
        max_value: of a deep image, the value that becomes 255; 0 takes the standard range that holds its values.

    Returns:
        (H, W, 3), uint8; of other formats what detectron2's ``read_image`` returns, such as (H, W, 1) for "L".

    Raises:
        InputError: the file cannot be opened, is broken or too large, or its mode cannot be converted.
    """
    with _opened(path) as (opened, file):
        image = _decoded(opened, file)
        if isinstance(image, np.ndarray):
            image = Image.fromarray(_to_8_bits(image, max_value))
        try:
            pixels: npt.NDArray[np.uint8] = convert_PIL_to_numpy(image, format)
        except ValueError as error:
            cause = f"its mode, {image.mode}, cannot be converted to {format}"
            raise _error(path, cause, _Cure(*["Save it as RGB."] * 2)) from error
    return pixels


def read_header(path: str | os.PathLike[str]) -> ImageHeader:
    """Read what comes before the pixels, and the orientation wherever it is kept.

    Raises:
        InputError: the file cannot be opened, is no image, or is too large. Pixels may be broken all the same.
    """
    with _opened(path) as (image, file):
        # Of a TIFF with an orientation, Pillow already gives the turned size.
        stored = getattr(image, "_tile_size", image.size)
        mode, depth = image.mode, _is_deep(image.mode) or lower_rawmode(image) != ""
        if image.format == "PNG":
            image.info.update(metadata_behind_pixels(file, animated=getattr(image, "is_animated", False)))
        orientation = _orientation(image)
        frames = _count_frames(image)  # last: it moves on to other frames
    width, height = stored[::-1] if orientation in _SWAPPING else stored
    return ImageHeader(width, height, stored, mode, depth, frames, orientation in _TURNS)


def largest_value(path: str | os.PathLike[str]) -> float:
    """Return the largest finite value of a deep image, 255 of any other; an integer if its values are integers.

    Raises:
        InputError: as :func:`read_image`.
    """
    with _opened(path) as (opened, file):
        image = _decoded(opened, file)
        return _largest(image) if isinstance(image, np.ndarray) else 255


def range_for(value: float) -> float:
    """Return the standard range that holds a value: 255, 10, 12, 14, 16 or 31 bits, or the value where it is larger.

    Floating-point values up to 1 have range 1. That of integers (Python's or numpy's) is 255 at least.
    """
    ranges = _INTEGER_RANGES if isinstance(value, Integral) else (1.0, *_INTEGER_RANGES)
    return next((limit for limit in ranges if value <= limit), float(value))


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[Image.Image, IO[bytes]]]:
    """Open an image. Whatever then goes wrong with it is an ``ImageError``."""
    _silence_size_warning()
    try:
        with PathManager.open(os.fsdecode(path), "rb") as file:
            if not file.read(1):
                raise OSError("the file is empty")
            with Image.open(file) as image:
                yield image, file
    except Exception as error:  # Pillow's decoders raise whatever a broken file makes them stumble over
        if isinstance(error, ImageError):
            raise
        raise _error(path, *_reason(error)) from error


def _silence_size_warning() -> None:
    """Keep Pillow from warning of images that are large, but within the limit.

    The rule stays: to set and reset it for each image would make Python repeat all warnings that it gives only once.
    """
    if list(warnings.filters[:1]) != [("ignore", None, Image.DecompressionBombWarning, None, 0)]:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)


def _reason(error: Exception) -> tuple[str, _Cure]:
    """Why an image cannot be read, and the cure."""
    if isinstance(error, Image.DecompressionBombError):
        # Pillow warns at its limit, which is half of the one that it enforces.
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        return f"it has more pixels than the limit of {limit:.0f} megapixels", _SHRINK
    for kind, reason in _REASONS.items():
        if isinstance(error, kind):
            return reason
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return "its name is too long for a file", _Cure("Correct it.", "Correct 'file_name' in the annotation file.")
    return str(error) or type(error).__name__, _RESTORE


def _error(path: str | os.PathLike[str], cause: str, cure: _Cure) -> ImageError:
    name = shown(os.fsdecode(path))
    name = name if len(name) <= _NAME_SHOWN else f"{name[: _NAME_SHOWN - 20]}...{name[-20:]}"
    return ImageError(f"Image {name} cannot be read: {cause}. {cure.of_file}", cause, cure)


def _count_frames(image: Image.Image) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # a later page is broken: the first can be read all the same
        return 1


def _orientation(image: Image.Image) -> int:
    """Return the orientation, 1 to 8, of an image that is loaded or whose ``info`` is complete."""
    try:
        # Not the override of Pillow's PNGs, which decodes the pixels in search of more.
        orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
        return int(orientation) if orientation in _TURNS else 1
    except Exception:  # broken metadata keep no one from seeing the pixels
        return 1


def _turned(image: Image.Image) -> Image.Image:
    turn = _TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _decoded(image: Image.Image, file: IO[bytes]) -> Image.Image | npt.NDArray[Any]:
    """Return the upright image; of a deep one its values, (H, W) or (H, W, 3), those that are not finite as 0."""
    lower = lower_rawmode(image)
    image.load()
    upright = _turned(image)
    if lower:
        return combined(upright, _turned(load_lower(file, lower)))
    if not _is_deep(upright.mode):
        return upright
    values = np.asarray(upright)
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0) if upright.mode == "F" else values


def _is_deep(mode: str) -> bool:
    return mode in ("I", "F") or mode.startswith("I;16")


def _largest(values: npt.NDArray[Any]) -> float:
    return values.max().item()  # type: ignore[no-any-return]


def _to_8_bits(values: npt.NDArray[Any], max_value: float) -> npt.NDArray[np.uint8]:
    scale = 255.0 / (max_value if max_value > 0 else range_for(_largest(values)))
    scaled: npt.NDArray[np.float32] = np.multiply(values, scale, dtype=np.float32, casting="unsafe")
    np.clip(np.rint(scaled, out=scaled), 0, 255, out=scaled)
    return scaled.astype(np.uint8)
