"""Read XML files in Pascal VOC's format."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ...wording import shown
from ..source import PLACE, UNREAD, Content
from .sizes import size_of

logger = logging.getLogger("lite_detr_d2")

Record = dict[str, Any]
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class VocItem:
    """An image of a dataset.

    Attributes:
        name: what it is called, without a suffix.
        file: its XML file; None where there is none.
        images: its image file, or those of the same stem; empty where there is none.
    """

    name: str
    file: Path | None
    images: tuple[Path, ...]


@dataclass(frozen=True)
class _Object:
    name: str | None
    corners: tuple[str | None, ...]
    place: str

    @property
    def numbers(self) -> tuple[float, float, float, float] | None:
        """Left, top, right and bottom as they are written; None if one is no number."""
        try:
            left, top, right, bottom = (float(corner or "") for corner in self.corners)
        except ValueError:
            return None
        return left, top, right, bottom


@dataclass(frozen=True)
class _Parsed:
    filename: str = ""
    size: tuple[int, int] | None = None
    objects: Sequence[_Object] = field(default=())
    unread: str = ""


class VocReader:
    """Reads the halves of a dataset in Pascal VOC's format, which share their classes.

    The format counts pixels from 1 on, and the last one belongs to the box: a box from 1 to 10 is 10 pixels wide.
    Many tools write a box's edges from 0 on instead: 0 and 10. Files are read so where one of the dataset's boxes
    starts before 1, or where most have corners that are not written as whole numbers. Objects that are marked as
    difficult are objects. What cannot be read is handed on as it is, for whoever checks the content.
    """

    def __init__(self, base: Path, halves: Mapping[str, Sequence[VocItem]]) -> None:
        """Prepare to read ``halves``, whose names start from ``base``."""
        self.base = base
        self.halves = halves

    def content(self, half: str) -> Content:
        """Read a half; ids count from 1. Categories are the classes of all halves, sorted by name."""
        images: list[Record] = []
        annotations: list[Record] = []
        parsed = self._parsed[half]
        annotated = any(item.file for item in self.halves[half])
        for number, (item, read) in enumerate(zip(self.halves[half], parsed, strict=True), 1):
            image = next((i for i in item.images if i.name == read.filename), (*item.images, None)[0])
            size = read.size or (size_of(image) if image else None)
            images.append({"id": number, "file_name": self._name(image) if image else read.filename or item.name})
            if size:
                images[-1] |= {"width": size[0], "height": size[1]}
            unread = f"{item.name} has no XML file" if annotated and item.file is None else read.unread
            if unread:
                images[-1][UNREAD] = unread
            annotations += (self._annotation(number, found) for found in read.objects)
        for number, annotation in enumerate(annotations, 1):
            annotation["id"] = number
        categories = [{"id": number, "name": name} for name, number in self._numbers.items()]
        return {"images": images, "annotations": annotations, "categories": categories}

    def _annotation(self, image_id: int, found: _Object) -> Record:
        record: Record = {"image_id": image_id, "category_id": self._numbers.get(found.name or ""), PLACE: found.place}
        if found.numbers is None:
            return record | {"bbox": list(found.corners)}
        left, top, right, bottom = found.numbers
        if self._counts_from_1:
            left, top = left - 1, top - 1
        width, height = right - left, bottom - top
        return record | {"bbox": [left, top, width, height], "area": width * height, "iscrowd": 0}

    @cached_property
    def _parsed(self) -> dict[str, list[_Parsed]]:
        return {
            half: [_parse(item.file, self._name(item.file)) if item.file else _Parsed() for item in items]
            for half, items in self.halves.items()
        }

    @cached_property
    def _numbers(self) -> dict[str, int]:
        """The classes' ids by their names."""
        names = {found.name for found in self._objects() if found.name}
        return {name: number for number, name in enumerate(sorted(names), 1)}

    @cached_property
    def _counts_from_1(self) -> bool:
        boxes = [(found, numbers) for found in self._objects() if (numbers := found.numbers)]
        before_1 = [
            found
            for found, (left, top, right, bottom) in boxes
            if right > left >= 0 and bottom > top >= 0 and min(left, top) < 1
        ]
        pointed = sum(any("." in (corner or "") for corner in found.corners) for found, _ in boxes)
        from_1 = not before_1 and 2 * pointed <= len(boxes)
        reason = f" ({before_1[0].place} starts before 1)" if before_1 else ""
        logger.info(
            "%s: corners of boxes are read as %s%s.",
            shown(self.base),
            "pixels counted from 1, the last one included" if from_1 else "edges counted from 0",
            reason,
        )
        return from_1

    def _objects(self) -> Iterator[_Object]:
        return (found for half in self._parsed.values() for parsed in half for found in parsed.objects)

    def _name(self, file: Path) -> str:
        return file.relative_to(self.base).as_posix()


def _parse(file: Path, place: str) -> _Parsed:
    """Read an XML file, or say what keeps it from being read."""
    try:
        data = file.read_bytes()
        if b"<!ENTITY" in data:
            raise ValueError("it defines entities, which can grow without limit")
        root = ElementTree.fromstring(data)
        if root.tag != "annotation":
            raise ValueError(f"it holds <{root.tag}>, not <annotation>")
    except OSError as error:
        return _Parsed(unread=f"{place} ({error.strerror})")
    except (ValueError, LookupError, ElementTree.ParseError) as error:  # LookupError: of an unknown encoding
        return _Parsed(unread=f"{place} ({error})")
    return _Parsed(
        (root.findtext("filename") or "").strip(),
        _size(root),
        [_object(node, f"{place} object {number}") for number, node in enumerate(root.findall("object"), 1)],
    )


def _object(node: ElementTree.Element, place: str) -> _Object:
    name = node.findtext("name")
    corners = (node.findtext(f"bndbox/{corner}") for corner in _CORNERS)
    return _Object(name.strip() if name else None, tuple(text and text.strip() for text in corners), place)


def _size(root: ElementTree.Element) -> tuple[int, int] | None:
    try:
        width, height = (float(root.findtext(f"size/{side}") or "") for side in ("width", "height"))
    except ValueError:
        return None
    whole = math.isfinite(width) and math.isfinite(height) and min(width, height) >= 1
    return (int(width), int(height)) if whole else None
