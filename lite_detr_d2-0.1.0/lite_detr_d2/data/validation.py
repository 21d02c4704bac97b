"""Find everything that is wrong with a dataset in COCO format, without changing or writing anything."""

from dataclasses import dataclass, replace
from pathlib import Path

from .findings import Finding
from .normalise import normalise
from .source import Source, SourceHalf, read_coco_file


@dataclass(frozen=True)
class DatasetReport:
    """What :func:`validate_dataset` finds.

    Attributes:
        problems: all of them, fatal ones first; empty for a dataset in order.
        categories: the names by their ids; empty if the annotation file cannot be read.
        num_images: the number of images that can be used; 0 if the annotation file cannot be read.
    """

    problems: tuple[Finding, ...]
    categories: dict[int, str]
    num_images: int


def validate_dataset(json_file: str | Path, image_root: str | Path | None, *, scored: bool = False) -> DatasetReport:
    """Check a dataset in COCO format: its annotation file, boxes and images (their headers only).

    An image without annotations is no problem.

    Args:
        json_file: the annotation file.
        image_root: the folder to which ``file_name`` is relative; None to leave the image files alone.
        scored: whether the dataset is to be evaluated on, and not to be trained on.
    """
    file, folders = Path(json_file), () if image_root is None else (Path(image_root),)
    name = "val" if scored else "train"
    source = Source(file, "COCO", {name: SourceHalf(file, folders, lambda: read_coco_file(file), (file,))})
    normalised = normalise(source, repairing=False)
    problems = tuple(replace(finding, half="") for finding in normalised.report.findings)
    half = normalised.halves.get(name)
    if half is None:
        return DatasetReport(problems, {}, 0)
    categories = {category["id"]: category["name"] for category in half.content["categories"]}
    return DatasetReport(problems, categories, len(half.content["images"]))
