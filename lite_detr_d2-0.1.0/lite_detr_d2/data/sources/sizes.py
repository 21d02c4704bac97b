"""Sizes of images, for formats that do not state them."""

from pathlib import Path

from ...errors import InputError
from ..images import read_header


def size_of(path: Path) -> tuple[int, int] | None:
    """Read the (width, height) of an image as displayed; None where it cannot be read."""
    try:
        header = read_header(path)
    except InputError:  # whoever opens the image says why
        return None
    return header.width, header.height
