"""The annotations of a half: every one can be trained on and scored, or is left out and said."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import zip_longest
from typing import Any

from ...wording import quoted, shortened
from ..findings import Check, Findings
from ..source import PLACE
from . import boxes, checks, fields
from .categories import Categories
from .ids import LARGEST, as_integer, number_of, numbered
from .images import Images

Record = dict[str, Any]


def clean_annotations(records: list[Any], images: Images, categories: Categories, found: Findings) -> list[Record]:
    """Return what can be used of a file's "annotations", and note what was changed or left out.

    The records are changed in place.
    """
    reading = boxes.reading_of(_boxes(records, images))
    if reading.doubtful:
        found.add(checks.BOX_CORNERS_PERHAPS)
    cleaner = _Cleaner(images, categories, found, reading)
    cleaned = [
        annotation
        for index, record in enumerate(records)
        if (annotation := cleaner.clean(record, f"annotations[{index}]")) is not None
    ]
    return _numbered(_each_once(cleaned, images), found)


def _boxes(records: list[Any], images: Images) -> Iterator[tuple[int, Any, Any, Any, tuple[int, int]]]:
    for record in records:
        if isinstance(record, dict):
            number = images.number_of(record.get("image_id"))
            if number is not None and number in images.listed:
                image = images.listed[number]
                size = (image["width"], image["height"])
                yield number, record.get("bbox"), record.get("area"), record.get("segmentation"), size


class _Cleaner:
    """Cleans annotations one by one, in place."""

    def __init__(self, images: Images, categories: Categories, found: Findings, reading: boxes.Reading) -> None:
        self._images = images
        self._numbers = categories.numbers
        self._known = categories.names.keys()
        self._found = found
        self._reading = reading

    def clean(self, record: Any, index: str) -> Record | None:
        """Put an annotation in order; None if it is left out."""
        if not isinstance(record, dict):
            self._found.add(checks.RECORD, f"{index} is {quoted(record)}")
            return None
        place = _place(record, index)
        lacking = [key for key in ("image_id", "category_id") if key not in record]
        if lacking:
            self._found.add(checks.RECORD, f"{place} has no {' and no '.join(map(repr, lacking))}")
            return None
        usable = self._refer(record, place) and self._fit_box(record, place) and self._check_crowd(record, place)
        if not usable:
            return None
        if not boxes.is_area(record.get("area"), record["bbox"]):
            record["area"] = record["bbox"][2] * record["bbox"][3]
            self._found.add(checks.AREA, place)
        self._check_fields(record, place)
        record.pop(PLACE, None)
        return record

    def _refer(self, record: Record, place: str) -> bool:
        """Find the image and the category."""
        image, category = record["image_id"], record["category_id"]
        number, kind = self._images.number_of(image), number_of(category, self._numbers)
        if number in self._images.dropped:
            self._found.add_box(self._images.dropped[number])
        elif number not in self._images.listed:
            self._found.add(checks.NO_SUCH_IMAGE, f"{place} (image {quoted(image)})")
        elif kind not in self._known:
            self._found.add(checks.NO_SUCH_CATEGORY, f"{place} (category {quoted(category)})")
        else:
            if type(image) is not int or type(category) is not int:
                self._found.add(checks.REFERENCE_TYPE, place)
            record["image_id"], record["category_id"] = number, kind
            return True
        return False

    def _fit_box(self, record: Record, place: str) -> bool:
        """Put the box within the image."""
        value = record.get("bbox")
        if not value or value == [0, 0, 0, 0]:  # the latter is what some tools write for none
            polygons = fields.usable_segmentation(record.get("segmentation"))
            if polygons and isinstance(polygons, list):
                value = boxes.extent(polygons)
                self._found.add(checks.BOX_MISSING, place)
        box, converted = boxes.as_box(value)
        image = self._images.listed[record["image_id"]]
        wrong: Check | None = checks.BOX_NOT_NUMBERS
        if box is not None:
            if converted:
                self._found.add(checks.BOX_TYPE, place)
            box, wrong = boxes.fitted(box, image["width"], image["height"], self._reading)
        if wrong is not None:
            where = place if isinstance(record.get(PLACE), str) else f"{place} of image {record['image_id']}"
            self._found.add(wrong, f"{where} ({quoted(value)})")
        if box is None:
            return False
        if wrong is not None and boxes.is_area(record.get("area"), boxes.as_box(value)[0] or box):
            # What was clipped takes its area along.
            record["area"] = min(record["area"], box[2] * box[3])
        record["bbox"] = box
        return True

    def _check_crowd(self, record: Record, place: str) -> bool:
        crowd = record.get("iscrowd")
        if type(crowd) is not int:
            spelt = as_integer(crowd) if crowd is not None else 0
            if spelt in (0, 1):
                self._found.add(checks.CROWD_MISSING, place)
                record["iscrowd"] = spelt
        if record.get("iscrowd") not in (0, 1) or type(record["iscrowd"]) is not int:
            self._found.add(checks.CROWD_VALUE, f"{place} ({quoted(crowd)})")
            return False
        ignore = record.pop("ignore", None)
        if ignore and as_integer(ignore) != 0:
            self._found.add(checks.IGNORE, place)
            record["iscrowd"] = 1
        elif record["iscrowd"]:
            self._found.add(checks.CROWD, place)
        return True

    def _check_fields(self, record: Record, place: str) -> None:
        for key, usable, check in (
            ("segmentation", fields.usable_segmentation, checks.SEGMENTATION),
            ("keypoints", fields.usable_keypoints, checks.KEYPOINTS),
        ):
            value = record.get(key)
            if value is None:
                record.pop(key, None)
            elif (kept := usable(value)) is not value:
                self._found.add(check, place)
                record[key] = kept
                if kept is None:
                    del record[key]


def _each_once(annotations: list[Record], images: Images) -> list[Record]:
    """Of images that were merged, each box once."""
    merged = set(images.merged.values())
    if not merged:
        return annotations
    seen: set[tuple[Any, ...]] = set()
    once = []
    for annotation in annotations:
        if annotation["image_id"] in merged:
            key = (annotation["image_id"], annotation["category_id"], annotation["iscrowd"], *annotation["bbox"])
            if key in seen:
                continue
            seen.add(key)
        once.append(annotation)
    return once


def _numbered(annotations: list[Record], found: Findings) -> list[Record]:
    """Renumber all if an id is none, or is used twice: COCO's scorer takes id 0 for 'no annotation'."""
    identifiers = [annotation.get("id") for annotation in annotations]
    if all(map(_is_id, identifiers)) and len(set(identifiers)) == len(identifiers):
        return annotations
    _note_ids(annotations, found)
    for number, annotation in enumerate(annotations, 1):
        annotation["id"] = number
    return annotations


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 < value <= LARGEST


def _note_ids(annotations: list[Record], found: Findings) -> None:
    """Say what is wrong with ids: each reason, how often, and an example of it before the others."""
    seen: set[Any] = set()
    flaws: dict[str, list[str]] = {}
    values = []
    for annotation in annotations:
        value = annotation.get("id")
        if _is_id(value) and value not in seen:
            seen.add(value)
            continue
        flaw = "missing" if value is None else "used twice" if _is_id(value) else "no positive integers below 2**53"
        what = "no id" if value is None else f"id {quoted(value)}"
        flaws.setdefault(flaw, []).append(f"{what} of image {annotation['image_id']}")
        values.append(value)
    counts = (f"{flaw} ({len(places)})" if len(flaws) > 1 else flaw for flaw, places in flaws.items())
    check = replace(checks.ANNOTATION_ID, message=f"annotations' 'id' are {', '.join(counts)}")
    if len(values) == 1 and type(values[0]) is int and values[0] == 0:
        check = checks.ANNOTATION_ID_ZERO
    for places in zip_longest(*flaws.values()):
        for place in filter(None, places):
            found.add(check, place)


def _place(record: Record, index: str) -> str:
    place, identifier = record.get(PLACE), record.get("id")
    if isinstance(place, str):
        return place
    return f"annotation {shortened(str(identifier))}" if numbered([identifier]) else index
