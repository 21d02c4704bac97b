"""What says the classes and the halves of a dataset in YOLO's format."""

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ...errors import InputError
from ...wording import in_short, one_line, shown
from .tree import Tree
from .words import PURPOSES, half_of_name, is_plain, settle

logger = logging.getLogger("lite_detr_d2")

_NOTHING = ("", "null", "~", "none")


@dataclass(frozen=True)
class Config:
    """What is stated of a dataset.

    Attributes:
        files: the files that were read for it, the one to name first.
        names: the class names by the numbers in label files; None where they are not stated.
        images: the image files by half, whether they are there or not; empty where halves are not stated.
        lists: the text files from which images are known.
        keypoint_values: how many values of keypoints may follow a box.
    """

    files: tuple[Path, ...]
    names: tuple[str, ...] | None
    images: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    lists: tuple[Path, ...] = ()
    keypoint_values: int = 0


class NotYaml(InputError):
    """A file that only its name says to be YAML."""


def read_text(file: Path) -> str:
    """Read a text file in any of Unicode's encodings; what is not Unicode in it is escaped.

    Raises:
        InputError: it cannot be read.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InputError(f"{shown(file)} cannot be read ({error.strerror}).") from error
    return data.decode(json.detect_encoding(data), "backslashreplace")


def read_names(file: Path) -> tuple[str, ...]:
    """Read class names, one a line."""
    return tuple(line.strip() for line in read_text(file).rstrip().splitlines())


def read_yaml(file: Path, tree: Tree) -> Config | None:
    """Read a YAML file with 'names', or 'nc' and 'train'.

    Its halves are folders, lists of folders, or text files with one image a line. They are relative to its 'path', to
    its own folder, or, as they were written where the dataset was made, to what of them is there.

    Returns:
        What it states; None if it is not about a dataset.

    Raises:
        InputError: it is broken, contradicts itself, or names what is not there.
    """
    try:
        # All scalars are strings: a class "no" is not false, a class "1" no number.
        content = yaml.load(read_text(file), Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise NotYaml(f"{shown(file)} is not YAML ({one_line(error)}).") from error
    if not isinstance(content, dict):
        return None
    stated = {half: content[key] for key in content if (half := _half(key)) and not _is_nothing(content[key])}
    if not ("names" in content or ("nc" in content and stated)):
        return None
    given = content.get("path")
    bases = [file.parent / given] if isinstance(given, str) and not _is_nothing(given) else []
    images, lists = _read_halves(file, tree, stated, [*bases, file.parent])
    return Config((file,), _names(file, content), images, lists, _keypoint_values(content.get("kpt_shape")))


def read_darknet(file: Path, tree: Tree) -> Config | None:
    """Read Darknet's ``*.data``, whose lines are ``key = value``; None if it is something else.

    Raises:
        InputError: it names what is not there.
    """
    pairs = [line.partition("=") for line in read_text(file).splitlines()]
    content = {key.strip(): value.strip() for key, equals, value in pairs if equals}
    stated = {half: value for key, value in content.items() if (half := _half(key)) and value}
    if not stated or "names" not in content:
        return None
    bases = [file.parent, tree.root]
    names = _place(content["names"], bases, any_end=True)
    if names is None:
        raise InputError(f"{shown(file)} says that class names are in {content['names']}, which is not there.")
    images, lists = _read_halves(file, tree, stated, bases)
    return Config((file, names), read_names(names), images, lists)


def _half(key: str) -> str:
    return half_of_name(key) if is_plain(key) else ""


def _is_nothing(value: Any) -> bool:
    return not value or (isinstance(value, str) and value.strip().lower() in _NOTHING)


def _names(file: Path, content: Mapping[str, Any]) -> tuple[str, ...] | None:
    names, count = content.get("names"), content.get("nc")
    if names is None:
        return None
    if isinstance(names, dict):
        try:
            by_number = {int(key): name for key, name in names.items()}
        except ValueError as error:
            raise InputError(f"{shown(file)}: 'names' is not by number ({error}).") from error
        if sorted(by_number) != list(range(len(names))):
            raise InputError(f"{shown(file)}: 'names' is not numbered from 0 on: {in_short(sorted(names))}.")
        names = [by_number[number] for number in sorted(by_number)]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{shown(file)}: 'names' is no list of class names.")
    if isinstance(count, str) and count.isdigit() and int(count) != len(names):
        raise InputError(f"{shown(file)}: 'names' has {len(names)} classes, 'nc' says {count}. Correct one of them.")
    return tuple(names)


def _keypoint_values(shape: Any) -> int:
    """Of [17, 3], 51."""
    if isinstance(shape, list) and len(shape) == 2 and all(isinstance(n, str) and n.isdigit() for n in shape):
        return int(shape[0]) * int(shape[1])
    return 0


def _read_halves(
    file: Path, tree: Tree, stated: Mapping[str, Any], bases: Sequence[Path]
) -> tuple[dict[str, list[Path]], tuple[Path, ...]]:
    """Return the images by half, and the lists that name them."""
    images: dict[str, list[Path]] = {}
    lists: list[Path] = []
    for half, entries in stated.items():
        for entry in entries if isinstance(entries, list) else [entries]:
            place = _place(entry, bases) if isinstance(entry, str) else None
            if place is None and half in settle(dict.fromkeys(stated)).keys() - {"test"}:
                raise InputError(_missing(file, half, entry, bases))
            if place is None:
                logger.warning("%s: '%s' is left out, as there is no %s.", shown(file), half, entry)
            elif place.is_dir():
                images.setdefault(half, []).extend(tree.images_below(place))
            else:
                images.setdefault(half, []).extend(_listed(place, bases))
                lists.append(place)
    return {half: list(dict.fromkeys(found)) for half, found in images.items()}, tuple(lists)


def _missing(file: Path, half: str, entry: Any, bases: Sequence[Path]) -> str:
    looked = in_short(list(dict.fromkeys(shown(base) for base in bases)))
    return (
        f"{shown(file)} says that the images {PURPOSES[half]} are in {entry}, which is not there, seen from {looked}. "
        f"Correct '{half}', or leave it out to have a part of the others split off to evaluate on."
    )


def _listed(file: Path, bases: Sequence[Path]) -> Iterator[Path]:
    """The images that a text file names, one a line; one that is not there comes as if it were in the first base."""
    lines = [line.strip() for line in read_text(file).splitlines()]
    bases = [file.parent, *bases]
    guess: tuple[Path, int] = (bases[0], 0)  # which base, and how many parts to leave out: as of the line before
    for line in filter(None, lines):
        parts = _parts(line)
        path = _joined(guess[0], parts[guess[1] :])
        if not (len(parts) > guess[1] and os.path.isfile(path)):
            guesses = ((base, start) for start in range(len(parts)) for base in bases)
            found = next((g for g in guesses if os.path.isfile(_joined(g[0], parts[g[1] :]))), None)
            guess = found or guess
            path = _joined(found[0], parts[found[1] :]) if found else _joined(bases[0], parts)
        yield path


def _place(entry: str, bases: Sequence[Path], *, any_end: bool = False) -> Path | None:
    """Find a file or folder from one of the bases.

    Failing that, the longest end of its path that is there: of at least two parts or one that speaks of a half, unless
    any will do, so that one half's folder is not taken for another's.
    """
    parts = _parts(entry)
    for start in range(len(parts)):
        end = parts[start:]
        if start == 0 or any_end or len(end) > 1 or half_of_name(Path(end[0]).stem):
            for base in bases:
                if os.path.exists(path := _joined(base, end)):
                    return path
    return None


def _parts(entry: str) -> tuple[str, ...]:
    """The parts of a path of any system; the first of an absolute one is its root."""
    return Path(re.sub(r"^(?:[A-Za-z]:)?/+", "/", entry.strip().replace("\\", "/"))).parts


def _joined(base: Path, parts: Sequence[str]) -> Path:
    return Path(os.path.normpath(base.joinpath(*parts)))
