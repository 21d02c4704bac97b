"""What names say: to which half of a dataset a file or folder belongs."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from ..source import HALVES

T = TypeVar("T")

TRAINVAL = "trainval"  # both of them, as Pascal VOC has it
PURPOSES = {"train": "to train on", "val": "to evaluate on", "test": "to test on"}
_HALF_WORDS = {
    "train": ("train", "training", "trainset"),
    "val": ("val", "valid", "validation", "valset"),
    "test": ("test", "testing", "testset"),
    TRAINVAL: ("trainval",),
}
_HALF_OF_WORD = {word: half for half, words in _HALF_WORDS.items() for word in words}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_HALF_WORD = re.compile(rf"(?<![a-z])({'|'.join(sorted(_HALF_OF_WORD, key=len, reverse=True))})(?![a-z])\d*", re.I)
# What else an annotation file that is named by its half alone may have in its name.
_PLAIN_WORDS = frozenset(
    ("annotations", "annotation", "anno", "instances", "instance", "coco", "labels", "label", "dataset", "data")
    + ("bbox", "bboxes", "boxes", "detection", "images", "image", "info", "gt")
)


def half_of_name(name: str) -> str:
    """The half that a name speaks of: one of ``HALVES``, ``TRAINVAL``, or "" if it speaks of none or of several."""
    halves = {_HALF_OF_WORD[word] for word in _words(name) if word in _HALF_OF_WORD}
    if halves == {"train", "val"}:
        return TRAINVAL
    return halves.pop() if len(halves) == 1 else ""


def half_of_folder(folder: Path, root: Path) -> str:
    """The half that the nearest of a folder and those around it, below ``root``, speaks of."""
    parts = folder.relative_to(root).parts if folder.is_relative_to(root) else folder.parts
    return next((half for part in reversed(parts) if (half := half_of_name(part))), "")


def half_of_file(file: Path, root: Path) -> str:
    """The half that a file's name speaks of, or else its folder."""
    return half_of_name(file.stem) or half_of_folder(file.parent, root)


def is_plain(stem: str) -> bool:
    """Whether a file's name says its half, and nothing but that it is an annotation file."""
    others = [word for word in _words(stem) if word not in _HALF_OF_WORD]
    return half_of_name(stem) != "" and all(word in _PLAIN_WORDS for word in others)


def without_half(path: Path) -> tuple[str, ...]:
    """The parts of a path with a star for each word of a half: what the files of one export have in common."""
    return tuple(_HALF_WORD.sub("*", part) for part in path.parts)


def settle(found: Mapping[str, T]) -> dict[str, T]:
    """Turn what was found by half into the halves to use, in order.

    Without "val", what is named "test" is evaluated on; ``TRAINVAL`` is trained on where neither of its parts is there.
    """
    halves = dict(found)
    if TRAINVAL in halves and "train" not in halves and "val" not in halves:
        halves["train"] = halves[TRAINVAL]
    if "test" in halves and "val" not in halves:
        halves["val"] = halves.pop("test")
    return {half: halves[half] for half in HALVES if half in halves}


def settle_all(found: Mapping[str, T]) -> dict[str, T]:
    """``settle`` what was found by half or, under "", without one: that is "train" where nothing else is."""
    halves = dict(found)
    if len(halves) == 1:
        return {"train": next(iter(halves.values()))}
    if "" in halves and not {"train", TRAINVAL} & halves.keys():
        halves["train"] = halves[""]
    return settle(halves)


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(name)]
