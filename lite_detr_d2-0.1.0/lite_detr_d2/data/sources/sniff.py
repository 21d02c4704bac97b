"""Tell what a JSON file is without parsing it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_HEAD = 1 << 16
_BLOCK = 1 << 24
_OVERLAP = 1 << 10  # more than a key, a colon and the spaces around it

# By what is near its start: whose it is. The first that has all of its words counts.
_FORMATS = (
    ("Label Studio's own JSON", "[", ('"annotations"', '"data"')),
    ("Label Studio's own JSON", "[", ('"original_width"',)),
    ("CreateML's JSON", "[", ('"annotations"', '"coordinates"')),
    ("detections in COCO's result format", "[", ('"image_id"', '"score"')),
    ("annotations without COCO's lists around them", "[", ('"image_id"', '"bbox"')),
    ("Labelme's JSON of one image", "{", ('"shapes"', '"imagePath"')),
    ("the VGG Image Annotator's JSON", "{", ('"regions"', '"shape_attributes"')),
    ("Supervisely's JSON of one image", "{", ('"objects"', '"classTitle"')),
    ("Datumaro's own JSON", "{", ('"categories"', '"items"')),
    ("VoTT's own JSON", "{", ('"asset"', '"regions"')),
)
EXPORT_AGAIN = "export the dataset as COCO, YOLO or Pascal VOC"


@dataclass(frozen=True)
class Look:
    """What a JSON file is at first sight.

    Attributes:
        is_coco: whether it is an object with "images", and "annotations" or "categories".
        what: otherwise, what is known of it, to follow its name in a message.
    """

    is_coco: bool
    what: str = ""


def look(file: Path) -> Look:
    """Look at a JSON file; one that is large is searched for COCO's keys, not parsed."""
    try:
        with open(file, "rb") as stream:
            head = stream.read(_HEAD)
            encoding = json.detect_encoding(head)
            text = head.decode(encoding, "replace").lstrip()
            if not text:
                return Look(False, "is empty")
            stream.seek(0)
            if text[0] == "{" and _has_coco_keys(_blocks(stream, encoding)):
                return Look(True)
    except OSError as error:
        return Look(False, f"cannot be read ({error.strerror})")
    if text[0] not in "{[":
        return Look(False, "is not JSON")
    for name, start, words in _FORMATS:
        if text[0] == start and all(word in text for word in words):
            return Look(False, f"looks like {name}: {EXPORT_AGAIN}")
    return Look(False, "has not COCO's lists 'images', 'annotations' and 'categories'")


def _blocks(stream: IO[bytes], encoding: str) -> Iterator[bytes]:
    """A file's content in UTF-8."""
    if not encoding.startswith("utf-8"):
        yield stream.read().decode(encoding, "replace").encode()
    while block := stream.read(_BLOCK):
        yield block


def _has_coco_keys(blocks: Iterator[bytes]) -> bool:
    """Whether "images", and "annotations" or "categories", are keys anywhere in a JSON text."""
    missing = {"images", "annotations", "categories"}
    end = b""
    for block in blocks:
        text = end + block
        missing = {key for key in missing if not _has_key(text, f'"{key}"'.encode())}
        if "images" not in missing and len(missing) < 2:
            return True
        end = text[-_OVERLAP:]
    return False


def _has_key(text: bytes, word: bytes) -> bool:
    place = text.find(word)
    while place >= 0:
        behind = place + len(word)
        if text[behind : behind + _OVERLAP // 2].lstrip().startswith(b":"):
            return True
        place = text.find(word, behind)
    return False
