"""The images of a half: each file once, with a number for its id and its true size."""

import os
from collections.abc import Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...wording import shortened
from ..findings import Check, Findings
from ..images import ImageError, ImageHeader, largest_value, read_header
from ..source import PLACE, UNREAD
from . import checks
from .files import Found, ImageFiles
from .ids import as_integer, number_of, numbered

Record = dict[str, Any]

_READERS = 8


@dataclass
class Images:
    """The images of a half.

    Attributes:
        listed: their records, by ``id``, with a ``file_name`` that is relative to ``root`` or absolute.
        root: the folder that most of the files are in.
        numbers: for each id, as the half has it, a number.
        merged: for the number of an image whose file is another's, too, that one's number.
        dropped: of the number of each image that cannot be used, why.
        deep: files of more than 8 bits a channel.
        largest: the largest value of their pixels; 0 without any.
    """

    root: Path
    numbers: dict[Hashable, int]
    listed: dict[int, Record] = field(default_factory=dict)
    merged: dict[int, int] = field(default_factory=dict)
    dropped: dict[int, Check] = field(default_factory=dict)
    deep: list[str] = field(default_factory=list)
    largest: float = 0

    def number_of(self, value: Any) -> int | None:
        """The number of the image that an annotation's ``image_id`` means, used or not; None if there is none."""
        number = number_of(value, self.numbers)
        return number if number is None else self.merged.get(number, number)

    def drop(self, number: int, check: Check, place: str, found: Findings) -> None:
        """Leave an image out, because of ``check`` at ``place``."""
        found.add(check, place)
        self.dropped[number] = check


def clean_images(records: list[Any], folders: tuple[Path, ...], found: Findings) -> Images:
    """Find the file of every image, and what is wrong with its record.

    Args:
        records: a file's "images".
        folders: where the files are; none to leave them alone.
        found: what was found.
    """
    if not records:
        found.add(checks.NO_IMAGES)
    usable, nameless = _usable(records, found)
    numbers = numbered([*(record["id"] for record in usable), *nameless])
    images = Images(
        folders[0] if folders else Path(), numbers, dropped={numbers[each]: checks.RECORD for each in nameless}
    )
    once = _each_id_once(usable, images, found)
    for number, record in once.items():
        reason = record.pop(UNREAD, None)
        if isinstance(reason, str):
            images.drop(number, checks.LABELS_UNREADABLE, reason, found)
    files = _found_files(once, folders, images, found)
    _merge_repeated(once, files, images, found)
    _check_sizes(once, files, images, found)
    for number, record in once.items():
        if number not in images.merged and number not in images.dropped:
            record.pop(PLACE, None)
            images.listed[number] = record
    return images


def _usable(records: list[Any], found: Findings) -> tuple[list[Record], list[Hashable]]:
    """The records that can be used, and the ids of those that name no file."""
    usable, nameless = [], []
    for index, record in enumerate(records):
        has_id = isinstance(record, dict) and numbered([record.get("id")])
        if has_id and isinstance(record.get("file_name"), str):
            usable.append(record)
        elif has_id:
            nameless.append(record["id"])
            found.add(checks.RECORD, f"images[{index}] has no 'file_name' that is text")
        else:
            found.add(checks.RECORD, f"images[{index}] has no 'id'")
    named = {record["id"] for record in usable}
    return usable, [identifier for identifier in nameless if identifier not in named]


def _each_id_once(usable: Iterable[Record], images: Images, found: Findings) -> dict[int, Record]:
    once: dict[int, Record] = {}
    for record in usable:
        number = images.numbers[record["id"]]
        place = f"image {shortened(str(record['id']))} ({shortened(record['file_name'])})"
        if type(record["id"]) is not int or record["id"] != number:
            found.add(checks.IMAGE_ID_TYPE, place)
        first = once.get(number)
        if first is None:
            once[number] = {**record, "id": number}
        elif first["file_name"] == record["file_name"]:
            found.add(checks.IMAGE_LISTED_TWICE, place)
        else:
            found.add(checks.IMAGE_ID_TWICE, f"{place} and {shortened(first['file_name'])}")
    return once


def _found_files(once: dict[int, Record], folders: tuple[Path, ...], images: Images, found: Findings) -> dict[int, str]:
    """The path of each image's file; of those that are missing, none."""
    if not folders:
        return {}
    finder = ImageFiles(folders)
    results = _each_of_one_folder({number: finder.find(record["file_name"]) for number, record in once.items()})
    counts: dict[Path, int] = {}
    for result in results.values():
        if result.folder is not None:
            counts[result.folder] = counts.get(result.folder, 0) + 1
    images.root = max(counts, key=lambda folder: counts[folder], default=images.root)
    paths = {}
    for number, result in results.items():
        record = once[number]
        place = _place(record)
        if result.path is None or result.folder is None:
            images.drop(number, checks.IMAGE_MISSING, f"{place}: {result.reason}" if result.reason else place, found)
            continue
        paths[number] = result.path
        if not result.exact:
            found.add(checks.IMAGE_NAME, f"{place} is {Path(result.path).relative_to(result.folder)}")
        if result.folder != images.root:
            record["file_name"] = result.path
        elif not result.exact:
            record["file_name"] = str(Path(result.path).relative_to(images.root))
    return paths


def _each_of_one_folder(results: dict[int, Found]) -> dict[int, Found]:
    """The results, less files that are found by names of several folders: these are of several images."""
    folders: dict[str, set[str]] = {}
    for result in results.values():
        if result.path is not None:
            folders.setdefault(os.path.normpath(result.path), set()).add(result.without.casefold())
    return {
        number: Found(None, reason=f"{os.path.basename(result.path)} may be another image")
        if result.path and result.without and len(folders[os.path.normpath(result.path)]) > 1
        else result
        for number, result in results.items()
    }


def _merge_repeated(once: dict[int, Record], files: dict[int, str], images: Images, found: Findings) -> None:
    firsts: dict[str, int] = {}
    for number, record in once.items():
        if number in images.dropped:
            continue
        first = firsts.setdefault(os.path.normpath(files.get(number) or record["file_name"]), number)
        if first != number:
            images.merged[number] = first
            found.add(checks.IMAGE_REPEATED, f"{shortened(record['file_name'])} (images {first} and {number})")


def _check_sizes(once: dict[int, Record], files: dict[int, str], images: Images, found: Findings) -> None:
    for record in once.values():
        width, height = _side(record.get("width")), _side(record.get("height"))
        if None not in (width, height) and (type(record["width"]), type(record["height"])) != (int, int):
            found.add(checks.IMAGE_SIZE_TYPE, _place(record))
        record["width"], record["height"] = width, height
    wanted = [number for number in files if number not in images.merged]
    with ThreadPoolExecutor(_READERS) as pool:
        headers = pool.map(_look_at, [files[number] for number in wanted])
        for number, (header, largest) in zip(wanted, headers, strict=True):
            if isinstance(header, str):
                images.drop(number, checks.IMAGE_UNREADABLE, f"{_place(once[number])}: {header}", found)
                continue
            _compare_size(once[number], header, images, found)
            if header.depth:
                images.deep.append(files[number])
                images.largest = max(images.largest, largest)
    for number, record in once.items():
        if None in (record["width"], record["height"]) and number not in images.dropped.keys() | images.merged.keys():
            images.drop(number, checks.IMAGE_SIZE, f"{_place(record)} states none", found)


def _side(value: Any) -> int | None:
    side = as_integer(value) if not isinstance(value, bool) else None
    return side if side is not None and side > 0 else None


def _look_at(path: str) -> tuple[ImageHeader | str, float]:
    """The header, or the reason why it cannot be read; and of a deep image, its largest value."""
    try:
        header = read_header(path)
        return header, largest_value(path) if header.depth else 0
    except ImageError as error:
        return error.cause, 0


def _compare_size(record: Record, header: ImageHeader, images: Images, found: Findings) -> None:
    if None in (record["width"], record["height"]):
        record["width"], record["height"] = header.width, header.height
        found.add(checks.IMAGE_SIZE_MISSING, _place(record))
        return
    stated = (record["width"], record["height"])
    if stated == (header.width, header.height):
        return
    place = f"{_place(record)} is {header.width} x {header.height}, not {stated[0]} x {stated[1]}"
    images.drop(record["id"], checks.wrong_size(header, stated), place, found)


def _place(record: Record) -> str:
    place = record.get(PLACE)
    return place if isinstance(place, str) else f"image {record['id']} ({shortened(record['file_name'])})"
