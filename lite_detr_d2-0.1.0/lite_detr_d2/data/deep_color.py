"""Colours of 16 bits a channel, of which Pillow keeps only the upper 8."""

import sys
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

# How Pillow is told to unpack 16-bit pixels: the upper byte of big-endian (B), little-endian (L) or native (N) values.
# Of premultiplied colours and of CMYK, what it makes of the upper bytes must do.
_COLORS = ("RGB", "RGBX", "RGBA")
_GRAY_ALPHA = "LA;16B"
_SWAPPED = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}


def lower_rawmode(image: Image.Image) -> str:
    """Return the raw mode that unpacks the lower bytes of an image that is not loaded; "" if it has no deep colours."""
    tiles = getattr(image, "tile", [])
    rawmode = _rawmode(tiles[0][3]) if tiles else ""
    colors, _, order = rawmode.partition(";16")
    if rawmode == _GRAY_ALPHA:
        return "RGBA"  # bytes as they come: the second is the gray's lower
    return f"{colors};16{_SWAPPED[order]}" if colors in _COLORS and order in _SWAPPED else ""


def load_lower(file: IO[bytes], rawmode: str) -> Image.Image:
    """Return the image made of its lower bytes: it is unpacked in the other byte order."""
    file.seek(0)
    image: Any = Image.open(file)
    image.tile = [tile._replace(args=_replaced(tile.args, rawmode)) for tile in image.tile]
    image.load()
    return Image.merge("RGB", [image.getchannel("G")] * 3) if rawmode == "RGBA" else image.convert("RGB")


def combined(upper: Image.Image, lower: Image.Image) -> npt.NDArray[np.uint16]:
    """Return the colours, (H, W, 3)."""
    colors: npt.NDArray[np.uint16] = np.asarray(upper.convert("RGB")).astype(np.uint16) * 256
    colors += np.asarray(lower)
    return colors


def _rawmode(args: Any) -> str:
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def _replaced(args: Any, rawmode: str) -> Any:
    return (rawmode, *args[1:]) if isinstance(args, tuple) else rawmode
