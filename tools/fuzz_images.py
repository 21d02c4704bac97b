"""Feed the reader of images with broken files, and see that each is read or refused with a message.

    python tools/fuzz_images.py [--cases 1000] [--seed 0]

A case is a small JPEG, PNG, TIFF or WebP with one mutation; its number and the seed make it again. Some mutations do
no harm by construction: those must be read, with the same pixels. Of the others, no other exception than InputError
may come, header and pixels must agree on the size, and neither memory nor time may run away. Exits with 1 otherwise.
"""

import argparse
import io
import random
import struct
import sys
import tempfile
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lite_detr_d2.data.images import read_header, read_image
from lite_detr_d2.errors import InputError

MEGAPIXELS = 2  # no image is larger: a broken header soon states more
MEMORY = 2**30  # bytes more than the process has at its start
SECONDS = 5.0  # for one image
LENGTHS = (0, 1, 4, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1)

Mutation = Callable[[bytes, random.Random], bytes]


def seeds() -> dict[str, list[bytes]]:
    """Files of each format, in the kinds of pixels and with the metadata that its readers part by."""
    ys, xs = np.mgrid[:24, :32]
    color = Image.fromarray(np.stack([xs * 8, ys * 10, (xs * ys) % 256], axis=2).astype(np.uint8))
    gray, deep = color.convert("L"), Image.fromarray((xs * ys * 80).astype(np.uint16))
    real = Image.fromarray((xs * ys / 800).astype(np.float32))
    tags = Image.Exif()
    tags[274] = 6
    packet = b'<x:xmpmeta><rdf:Description tiff:Orientation="8"/></x:xmpmeta>'
    frames: dict[str, Any] = {"save_all": True}
    recipes: dict[str, list[tuple[Image.Image, dict[str, Any]]]] = {
        "JPEG": [(color, {"exif": tags}), (color, {"progressive": True, "xmp": packet}), (gray, {}), (color, frames)],
        "PNG": [(color, {"exif": tags}), (color.convert("P"), {}), (deep, {}), (color.convert("RGBA"), frames)],
        "TIFF": [
            *((color, {"exif": tags}), (color, {"compression": "tiff_lzw", "tiffinfo": {700: packet}})),
            *((deep, {"compression": "tiff_adobe_deflate"}), (real, frames)),
        ],
        "WEBP": [(color, {}), (color, {"lossless": True, "exif": tags}), (color, frames), (color, {"xmp": packet})],
    }
    files = {kind: [_encoded(image, kind, options) for image, options in images] for kind, images in recipes.items()}
    files["PNG"].append(_deep_color_png(np.asarray(color).astype(">u2") * 16))
    return files


def _encoded(image: Image.Image, kind: str, options: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    if "save_all" in options:
        options = {**options, "append_images": [image.rotate(180)]}
        kind = "MPO" if kind == "JPEG" else kind
    image.save(stream, kind, **options)
    return stream.getvalue()


def _deep_color_png(colors: np.ndarray[Any, Any]) -> bytes:
    """A PNG of 16 bits a channel, (H, W, 3), which Pillow does not write."""
    height, width = colors.shape[:2]
    rows = b"".join(b"\0" + row.tobytes() for row in colors)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(kind, data) for kind, data in parts)


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def flip_bytes(content: bytes, rng: random.Random) -> bytes:
    mutated = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8, 40))):
        mutated[rng.randrange(len(mutated))] ^= rng.randrange(1, 256)
    return bytes(mutated)


def flip_header_bytes(content: bytes, rng: random.Random) -> bytes:
    return flip_bytes(content[:64], rng) + content[64:]


def truncate(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def set_length(content: bytes, rng: random.Random) -> bytes:
    """Put a number where a length or an offset may be."""
    form = rng.choice(("<H", ">H", "<I", ">I"))
    size = struct.calcsize(form)
    start = rng.randrange(max(len(content) - size, 1))
    value = rng.choice(LENGTHS) % 2 ** (8 * size)
    return content[:start] + struct.pack(form, value) + content[start + size :]


def swap_blocks(content: bytes, rng: random.Random) -> bytes:
    """Swap neighbours: two chunks of a PNG, two stretches of anything else."""
    chunks = list(_png_chunks(content))
    if chunks:
        index = rng.randrange(len(chunks) - 1)
        chunks[index], chunks[index + 1] = chunks[index + 1], chunks[index]
        return content[:8] + b"".join(chunks)
    first, second, third = sorted(rng.sample(range(len(content)), 3))
    return content[:first] + content[second:third] + content[first:second] + content[third:]


def repeat_block(content: bytes, rng: random.Random) -> bytes:
    start, end = sorted(rng.sample(range(len(content)), 2))
    return content[:end] + content[start:end] + content[end:]


def leave_out_block(content: bytes, rng: random.Random) -> bytes:
    start, end = sorted(rng.sample(range(len(content)), 2))
    return content[:start] + content[end:]


def leave_alone(content: bytes, rng: random.Random) -> bytes:
    return content


def append_bytes(content: bytes, rng: random.Random) -> bytes:
    return content + rng.randbytes(rng.randrange(1, 100))


def insert_comment(content: bytes, rng: random.Random) -> bytes:
    """Put a comment into a JPEG or a PNG; others have none that stands alone."""
    text = b"Comment\0" + bytes(rng.randrange(32, 127) for _ in range(rng.randrange(100)))
    if content.startswith(b"\xff\xd8"):
        # Behind the JFIF header; the offsets of an MPO's later frames are not used for the first.
        start = 4 + struct.unpack(">H", content[4:6])[0]
        return content[:start] + b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text + content[start:]
    if chunks := list(_png_chunks(content)):
        chunks.insert(rng.choice((1, len(chunks) - 1)), _png_chunk(b"tEXt", text))
        return content[:8] + b"".join(chunks)
    return append_bytes(content, rng)


def _png_chunks(content: bytes) -> Iterator[bytes]:
    position = 8
    while content.startswith(b"\x89PNG") and position < len(content):
        end = position + 12 + struct.unpack(">I", content[position : position + 4])[0]
        yield content[position:end]
        position = end


HARMLESS: tuple[Mutation, ...] = (leave_alone, append_bytes, insert_comment)
HARMFUL: tuple[Mutation, ...] = (
    *(flip_bytes, flip_header_bytes, truncate, set_length, swap_blocks, repeat_block, leave_out_block),
)


def outcome(path: Path, expected: np.ndarray[Any, Any] | None) -> tuple[str, str]:
    """Read a file.

    Args:
        path: the file.
        expected: its pixels, if it must be read.

    Returns:
        "read", "header only" or "refused", and what is wrong with that, or "".
    """
    answers: list[Any] = []
    for part, read in (("header", read_header), ("pixels", read_image)):
        try:
            answers.append(read(path))
        except InputError:
            answers.append(None)
        except Exception as error:  # the very thing that is looked for
            return "failed", f"the {part} raised {error!r}"
    header, pixels = answers
    if pixels is None:
        problem = "" if expected is None else "a harmless change, and refused"
        return "refused" if header is None else "header only", problem
    if header is None:
        return "read", "pixels are read, and the header is refused"
    if (header.width, header.height) != pixels.shape[1::-1]:
        return "read", f"the header says {header.width} x {header.height}, the pixels are {pixels.shape[1::-1]}"
    if expected is not None and not np.array_equal(pixels, expected):
        return "read", "a harmless change, and other pixels"
    return "read", ""


def fuzz(cases: int, seed: int, folder: Path) -> tuple[Counter[tuple[str, bool, str]], list[str], float]:
    """Try so many mutations.

    Returns:
        How often each (format, harmless, outcome) came, the failures, and the seconds of the slowest case.
    """
    files, path = seeds(), folder / "image"
    counts: Counter[tuple[str, bool, str]] = Counter()
    failures, slowest = [], 0.0
    for number in range(cases):
        rng = random.Random(f"{seed} {number}")
        kind = rng.choice(sorted(files))
        content, harmless = rng.choice(files[kind]), rng.random() < 0.2
        expected = None
        if harmless:
            path.write_bytes(content)
            expected = read_image(path)
        mutation = rng.choice(HARMLESS if harmless else HARMFUL)
        path.write_bytes(mutation(content, rng))
        start = time.perf_counter()
        name, problem = outcome(path, expected)
        seconds = time.perf_counter() - start
        slowest = max(slowest, seconds)
        if seconds > SECONDS:
            problem = problem or f"took {seconds:.1f} s"
        if problem:
            failures.append(f"case {number} ({kind}, {mutation.__name__}): {problem}")
        counts[kind, harmless, name] += 1
    return counts, failures, slowest


def bound_memory() -> None:
    """Let an image that asks for too much memory fail, where the system can do so."""
    Image.MAX_IMAGE_PIXELS = MEGAPIXELS * 10**6 // 2  # Pillow refuses what has twice as many
    pages = Path("/proc/self/statm")
    if pages.exists():
        import resource  # noqa: PLC0415 - not on Windows

        limit = int(pages.read_text().split()[0]) * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    bound_memory()
    warnings.simplefilter("ignore")  # Pillow's, of broken metadata
    with tempfile.TemporaryDirectory() as folder:
        counts, failures, slowest = fuzz(args.cases, args.seed, Path(folder))
    for harmless in (True, False):
        print("harmless mutations" if harmless else "other mutations")
        for kind in sorted({kind for kind, *_ in counts}):
            row = {name: count for (k, h, name), count in counts.items() if (k, h) == (kind, harmless)}
            total = sum(row.values())
            shares = ", ".join(f"{name} {100 * count / total:.0f} %" for name, count in sorted(row.items()))
            print(f"  {kind:5} {total:5}: {shares}")
    print(f"{args.cases} cases, the slowest {slowest:.2f} s, {len(failures)} failures")
    for failure in failures:
        print(failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
