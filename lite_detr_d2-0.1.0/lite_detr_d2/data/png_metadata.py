"""Metadata that a PNG keeps behind its pixels, found without decoding them."""

import io
import struct
import zlib
from typing import IO, Any

from PIL import Image

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIXELS = (b"IDAT", b"fdAT")
_METADATA = (b"eXIf", b"iTXt", b"tEXt", b"zTXt")


def metadata_behind_pixels(file: IO[bytes], animated: bool) -> dict[Any, Any]:
    """Return what Pillow adds to an image's ``info`` when it decodes the pixels.

    Args:
        file: a PNG, opened in binary mode; its position changes.
        animated: whether it has more than one frame; what follows the next frame's header is then not the image's.
    """
    chunks = _chunks_behind_pixels(file, animated)
    if not chunks:
        return {}
    # Pillow reads the chunks as it would read them in their own file, from an image of one pixel.
    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0\0")), *chunks, (b"IEND", b"")]
    with Image.open(io.BytesIO(_SIGNATURE + b"".join(_packed(kind, data) for kind, data in parts))) as pixel:
        pixel.load()
        return dict(pixel.info)


def _packed(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _chunks_behind_pixels(file: IO[bytes], animated: bool) -> list[tuple[bytes, bytes]]:
    chunks: list[tuple[bytes, bytes]] = []
    behind = False
    file.seek(len(_SIGNATURE))
    while len(start := file.read(8)) == 8:
        (length,), kind = struct.unpack(">I", start[:4]), start[4:]
        if kind == b"IEND" or (animated and behind and kind == b"fcTL"):
            break
        behind = behind or kind in _PIXELS
        if behind and kind in _METADATA:
            chunks.append((kind, file.read(length)))
            file.seek(4, io.SEEK_CUR)
        else:
            file.seek(length + 4, io.SEEK_CUR)
    return chunks
