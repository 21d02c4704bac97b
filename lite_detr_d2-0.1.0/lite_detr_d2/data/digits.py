"""A small detection dataset made on the spot: real handwritten digits on real photographs, in COCO format.

The digits are the 1,797 samples of scikit-learn's ``load_digits`` (8 x 8 pixels each, written by many people), the
photographs are sample images that scikit-learn and scikit-image ship: nothing is downloaded. A digit's height is
log-uniform, so that boxes of all of COCO's sizes occur in a stored image: small (an area below 32^2 pixels), medium,
and large (above 96^2). Neither a digit nor a photograph of the training set occurs in the validation set.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import skimage.data
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image

from ..errors import InputError
from ..files import write_atomically
from .validation import validate_dataset

_DESCRIPTION = "lite_detr_d2 demo: handwritten digits on photographs"
# Change it with anything below that changes the images.
_VERSION = 1
_PHOTOGRAPHS = {
    "train": (
        "china.jpg",
        "astronaut",
        "chelsea",
        "stereo_motorcycle",
        "hubble_deep_field",
        "brick",
        "gravel",
        "grass",
    ),
    "val": ("flower.jpg", "coffee", "rocket", "camera"),
}
# load_digits is ordered by writer, roughly: the last samples are other people's hands, too.
_TRAIN_SAMPLES = 1497
_MAX_DIGITS = 8
# Heights of digits, as fractions of the image's side.
_HEIGHTS = (0.07, 0.7)
_MAX_OVERLAP = 0.05
_PLACING_ATTEMPTS = 20
# A box ends where strokes are more transparent than this.
_BOX_OPACITY = 0.5
# A stroke differs at least so much, of 255, from the mean of what it is drawn on.
_CONTRAST = 100

Pixels = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class _Parameters:
    train_images: int
    val_images: int
    image_size: int
    seed: int


def make_digits_dataset(
    directory: str | Path, *, train_images: int = 1500, val_images: int = 150, image_size: int = 256, seed: int = 0
) -> None:
    """Write ``train.json``, ``val.json`` and ``images/*.jpg``; do nothing if just that is there, intact.

    The same arguments give the same dataset. An image is square and holds 1 to 8 digits, which hardly overlap.

    Args:
        directory: created if need be.
        train_images: how many images to train on.
        val_images: how many images to evaluate on.
        image_size: their side, in pixels.
        seed: of everything that is drawn at random.

    Raises:
        InputError: another dataset is in the way.
    """
    root = Path(directory)
    parameters = _Parameters(train_images, val_images, image_size, seed)
    info = {"description": _DESCRIPTION, "version": _VERSION, **asdict(parameters)}
    if _is_intact(root, info):
        return
    (root / "images").mkdir(parents=True, exist_ok=True)
    for half, count in (("train", train_images), ("val", val_images)):
        content = {"info": info, **_make_half(root / "images", half, count, parameters)}
        # The annotation file comes last, and at once: where it is, the images are.
        write_atomically(str(root / f"{half}.json"), partial(_write_json, content))


def _write_json(content: dict[str, Any], file: IO[bytes]) -> None:
    file.write(json.dumps(content).encode())


def _is_intact(root: Path, info: dict[str, Any]) -> bool:
    files = [root / f"{half}.json" for half in _PHOTOGRAPHS]
    found = [_read_info(file) for file in files if file.exists()]
    reports = (validate_dataset(file, root / "images") for file in files)
    return found == [info, info] and not any(problem.fatal for report in reports for problem in report.problems)


def _read_info(file: Path) -> dict[str, Any]:
    try:
        info: dict[str, Any] = json.loads(file.read_bytes())["info"]
        is_ours = info["description"] == _DESCRIPTION
    except (ValueError, LookupError, TypeError):
        is_ours = False
    if not is_ours:
        raise InputError(f"{file} is not a file of the demo dataset: move it away, or choose another folder.")
    return info


def _make_half(folder: Path, half: str, count: int, parameters: _Parameters) -> dict[str, Any]:
    """Write the images of one half, and return its COCO lists."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(count):
        # Each image has a generator of its own: a longer dataset starts with the shorter one.
        rng = np.random.default_rng([parameters.seed, list(_PHOTOGRAPHS).index(half), number])
        pixels, objects = _make_image(half, parameters.image_size, rng)
        name = f"{half}_{number:05d}.jpg"
        Image.fromarray(pixels).save(folder / name, quality=92)
        height, width = pixels.shape[:2]
        images.append({"id": number + 1, "file_name": name, "width": width, "height": height})
        for digit, (left, top, box_width, box_height) in objects:
            annotation = {
                "id": len(annotations) + 1,
                "image_id": number + 1,
                "category_id": digit + 1,
                "bbox": [left, top, box_width, box_height],
                "area": box_width * box_height,
                "iscrowd": 0,
            }
            annotations.append(annotation)
    categories = [{"id": digit + 1, "name": str(digit)} for digit in range(10)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _make_image(half: str, size: int, rng: np.random.Generator) -> tuple[Pixels, list[tuple[int, Box]]]:
    """Return (size, size, 3) pixels, and each digit with its box (x, y, width, height)."""
    pixels = _background(half, size, rng)
    objects: list[tuple[int, Box]] = []
    # Large digits first: they would not find room later.
    count = int(rng.integers(1, _MAX_DIGITS, endpoint=True))
    smallest, largest = (math.log(height * size) for height in _HEIGHTS)
    for height in sorted(np.exp(rng.uniform(smallest, largest, size=count)), reverse=True):
        digit, opacity = glyph(half, float(height), rng)
        place = free_place(opacity.shape, size, [box for _, box in objects], rng)
        if place:
            objects.append((digit, place))
            draw_glyph(pixels, opacity, place, rng)
    return pixels, objects


def _background(half: str, size: int, rng: np.random.Generator) -> Pixels:
    """Cut a random square out of a random photograph, mirror and brighten it at random, and soften its contrast."""
    photographs = _photographs(half)
    photograph = photographs[rng.integers(len(photographs))]
    side = int(min(photograph.size) * rng.uniform(0.4, 1.0))
    left, top = (int(rng.integers(extent - side, endpoint=True)) for extent in photograph.size)
    crop = photograph.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    values = np.asarray(crop, dtype=np.float64)[:, :: rng.choice([-1, 1])]
    softened = values.mean() + (values - values.mean()) * rng.uniform(0.5, 0.9) + rng.uniform(-30, 30)
    pixels: Pixels = np.clip(softened, 0, 255).astype(np.uint8)
    return pixels


@cache
def _photographs(half: str) -> tuple[Image.Image, ...]:
    def read(name: str) -> Image.Image:
        image = load_sample_image(name) if name.endswith(".jpg") else getattr(skimage.data, name)()
        # stereo_motorcycle is a left view, a right view and their disparity.
        return Image.fromarray(image[0] if isinstance(image, tuple) else image).convert("RGB")

    return tuple(read(name) for name in _PHOTOGRAPHS[half])


@cache
def _samples(half: str) -> tuple[Pixels, Pixels]:
    """Return the images (N, 8, 8), from 0 to 255, and the digits (N,) of one half."""
    data = load_digits()
    chosen = slice(_TRAIN_SAMPLES) if half == "train" else slice(_TRAIN_SAMPLES, None)
    return (data.images[chosen] * (255 / 16)).astype(np.uint8), data.target[chosen].astype(np.uint8)


def glyph(half: str, height: float, rng: np.random.Generator) -> tuple[int, npt.NDArray[np.float64]]:
    """Draw a random sample at about this height; return its digit and its opacity, trimmed to the strokes, 0 to 1."""
    images, digits = _samples(half)
    index = rng.integers(len(images))
    # A margin lets strokes end smoothly where they touch the sample's edge.
    framed = Image.fromarray(np.pad(images[index], 1))
    scale = height / images.shape[1]
    size = (round(framed.width * scale * rng.uniform(0.8, 1.2)), round(framed.height * scale))
    enlarged = framed.resize(size, Image.Resampling.BICUBIC).rotate(
        rng.uniform(-10, 10), Image.Resampling.BICUBIC, expand=True
    )
    # Sharpen the blurred edges, which are as wide as a pixel of the sample.
    opacity = np.clip((np.asarray(enlarged, dtype=np.float64) / 255 - 0.4) / 0.3, 0, 1)
    rows, columns = np.nonzero(opacity > _BOX_OPACITY)
    return int(digits[index]), opacity[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def free_place(shape: tuple[int, ...], size: int, taken: list[Box], rng: np.random.Generator) -> Box | None:
    """Return where a digit of this height and width hides none of the others, in a square image; None if nowhere."""
    height, width = shape
    if height > size or width > size:
        return None
    for _ in range(_PLACING_ATTEMPTS):
        left, top = int(rng.integers(size - width, endpoint=True)), int(rng.integers(size - height, endpoint=True))
        box = (left, top, width, height)
        if all(overlap <= _MAX_OVERLAP for overlap in _overlaps(box, taken)):
            return box
    return None


def _overlaps(box: Box, others: list[Box]) -> Iterator[float]:
    """Return the intersection with each other box, as a fraction of the smaller of the two."""
    for other in others:
        width = min(box[0] + box[2], other[0] + other[2]) - max(box[0], other[0])
        height = min(box[1] + box[3], other[1] + other[3]) - max(box[1], other[1])
        yield max(width, 0) * max(height, 0) / min(box[2] * box[3], other[2] * other[3])


def draw_glyph(pixels: Pixels, opacity: npt.NDArray[np.float64], box: Box, rng: np.random.Generator) -> None:
    """Blend a digit into ``pixels``, light on a dark ground and dark on a light one, in place."""
    left, top, width, height = box
    ground = pixels[top : top + height, left : left + width]
    mean = float(ground.mean())
    is_dark = mean < 255 - mean
    level = rng.uniform(mean + _CONTRAST, 255) if is_dark else rng.uniform(0, mean - _CONTRAST)
    colour = np.clip(level + rng.uniform(-25, 25, size=3), 0, 255)
    ground[:] = np.round(ground + (colour - ground) * opacity[..., None]).astype(np.uint8)
