"""Read label files in YOLO's format."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...wording import shown
from ..source import PLACE, UNREAD, Content
from .sizes import size_of
from .yolo_config import read_text

logger = logging.getLogger("lite_detr_d2")

Record = dict[str, Any]


@dataclass(frozen=True)
class Labelled:
    """The images of a half, and their label files.

    Attributes:
        base: the folder to which names are relative.
        images: each image file with its label file; None where it has none, and so no boxes.
        lost: label files without an image.
    """

    base: Path
    images: tuple[tuple[Path, Path | None], ...]
    lost: tuple[Path, ...] = ()

    @property
    def label_files(self) -> list[Path]:
        """The label files of the images."""
        return [file for _, file in self.images if file]


class YoloReader:
    """Reads the halves of a dataset in YOLO's format, which share their classes.

    A line is ``class center_x center_y width height``, also followed by a confidence or by keypoints, or ``class x1 y1
    x2 y2 x3 y3 ...``, a polygon whose extent is the box. All are fractions of the image's displayed size. The class is
    a number from 0 on, or its name. A line that is neither is handed on as it is, for whoever checks the content.
    """

    def __init__(
        self, halves: Mapping[str, Labelled], names: Sequence[str] | None = None, keypoint_values: int = 0
    ) -> None:
        """Prepare to read.

        Args:
            halves: what to read.
            names: the class names by number; None to call classes as label files do.
            keypoint_values: how many values of keypoints may follow a box.
        """
        self.halves = halves
        self._names = names
        self._keypoint_values = keypoint_values

    def content(self, half: str) -> Content:
        """Read a half; ids count from 1, but for those of categories, which are the classes' numbers."""
        labelled = self.halves[half]
        images: list[Record] = []
        annotations: list[Record] = []
        for number, (image, file) in enumerate(labelled.images, 1):
            size = size_of(image)
            images.append({"id": number, "file_name": _name(image, labelled.base)})
            # An image that cannot be read is found to be so by all who open it; its boxes are unknown too.
            if size:
                images[-1] |= {"width": size[0], "height": size[1]}
            if size and file:
                try:
                    annotations += list(self._annotations(file, labelled.base, number, size))
                except InputError as error:
                    images[-1][UNREAD] = f"{_name(file, labelled.base)}: {error}"
        for file in labelled.lost:
            annotations += self._without_image(file, labelled.base)
        for number, annotation in enumerate(annotations, 1):
            annotation["id"] = number
        return {"images": images, "annotations": annotations, "categories": list(self._categories)}

    @cached_property
    def _categories(self) -> list[Record]:
        if self._names is not None:
            return [{"id": number, "name": name} for number, name in enumerate(self._names)]
        words = {words[0] for half in self.halves.values() for words in _words_of(half.label_files)}
        numbers = sorted({number for word in words if (number := _class_number(word)) is not None})
        if not numbers:
            return [{"id": number, "name": word} for number, word in enumerate(sorted(words))]
        base = next(iter(self.halves.values())).base
        logger.warning(
            "%s does not name its classes: they are called by their numbers. List their names in classes.txt, one a "
            "line.",
            shown(base),
        )
        return [{"id": number, "name": str(number)} for number in numbers]

    @cached_property
    def _number_of(self) -> dict[str, int]:
        return {category["name"]: category["id"] for category in self._categories}

    def _annotations(self, file: Path, base: Path, image_id: int | str, size: tuple[int, int]) -> Iterator[Record]:
        place = _name(file, base)
        for number, words in _lines(file):
            box = _box(words[1:], self._keypoint_values)
            record: Record = {"image_id": image_id, "category_id": self._category(words[0]), "bbox": words[1:]}
            if box:
                left, top, right, bottom = (value * side for value, side in zip(box, size * 2, strict=True))
                record["bbox"] = [left, top, right - left, bottom - top]
                record |= {"area": (right - left) * (bottom - top), "iscrowd": 0}
            yield record | {PLACE: f"{place} line {number}"}

    def _without_image(self, file: Path, base: Path) -> list[Record]:
        place = _name(file, base)
        try:
            return list(self._annotations(file, base, place, (1, 1)))
        except InputError as error:
            return [{"image_id": place, "category_id": None, PLACE: f"{place}: {error}"}]

    def _category(self, word: str) -> int | str:
        number = _class_number(word)
        return self._number_of.get(word, word) if number is None else number


def is_label_file(file: Path) -> bool:
    """Whether a file has lines of YOLO's format, as far as its first few say."""
    try:
        lines = list(islice(_lines(file), 5))
    except InputError:
        return False
    return bool(lines) and all(_box(words[1:], 0) for _, words in lines)


def _lines(file: Path) -> Iterator[tuple[int, list[str]]]:
    """The lines of a file that are not empty: their numbers, and their words."""
    for number, line in enumerate(read_text(file).splitlines(), 1):
        if words := line.split():
            yield number, words


def _words_of(files: Sequence[Path]) -> Iterator[list[str]]:
    for file in files:
        try:
            yield from (words for _, words in _lines(file))
        except InputError:  # said of its image
            continue


def _box(words: Sequence[str], keypoint_values: int) -> tuple[float, float, float, float] | None:
    """The edges that a line states behind its class: left, top, right, bottom, as fractions; None if it states none."""
    try:
        values = [float(word) for word in words]
    except ValueError:
        return None
    if len(values) in (4, 5) or (keypoint_values and len(values) == 4 + keypoint_values):
        x, y, width, height = values[:4]
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    if len(values) < 6 or len(values) % 2:
        return None
    return min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])


def _class_number(word: str) -> int | None:
    """The number that a class is given by, as 3 or, by some tools, 3.0."""
    try:
        value = float(word)
    except ValueError:
        return None
    return int(value) if value.is_integer() else None


def _name(file: Path, base: Path) -> str:
    return file.relative_to(base).as_posix()
