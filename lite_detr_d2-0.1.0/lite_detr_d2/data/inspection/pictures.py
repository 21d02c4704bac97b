"""Every image, opened in full: can training read it, and is it what the annotations say?"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from tqdm import tqdm

from ..findings import Check, Finding, Findings, Severity
from ..images import ImageError, read_header, read_image
from ..normalise import Normalised
from ..normalise.checks import IMAGE_UNREADABLE
from .similar import SIZE, Thumbnails, thumbnail
from .table import HalfTable

IMAGE_DECODED_SIZE = Check(
    "image-decoded-size",
    Severity.ERROR,
    "an image, once it is decoded, is not of its stated size (width x height)",
    "restore the image that the boxes were drawn on",
    droppable=True,
)
IMAGE_MODE = Check(
    "image-mode",
    Severity.INFO,
    "images are no plain RGB or grey: their colours are converted, transparency is ignored, and of several frames the "
    "first is read",
    "see whether they look right when they are saved as RGB",
)

_PLAIN_MODES = ("RGB", "L")


@dataclass(frozen=True)
class Picture:
    """What was seen of an image.

    Attributes:
        problem: the check that it fails; None if it can be used.
        detail: in what way.
        oddity: what is unusual about its mode or frames; "" for nothing.
        thumbnail: (32, 32) uint8; zeros if it cannot be read.
    """

    problem: Check | None
    detail: str
    oddity: str
    thumbnail: Thumbnails


def open_images(
    tables: Sequence[HalfTable], *, max_value: float, workers: int, progress: bool
) -> dict[str, list[Picture]]:
    """Open all images as training does.

    Args:
        tables: the halves.
        max_value: as :func:`read_image` takes it.
        workers: how many threads read; decoding and resizing use a core each.
        progress: whether to show a progress bar on standard error.

    Returns:
        By half, a picture of each image.
    """
    images = [
        (path, (int(width), int(height)))
        for table in tables
        for path, (width, height) in zip(table.paths(), table.sizes, strict=True)
    ]
    with ThreadPoolExecutor(workers) as pool:
        seen = pool.map(partial(_look, max_value), images)
        pictures = iter(list(tqdm(seen, "Opening images", len(images), unit="image", disable=not progress)))
    return {table.name: [next(pictures) for _ in table.files] for table in tables}


def _look(max_value: float, image: tuple[str, tuple[int, int]]) -> Picture:
    path, stated = image
    blank = np.zeros((SIZE, SIZE), dtype=np.uint8)
    try:
        header = read_header(path)
        pixels = read_image(path, "RGB", max_value)
    except ImageError as error:
        return Picture(IMAGE_UNREADABLE, error.reason_in_dataset, "", blank)
    plain = header.mode in _PLAIN_MODES or header.depth  # of depth, it is said elsewhere
    oddity = [*([] if plain else [header.mode]), *([f"{header.frames} frames"] if header.frames > 1 else [])]
    height, width = pixels.shape[:2]
    if (width, height) != stated:
        detail = f"it is {width} x {height}, not {stated[0]} x {stated[1]}"
        return Picture(IMAGE_DECODED_SIZE, detail, ", ".join(oddity), thumbnail(pixels))
    return Picture(None, "", ", ".join(oddity), thumbnail(pixels))


def picture_findings(table: HalfTable, pictures: Sequence[Picture]) -> Iterator[Finding]:
    """Say what is wrong, or unusual, with the images of a half."""
    found = Findings(table.name)
    for file, picture in zip(table.files, pictures, strict=True):
        if picture.problem is not None:
            found.add(picture.problem, f"{file}: {picture.detail}")
        if picture.oddity:
            found.add(IMAGE_MODE, f"{file} ({picture.oddity})")
    yield from found


def thumbnails_of(tables: Sequence[HalfTable], pictures: Mapping[str, Sequence[Picture]]) -> Thumbnails:
    """(N, 32, 32), of the images of all halves in turn."""
    thumbnails = [picture.thumbnail for table in tables for picture in pictures[table.name]]
    return np.stack(thumbnails) if thumbnails else np.empty((0, SIZE, SIZE), dtype=np.uint8)


def without_problems(normalised: Normalised, pictures: Mapping[str, Sequence[Picture]]) -> Normalised:
    """Leave out the images that cannot be used, and their boxes."""
    halves = dict(normalised.halves)
    for name, half in halves.items():
        images = [
            image
            for image, picture in zip(half.content["images"], pictures[name], strict=True)
            if picture.problem is None
        ]
        kept = {image["id"] for image in images}
        boxes = [box for box in half.content["annotations"] if box["image_id"] in kept]
        halves[name] = replace(half, content={**half.content, "images": images, "annotations": boxes})
    return replace(normalised, halves=halves)
