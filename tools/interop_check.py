"""Compare the boxes of a dataset that another tool has written with the original's.

    PYTHONPATH=. python tools/interop_check.py ORIGINAL EXPORTED

Both are read as training reads them. Images are matched by the stems of their names, boxes by class name: each box of
the original must have one of its own in the export with an IoU above 0.95, and nothing else may be there.
"""

import argparse
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from lite_detr_d2.data.source import Content
from lite_detr_d2.data.sources import find_source

IOU = 0.95
Boxes = dict[tuple[str, str], npt.NDArray[np.float64]]


def boxes_of(content: Content) -> Boxes:
    """The boxes (n, 4), as edges, by the stem of the image's name and the class."""
    images = {image["id"]: Path(image["file_name"]).stem for image in content["images"]}
    classes = {category["id"]: category["name"] for category in content["categories"]}
    found = defaultdict(list)
    for annotation in content["annotations"]:
        x, y, width, height = annotation["bbox"]
        found[images[annotation["image_id"]], classes[annotation["category_id"]]].append((x, y, x + width, y + height))
    return {key: np.array(boxes, np.float64) for key, boxes in found.items()}


def iou(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The (n, m) IoU of (n, 4) and (m, 4) boxes."""
    top_left, bottom_right = np.maximum(a[:, None, :2], b[:, :2]), np.minimum(a[:, None, 2:], b[:, 2:])
    inter = (bottom_right - top_left).clip(0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (a, b)]
    return inter / (areas[0][:, None] + areas[1] - inter)


def compare(original: Content, exported: Content) -> tuple[str, bool]:
    """Return a line of figures, and whether all boxes are the same."""
    ours, theirs = boxes_of(original), boxes_of(exported)
    lowest, matched = 1.0, 0
    for key in ours.keys() & theirs.keys():
        overlap = iou(ours[key], theirs[key])
        pairs = overlap[linear_sum_assignment(-overlap)]
        matched += int((pairs > IOU).sum())
        lowest = min(lowest, float(pairs.min()))
    counts = [sum(map(len, boxes.values())) for boxes in (ours, theirs)]
    images = [len(content["images"]) for content in (original, exported)]
    line = f"images {images[0]} / {images[1]}, boxes {counts[0]} / {counts[1]}, IoU > {IOU}: {matched}, "
    return f"{line}lowest IoU {lowest:.4f}", images[0] == images[1] and matched == counts[0] == counts[1]


def main() -> int:
    """Compare all halves; 0 if they are the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("original", type=Path)
    parser.add_argument("exported", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        original, exported = (find_source(path, Path(folder)) for path in (args.original, args.exported))
        same = original.halves.keys() == exported.halves.keys()
        if not same:
            print(f"halves {', '.join(original.halves)} / {', '.join(exported.halves)}")
        for half in original.halves.keys() & exported.halves.keys():
            line, equal = compare(original.halves[half].read(), exported.halves[half].read())
            print(f"{exported.kind} {half}: {line}{'' if equal else '  DIFFERENT'}")
            same &= equal
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
