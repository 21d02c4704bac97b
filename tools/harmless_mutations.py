"""The base of mutated annotation files, and mutations of it that are harmless: all of it must be used all the same."""

import json
from collections.abc import Callable
from random import Random
from typing import Any

Content = dict[str, Any]
Halves = dict[str, Content]

SIZE = (64, 48)  # width, height
NUM_IMAGES = 8
LISTS = ("images", "annotations", "categories")
_NAMES = {3: "Kätzchen", 1: "ant", 7: "dog"}
_DEEP: list[Any] = []
for _ in range(300):
    _DEEP = [_DEEP]
WILD: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2,
        1.5,
        -0.0,
        64,
        48,
        1e-9,
        float("nan"),
        float("inf"),
        -float("inf"),
        1e300,
        -1e300,
    ),
    *(10**30, -(10**30), 2**53, 2**63, -(2**63), 10**400, "", " ", "x", "7", " 3 ", "1e3", "nan", "-1", "0x10", "true"),
    *("\ud800", "é", "e\u0301", "\0", "0" * 300, "0.png", "../images/0.png", "a\\0.png", "/", ".", "none", "Kätzchen"),
    *(
        [],
        {},
        [[]],
        [1],
        [None],
        [1, 2, 3, 4],
        [[1, 2, 3, 4, 5, 6]],
        {"a": 1},
        {"size": [48, 64], "counts": "0"},
        _DEEP,
    ),
)


def base_halves() -> Halves:
    """Two halves of four images each; every box has a "tag" of its own, by which it is known again."""
    halves: Halves = {}
    for half, start in (("train", 0), ("val", 4)):
        images = [
            {"id": n + 1, "file_name": f"{n}.png", "width": SIZE[0], "height": SIZE[1]} for n in range(start, start + 4)
        ]
        annotations = []
        for number in range(10):
            image, turn = images[number % 4], number // 4
            left, top, width, height = box = [3 + 19 * turn, 5 + number, 11 + number, 7 + 2 * turn]
            polygon = [left, top, left + width, top, left + width, top + height, left, top + height]
            annotations.append(
                {
                    "id": 10 * (start + 1) + number,
                    "image_id": image["id"],
                    "category_id": sorted(_NAMES)[number % 3],
                    "bbox": box,
                    "area": width * height,
                    "iscrowd": 0,
                    "segmentation": [polygon] if number % 2 else [],
                    "keypoints": [left, top, 2] if number % 3 else [],
                    "tag": f"{half} {number}",
                }
            )
        categories = [{"id": number, "name": name, "supercategory": "none"} for number, name in _NAMES.items()]
        halves[half] = {"images": images, "annotations": annotations, "categories": categories}
    return halves


def encoded(rng: Random, halves: Halves) -> dict[str, bytes]:
    encoding = rng.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"))
    style: dict[str, Any] = {
        "indent": rng.choice((None, None, 0, 1, "\t")),
        # Half of a surrogate pair can be written in no other way.
        "ensure_ascii": rng.random() < 0.5 or "\\ud800" in json.dumps(halves),
        "sort_keys": rng.random() < 0.2,
    }
    start, end = rng.choice(("", " \n")), rng.choice(("", "\r\n\t "))
    return {half: f"{start}{json.dumps(content, **style)}{end}".encode(encoding) for half, content in halves.items()}


def reorder_lists(rng: Random, halves: Halves) -> None:
    for content in halves.values():
        for kind in LISTS:
            rng.shuffle(content[kind])


def reorder_keys(rng: Random, halves: Halves) -> None:
    for half, content in halves.items():
        shuffled = {
            key: [dict(rng.sample(sorted(record.items(), key=str), len(record))) for record in content[key]]
            for key in rng.sample(LISTS, 3)
        }
        halves[half] = {**shuffled, **{key: value for key, value in content.items() if key not in LISTS}}


def add_keys(rng: Random, halves: Halves) -> None:
    key, value = rng.choice(("score", "attributes", "_place", "x" * 999, "é", "\ud800", "")), rng.choice(WILD)
    for content in halves.values():
        content[key] = value
        for kind in LISTS:
            for record in content[kind]:
                record[key] = value


def shift_ids(rng: Random, halves: Halves) -> None:
    offsets = {kind: rng.choice((1, 1000, 2**31, 2**40)) for kind in LISTS}
    _renumber(halves, {kind: by.__add__ for kind, by in offsets.items()})


def permute_ids(rng: Random, halves: Halves) -> None:
    orders = {}
    for kind in LISTS:
        numbers = sorted({record["id"] for content in halves.values() for record in content[kind]})
        orders[kind] = dict(zip(numbers, rng.sample(numbers, len(numbers)), strict=True)).__getitem__
    _renumber(halves, orders)


def _renumber(halves: Halves, orders: dict[str, Callable[[int], int]]) -> None:
    for content in halves.values():
        for kind in LISTS:
            for record in content[kind]:
                record["id"] = orders[kind](record["id"])
        for annotation in content["annotations"]:
            annotation["image_id"] = orders["images"](annotation["image_id"])
            annotation["category_id"] = orders["categories"](annotation["category_id"])


def add_unused_category(rng: Random, halves: Halves) -> None:
    number = 1 + max(record["id"] for content in halves.values() for record in content["categories"])
    for content in halves.values():
        content["categories"].append({"id": number, "name": f"unused {number}"})


def drop_categories_of_val(rng: Random, halves: Halves) -> None:
    content = halves.get("val", {"categories": [], "annotations": []})
    used = {annotation["category_id"] for annotation in content["annotations"]}
    content["categories"] = [record for record in content["categories"] if record["id"] in used]


def add_image_without_boxes(rng: Random, halves: Halves) -> None:
    content = halves["train"]
    if all(record["file_name"] != "8.png" for record in content["images"]):
        number = 1 + max(record["id"] for content in halves.values() for record in content["images"])
        content["images"].append({"id": number, "file_name": "8.png", "width": SIZE[0], "height": SIZE[1]})


def remove_optional_keys(rng: Random, halves: Halves) -> None:
    for content in halves.values():
        for annotation in content["annotations"]:
            annotation.pop("segmentation", None)
            annotation.pop("keypoints", None)


def write_numbers_as_floats(rng: Random, halves: Halves) -> None:
    for content in halves.values():
        for annotation in content["annotations"]:
            annotation["bbox"] = list(map(float, annotation["bbox"]))


HARMLESS = (
    reorder_lists,
    reorder_keys,
    add_keys,
    shift_ids,
    permute_ids,
    add_unused_category,
    drop_categories_of_val,
    add_image_without_boxes,
    remove_optional_keys,
    write_numbers_as_floats,
)
