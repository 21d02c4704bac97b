"""Datasets in order, as the inspection gets them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lite_detr_d2.data.findings import Finding, Report
from lite_detr_d2.data.inspection import inspect_pictures, look_at_images
from lite_detr_d2.data.inspection.table import HalfTable
from lite_detr_d2.data.normalise import CleanHalf, Normalised

SIZE = (160, 120)  # width, height
CLASSES = ("ant", "cat", "dog")


def half(
    name: str,
    files: Sequence[str] = ("0.png",),
    boxes: Sequence[tuple[Any, ...]] = (),
    root: Path = Path("nowhere"),
    size: tuple[int, int] = SIZE,
) -> CleanHalf:
    """A half with these images, all of one size, and boxes (image, class, x, y, width, height[, iscrowd])."""
    images = [
        {"id": 1 + index, "file_name": file, "width": size[0], "height": size[1]} for index, file in enumerate(files)
    ]
    annotations = [
        {
            "id": 10 + index,
            "image_id": 1 + image,
            "category_id": 3 * kind,
            "bbox": list(rest[:4]),
            "area": rest[2] * rest[3],
            "iscrowd": rest[4] if len(rest) > 4 else 0,
        }
        for index, (image, kind, *rest) in enumerate(boxes)
    ]
    categories = [{"id": 3 * index, "name": name} for index, name in enumerate(CLASSES)]
    return CleanHalf(name, {"info": {}, "images": images, "annotations": annotations, "categories": categories}, root)


def table(*arguments: Any, **options: Any) -> HalfTable:
    return HalfTable.of(half(*arguments, **options))


def normalised(*halves: CleanHalf, report: Report | None = None) -> Normalised:
    return Normalised({half.name: half for half in halves}, report or Report())


def opened(dataset: Normalised, **options: Any) -> list[Finding]:
    """What is found when every image is opened."""
    return inspect_pictures(dataset, look_at_images(dataset, **options))


def places(findings: Sequence[Finding]) -> Mapping[tuple[str, str], tuple[str, ...]]:
    """By half and id, where it is."""
    return {(finding.half, finding.id): finding.places for finding in findings}
