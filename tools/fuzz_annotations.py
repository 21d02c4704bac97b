"""Feed mutated annotation files to the way in of data: each is used, repaired and said, or refused; nothing is lost.

    python tools/fuzz_annotations.py [--count 10000] [--seed 0]

What becomes of a file is compared with what plainly stands in it, box by box: whatever was not taken over as it is must
be named by a warning. The exit code is 1 if that was not so, or something else than an InputError was raised.
"""

import argparse
import contextlib
import json
import logging
import os
import sys
import tempfile
import traceback
from collections import Counter
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from annotation_mutations import Case, make_case
from detectron2.data import MetadataCatalog
from detectron2.data.datasets import load_coco_json
from harmless_mutations import NUM_IMAGES, SIZE, Content, base_halves
from PIL import Image

from lite_detr_d2.data import Severity
from lite_detr_d2.data.prepare import Prepared, prepare
from lite_detr_d2.data.source import Source, SourceHalf, read_coco_file
from lite_detr_d2.errors import InputError

# What stays as it is, if it can be used, and what else is said.
_VALUES = ("bbox", "iscrowd", "area", "segmentation", "keypoints")
_ABSENT: tuple[Any, ...] = (None, [], {}, "")


class Fuzzer:
    """Runs cases in a folder that has the images."""

    def __init__(self, root: Path) -> None:
        self._root = root
        pixels = np.random.default_rng(0).integers(0, 255, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
        (root / "images").mkdir()
        for number in range(NUM_IMAGES + 1):
            Image.fromarray(pixels).save(root / "images" / f"{number}.png")

    def run(self, case: Case) -> str:
        """Say what became of a case: "used", "harmless, used", "repaired and said", or "refused".

        Raises:
            AssertionError: something was lost, and not said, or what is harmless was not used in full.
            Exception: any but InputError that came out.
        """
        halves = {}
        for half, data in case.files.items():
            file = self._root / f"{half}.json"
            file.write_bytes(data)
            halves[half] = SourceHalf(file, (self._root / "images",), partial(read_coco_file, file), (file,))
        source = Source(self._root, "COCO", halves)
        contents = {half: _parsed(data) for half, data in case.files.items()}
        try:
            prepared = self._prepare(source, "error")
        except InputError as error:
            assert not case.harmless, f"refused: {error}"
            assert str(error).strip()
            with contextlib.suppress(InputError):
                _check_all_is_said(contents, self._prepare(source, "drop"))
                return "refused, the rest used where told to drop"
            return "refused"
        changed = _check_all_is_said(contents, prepared)
        if case.harmless:
            _check_all_is_used(contents, prepared)
            return "harmless, used"
        return "repaired and said" if changed or _said(prepared) else "used"

    def _prepare(self, source: Source, on_bad: str) -> Prepared:
        prepared = prepare(lambda _: source, self._root / "work", on_bad=on_bad)
        for half in prepared.halves.values():
            _check_detectron2_reads_all(half.annotations, half.images)
        return prepared


def _parsed(data: bytes) -> Content:
    """What a file says by JSON's rules; empty if it is none, which must have been refused."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _check_detectron2_reads_all(file: Path, images: Path) -> None:
    content = json.loads(file.read_text())
    name = "fuzzed"
    try:
        records = load_coco_json(str(file), str(images), name)
    finally:
        MetadataCatalog.remove(name)
    assert len(records) == len(content["images"])
    boxes = sum(len(record["annotations"]) for record in records)
    assert boxes == len(content.get("annotations", ())), f"detectron2 reads {boxes} boxes"
    assert all(os.path.isfile(record["file_name"]) for record in records)
    for record in records:
        for box in record["annotations"]:
            left, top, width, height = box["bbox"]
            assert min(width, height) > 0, box
            assert left < record["width"] + 1, box
            assert top < record["height"] + 1, box


def _check_all_is_said(contents: dict[str, Content], prepared: Prepared) -> int:
    """Return how many boxes and images are not as they stood in the files; all of them must have been named."""
    places = [
        place
        for finding in prepared.report.findings
        if finding.severity is not Severity.INFO
        for place in finding.places
    ]
    assert all(contents.values()), "a file that is not JSON was used"
    boxes, images = _results(prepared)
    names: dict[str, set[str]] = {}
    for content in contents.values():
        for category in content["categories"]:
            if isinstance(category, dict):
                names.setdefault(_spelt(category.get("id")), set()).add(str(category.get("name")))
    changed = 0
    for half, content in contents.items():
        files: dict[str, set[str]] = {}
        for index, image in enumerate(content["images"]):
            words = _changes_of_image(image, images)
            if isinstance(image, dict):
                files.setdefault(_spelt(image.get("id")), set()).add(_base(image.get("file_name")))
            if words:
                changed += 1
                assert _are_named(image, f"images[{index}]", "image", places), f"{half} images[{index}]: {words}"
        for index, box in enumerate(content.get("annotations", ())):
            words = _changes_of_box(box, boxes, names, files)
            if words:
                changed += 1
                image_id = box.get("image_id") if isinstance(box, dict) else None
                of_image = [
                    (image, f"images[{number}]")
                    for number, image in enumerate(content["images"])
                    if isinstance(image, dict) and _spelt(image.get("id")) == _spelt(image_id)
                ]
                is_named = _are_named(box, f"annotations[{index}]", "annotation", places) or any(
                    _are_named(image, number, "image", places) for image, number in [*of_image, ({"id": image_id}, "?")]
                )
                assert is_named, f"{half} annotations[{index}]: {words}"
    return changed


def _results(prepared: Prepared) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """The boxes by tag, each with its class's name and its image's file; and the images by file."""
    boxes: dict[str, list[Any]] = {}
    images: dict[str, Any] = {}
    for half in prepared.halves.values():
        content = json.loads(half.annotations.read_text())
        files = {image["id"]: _base(image["file_name"]) for image in content["images"]}
        images.update({_base(image["file_name"]): image for image in content["images"]})
        for box in content.get("annotations", ()):
            described = (box, prepared.categories[box["category_id"]], files[box["image_id"]])
            boxes.setdefault(str(box.get("tag")), []).append(described)
    return boxes, images


def _changes_of_image(image: Any, images: dict[str, Any]) -> str:
    """What is not as it stood there; "" if all is."""
    if not isinstance(image, dict):
        return "no record"
    result = images.get(_base(image.get("file_name")))
    if result is None:
        return "lost"
    changed = [key for key in ("width", "height") if not _is_equal(image.get(key), result[key])]
    return f"other {changed}" if changed else ""


def _changes_of_box(
    box: Any, boxes: dict[str, list[Any]], names: dict[str, set[str]], files: dict[str, set[str]]
) -> str:
    if not isinstance(box, dict):
        return "no record"
    found = boxes.get(str(box.get("tag")), ())
    if not found:
        return "lost"
    words = [
        [key for key in _VALUES if not _is_equal(box.get(key), result.get(key))]
        + (["class"] if name not in names.get(_spelt(box.get("category_id")), ()) else [])
        + (["image"] if file not in files.get(_spelt(box.get("image_id")), ()) else [])
        for result, name, file in found
    ]
    best = min(words, key=len)
    return f"other {best}" if best else ""


def _is_equal(before: Any, after: Any) -> bool:
    if isinstance(before, bool) or isinstance(after, bool):
        return before is after
    return before == after or (after is None and before in _ABSENT)


def _spelt(value: Any) -> str:
    """An id by its value and type: 7 is 7.0, and neither "7" nor True."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53:
        return repr(float(value))
    return repr(value)


def _base(name: Any) -> str:
    return os.path.basename(os.path.normpath(name)) if isinstance(name, str) and name else "?"


def _are_named(record: Any, index: str, kind: str, places: list[str]) -> bool:
    """Whether one of the places is that of a record: by its index, its id, or its file."""
    keys, names = [index], []
    if isinstance(record, dict):
        identifier = record.get("id")
        keys.append(f"{kind} {_cut(str(identifier))}" if len(str(identifier)) < 70 else index)
        keys.append(f"id {identifier!r} of image")
        if kind == "annotation":
            names.append(f"{record.get('category_id')}: ")
        if isinstance(record.get("file_name"), str):
            names += [f"({_cut(record['file_name'])}", f"{_cut(record['file_name'])} (images"]
    # Not "annotation 1" by "annotation 12".
    return any(f"{place} ".startswith((f"{key} ", f"{key}.")) for place in places for key in keys) or any(
        name in place for place in places for name in names
    )


def _cut(text: str) -> str:
    return (text if text.isprintable() else ascii(text)[1:-1])[:70]


def _said(prepared: Prepared) -> int:
    return sum(finding.severity is not Severity.INFO for finding in prepared.report.findings)


def _check_all_is_used(contents: dict[str, Content], prepared: Prepared) -> None:
    """Check what is harmless: every box of the base has reached detectron2, in its class and image."""
    warnings = {f.id for f in prepared.report.findings if f.severity is not Severity.INFO}
    assert warnings <= {"class-untrained"}, f"{warnings} were said"
    boxes, _ = _results(prepared)
    for half, content in base_halves().items():
        if half not in contents:
            continue
        names = {category["id"]: category["name"] for category in content["categories"]}
        files = {image["id"]: image["file_name"] for image in content["images"]}
        for box in content["annotations"]:
            ((result, name, file),) = boxes[box["tag"]]
            assert result["bbox"] == box["bbox"], box["tag"]
            assert (name, file) == (names[box["category_id"]], files[box["image_id"]]), box["tag"]


def fuzz(count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Run so many cases.

    Returns:
        How many had which outcome, and a description of each that went wrong.
    """
    logging.disable(logging.WARNING)
    shares: Counter[str] = Counter()
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        fuzzer = Fuzzer(Path(folder))
        for number in range(count):
            case = make_case(Random(f"{seed} {number}"))
            try:
                shares[fuzzer.run(case)] += 1
            except Exception as error:
                shares["wrong"] += 1
                last = traceback.extract_tb(error.__traceback__)[-1]
                where = "" if isinstance(error, AssertionError) else f" in {last.filename}:{last.lineno}"
                wrong.append(f"case {number}, {case.name}: {type(error).__name__}{where}: {str(error)[:500]}")
    logging.disable(logging.NOTSET)
    return shares, wrong


def main() -> int:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000, help="how many mutations")
    parser.add_argument("--seed", type=int, default=0, help="other mutations for another seed")
    arguments = parser.parse_args()
    shares, wrong = fuzz(arguments.count, arguments.seed)
    for line in wrong:
        print(line)
    for outcome, count in sorted(shares.items()):
        print(f"{outcome:<44}{count:>7}{count / arguments.count:>8.1%}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
