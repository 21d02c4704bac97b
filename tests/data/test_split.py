"""A dataset with a training half only is split in two, the same way every time."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lite_detr_d2.data.normalise import Normalised, normalise
from lite_detr_d2.data.source import Source, SourceHalf
from lite_detr_d2.data.split import split
from lite_detr_d2.errors import InputError

from .folders import coco_content

Change = Callable[[dict[str, Any]], object]


def split_content(content: dict[str, Any]) -> Normalised:
    """Normalise and split content, with no images on disk."""
    half = SourceHalf(Path("all.json"), (), lambda: content, ())
    return split(normalise(Source(Path("all.json"), "COCO", {"train": half})), "all.json")


def identifiers(outcome: Normalised, half: str) -> set[int]:
    return {image["id"] for image in outcome.halves[half].content["images"]}


@pytest.mark.parametrize(("images", "for_val"), [(2, 1), (4, 1), (9, 1), (10, 2), (292, 58), (30000, 5000)])
def test_one_image_in_five_is_for_evaluation(images: int, for_val: int) -> None:
    outcome = split_content(coco_content(images))
    train, val = (identifiers(outcome, half) for half in ("train", "val"))
    assert (len(train), len(val)) == (images - for_val, for_val)
    assert train | val == set(range(1, images + 1))


def test_every_box_goes_with_its_image() -> None:
    content = {**coco_content(10), "licenses": [{"id": 1}]}
    outcome = split_content(content)
    for half in outcome.halves.values():
        assert {box["image_id"] for box in half.content["annotations"]} == {i["id"] for i in half.content["images"]}
        assert [category["name"] for category in half.content["categories"]] == ["ant", "cat", "dog"]
        assert half.content["licenses"] == [{"id": 1}]
    for kind in ("images", "annotations"):
        both = [record for half in outcome.halves.values() for record in half.content[kind]]
        assert sorted(both, key=lambda record: int(record["id"])) == coco_content(10)[kind]


def test_it_depends_on_the_image_ids_alone() -> None:
    one = split_content(coco_content(20))
    content = coco_content(20)
    content["images"].reverse()
    content["annotations"] = content["annotations"][3:]
    two = split_content(content)
    assert [identifiers(one, half) for half in one.halves] == [identifiers(two, half) for half in two.halves]
    assert identifiers(one, "val") not in ({1, 2, 3, 4}, {17, 18, 19, 20})


def test_images_that_are_added_leave_the_others_where_they_are() -> None:
    before, after = (identifiers(split_content(coco_content(images)), "train") for images in (1000, 1050))
    assert len(before - after) < 20


def test_classes_that_a_half_lacks_are_said_of_that_half() -> None:
    content = coco_content(10)
    for box in content["annotations"]:
        box["category_id"] = 3
    content["annotations"][0]["category_id"] = 1
    outcome = split_content(content)
    lacking = {f.half: f.places for f in outcome.report.findings if f.id in ("class-untrained", "class-unscored")}
    has_rare, has_not = ("train", "val") if 1 in identifiers(outcome, "train") else ("val", "train")
    assert lacking == {has_rare: ("dog",), has_not: ("ant", "dog")}


def test_halves_of_crowds_only_are_said() -> None:
    content = coco_content(10)
    for box in content["annotations"]:
        box["iscrowd"] = 1
    outcome = split_content(content)
    assert {f.half for f in outcome.report.findings if f.id == "only-crowds"} == {"train", "val"}


def test_what_else_is_said_stays() -> None:
    content = coco_content(10)
    content["annotations"][0]["area"] = 0
    outcome = split_content(content)
    assert [f.places for f in outcome.report.findings if f.id == "area"] == [("annotation 10",)]


def test_a_single_image_cannot_be_split() -> None:
    with pytest.raises(InputError, match=r"all\.json .* its one image cannot be split"):
        split_content(coco_content(1))


@pytest.mark.parametrize("images", [2, 5, 10, 30])
def test_each_half_gets_annotations_where_there_are_two_images_with_some(images: int) -> None:
    for one in range(1, images + 1):
        for other in range(one + 1, images + 1):
            content = coco_content(images)
            content["annotations"] = [box for box in content["annotations"] if box["image_id"] in (one, other)]
            outcome = split_content(content)
            assert [len(half.content["annotations"]) for half in outcome.halves.values()] == [2, 2]
            assert len(identifiers(outcome, "val")) == max(images // 5, 1)
            assert identifiers(outcome, "train") | identifiers(outcome, "val") == set(range(1, images + 1))


def test_each_half_needs_annotations() -> None:
    content = coco_content(10)
    del content["annotations"][1:]
    with pytest.raises(InputError, match=r"all\.json .* too few of its images have annotations"):
        split_content(content)


def test_the_whole_is_not_changed() -> None:
    half = SourceHalf(Path("all.json"), (), lambda: coco_content(10), ())
    whole = normalise(Source(Path("all.json"), "COCO", {"train": half}))
    before = replace(whole)
    split(whole, "all.json")
    assert whole == before
    assert len(whole.halves["train"].content["images"]) == 10
