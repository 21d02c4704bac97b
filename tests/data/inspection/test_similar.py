"""Which pictures look alike."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from lite_detr_d2.data.inspection.similar import similar_pairs, thumbnail
from tests.data.folders import photograph

Change = Callable[[Image.Image], Image.Image]


def recompressed(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


COPIES: dict[str, Change] = {
    "the same": lambda image: image,
    "half": lambda image: image.resize((image.width // 2, image.height // 2)),
    "square": lambda image: image.resize((416, 416)),
    "enlarged": lambda image: image.resize((image.width * 2, image.height * 2)),
    "recompressed": lambda image: recompressed(image, 20),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.6),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.5),
    "gamma": lambda image: image.point(lambda value: 255 * (value / 255) ** 1.4),
    "noise": lambda image: Image.blend(image, Image.effect_noise(image.size, 80).convert("RGB"), 0.1),
}
OTHERS: dict[str, Change] = {
    "another": lambda image: photograph(99),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "negative": lambda image: image.point(lambda value: 255 - value),
    "a part": lambda image: image.crop((0, 0, image.width // 2, image.height // 2)),
}


def pairs_of(*images: Image.Image, counts: tuple[int, ...] | None = None) -> list[tuple[int, int]]:
    thumbnails = np.stack([thumbnail(np.asarray(image)) for image in images])
    return similar_pairs(thumbnails, counts or (len(images),))


@pytest.mark.parametrize("how", COPIES)
def test_copies_are_found(how: str) -> None:
    images = [photograph(seed) for seed in range(5)]
    assert pairs_of(*images, *(COPIES[how](image) for image in images)) == [(5 + seed, seed) for seed in range(5)]


@pytest.mark.parametrize("how", OTHERS)
def test_other_pictures_are_not_alike(how: str) -> None:
    assert pairs_of(photograph(0), OTHERS[how](photograph(0))) == []


def test_other_objects_on_the_same_background_are_other_pictures() -> None:
    """As from a camera that stands still over products: what is labelled differs."""
    images = [photograph(0, (640, 480)) for _ in range(4)]
    for index, image in enumerate(images):
        place = 120 * index + 40
        ImageDraw.Draw(image).rectangle((place, 200, place + 50, 250), fill="black" if index % 2 else "white")
    assert pairs_of(*images) == []


def test_blank_pictures_say_nothing() -> None:
    """Whatever noise is in them."""
    blank = [Image.new("RGB", (64, 48), colour) for colour in ("black", "white", "black", (250, 251, 250))]
    assert pairs_of(*blank, counts=(2, 2)) == []
    faint = Image.new("RGB", (64, 48), (128, 128, 128))
    faint.paste((130, 130, 130), (0, 0, 32, 48))
    assert pairs_of(faint, faint) == []


def test_the_most_alike_in_each_half_counts() -> None:
    first, other = photograph(0), photograph(1)
    near = ImageEnhance.Brightness(recompressed(first, 10)).enhance(0.8)
    assert pairs_of(near, first, other, first, near, counts=(3, 2)) == [(1, 0), (3, 1), (4, 0), (4, 3)]


def test_no_pictures() -> None:
    assert similar_pairs(np.empty((0, 32, 32), dtype=np.uint8), (0, 0)) == []


def test_many_alike_and_several_blocks() -> None:
    """A camera's thousand frames, in both halves: each has a twin, and none is lost."""
    count, still = 700, thumbnail(np.asarray(photograph(0)))
    others = np.stack([thumbnail(np.asarray(photograph(seed))) for seed in range(1, 31)])
    thumbnails = np.concatenate((np.repeat(still[None], count, axis=0), others, others[:3]))
    pairs = similar_pairs(thumbnails, (count // 2, count // 2 + 30, 3))
    frames = [(image, other) for image, other in pairs if image < count]
    within = [(image, other) for image, other in frames if (image < count // 2) == (other < count // 2)]
    between = [(image, other) for image, other in frames if image >= count // 2 > other]
    assert [image for image, _ in within] == [i for i in range(count) if i not in (0, count // 2)]
    assert [image for image, _ in between] == list(range(count // 2, count))
    assert all(other < image for image, other in pairs)
    assert [pair for pair in pairs if pair[0] >= count] == [(count + 30 + i, count + i) for i in range(3)]
