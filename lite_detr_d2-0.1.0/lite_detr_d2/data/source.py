"""What a dataset comes from: the one form in which every export format hands over its halves."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import write_atomically

# COCO's object of lists, "images", "annotations" and "categories": as it came (anything may be wrong with what is in
# the lists), or normalised. A record of a source that is no COCO file may say under this key where it stands.
Content = dict[str, Any]
PLACE = "_place"
# An image's record may say so under this key why it is not known what is annotated in it.
UNREAD = "_unread"

HALVES = ("train", "val", "test")
_LISTS = ("images", "annotations", "categories")
_RECORDS_AT_ONCE = 1000


@dataclass(frozen=True)
class SourceHalf:
    """What to train on, to evaluate on, or to keep for the end.

    Attributes:
        origin: the file or folder to name in messages.
        folders: where the images are; ``file_name`` is relative to one of them. The first that has it counts. None, if
            only the annotations are to be looked at.
        read: returns the content; raises InputError where there is none to be read. It may be slow, and is not called
            where the content is known already.
        files: all files that ``read`` reads, but for images.
        images: the image files that ``read`` opens, as formats without sizes make it; their contents do not count.
    """

    origin: Path
    folders: tuple[Path, ...]
    read: Callable[[], Content]
    files: tuple[Path, ...]
    images: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Source:
    """A dataset as it lies on disk.

    Attributes:
        root: the folder, or annotation file, that the user named.
        kind: the format, for messages: "COCO", "YOLO", "Pascal VOC".
        halves: by name, a subset of ``HALVES`` in that order. "train" alone is to be split.
        unused: what else was found there that is an annotation file and is not used.
    """

    root: Path
    kind: str
    halves: Mapping[str, SourceHalf]
    unused: tuple[Path, ...] = field(default=())

    def fingerprint(self) -> str:
        """SHA-256 of all that the content is read from: it changes when the content may."""
        digest = hashlib.sha256()
        for name, half in self.halves.items():
            digest.update(f"{name}\0{len(half.files)}\0".encode())
            for file in half.files:
                digest.update(os.fsencode(file.name) + b"\0")
                digest.update(_hash_of(file))
            for image in half.images:
                digest.update(os.fsencode(image.name) + f"\0{_size_of(image)}\0".encode())
        return digest.hexdigest()


def _hash_of(file: Path) -> bytes:
    digest = hashlib.sha256()
    try:
        with open(file, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError:  # whoever reads it says so
        return b"unreadable"
    return digest.digest()


def _size_of(file: Path) -> int:
    try:
        return file.stat().st_size
    except (OSError, ValueError):  # ValueError: of a name that can be none
        return -1


def read_coco_file(file: Path) -> Content:
    """Read an annotation file in COCO format.

    Returns:
        An object with the lists "images", "annotations" and "categories", whose records are not looked at. A file
        without "annotations", as of images to be detected on, has none.

    Raises:
        InputError: naming the file, and what keeps it from being read.
    """
    content = read_json(file)
    if not isinstance(content, dict):
        raise InputError(f"the annotation file {file} holds a {type(content).__name__}, not COCO's object of lists")
    for kind in _LISTS:
        if kind == "annotations" and kind not in content:
            content[kind] = []
        if not isinstance(content.get(kind), list):
            raise InputError(f"the annotation file {file} has no list '{kind}'")
    return content


def write_coco_file(file: Path, content: Content) -> None:
    """Write an annotation file, in ASCII, which is read in every locale.

    Raises:
        InputError: it cannot be written.
        RecursionError: a record has too many levels.
    """
    write_atomically(str(file), lambda stream: stream.writelines(_as_json(content)))


def _as_json(content: Content) -> Iterator[bytes]:
    """Bit by bit: the text of a whole large file in parts takes several times its size."""
    start = "{"
    for key, value in content.items():
        yield f"{start}{json.dumps(key)}: ".encode()
        start = ",\n"
        if isinstance(value, list):
            yield b"["
            for first in range(0, len(value), _RECORDS_AT_ONCE):
                yield b",\n" if first else b""
                yield json.dumps(value[first : first + _RECORDS_AT_ONCE])[1:-1].encode()
            yield b"]"
        else:
            yield json.dumps(value).encode()
    yield b"}\n"


def read_json(file: Path) -> Any:
    """Read a JSON file in any of Unicode's encodings.

    Raises:
        InputError: naming the file, and what keeps it from being read.
    """
    try:
        data = file.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"the annotation file {file} is missing") from error
    except OSError as error:
        raise InputError(f"the annotation file {file} cannot be read ({error.strerror})") from error
    if not data or data.isspace():
        raise InputError(f"the annotation file {file} is empty")
    try:
        encoding = json.detect_encoding(data)
        text = data.decode(encoding)
        del data  # of a large file, not both
        twice = next((kind for kind in _LISTS if text.count(f'"{kind}"') > 1 and _is_key_twice(text, kind)), None)
        if twice is not None:
            raise InputError(f"the annotation file {file} has more than one list '{twice}'")
        return json.loads(text)
    except InputError:
        raise
    except UnicodeDecodeError as error:
        where = f"byte {error.start} is no {error.encoding}"
        raise InputError(
            f"the annotation file {file} is not JSON ({where}): save it in UTF-8, or restore it"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"the annotation file {file} is not JSON ({error}): export it again, or restore it") from error


def _is_key_twice(text: str, key: str) -> bool:
    """Whether the outermost object has ``key`` more than once; JSON's readers take the last one without a word."""
    counts = [0]

    def count(pairs: list[tuple[str, Any]]) -> None:
        counts[0] = sum(name == key for name, _ in pairs)  # the outermost object ends last

    json.loads(text, object_pairs_hook=count)
    return counts[0] > 1
