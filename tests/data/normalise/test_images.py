"""Every image is found, once, with its true size; the content itself is not changed by what is not used."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lite_detr_d2.data.normalise import Normalised, normalise
from lite_detr_d2.data.source import PLACE, Source, SourceHalf
from lite_detr_d2.wording import quoted, shortened

from ..folders import coco_content, write_images
from ..halves import Content, found, messages, normalised, places


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_images(tmp_path / "images", coco_content())
    return tmp_path


def from_folders(root: Path, content: Content, *folders: str) -> Normalised:
    half = SourceHalf(root / "x.json", tuple(root / folder for folder in folders), lambda: content, ())
    return normalise(Source(root, "COCO", {"train": half}))


def files(outcome: Normalised) -> list[str]:
    half = outcome.halves["train"]
    return [str(half.image_root / image["file_name"]) for image in half.content["images"]]


def test_images_of_several_folders_are_found(root: Path) -> None:
    (root / "more").mkdir()
    (root / "images" / "3.png").rename(root / "more" / "3.png")
    outcome = from_folders(root, coco_content(), "more", "images")
    assert outcome.halves["train"].image_root == root / "images"  # most are there
    assert files(outcome) == [str(root / "images" / f"{n}.png") for n in range(3)] + [str(root / "more" / "3.png")]
    assert found(outcome) == set()


def test_the_first_folder_counts(root: Path) -> None:
    write_images(root / "more", coco_content())
    assert files(from_folders(root, coco_content(), "more", "images"))[0] == str(root / "more" / "0.png")


def test_an_absolute_name_is_used(root: Path) -> None:
    content = coco_content()
    content["images"][0]["file_name"] = str(root / "images" / "0.png")
    outcome = from_folders(root, content, "images")
    assert files(outcome)[0] == str(root / "images" / "0.png")
    assert found(outcome) == set()


@pytest.mark.parametrize("name", ["", ".", "/", "images", "..", "\0", "\ud800", "a" * 5000, "a/" * 3000, "~", "*.png"])
def test_a_name_that_is_none_is_a_missing_file(root: Path, name: str) -> None:
    content = coco_content()
    content["images"][0]["file_name"] = name
    outcome = from_folders(root, content, "images")
    (place,) = places(outcome, "image-missing")
    assert place.startswith("image 1 (")
    assert place.isprintable()
    assert len(place) < 200
    assert len(outcome.halves["train"].content["images"]) == 3
    assert found(outcome) == {"image-missing"}
    assert "image-missing: an image file is missing, with 2 boxes" in messages(outcome)


def test_names_that_differ_in_their_folders_are_not_one_file(root: Path) -> None:
    content = coco_content()
    for image, name in zip(content["images"], ["a/0.png", "b/0.png", "1.png", "c/1.png"], strict=True):
        image["file_name"] = name
    outcome = from_folders(root, content, "images")
    assert files(outcome) == [str(root / "images" / "1.png")]
    assert places(outcome, "image-missing") == (
        "image 1 (a/0.png): 0.png may be another image",
        "image 2 (b/0.png): 0.png may be another image",
        "image 4 (c/1.png): 1.png may be another image",
    )


def test_a_name_of_other_folders_that_is_repeated_is_one_file(root: Path) -> None:
    content = coco_content(images=2)
    content["images"][0]["file_name"], content["images"][1]["file_name"] = "C:\\a\\0.png", "c:/A/0.png"
    outcome = from_folders(root, content, "images")
    assert places(outcome, "image-repeated") == ("0.png (images 1 and 2)",)


def test_without_folders_files_are_left_alone(root: Path) -> None:
    content = coco_content()
    content["images"][0]["file_name"] = "gone.png"
    content["images"][1].update(width=999, height=999)
    del content["images"][2]["height"]
    outcome = from_folders(root, content)
    assert places(outcome, "image-size") == ("image 3 (2.png) states none",)
    assert len(outcome.halves["train"].content["images"]) == 3


@pytest.mark.parametrize("stated", ["64", 64.0, " 64 "])
def test_sizes_of_other_types_are_converted(root: Path, stated: Any) -> None:
    content = coco_content()
    content["images"][0]["width"] = stated
    outcome = from_folders(root, content, "images")
    assert places(outcome, "image-size-type") == ("image 1 (0.png)",)
    assert outcome.halves["train"].content["images"][0]["width"] == 64


@pytest.mark.parametrize("stated", [None, 0, -64, 63.5, "wide", [64], True, float("nan"), float("inf"), 10**30])
def test_sizes_that_are_none_are_those_of_the_file(root: Path, stated: Any) -> None:
    content = coco_content()
    content["images"][0]["width"] = stated
    outcome = from_folders(root, content, "images")
    assert places(outcome, "image-size-missing") == ("image 1 (0.png)",)
    assert outcome.halves["train"].content["images"][0]["width"] == 64


def test_deep_images_give_their_common_range(root: Path) -> None:
    for number, value in ((0, 300), (1, 4000)):
        Image.fromarray(np.full((48, 64), value, np.uint16)).save(root / "images" / f"{number}.png")
    outcome = from_folders(root, coco_content(), "images")
    assert outcome.max_value == 4095
    assert len(places(outcome, "image-depth")) == 2
    assert len(outcome.halves["train"].content["annotations"]) == 8


def test_records_say_where_they_stand(root: Path) -> None:
    content = coco_content()
    content["images"][0].update({PLACE: "0.txt", "width": 65})
    content["annotations"][2].update({PLACE: "line 7 of 1.txt", "bbox": [0, 0, -1, 1]})
    content["annotations"][4].update({PLACE: ["no", "text"], "area": 0})
    outcome = from_folders(root, content, "images")
    assert places(outcome, "image-size") == ("0.txt is 64 x 48, not 65 x 48",)
    assert places(outcome, "box-negative") == ("line 7 of 1.txt ([0, 0, -1, 1])",)
    assert places(outcome, "area") == ("annotation 14",)
    assert not any(
        PLACE in record for kind in ("images", "annotations") for record in outcome.halves["train"].content[kind]
    )


def test_ids_of_several_types_meet(root: Path) -> None:
    content = coco_content()
    for image, identifier in zip(content["images"], ["a", 2.0, "3", 2**70], strict=True):
        for box in content["annotations"]:
            if box["image_id"] == image["id"]:
                box["image_id"] = identifier
        image["id"] = identifier
    outcome = normalised(root, train=content)
    assert not outcome.report.errors
    by_id = {image["id"]: image["file_name"] for image in outcome.halves["train"].content["images"]}
    assert by_id == {4: "0.png", 2: "1.png", 3: "2.png", 5: "3.png"}
    boxes = outcome.halves["train"].content["annotations"]
    assert [by_id[box["image_id"]] for box in boxes] == [f"{n // 2}.png" for n in range(8)]
    assert len(places(outcome, "image-id-type")) == 4


def test_an_image_of_both_halves_stays_in_both(root: Path) -> None:
    outcome = normalised(root, train=coco_content(), val=coco_content(images=1))
    assert found(outcome) == set()
    assert len(outcome.halves["val"].content["annotations"]) == 2


def test_what_is_shown_is_short_and_can_be_printed() -> None:
    assert shortened("ä" * 99) == "ä" * 77 + "..."
    assert shortened("a\nb\ud800") == "a\\nb\\ud800"
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    assert quoted(nested) == "a list of too many levels"
    assert quoted("x") == "'x'"
    while nested:  # level by level: freeing all at once is as deep
        nested = nested.pop()


@pytest.mark.parametrize(
    ("there", "named", "said"),
    [
        ("0.jpeg", "0.jpg", ": there is 0.jpeg"),
        ("0.PNG", "0", ": there is 0.PNG"),
        ("cam/0.png", "0.png", ": there is cam/0.png"),
        ("cam/0.png", "other\\0.jpg", ": there is cam/0.png"),
        ("0.txt", "0.png", ""),
        ("10.png", "0.png", ""),
    ],
)
def test_of_a_missing_file_it_says_what_is_there_instead(tmp_path: Path, there: str, named: str, said: str) -> None:
    (tmp_path / "images" / there).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "images" / there).touch()
    content = coco_content(images=1)
    content["images"][0]["file_name"] = named
    outcome = from_folders(tmp_path, content, "images")
    assert places(outcome, "image-missing") == (f"image 1 ({named}){said}",)


def test_a_file_that_cannot_be_read_has_its_reason_and_one_cure(root: Path) -> None:
    (root / "images" / "0.png").write_bytes(b"")
    (root / "images" / "1.png").write_text("<html>")
    (finding,) = (f for f in from_folders(root, coco_content(), "images").report.errors)
    assert finding.places[0] == "image 1 (0.png): the file is empty"
    assert finding.places[1].startswith("image 2 (1.png): it is not an image, ")
    assert finding.text().lower().count("restore") == 1


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"id": 1}, "images[0] has no 'file_name' that is text"),
        ({"id": 1, "file_name": 7}, "images[0] has no 'file_name' that is text"),
        ({"file_name": "0.png"}, "images[0] has no 'id'"),
        ({"id": None, "file_name": "0.png"}, "images[0] has no 'id'"),
        (None, "images[0] has no 'id'"),
    ],
)
def test_a_record_that_cannot_be_used_says_what_it_lacks(root: Path, record: Any, said: str) -> None:
    content = coco_content()
    content["images"][0] = record
    outcome = from_folders(root, content, "images")
    assert places(outcome, "record-unusable") == (said,)
    if record and record.get("id"):
        message = "a record is no object, or lacks a key that it needs, with 2 boxes"
        assert f"record-unusable: {message}" in messages(outcome)
        assert found(outcome) == {"record-unusable"}
    else:
        assert found(outcome) == {"record-unusable", "annotation-without-image"}


def test_boxes_go_with_the_cause_that_their_image_has(root: Path) -> None:
    """One line for each cause, of files and of records; a single box is no boxes."""
    content = coco_content()
    (root / "images" / "0.png").write_bytes(b"no image")
    content["images"][1]["width"] += 1
    (root / "images" / "2.png").unlink()
    content["annotations"] = [box for box in content["annotations"] if box["id"] != 15]
    outcome = from_folders(root, content, "images")
    assert messages(outcome) - {"class-untrained: classes without an annotation to train on"} == {
        "image-unreadable: an image file cannot be read, with 2 boxes",
        "image-size: an image is not of its stated size (width x height), with 2 boxes",
        "image-missing: an image file is missing, with 1 box",
    }
    (dropped,) = (finding for finding in outcome.report.dropped().findings if finding.id == "image-missing")
    assert dropped.text() == (
        "train: dropped: an image file is missing, with 1 box: image 3 (2.png). Cure: put it there, or remove the image"
    )


def test_an_image_without_boxes_takes_none_along(root: Path) -> None:
    content = coco_content()
    content["annotations"] = [box for box in content["annotations"] if box["image_id"] != 1]
    (root / "images" / "0.png").unlink()
    assert messages(from_folders(root, content, "images")) == {"image-missing: an image file is missing"}
