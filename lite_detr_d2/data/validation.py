"""Find everything that is wrong with a dataset in COCO format, before training does."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from .mapper import UNREADABLE_IMAGE

Record = dict[str, Any]

# The keys of each list's records, with their types; object for what is looked at in detail later.
_RECORDS: dict[str, dict[str, type]] = {
    "images": {"id": int, "file_name": str, "width": object, "height": object},
    "annotations": {"id": int, "image_id": int, "category_id": int, "bbox": object},
    "categories": {"id": int, "name": str},
}
_TYPE_NAMES = {int: "an integer", str: "a string"}
# Annotation tools round: a box may reach this far, in pixels, beyond its image.
_BOX_TOLERANCE = 1.0
_IDS_SHOWN = 20
_TRANSPOSING_ORIENTATIONS = (5, 6, 7, 8)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and all the places where it is.

    Attributes:
        fatal: whether it keeps the dataset from being used; otherwise training and evaluation cope, as ``what`` says.
        what: the problem, and its cure or consequence.
        places: what has it, such as ``"annotation 7"``; empty for the file as a whole.
    """

    fatal: bool
    what: str
    places: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.places:
            return self.what
        shown = ", ".join(self.places[:_IDS_SHOWN])
        more = len(self.places) - _IDS_SHOWN
        return f"{self.what}: {shown}" + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True)
class DatasetReport:
    """What :func:`validate_dataset` finds.

    Attributes:
        problems: all of them, fatal ones first; empty for a dataset in order.
        categories: the names by their ids; empty if the annotation file cannot be read.
        num_images: the number of images that the annotation file lists; 0 if it cannot be read.
    """

    problems: tuple[Problem, ...]
    categories: dict[int, str]
    num_images: int


def validate_dataset(json_file: str | Path, image_root: str | Path | None, *, scored: bool = False) -> DatasetReport:
    """Check a dataset in COCO format: its annotation file, boxes and images (their headers only).

    An image without annotations is no problem.

    Args:
        json_file: the annotation file.
        image_root: the folder to which ``file_name`` is relative; None to leave the image files alone.
        scored: whether the dataset is to be evaluated on, for which COCO's scorer needs more of each annotation.
    """
    content, problem = read_annotations(Path(json_file))
    if problem:
        return DatasetReport((Problem(fatal=True, what=problem),), {}, 0)
    tables = {kind: [r for r in content[kind] if not _record_problem(r, keys)] for kind, keys in _RECORDS.items()}
    images = {image["id"]: image for image in tables["images"]}
    categories = {category["id"]: category["name"] for category in tables["categories"]}

    findings = [
        *_file_findings(content),
        *_uniqueness_findings(tables),
        *(finding for image in images.values() for finding in _image_findings(image, image_root)),
        *(f for annotation in tables["annotations"] for f in _annotation_findings(annotation, images, categories)),
    ]
    if scored:
        findings += (finding for annotation in tables["annotations"] for finding in _scoring_findings(annotation))
    grouped: dict[tuple[bool, str], list[str]] = {}
    for fatal, what, place in findings:
        grouped.setdefault((fatal, what), []).extend([place] if place else [])
    problems = [Problem(fatal, what, tuple(places)) for (fatal, what), places in grouped.items()]
    return DatasetReport(tuple(sorted(problems, key=lambda problem: not problem.fatal)), categories, len(images))


# A finding is (fatal, what, place).
Finding = tuple[bool, str, str]


def read_annotations(path: Path) -> tuple[Record, str]:
    """Return the file's content, or what keeps it from being read.

    Returns:
        An object with the lists "images", "annotations" and "categories", whose records are not looked at, and "". Or
        an empty object, and the problem.
    """
    if not path.is_file():
        return {}, "the annotation file is missing"
    if path.stat().st_size == 0:
        return {}, "the annotation file is empty"
    try:
        # As pycocotools reads it later: json takes bytes in other encodings, too.
        content = json.loads(path.read_bytes().decode())
    except (OSError, ValueError) as error:
        what = "cannot be read" if isinstance(error, OSError) else "is not JSON in UTF-8 without a byte order mark"
        return {}, f"the annotation file {what} ({error})"
    if not isinstance(content, dict):
        return {}, f"the annotation file holds a {type(content).__name__}, not COCO's object of lists"
    for kind in _RECORDS:
        if not isinstance(content.get(kind), list):
            return {}, f"the annotation file has no list '{kind}'"
    return content, ""


def _record_problem(record: object, types: Mapping[str, type]) -> str:
    """Say what keeps a record from being used, if anything."""
    if not isinstance(record, dict) or not all(key in record for key in types):
        return f"a record needs the keys {', '.join(types)}"
    wrong = [key for key, expected in types.items() if not isinstance(record[key], expected)]
    return f"'{wrong[0]}' must be {_TYPE_NAMES[types[wrong[0]]]}" if wrong else ""


def _file_findings(content: Record) -> Iterator[Finding]:
    """Look at each list of the file on its own: is it empty, can its records be used?"""
    for kind, types in _RECORDS.items():
        if not content[kind]:
            yield True, f"there are no {kind}", ""
        for index, record in enumerate(content[kind]):
            if problem := _record_problem(record, types):
                yield True, problem, f"{kind}[{index}]"


def _uniqueness_findings(tables: Mapping[str, list[Record]]) -> Iterator[Finding]:
    for kind, key in (*((kind, "id") for kind in tables), ("categories", "name")):
        noun = "category" if kind == "categories" else kind.removesuffix("s")
        for value, count in Counter(record[key] for record in tables[kind]).items():
            if count > 1:
                what = f"{'an' if key == 'id' else 'a'} {key} is used by more than one {noun}; make it unique"
                yield True, what, f"{noun} {value}"


def _image_findings(image: Record, root: str | Path | None) -> Iterator[Finding]:
    place, stated = f"image {image['id']} ({image['file_name']})", (image["width"], image["height"])
    if not _is_size(stated):
        yield True, "an image's width and height must be positive integers", place
    elif root is None:
        return
    elif not (path := Path(root, image["file_name"])).is_file():
        cure = "; folders in a file_name are parted by /, not \\" if "\\" in image["file_name"] else ""
        yield True, f"an image file is missing in {root}{cure}", place
    else:
        try:
            size = _displayed_size(path)
        except UNREADABLE_IMAGE:
            yield True, "an image file cannot be opened", place
        else:
            if size != stated:
                what = "an image is not of its stated size (width x height); correct 'width' and 'height'"
                yield True, what, f"{place} is {size[0]} x {size[1]}, not {stated[0]} x {stated[1]}"


def _is_size(stated: tuple[Any, Any]) -> bool:
    return all(isinstance(side, int) and side > 0 for side in stated)


def _displayed_size(path: Path) -> tuple[int, int]:
    """Return (width, height) as detectron2 reads the image, which turns it upright as its EXIF data says."""
    with Image.open(path) as image:
        width, height = image.size
        # Without this look at the header, getexif() decodes a whole PNG in search of it.
        has_exif = "exif" in image.info
        turned = has_exif and image.getexif().get(ExifTags.Base.Orientation) in _TRANSPOSING_ORIENTATIONS
    return (height, width) if turned else (width, height)


def _annotation_findings(
    annotation: Record, images: dict[Any, Record], categories: dict[Any, str]
) -> Iterator[Finding]:
    place = f"annotation {annotation['id']}"
    if annotation["category_id"] not in categories:
        yield True, "an annotation's category is not in 'categories'", f"{place} (category {annotation['category_id']})"
    image = images.get(annotation["image_id"])
    if image is None:
        yield True, "an annotation's image is not in 'images'", f"{place} (image {annotation['image_id']})"
        return
    # detectron2 trains only on what equals 0, and would drop the rest in silence.
    if annotation.get("iscrowd", 0) not in (0, 1):
        yield True, "'iscrowd' must be 0 or 1", f"{place} ({annotation['iscrowd']!r})"
    if annotation.get("ignore"):
        yield True, "'ignore' is not supported; use 'iscrowd', or remove the annotation", place
    stated = (image["width"], image["height"])
    if _is_size(stated):
        for fatal, what in _box_findings(annotation["bbox"], *stated):
            yield fatal, what, f"{place} of image {annotation['image_id']} ({annotation['bbox']})"


def _scoring_findings(annotation: Record) -> Iterator[Finding]:
    """Look at what pycocotools reads of every annotation that it scores against."""
    place = f"annotation {annotation['id']}"
    if annotation["id"] == 0:
        yield True, "COCO's scorer takes id 0 for 'no annotation'; number annotations from 1", place
    if not _is_finite_number(annotation.get("area")) or "iscrowd" not in annotation:
        what = "an annotation to evaluate on needs a number 'area' (say, width x height of its box) and 'iscrowd' (0)"
        yield True, what, place


def _box_findings(box: Any, width: int, height: int) -> Iterator[tuple[bool, str]]:
    if not (isinstance(box, list) and len(box) == 4 and all(map(_is_finite_number, box))):
        yield True, "a box must be four finite numbers: x, y, width, height"
        return
    left, top, right, bottom = box[0], box[1], box[0] + box[2], box[1] + box[3]
    if right < left or bottom < top:
        yield True, "a box has a negative side; COCO's boxes are x, y, width, height"
    elif right == left or bottom == top:
        yield False, "a box has no area: training skips it, and evaluation counts it as missed"
    elif right <= 0 or bottom <= 0 or left >= width or top >= height:
        yield True, "a box lies outside its image"
    elif min(left, top, width - right, height - bottom) < -_BOX_TOLERANCE:
        yield False, "a box reaches beyond its image: training clips it, evaluation does not"


def _is_finite_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
