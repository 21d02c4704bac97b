"""The reader of images: colour modes, orientation, depth, and what cannot be read."""

import io
import os
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from detectron2.data.detection_utils import read_image as read_by_detectron2
from PIL import Image, PngImagePlugin

from lite_detr_d2.data.images import ImageError, largest_value, range_for, read_header, read_image
from lite_detr_d2.errors import InputError

from . import pictures
from .pictures import PLACES, SIZE, TURNS, deep_tiff, encoded, gradient, upright, with_orientation, write

RGB = Image.fromarray(gradient())


def transparent_palette() -> Image.Image:
    image = RGB.convert("P")
    image.info["transparency"] = bytes([0, 128] + [255] * 254)
    return image


ORDINARY = {
    "RGB jpeg": lambda: encoded(RGB, "JPEG"),
    "progressive jpeg": lambda: encoded(RGB, "JPEG", progressive=True),
    "L jpeg": lambda: encoded(RGB.convert("L"), "JPEG"),
    "CMYK jpeg": lambda: encoded(RGB.convert("CMYK"), "JPEG"),
    "RGB png": lambda: encoded(RGB, "PNG"),
    "RGBA png": lambda: encoded(RGB.convert("RGBA"), "PNG"),
    "L png": lambda: encoded(RGB.convert("L"), "PNG"),
    "LA png": lambda: encoded(RGB.convert("LA"), "PNG"),
    "1 bit png": lambda: encoded(RGB.convert("1"), "PNG"),
    "P png": lambda: encoded(RGB.convert("P"), "PNG"),
    "P png with transparency": lambda: encoded(transparent_palette(), "PNG"),
    "RGB webp": lambda: encoded(RGB, "WEBP"),
    "RGBA webp": lambda: encoded(RGB.convert("RGBA"), "WEBP", lossless=True),
    "RGB tiff": lambda: encoded(RGB, "TIFF"),
    "lzw tiff": lambda: encoded(RGB, "TIFF", compression="tiff_lzw"),
    "gif": lambda: encoded(RGB, "GIF"),
    "bmp": lambda: encoded(RGB, "BMP"),
    "animated gif": lambda: encoded(RGB, "GIF", save_all=True, append_images=[RGB.rotate(180), RGB]),
    "animated png": lambda: encoded(RGB, "PNG", save_all=True, append_images=[RGB.rotate(180), RGB]),
    "animated webp": lambda: encoded(RGB, "WEBP", save_all=True, append_images=[RGB.rotate(180), RGB]),
    "tiff of pages": lambda: encoded(RGB, "TIFF", save_all=True, append_images=[RGB.resize((3, 4))] * 2),
}
FRAMES = {name: 3 for name in ORDINARY if "animated" in name or "pages" in name}


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("name", ORDINARY)
@pytest.mark.parametrize("format", ["RGB", "BGR", "L", "YUV-BT.601"])
def test_8_bits_are_read_as_detectron2_reads_them(tmp_path: Path, name: str, format: str) -> None:
    path = write(tmp_path / "image", ORDINARY[name]())
    pixels, expected = read_image(path, format), read_by_detectron2(str(path), format)
    assert pixels.dtype == expected.dtype
    np.testing.assert_array_equal(pixels, expected)
    header = read_header(path)
    assert (header.width, header.height) == header.stored == SIZE
    assert header.frames == FRAMES.get(name, 1)
    assert not header.depth
    assert not header.turned
    with Image.open(path) as image:
        assert header.mode == image.mode


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize(("kind", "place"), PLACES)
def test_every_image_is_upright(tmp_path: Path, kind: str, place: str, orientation: int) -> None:
    path = write(tmp_path / "image", with_orientation(RGB, kind, place, orientation))
    pixels, header = read_image(path), read_header(path)
    np.testing.assert_array_equal(pixels, pictures.transposed_by_pillow(path))
    np.testing.assert_allclose(pixels.astype(int), upright(gradient(), orientation), atol=60 if kind == "JPEG" else 0)
    assert (header.width, header.height) == pixels.shape[1::-1]
    assert header.stored == SIZE
    assert header.turned is (orientation > 1)


@pytest.mark.parametrize("orientation", [0, 9, "x"])
@pytest.mark.parametrize(("kind", "place"), PLACES)
def test_an_unknown_orientation_is_none(tmp_path: Path, kind: str, place: str, orientation: Any) -> None:
    path = write(tmp_path / "image", with_orientation(RGB, kind, place, orientation))
    assert not read_header(path).turned
    np.testing.assert_allclose(read_image(path), gradient(), atol=60 if kind == "JPEG" else 0)


def test_exif_comes_before_xmp_and_the_last_of_two_counts(tmp_path: Path) -> None:
    both = encoded(RGB, "JPEG", exif=pictures.exif(3), xmp=pictures.xmp(6))
    assert (read_header(write(tmp_path / "both.jpg", both)).width) == SIZE[0]
    first = encoded(RGB, "PNG", exif=pictures.exif(1))
    twice = pictures.behind_pixels(first, pictures.chunk(b"eXIf", pictures.exif(6)[6:]))
    path = write(tmp_path / "twice.png", twice)
    header = read_header(path)
    assert (header.height, header.width) == SIZE == read_image(path).shape[:2]


def test_broken_metadata_do_not_hide_the_pixels(tmp_path: Path) -> None:
    path = write(tmp_path / "image.jpg", encoded(RGB, "JPEG", exif=b"Exif\0\0no TIFF at all"))
    assert not read_header(path).turned
    np.testing.assert_array_equal(read_image(path), read_by_detectron2(str(path), "RGB"))


def test_an_animated_png_is_turned_by_its_first_frame(tmp_path: Path) -> None:
    animated = encoded(RGB, "PNG", save_all=True, append_images=[RGB.rotate(180)])
    path = write(tmp_path / "late.png", pictures.behind_pixels(animated, pictures.chunk(b"eXIf", pictures.exif(6)[6:])))
    header = read_header(path)
    assert header.frames == 2
    assert read_image(path).shape[1::-1] == (header.width, header.height) == SIZE


def test_a_header_is_read_without_the_pixels(tmp_path: Path) -> None:
    path = write(tmp_path / "image.png", with_orientation(RGB, "PNG", "eXIf behind", 6))
    content = bytearray(path.read_bytes())
    start = content.index(b"IDAT") + 4
    content[start : start + 10] = bytes(10)
    path.write_bytes(content)
    assert (read_header(path).height, read_header(path).width) == SIZE
    with pytest.raises(InputError, match=r"image\.png cannot be read"):
        read_image(path)


# Values of the deep images, and the standard range of each: the largest value lies below it.
STEPS = np.arange(SIZE[0] * SIZE[1], dtype=np.float64).reshape(SIZE[::-1]) / (SIZE[0] * SIZE[1] - 1)
RANGES = {200: 255, 255: 255, 256: 1023, 1023: 1023, 4000: 4095, 16000: 16383, 16384: 65535, 65535: 65535}


def expected(values: npt.NDArray[Any], limit: float) -> npt.NDArray[Any]:
    gray = np.clip(np.nan_to_num(values.astype(np.float64), posinf=0, neginf=0) * 255 / limit, 0, 255)
    return np.repeat(gray[..., None], 3, axis=2)


def assert_gray(path: Path, values: npt.NDArray[Any], limit: float, max_value: float = 0.0) -> None:
    """Rounded values: no further off than a half."""
    pixels = read_image(path, max_value=max_value)
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels, expected(values, limit), atol=0.5 + 1e-3)


@pytest.mark.parametrize(("largest", "limit"), RANGES.items())
@pytest.mark.parametrize(
    ("save", "dtype", "mode"),
    [
        (lambda values: encoded(Image.fromarray(values), "PNG"), np.uint16, "I;16"),
        (lambda values: encoded(Image.fromarray(values), "TIFF"), np.uint16, "I;16"),
        (lambda values: encoded(Image.fromarray(values), "TIFF", compression="tiff_lzw"), np.uint16, "I;16"),
        (lambda values: deep_tiff(values, big_endian=False), np.uint16, "I;16"),
        (lambda values: deep_tiff(values, big_endian=True), np.uint16, "I;16B"),
        (lambda values: encoded(Image.fromarray(values), "TIFF"), np.int32, "I"),
        (lambda values: deep_tiff(values, big_endian=True), np.int32, "I"),
        (lambda values: encoded(Image.fromarray(values), "TIFF"), np.float32, "F"),
        (lambda values: deep_tiff(values, big_endian=True), np.float32, "F"),
    ],
)
def test_deep_images_are_read_by_the_range_of_their_values(
    tmp_path: Path, save: Callable[[npt.NDArray[Any]], bytes], dtype: type, mode: str, largest: int, limit: int
) -> None:
    values = np.round(STEPS * largest).astype(dtype)
    path = write(tmp_path / "image", save(values))
    header = read_header(path)
    assert (header.mode, header.depth) == (mode, True)
    assert largest_value(path) == largest
    assert range_for(largest_value(path)) == limit
    assert_gray(path, values, limit)
    assert_gray(path, values, 3000, max_value=3000)
    assert read_image(path, "L").shape == (*SIZE[::-1], 1)
    np.testing.assert_array_equal(read_image(path, "BGR"), read_image(path))


def test_pgm_of_16_bits(tmp_path: Path) -> None:
    values = np.round(STEPS * 60000).astype(">u2")
    path = write(tmp_path / "image.pgm", b"P5 12 8 65535\n" + values.tobytes())
    assert read_header(path).depth
    assert_gray(path, values, 65535)


@pytest.mark.parametrize(
    ("low", "high", "limit"), [(0, 1, 1), (0, 0.3, 1), (-1, 1, 1), (0, 1.5, 255), (0, 1e6, 2**31 - 1), (-5, -1, 1)]
)
def test_floating_point_images(tmp_path: Path, low: float, high: float, limit: float) -> None:
    values = (low + STEPS * (high - low)).astype(np.float32)
    assert_gray(write(tmp_path / "image.tif", encoded(Image.fromarray(values), "TIFF")), values, limit)


def test_values_beyond_all_ranges_are_read_by_the_largest(tmp_path: Path) -> None:
    values = (STEPS * 1e30).astype(np.float32)
    assert_gray(write(tmp_path / "image.tif", encoded(Image.fromarray(values), "TIFF")), values, float(values.max()))


def test_values_that_are_not_finite_count_as_zero(tmp_path: Path) -> None:
    values = STEPS.astype(np.float32)
    values[0, :3] = np.nan, np.inf, -np.inf
    path = write(tmp_path / "image.tif", encoded(Image.fromarray(values), "TIFF"))
    assert largest_value(path) == 1.0
    assert_gray(path, values, 1)
    nothing = np.full((8, 12), np.nan, np.float32)
    assert not read_image(write(path, encoded(Image.fromarray(nothing), "TIFF"))).any()


def test_integers_of_0_and_1_are_dark_as_in_8_bits(tmp_path: Path) -> None:
    path = write(tmp_path / "image.png", encoded(Image.fromarray((STEPS > 0.5).astype(np.uint16)), "PNG"))
    assert read_image(path).max() == 1
    assert range_for(largest_value(path)) == 255
    assert (range_for(1.0), range_for(0.2), range_for(np.float32(1))) == (1, 1, 1)
    assert (range_for(1), range_for(np.uint16(1)), range_for(1.5), range_for(2**31)) == (255, 255, 255, 2**31)


# Three ramps, so that channels and bytes that change places are seen; and an alpha that is not to be seen.
COLORS = np.stack([STEPS, STEPS[::-1], STEPS[:, ::-1] ** 2, np.full_like(STEPS, 0.9)], axis=2)
DEEP_COLORS: dict[str, Callable[[npt.NDArray[Any]], bytes]] = {
    "RGB png": lambda colors: pictures.deep_png(colors[..., :3]),
    "RGBA png": pictures.deep_png,
    "gray png with alpha": lambda colors: pictures.deep_png(colors[..., [0, 3]]),
    **{
        f"{name} {'big' if big else 'little'}{'deflate' if deflate else ''} tiff": partial(
            lambda colors, channels, big, deflate: deep_tiff(colors[..., :channels], big, deflate),
            channels=channels,
            big=big,
            deflate=deflate,
        )
        for name, channels in (("RGB", 3), ("RGBA", 4))
        for big in (False, True)
        for deflate in (False, True)
    },
}


@pytest.mark.parametrize(("largest", "limit"), RANGES.items())
@pytest.mark.parametrize("name", DEEP_COLORS)
def test_deep_colors_are_read_by_the_range_of_their_values(tmp_path: Path, name: str, largest: int, limit: int) -> None:
    colors = np.round(COLORS * largest).astype(np.uint16)
    path = write(tmp_path / "image", DEEP_COLORS[name](colors))
    seen = colors[..., [0, 0, 0] if "gray" in name else [0, 1, 2]].astype(np.float64)
    assert read_header(path).depth
    assert largest_value(path) == largest
    np.testing.assert_allclose(read_image(path), np.clip(seen * 255 / limit, 0, 255), atol=0.501)
    np.testing.assert_allclose(read_image(path, max_value=3000), np.clip(seen * 255 / 3000, 0, 255), atol=0.501)
    np.testing.assert_array_equal(read_image(path, "BGR")[..., ::-1], read_image(path))


@pytest.mark.parametrize("orientation", TURNS)
def test_deep_colors_are_upright(tmp_path: Path, orientation: int) -> None:
    colors = np.round(COLORS[..., :3] * 1023).astype(np.uint16)
    tag = pictures.chunk(b"eXIf", pictures.exif(orientation)[6:])
    path = write(tmp_path / "image.png", pictures.deep_png(colors, tag))
    np.testing.assert_allclose(read_image(path), upright(colors * (255 / 1023), orientation), atol=0.501)
    assert (read_header(path).width, read_header(path).height) == read_image(path).shape[1::-1]


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("big_endian", [False, True])
def test_deep_images_are_upright(tmp_path: Path, orientation: int, big_endian: bool) -> None:
    values = np.round(STEPS * 4095).astype(np.uint16)
    png = encoded(Image.fromarray(values), "PNG", exif=pictures.exif(orientation))
    tiff = encoded(Image.open(io.BytesIO(deep_tiff(values, big_endian))), "TIFF", exif=pictures.exif(orientation))
    for content in (png, tiff):
        path = write(tmp_path / "image", content)
        pixels = read_image(path)
        np.testing.assert_allclose(pixels, upright(expected(values, 4095), orientation), atol=0.501)
        assert (read_header(path).width, read_header(path).height) == pixels.shape[1::-1]


def truncated_jpeg() -> bytes:
    content = encoded(Image.fromarray(gradient(200, 200)), "JPEG")
    return content[: len(content) // 2]


def corrupt_png() -> bytes:
    content = bytearray(encoded(RGB, "PNG"))
    content[content.index(b"IDAT") + 8] ^= 0xFF
    return bytes(content)


BROKEN = {
    "empty": (b"", "the file is empty"),
    "text": (b"GIF, or is it?", "it is not an image"),
    "web page": (b"<!DOCTYPE html><html></html>", "it is not an image"),
    "truncated JPEG": (truncated_jpeg(), "truncated"),
    "truncated PNG": (encoded(Image.fromarray(gradient(90, 90)), "PNG")[:-900], "truncated"),
    "truncated TIFF": (encoded(RGB, "TIFF")[:-100], ""),
    "truncated WebP": (encoded(Image.fromarray(gradient(90, 90)), "WEBP")[:-200], ""),
    "half a GIF": (encoded(Image.fromarray(gradient(90, 90)), "GIF")[:900], "truncated"),
    "corrupt PNG": (corrupt_png(), ""),
    "no pixels": (b"P5 0 4 255\n", "it is not an image"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named(tmp_path: Path, name: str) -> None:
    content, reason = BROKEN[name]
    path = write(tmp_path / "broken.png", content)
    with pytest.raises(
        InputError, match=rf"Image .*broken\.png cannot be read: .*{reason}.*Restore the file, or leave"
    ) as e:
        read_image(path)
    assert isinstance(e.value, ImageError)
    assert str(e.value).endswith(f"cannot be read: {e.value.cause}. Restore the file, or leave it out.")
    in_dataset = "Restore the file, or remove the image from the annotation file."
    assert e.value.reason_in_dataset == f"{e.value.cause}. {in_dataset}"
    assert "object at" not in str(e.value)


def test_no_file_a_folder_and_names_that_cannot_be(tmp_path: Path) -> None:
    for read in (read_image, read_header, largest_value):
        with pytest.raises(InputError, match=r"nothing\.png cannot be read: there is no such file\. Correct the"):
            read(tmp_path / "nothing.png")
        with pytest.raises(InputError, match="cannot be read: it is a folder, not a file. Name a file."):
            read(tmp_path)
        with pytest.raises(InputError, match=r"two\\nlines\.png cannot be read"):
            read(tmp_path / "two\nlines.png")
        write(tmp_path / "file", b"x")
        with pytest.raises(InputError, match="there is no such file"):
            read(tmp_path / "file" / "image.png")
        with pytest.raises(ImageError, match="its name is too long for a file. Correct it.") as error:
            read(tmp_path / ("a" * 300 + ".png"))
        assert len(str(error.value)) < 350
        assert "Correct 'file_name' in the annotation file." in error.value.reason_in_dataset
        with pytest.raises(InputError, match="null byte"):
            read(f"{tmp_path}/a\0.png")


def test_a_file_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "image.png", encoded(RGB, "PNG"))
    path.chmod(0)
    if os.access(path, os.R_OK):  # root may read everything

        def refuse(*_: Any, **__: Any) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("lite_detr_d2.data.images.PathManager.open", refuse)
    for read in (read_image, read_header):
        with pytest.raises(InputError, match=r"image\.png cannot be read: there is no permission to read it\."):
            read(path)


def flat_png(width: int, height: int) -> bytes:
    return encoded(Image.new("1", (width, height)), "PNG")


def test_an_image_over_the_limit_is_refused_with_the_cure(tmp_path: Path) -> None:
    path = write(tmp_path / "large.png", flat_png(20000, 10000))
    for read in (read_image, read_header):
        with pytest.raises(InputError, match=r"large\.png .* limit of 179 megapixels\. Make the image smaller, or cut"):
            read(path)


@pytest.mark.parametrize("action", ["always", "error"])
def test_a_large_image_below_the_limit_is_no_warning(tmp_path: Path, action: Any) -> None:
    path = write(tmp_path / "large.png", flat_png(10000, 9000))
    for _ in range(2):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter(action)
            assert read_header(path).stored == (10000, 9000)
        assert not caught


def test_the_warnings_of_others_stay_as_they_are(tmp_path: Path) -> None:
    path = write(tmp_path / "image.png", encoded(RGB, "PNG"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            read_image(path)
            warnings.warn("once for each place", UserWarning, stacklevel=1)
    assert len(caught) == 1


def test_a_mode_that_cannot_be_converted(tmp_path: Path) -> None:
    path = write(tmp_path / "lab.tif", encoded(Image.new("LAB", (3, 2)), "TIFF"))
    assert read_header(path).mode == "LAB"
    with pytest.raises(InputError, match=r"lab\.tif cannot be read: its mode, LAB, cannot be converted to L\. Save"):
        read_image(path, "L")


def test_memory_that_does_not_suffice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", refuse)
    with pytest.raises(InputError, match="does not fit into the memory. Make the image smaller"):
        read_image(write(tmp_path / "image.png", encoded(RGB, "PNG")))


def test_a_stated_size_may_be_that_of_the_unturned_picture(tmp_path: Path) -> None:
    path = write(tmp_path / "image.jpg", with_orientation(RGB, "JPEG", "exif", 6))
    header = read_header(path)
    assert [header.is_unturned(size) for size in ((8, 12), (12, 8), (12, 9))] == [False, True, False]
    upside_down = read_header(write(path, with_orientation(RGB, "JPEG", "exif", 3)))
    assert not upside_down.is_unturned((12, 8))
    untagged = read_header(write(path, encoded(RGB, "JPEG")))
    assert not untagged.is_unturned((8, 12))
