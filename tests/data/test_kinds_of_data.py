"""Datasets as people have them: every box that can be used reaches the model and the scorer, and what is done is said.

Each case changes the training and the validation half of a set of 8 boxes alike.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from .changed import Change, changing, each, first, refusal, registered, setting, without, write
from .folders import SIZE, coco_content
from .halves import Content
from .probes import boxes_trained_on, perfect_ap, perfect_results


def corners_of(box: list[float]) -> list[float]:
    return [box[0], box[1], box[0] + box[2], box[1] + box[3]]


def polygon_of(box: list[float]) -> list[float]:
    left, top, right, bottom = corners_of(box)
    return [left, top, right, top, right, bottom, left, bottom]


RLE = {"size": [48, 64], "counts": [0, 48, 3024]}
COMPRESSED_RLE = {"size": [48, 64], "counts": "0`1P20"}
NO_POLYGONS = {
    "an empty polygon": [[]],
    "two corners": [[4, 6, 20, 18]],
    "an odd number of values": [[4, 6, 20, 6, 20, 18, 4]],
    "a flat list": [4, 6, 20, 6, 20, 18],
    "nested too deeply": [[[4, 6, 20, 6, 20, 18]]],
    "points": [[[4, 6], [20, 6], [20, 18]]],
    "not a number": [[4, 6, 20, 6, float("nan"), 18]],
    "a null": [[4, 6, 20, 6, None, 18]],
    "text": "4 6 20 6 20 18",
    "text within": [["4", "6", "20", "6", "20", "18"]],
    "a number": 7,
    "true": True,
    "two objects": [{"x": 1, "y": 2}],
    "RLE without size": {"counts": [0, 48, 3024]},
    "RLE without counts": {"size": [48, 64]},
    "RLE of text size": {"size": ["48", "64"], "counts": [0, 48, 3024]},
    "RLE of a negative run": {"size": [48, 64], "counts": [-5, 10]},
    "RLE of a huge run": {"size": [48, 64], "counts": [0, 10**30]},
    "RLE of a huge size": {"size": [10**12, 10**12], "counts": [0, 5]},
    "RLE of null": {"size": [48, 64], "counts": None},
    "RLE of one side": {"size": [48], "counts": [0, 5]},
}


@pytest.mark.parametrize("value", NO_POLYGONS.values(), ids=NO_POLYGONS)
def test_boxes_do_not_depend_on_their_masks(tmp_path: Path, value: Any) -> None:
    folder, messages = registered(write(tmp_path / "set", setting("annotations", segmentation=value)), tmp_path / "w")
    assert boxes_trained_on(folder.train) == 8
    assert perfect_ap(folder.val, coco_content(), tmp_path) == pytest.approx(100)
    (message,) = messages
    assert "train: a 'segmentation' is no polygon or RLE: it is removed, its box is used (8): annotation 10," in message
    assert "val: a 'segmentation' is no polygon or RLE" in message


@pytest.mark.parametrize(
    "value",
    [[], {}, None, [polygon_of([4, 6, 16, 12])], [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6.5]], RLE, COMPRESSED_RLE],
)
def test_masks_that_can_be_read_stay(tmp_path: Path, value: Any) -> None:
    # All boxes share one mask, which is no evidence that they are corners.
    folder, messages = registered(write(tmp_path / "set", setting("annotations", segmentation=value)), tmp_path / "w")
    assert boxes_trained_on(folder.train) == 8
    assert perfect_ap(folder.val, coco_content(), tmp_path) == pytest.approx(100)
    assert messages == []
    content = json.loads((tmp_path / "w" / "train.json").read_text())
    assert [box.get("segmentation") for box in content["annotations"]] == [value] * 8


def test_of_several_polygons_those_that_are_stay(tmp_path: Path) -> None:
    whole = [1, 2, 3, 4, 5, 6]
    root = write(tmp_path / "set", first("annotations", "segmentation", [[1, 2], whole]))
    folder, (message,) = registered(root, tmp_path / "w")
    assert boxes_trained_on(folder.train) == 8
    assert "'segmentation'" in message
    assert json.loads((tmp_path / "w" / "train.json").read_text())["annotations"][0]["segmentation"] == [whole]


@pytest.mark.parametrize(
    "value", [7, "x", {}, True, [1, 2], [1, 2, "2"], [1, None, 2], [[1, 2, 2]], [1, float("inf"), 2], [10**400, 1, 2]]
)
def test_boxes_do_not_depend_on_their_keypoints(tmp_path: Path, value: Any) -> None:
    folder, (message,) = registered(write(tmp_path / "set", setting("annotations", keypoints=value)), tmp_path / "w")
    assert boxes_trained_on(folder.train) == 8
    assert perfect_ap(folder.val, coco_content(), tmp_path) == pytest.approx(100)
    assert "train: 'keypoints' are no triples of numbers: removed, the box is used (8)" in message


# Certain repairs: the change, and the warning, or "" where nothing needs to be said.
REPAIRED: dict[str, tuple[Change, str]] = {
    "area -1": (setting("annotations", area=-1), "'area' is missing, or impossible for its box"),
    "area 0": (setting("annotations", area=0), "'area'"),
    "area 1.0": (setting("annotations", area=1.0), "'area'"),
    "area null": (setting("annotations", area=None), "'area'"),
    "area text": (setting("annotations", area="192"), "'area'"),
    "area not a number": (setting("annotations", area=float("nan")), "'area'"),
    "area infinite": (setting("annotations", area=float("inf")), "'area'"),
    "area a list": (setting("annotations", area=[192]), "'area'"),
    "area true": (setting("annotations", area=True), "'area'"),
    "area in fractions": (setting("annotations", area=192 / 64 / 48), "'area'"),
    "area of the image": (setting("annotations", area=64 * 48), "'area'"),
    "no area": (without("annotations", "area"), "'area'"),
    "no iscrowd": (without("annotations", "iscrowd"), "'iscrowd' is missing or no integer: read as 0 or 1 (8)"),
    "iscrowd null": (setting("annotations", iscrowd=None), "'iscrowd'"),
    "iscrowd false": (setting("annotations", iscrowd=False), "'iscrowd'"),
    "iscrowd text": (setting("annotations", iscrowd="0"), "'iscrowd'"),
    "iscrowd 0.0": (setting("annotations", iscrowd=0.0), "'iscrowd'"),
    "ids from 0": (changing("annotations", "id", lambda n: n - 10), ""),  # a note
    "ids all 0": (setting("annotations", id=0), "'id'"),
    "ids negative": (changing("annotations", "id", lambda n: -n), "'id'"),
    "ids twice": (changing("annotations", "id", lambda n: n // 2), "'id'"),
    "ids text": (changing("annotations", "id", str), "'id'"),
    "ids floats": (changing("annotations", "id", float), "'id'"),
    "ids uuids": (changing("annotations", "id", lambda n: f"{n}-ab"), "'id'"),
    "ids huge": (changing("annotations", "id", lambda n: n + 2**63), "'id'"),
    "ids lists": (changing("annotations", "id", lambda n: [n]), "'id'"),
    "ids true": (setting("annotations", id=True), "'id'"),
    "no ids": (without("annotations", "id"), "'id'"),
    "image ids text": (changing("images", "id", str), "'image_id' or 'category_id' is of another type|image's 'id'"),
    "image ids floats": (changing("images", "id", float), "an image's 'id' is no integer"),
    "references text": (changing("annotations", "image_id", str), "an 'image_id' or 'category_id' is of another type"),
    "references floats": (changing("annotations", "image_id", float), "'image_id'"),
    "classes text": (changing("annotations", "category_id", str), "'category_id'"),
    "classes floats": (changing("annotations", "category_id", float), "'category_id'"),
    "category ids text": (changing("categories", "id", str), "a category's 'id' is no integer"),
    "sizes floats": (
        lambda content: (changing("images", "width", float)(content), changing("images", "height", float)(content)),
        "'width' or 'height' is no integer: converted (4)",
    ),
    "sizes text": (changing("images", "width", str), "'width'"),
    "no sizes": (without("images", "width"), "no usable 'width' and 'height': taken from the file (4)"),
    "sizes 0": (setting("images", width=0, height=0), "'width'"),
    "sizes null": (setting("images", width=None), "'width'"),
    "boxes text": (changing("annotations", "bbox", lambda box: list(map(str, box))), "a 'bbox' holds numbers as text"),
    "no boxes, but polygons": (
        each("annotations", lambda a: a.update(segmentation=[polygon_of(a["bbox"])], bbox=[])),
        "a 'segmentation' and no 'bbox': the box is its extent (8)",
    ),
    "names in blanks": (changing("categories", "name", lambda name: f" {name}\n"), "a category's 'name' has blanks"),
    "annotations twice by id alone": (setting("annotations", id=5), "'id'"),
    "other keys": (each("annotations", lambda a: a.update(score=0.5, attributes={"a": [None]}, _place=[7])), ""),
    "lists of other orders": (lambda content: [content[kind].reverse() for kind in content], ""),
    "licenses": (lambda content: content.update(licenses=[{"id": 1}], info=[]), ""),
    "another folder before": (changing("images", "file_name", lambda name: f"/mnt/x/{name}"), "'file_name'"),
    "another folder before, of Windows": (
        changing("images", "file_name", lambda name: f"C:\\x\\{name}"),
        "'file_name'",
    ),
    "another case": (changing("images", "file_name", str.upper), "'file_name'"),
    "a detour": (changing("images", "file_name", lambda name: f"./{name}"), ""),
}


@pytest.mark.parametrize(("change", "said"), REPAIRED.values(), ids=REPAIRED)
def test_what_is_certain_is_repaired_and_said(tmp_path: Path, change: Change, said: str) -> None:
    folder, messages = registered(write(tmp_path / "set", change), tmp_path / "w")
    assert boxes_trained_on(folder.train) == 8
    results = perfect_results(folder.val, coco_content(), tmp_path)
    assert results["AP"] == pytest.approx(100)
    assert results["APs"] == pytest.approx(100)  # all boxes are below 32 x 32
    assert folder.classes == ("ant", "cat", "dog")
    assert len(messages) == (1 if said else 0)
    assert not said or any(part in messages[0] for part in said.split("|")), messages


def test_areas_of_large_objects_are_not_taken_for_small(tmp_path: Path) -> None:
    content = coco_content()
    for box in content["annotations"]:
        box.update(bbox=[0, 0, 60, 40], area=0)
    content["annotations"] = content["annotations"][::2]
    root = write(tmp_path / "set", lambda old: old.update(content))
    folder, (message,) = registered(root, tmp_path / "w")
    results = perfect_results(folder.val, content, tmp_path)
    assert (results["APm"], results["AP"]) == (pytest.approx(100), pytest.approx(100))
    assert results["APs"] != results["APs"]  # there are none: not a number
    assert "'area'" in message


@pytest.mark.parametrize(("area", "stays"), [(60, True), (1000, True), (1021, True), (1.5, True), (1050, False)])
def test_the_area_of_a_mask_is_below_its_boxs(tmp_path: Path, area: float, stays: bool) -> None:
    def change(content: Content) -> None:
        for box in content["annotations"]:
            box.update(bbox=[*box["bbox"][:2], 20, 20], area=300)
        content["annotations"][0].update(bbox=[2, 3, 40, 25], area=area)

    folder, messages = registered(write(tmp_path / "set", change), tmp_path / "w")
    assert ("'area'" in "".join(messages)) is not stays
    boxes = json.loads((tmp_path / "w" / "val.json").read_text())["annotations"]
    assert boxes[0]["area"] == (area if stays else 1000)
    assert boxes_trained_on(folder.train) == 8


# What cannot be meant: the change, what is said, and how many boxes are left when it is dropped.
UNUSABLE: dict[str, tuple[Change, str, int]] = {
    "fractions": (
        changing("annotations", "bbox", lambda b: [b[0] / 64, b[1] / 48, b[2] / 64, b[3] / 48]),
        "a 'bbox' is in fractions of 1, not in pixels (8): annotation 10 of image 1 ([0.0625, 0.125, 0.25, 0.25])",
        0,
    ),
    "fractions from the centre": (
        changing("annotations", "bbox", lambda b: [(b[0] + 8) / 64, (b[1] + 6) / 48, b[2] / 64, b[3] / 48]),
        "a 'bbox' is in fractions of 1",
        0,
    ),
    "corners in fractions": (
        changing("annotations", "bbox", lambda b: [v / s for v, s in zip(corners_of(b), SIZE * 2, strict=True)]),
        "a 'bbox' is in fractions of 1",
        0,
    ),
    "one box in fractions": (
        first("annotations", "bbox", [0.1, 0.1, 0.5, 0.5]),
        "a 'bbox' is in fractions of 1, not in pixels: annotation 10 of image 1 ([0.1, 0.1, 0.5, 0.5])",
        7,
    ),
    "corners": (
        changing("annotations", "bbox", corners_of),
        "a 'bbox' holds two corners, not x, y, width, height (8): annotation 10 of image 1 ([4, 6, 20, 18])",
        0,
    ),
    "corners, and polygons": (
        each(
            "annotations",
            lambda a: a.update(segmentation=[polygon_of(a["bbox"])], bbox=corners_of(a["bbox"]), area=0),
        ),
        "a 'bbox' holds two corners",
        0,
    ),
    "corners as text": (
        changing("annotations", "bbox", lambda b: list(map(str, corners_of(b)))),
        "a 'bbox' holds two corners",
        0,
    ),
    "negative sides": (
        changing("annotations", "bbox", lambda b: [b[0], b[1], -b[2], b[3]]),
        "a 'bbox' has a negative side (8)",
        0,
    ),
    "outside": (first("annotations", "bbox", [64, 0, 5, 5]), "a 'bbox' lies outside its image: annotation 10", 7),
    "far outside": (first("annotations", "bbox", [10**30, 0, 5, 5]), "a 'bbox' lies outside its image", 7),
    "not a number": (first("annotations", "bbox", [1, 2, float("nan"), 5]), "a 'bbox' is not four finite numbers", 7),
    "infinite": (first("annotations", "bbox", [1, 2, float("inf"), 5]), "a 'bbox' is not four finite numbers", 7),
    "beyond floating point": (first("annotations", "bbox", [1, 2, 10**400, 5]), "not four finite numbers", 7),
    "three numbers": (first("annotations", "bbox", [1, 2, 3]), "a 'bbox' is not four finite numbers", 7),
    "an object": (first("annotations", "bbox", {"x": 1}), "a 'bbox' is not four finite numbers", 7),
    "words": (first("annotations", "bbox", ["a", "b", "c", "d"]), "a 'bbox' is not four finite numbers", 7),
    "truths": (first("annotations", "bbox", [True, 2, 3, 4]), "a 'bbox' is not four finite numbers", 7),
    "nested": (first("annotations", "bbox", [[1, 2, 3, 4]]), "a 'bbox' is not four finite numbers", 7),
    "no box": (lambda content: content["annotations"][0].pop("bbox"), "a 'bbox' is not four finite numbers", 7),
    "iscrowd 2": (first("annotations", "iscrowd", 2), "'iscrowd' is neither 0 nor 1: annotation 10 (2)", 7),
    "iscrowd a word": (first("annotations", "iscrowd", "no"), "'iscrowd' is neither 0 nor 1: annotation 10 ('no')", 7),
    "no such image": (
        first("annotations", "image_id", 77),
        "'image_id' is not in 'images': annotation 10 (image 77)",
        7,
    ),
    "a list for an image": (first("annotations", "image_id", [1]), "'image_id' is not in 'images'", 7),
    "true for an image": (first("annotations", "image_id", True), "'image_id' is not in 'images'", 7),
    "no such class": (first("annotations", "category_id", 4), "'category_id' is not in 'categories': annotation 10", 7),
    "true for a class": (first("annotations", "category_id", True), "'category_id' is not in 'categories'", 7),
    "a class by name": (first("annotations", "category_id", "ant"), "'category_id' is not in 'categories'", 7),
    "no annotation": (lambda content: content["annotations"].insert(0, None), "a record is no object", 8),
    "no image": (lambda content: content["images"].insert(0, []), "a record is no object", 8),
    "an image without an id": (first("images", "id", None), "a record is no object, or lacks a key that it needs", 6),
    "an image of number nan": (first("images", "id", float("nan")), "a record is no object, or lacks a key", 6),
    "an image without a name": (first("images", "file_name", 5), "a record is no object, or lacks a key", 6),
    "an image that is not there": (
        first("images", "file_name", "gone.png"),
        "an image file is missing, with 2 boxes: image 1",
        6,
    ),
    "another size": (
        first("images", "height", 47),
        "not of its stated size (width x height), with 2 boxes: image 1 (0.png) is 64",
        6,
    ),
    "sides exchanged": (first("images", "height", 64), "not of its stated size", 6),
}


@pytest.mark.parametrize(("change", "said", "left"), UNUSABLE.values(), ids=UNUSABLE)
def test_what_cannot_be_meant_is_an_error_or_dropped(tmp_path: Path, change: Change, said: str, left: int) -> None:
    root = write(tmp_path / "set", change)
    message = refusal(root, split_folder=tmp_path / "w")
    assert f"The dataset in {root} cannot be used" in message
    assert said in message
    assert "\n  val: " in message
    assert "on_bad='drop'" in message
    assert not (tmp_path / "w").exists()
    if left:
        folder, (warning,) = registered(root, tmp_path / "w", on_bad="drop")
        assert boxes_trained_on(folder.train) == left
        assert f"dropped: {said}" in warning or said in warning
        assert "train: dropped: " in warning
    else:
        assert "there are no annotations to train on" in refusal(root, split_folder=tmp_path / "w", on_bad="drop")


def test_all_problems_are_listed_at_once(tmp_path: Path) -> None:
    def change(content: Content) -> None:
        boxes = [[0, 0, -1, 1], [0, 0, float("nan"), 1], [99, 0, 1, 1], [0.1, 0.1, 0.2, 0.2]]
        for annotation, box in zip(content["annotations"], boxes, strict=False):
            annotation["bbox"] = box
        content["annotations"][4]["iscrowd"] = 7
        content["annotations"][5]["category_id"] = 99
        content["images"][3]["file_name"] = "gone.png"

    lines = refusal(write(tmp_path / "set", change), split_folder=tmp_path / "w").splitlines()
    assert len(lines) == 1 + 2 * 7 + 1


@pytest.mark.parametrize(
    ("box", "said", "left"),
    [
        ([20, 6, 0, 5], "a 'bbox' has no area: left out: annotation 10 of image 1 ([20, 6, 0, 5])", 7),
        ([20, 6, 5, 0.0], "a 'bbox' has no area", 7),
        ([0, 0, 0, 0], "a 'bbox' has no area", 7),
        ([20, 6, 1e-7, 5], "a 'bbox' has no area", 7),
        ([-5, 6, 20, 12], "a 'bbox' reaches beyond its image: clipped to the image: annotation 10 of image 1", 8),
        ([50, 40, 20, 12], "a 'bbox' reaches beyond its image", 8),
        ([4, 6, 1e300, 12], "a 'bbox' reaches beyond its image", 8),
    ],
)
def test_what_is_not_wrong_is_said(tmp_path: Path, box: list[float], said: str, left: int) -> None:
    root = write(tmp_path / "set", first("annotations", "bbox", box))
    folder, (message,) = registered(root, tmp_path / "w")
    assert boxes_trained_on(folder.train) == left
    assert f"train: {said}" in message
    assert f"val: {said}" in message


def test_boxes_that_may_be_corners_are_said(tmp_path: Path) -> None:
    change = each("annotations", lambda a: a.update(bbox=corners_of(a["bbox"]), area=0))
    _, (message,) = registered(write(tmp_path / "set", change), tmp_path / "w")
    assert "train: each 'bbox' may be two corners as well as x, y, width, height" in message


def test_a_box_is_clipped_to_its_image_with_its_area(tmp_path: Path) -> None:
    root = write(tmp_path / "set", lambda content: content["annotations"][0].update(bbox=[-4, -6, 16, 12], area=192))
    registered(root, tmp_path / "w")
    box = json.loads((tmp_path / "w" / "train.json").read_text())["annotations"][0]
    assert (box["bbox"], box["area"]) == ([0, 0, 12, 6], 72)


@pytest.mark.parametrize(("crowds", "left"), [(8, 0), (7, 1), (1, 7)])
@pytest.mark.parametrize("key", ["iscrowd", "ignore"])
def test_crowds_are_left_out_and_said(tmp_path: Path, crowds: int, left: int, key: str) -> None:
    def change(content: Content) -> None:
        for box in content["annotations"][:crowds]:
            box[key] = 1

    folder, (message,) = registered(write(tmp_path / "set", change), tmp_path / "w")
    assert boxes_trained_on(folder.train) == left
    assert f"'{key}'" in message
    assert f"train: an annotation is {'of a crowd' if key == 'iscrowd' else 'to be ignored'}" in message
    assert crowds == 1 or f"({crowds})" in message
    assert ("all annotations are of crowds ('iscrowd' 1), which leaves nothing to train on" in message) is (left == 0)
    if left:
        assert perfect_ap(folder.val, coco_content(), tmp_path) == pytest.approx(100)


@pytest.mark.parametrize("value", [0, False, None, "0", 0.0, ""])
def test_what_is_not_to_be_ignored_is_not(tmp_path: Path, value: Any) -> None:
    folder, messages = registered(write(tmp_path / "set", setting("annotations", ignore=value)), tmp_path / "w")
    assert (boxes_trained_on(folder.train), messages) == (8, [])
