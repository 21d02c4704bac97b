"""Normalise the halves of a dataset together."""

import gc
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ...errors import InputError
from ...wording import shortened
from ..findings import Findings, Report
from ..images import range_for
from ..source import Content, Source, SourceHalf
from . import checks
from .annotations import clean_annotations
from .categories import Categories, merge_categories
from .images import Images, clean_images


@dataclass(frozen=True)
class CleanHalf:
    """One half of a dataset, in order.

    Attributes:
        name: "train", "val" or "test".
        content: COCO's "info", "images", "annotations" and "categories", in which everything can be used, and what
            else the source has.
        image_root: the folder to which ``file_name`` is relative, if it is not absolute.
    """

    name: str
    content: Content
    image_root: Path


@dataclass(frozen=True)
class Normalised:
    """A dataset in order.

    Attributes:
        halves: by name; all list the same categories.
        report: what was repaired or left out, and what cannot be used.
        max_value: the range that holds all pixels of images of more than 8 bits; 0 if there are none.
    """

    halves: Mapping[str, CleanHalf]
    report: Report
    max_value: float = 0.0


def normalise(source: Source, *, repairing: bool = True) -> Normalised:
    """Make clean content of whatever came.

    What is certain is repaired. What a detector cannot use, but is not wrong, is left out, or marked as a crowd. Images
    and boxes that somebody meant and that cannot be used are left out, too; the report has them as errors, and it is
    for the caller to go on without them. Other errors contradict each other, or leave nothing.

    Args:
        source: the dataset.
        repairing: whether the report is to say what is done about its findings.
    """
    found = {name: Findings(name, repairing) for name in source.halves}
    together = Findings("", repairing)
    with _without_garbage_collection():
        contents = {}
        for name, half in source.halves.items():
            content = _read(half, found[name])
            if content is not None:
                contents[name] = content
        categories = merge_categories(contents, found, together)
        images, halves = {}, {}
        for name, content in contents.items():
            half = source.halves[name]
            images[name] = clean_images(content["images"], half.folders, found[name])
            halves[name] = _clean_half(name, content, images[name], categories, found[name])
    max_value = _range_of_deep_images(images, found)
    for file in source.unused:
        together.add(checks.UNUSED_FILE, str(file))
    return Normalised(halves, Report.of(*found.values(), together), max_value)


def _read(half: SourceHalf, found: Findings) -> Content | None:
    try:
        return half.read()
    except InputError as error:
        found.add(replace(checks.ANNOTATIONS_UNREADABLE, message=str(error), cure=""))
        return None


def _clean_half(name: str, content: Content, images: Images, categories: Categories, found: Findings) -> CleanHalf:
    info = content.get("info")
    clean: Content = {
        **content,  # such as COCO's "licenses"
        "info": info if isinstance(info, dict) else {},
        "images": list(images.listed.values()),
        "categories": categories.listed,
        "annotations": clean_annotations(content["annotations"], images, categories, found),
    }
    half = CleanHalf(name, clean, images.root)
    note_classes(half, found)
    return half


def note_classes(half: CleanHalf, found: Findings) -> None:
    """Note which classes a half has no annotations of."""
    content, is_train = half.content, half.name == "train"
    counts = Counter(annotation["category_id"] for annotation in content["annotations"] if not annotation["iscrowd"])
    if not content["annotations"]:
        found.add(checks.NOTHING_TO_TRAIN_ON if is_train else checks.NOTHING_TO_SCORE)
    elif not counts:
        found.add(checks.ONLY_CROWDS)
    else:
        for category in content["categories"]:
            if category["id"] not in counts:
                unused = checks.CLASS_UNTRAINED if is_train else checks.CLASS_UNSCORED
                found.add(unused, shortened(category["name"]))


def _range_of_deep_images(images: Mapping[str, Images], found: Mapping[str, Findings]) -> float:
    """The range that holds the pixels of all images of more than 8 bits, so that all are read alike."""
    largest = max((half.largest for half in images.values()), default=0)
    max_value = range_for(largest) if largest > 0 else 0.0
    cure = checks.IMAGE_DEPTH.cure.replace("INPUT.MAX_VALUE", f"INPUT.MAX_VALUE {float(max_value)}")
    check = replace(checks.IMAGE_DEPTH, cure=cure)
    for name, half in images.items():
        for path in half.deep:
            found[name].add(check, path)
    return float(max_value)


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Millions of records are made, none in a circle: looking for those takes as long as making them."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
