"""Images of every kind that the reader takes, written for tests."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, PngImagePlugin

SIZE = (12, 8)  # width, height
TURNS = range(1, 9)
XMP_TAG = 700
ORIENTATION_TAG = 274


def gradient(width: int = SIZE[0], height: int = SIZE[1]) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8; no two pixels alike, and no turn of it like another."""
    ys, xs = np.mgrid[:height, :width]
    return np.stack([xs * 255 // max(width - 1, 1), ys * 255 // max(height - 1, 1), xs * ys % 256], 2).astype(np.uint8)


def exif(orientation: int | str) -> bytes:
    """EXIF data whose only tag is the orientation, a text where it is no number."""
    number = isinstance(orientation, int)
    value = struct.pack("<HH", orientation, 0) if number else orientation.encode().ljust(4, b"\0")
    entry = struct.pack("<HHI", ORIENTATION_TAG, 3 if number else 2, 1 if number else 2) + value
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)


def xmp(orientation: object, element: bool = False) -> bytes:
    tag = (
        f"<rdf:Description><tiff:Orientation>{orientation}</tiff:Orientation></rdf:Description>"
        if element
        else f'<rdf:Description tiff:Orientation="{orientation}"/>'
    )
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF>{tag}</rdf:RDF></x:xmpmeta>'.encode()


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def behind_pixels(png: bytes, *chunks: bytes) -> bytes:
    """The PNG with chunks before its last, IEND."""
    return png[:-12] + b"".join(chunks) + png[-12:]


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def with_orientation(image: Image.Image, kind: str, place: str, orientation: int | str) -> bytes:
    """An image file whose orientation is kept as EXIF, as XMP, or, in a PNG, in a chunk behind the pixels."""
    lossless: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "JPEG" else {}
    if place == "exif" and kind == "TIFF":  # Pillow writes numbers only
        return encoded(image, kind, exif=exif(1)).replace(exif(1)[16:28], exif(orientation)[16:28])
    if place == "exif":
        return encoded(image, kind, exif=exif(orientation), **lossless)
    if place in ("xmp", "xmp element"):
        packet = xmp(orientation, element=place == "xmp element")
        if kind == "PNG":
            text = PngImagePlugin.PngInfo()
            text.add_itxt("XML:com.adobe.xmp", packet)
            return encoded(image, kind, pnginfo=text)
        tiff = {"tiffinfo": {XMP_TAG: packet}} if kind == "TIFF" else {"xmp": packet}
        return encoded(image, kind, **tiff, **lossless)
    plain = encoded(image, "PNG")
    text_start = b"XML:com.adobe.xmp\0"
    tail = {
        "eXIf behind": chunk(b"eXIf", exif(orientation)[6:]),
        "iTXt behind": chunk(b"iTXt", text_start + b"\0\0\0\0" + xmp(orientation)),
        "compressed iTXt behind": chunk(b"iTXt", text_start + b"\1\0\0\0" + zlib.compress(xmp(orientation))),
        "zTXt behind": chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(_raw_profile(orientation))),
    }[place]
    return behind_pixels(plain, chunk(b"tEXt", b"Comment\0hello"), tail)


def _raw_profile(orientation: int | str) -> bytes:
    data = exif(orientation)
    return f"\nexif\n{len(data):8}\n{data.hex()}\n".encode()


PLACES = [
    *((kind, place) for kind in ("JPEG", "PNG", "WEBP", "TIFF") for place in ("exif", "xmp", "xmp element")),
    *(("PNG", place) for place in ("eXIf behind", "iTXt behind", "compressed iTXt behind", "zTXt behind")),
]


def upright(pixels: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    """What an image of these stored pixels shows, by the definition of the EXIF tag: where row 0 and column 0 lie."""
    return {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.swapaxes(0, 1),
        6: pixels[::-1].swapaxes(0, 1),
        7: pixels[::-1, ::-1].swapaxes(0, 1),
        8: pixels[:, ::-1].swapaxes(0, 1),
    }[orientation]


def deep_tiff(values: npt.NDArray[Any], big_endian: bool, deflate: bool = False) -> bytes:
    """A TIFF with one strip of unsigned, signed or floating point values, (H, W) or (H, W, 3 or 4), 16 or 32 bits."""
    order = ">" if big_endian else "<"
    channels = values.shape[2] if values.ndim == 3 else 1
    height, width = values.shape[:2]
    bits = struct.pack(f"{order}4H", *[8 * values.dtype.itemsize] * 4)
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    strip = zlib.compress(data) if deflate else data
    sample_format = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    tags = [
        *((256, width), (257, height), (258, 8 if channels > 1 else 8 * values.dtype.itemsize)),
        *((259, 8 if deflate else 1), (262, 2 if channels > 1 else 1), (273, 16), (277, channels)),
        *((278, height), (279, len(strip)), *([(338, 2)] if channels == 4 else []), (339, sample_format)),
    ]
    entries = b"".join(
        struct.pack(f"{order}HHII", tag, 3, channels, value)
        if tag == 258 and channels > 1
        else struct.pack(f"{order}HHII", tag, 4, 1, value)
        for tag, value in tags
    )
    directory = struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", 0)
    start = (b"MM\0*" if big_endian else b"II*\0") + struct.pack(f"{order}I", 16 + len(strip))
    return start + bits + strip + directory


def deep_png(values: npt.NDArray[Any], *before_pixels: bytes) -> bytes:
    """A PNG of 16 bits a channel, gray with alpha, RGB or RGBA: (H, W, 2, 3 or 4); its rows are filtered in turns."""
    height, width, channels = values.shape
    rows = values.astype(">u2").tobytes()
    stride, pixel = 2 * width * channels, 2 * channels
    filtered = bytearray()
    for row in range(height):
        here = np.frombuffer(rows[row * stride : (row + 1) * stride], np.uint8)
        above = np.frombuffer(rows[(row - 1) * stride : row * stride], np.uint8) if row else np.zeros_like(here)
        left = np.concatenate([np.zeros(pixel, np.uint8), here[:-pixel]])
        kind = row % 3  # none, sub, up
        filtered += bytes([kind]) + (here - (np.zeros_like(here), left, above)[kind]).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    parts = (chunk(b"IHDR", header), *before_pixels, chunk(b"IDAT", zlib.compress(bytes(filtered))))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def transposed_by_pillow(path: Path) -> npt.NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
