"""What is wrong with a dataset is found, all of it, with the ids; nothing is changed, and nothing called repaired."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lite_detr_d2.data import Finding, validate_dataset

from .folders import SIZE, coco_content, write_images

Content = dict[str, Any]


@pytest.fixture
def content(tmp_path: Path) -> Content:
    content = coco_content(images=3)
    write_images(tmp_path / "images", content)
    return content


def validate(root: Path, content: Content, scored: bool = True) -> tuple[Finding, ...]:
    (root / "val.json").write_text(json.dumps(content))
    return validate_dataset(root / "val.json", root / "images", scored=scored).problems


def set_key(kind: str, key: str, value: Any) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        content[kind][-1][key] = value

    return change


def remove_key(kind: str, key: str) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        del content[kind][-1][key]

    return change


def test_a_dataset_in_order_has_no_problems(tmp_path: Path, content: Content) -> None:
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != 2]  # an image may have none
    content["annotations"][0].update(bbox=[0, 0, *SIZE], area=SIZE[0] * SIZE[1])
    content["annotations"][1].update(bbox=[-0.5, -0.5, SIZE[0] + 1, SIZE[1] + 1])  # rounding
    before = json.dumps(content)
    assert validate(tmp_path, content) == ()
    assert (tmp_path / "val.json").read_text() == before
    report = validate_dataset(tmp_path / "val.json", tmp_path / "images")
    assert report.categories == {1: "ant", 3: "cat", 7: "dog"}
    assert report.num_images == 3


@pytest.mark.parametrize(
    ("change", "fatal", "what", "place"),
    [
        (set_key("annotations", "bbox", [20, 6, -3, 5]), True, "a negative side", "annotation 15 of image 3 ([20, "),
        (set_key("annotations", "bbox", [20, 6, 0, 5]), False, "no area", "annotation 15 of image 3 ([20, 6, 0, 5])"),
        (set_key("annotations", "bbox", [20, 6, 5, 48]), False, "reaches beyond its image", "annotation 15 of image"),
        (set_key("annotations", "bbox", [60, 6, 9, 5]), False, "reaches beyond its image", "annotation 15 of image"),
        (set_key("annotations", "bbox", [-4, 6, 9, 5]), False, "reaches beyond its image", "annotation 15 of image"),
        (set_key("annotations", "bbox", [20, -4, 5, 9]), False, "reaches beyond its image", "annotation 15 of image"),
        (remove_key("images", "width"), False, "no usable 'width' and 'height'", "image 3 (2.png)"),
        (remove_key("annotations", "area"), False, "'area' is missing", "annotation 15"),
        (remove_key("annotations", "iscrowd"), False, "'iscrowd' is missing", "annotation 15"),
        (remove_key("annotations", "image_id"), True, "lacks a key that it needs", "annotation 15"),
        (set_key("annotations", "id", 0), False, "has the 'id' 0", "id 0 of image 3"),
        (set_key("annotations", "id", 10), False, "'id' are used twice", "id 10 of image 3"),
        (set_key("annotations", "image_id", 99), True, "'image_id' is not in 'images'", "annotation 15 (image 99)"),
        (set_key("annotations", "category_id", 4), True, "'category_id' is not in", "annotation 15 (category 4)"),
        (set_key("images", "file_name", "gone.png"), True, "image file is missing", "image 3 (gone.png)"),
        (
            set_key("images", "file_name", "a\\2.png"),
            False,
            "a 'file_name' is not that of the file",
            "image 3 (a\\2.png)",
        ),
        (set_key("images", "height", 47), True, "not of its stated size", "image 3 (2.png) is 64 x 48, not 64 x 47"),
        (set_key("images", "id", 1), True, "used by more than one image", "image 1 (2.png) and 0.png"),
        (set_key("categories", "name", None), True, "a category needs an 'id' and a 'name'", "categories[2]"),
        (set_key("categories", "id", 3), True, "categories contradict each other", "id 3 has the names"),
    ],
)
def test_a_problem_is_found(
    tmp_path: Path, content: Content, change: Callable[[Content], None], fatal: bool, what: str, place: str
) -> None:
    change(content)
    (problem,) = (p for p in validate(tmp_path, content) if what in p.what)
    assert problem.fatal is fatal
    assert len(problem.places) == 1
    assert problem.places[0].startswith(place)
    assert "repaired" not in str(problem)
    assert "left out" not in str(problem)


def test_all_problems_are_found_at_once_the_fatal_ones_first(tmp_path: Path, content: Content) -> None:
    for number, box in enumerate([[0, 0, 0, 1], [0, 0, -1, 1], [0, 0, -2, 1]]):
        content["annotations"][number]["bbox"] = box
    content["annotations"].append({**content["annotations"][3], "id": 99})
    content["annotations"][3]["category_id"] = 2
    (tmp_path / "images" / "2.png").write_bytes(b"not an image")
    found = [problem for problem in validate(tmp_path, content) if problem.severity != "INFO"]
    problems = {problem.id: problem for problem in found}
    assert [problem.fatal for problem in problems.values()] == [True, True, True, False]
    assert {name: problem.count for name, problem in problems.items()} == {
        "image-unreadable": 1,
        "box-negative": 2,
        "annotation-without-category": 1,
        "box-empty": 1,
    }
    assert problems["image-unreadable"].message == "an image file cannot be read, with 2 boxes"


def test_only_a_training_set_needs_annotations(tmp_path: Path, content: Content) -> None:
    content["annotations"] = []
    assert [problem.fatal for problem in validate(tmp_path, content, scored=True)] == [False]
    assert [problem.fatal for problem in validate(tmp_path, content, scored=False)] == [True]


def test_image_files_can_be_left_alone(tmp_path: Path, content: Content) -> None:
    set_key("images", "file_name", "gone.png")(content)
    set_key("annotations", "image_id", 99)(content)
    validate(tmp_path, content)
    (problem,) = validate_dataset(tmp_path / "val.json", None, scored=True).problems
    assert "'image_id' is not in 'images'" in problem.what


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (None, "is missing"),
        ("", "is empty"),
        (" \n", "is empty"),
        ('{"images": [', "is not JSON"),
        ("[]", "holds a list"),
        ("null", "holds a NoneType"),
        ('{"images": [], "annotations": []}', "no list 'categories'"),
        ('{"images": {}, "annotations": [], "categories": []}', "no list 'images'"),
        ('{"images": [], "annotations": [], "categories": [], "images": []}', "more than one list 'images'"),
        ("[" * 100_000, "is not JSON"),
        ('{"images": [{"id": ' + "9" * 5000 + '}], "categories": []}', "is not JSON"),
    ],
)
def test_an_annotation_file_that_cannot_be_read_is_one_problem(tmp_path: Path, text: str | None, what: str) -> None:
    if text is not None:
        (tmp_path / "train.json").write_text(text)
    report = validate_dataset(tmp_path / "train.json", tmp_path)
    assert [problem.fatal for problem in report.problems] == [True]
    assert what in str(report.problems[0])
    assert str(tmp_path / "train.json") in str(report.problems[0])
    assert (report.categories, report.num_images) == ({}, 0)


def test_a_word_that_is_a_lists_name_is_no_second_list(tmp_path: Path, content: Content) -> None:
    content["categories"][0]["name"] = "images"
    content["annotations"][0]["annotations"] = []
    content["info"] = {"categories": 3}
    assert validate(tmp_path, content) == ()


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"{\xe4}", json.dumps(coco_content()).encode() + b"\0"])
def test_bytes_that_are_no_text_are_one_problem(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "train.json").write_bytes(data)
    (problem,) = validate_dataset(tmp_path / "train.json", None).problems
    assert "is not JSON" in str(problem)


def test_an_annotation_file_without_permission_is_one_problem(
    tmp_path: Path, content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    (problem,) = validate(tmp_path, content)
    assert problem.fatal
    assert "cannot be read (Permission denied)" in str(problem)


@pytest.mark.parametrize(("orientation", "problems"), [(1, 1), (3, 1), (6, 0), (8, 0)])
def test_sizes_are_those_of_the_upright_image(
    tmp_path: Path, content: Content, orientation: int, problems: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    width, height = SIZE
    Image.new("RGB", (height, width)).save(tmp_path / "images" / "0.png", exif=exif)
    assert sum(problem.fatal for problem in validate(tmp_path, content)) == problems


def test_a_size_that_the_tag_exchanges_is_said_to_be_that(tmp_path: Path, content: Content) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", SIZE).save(tmp_path / "images" / "0.png", exif=exif)
    problem = validate(tmp_path, content)[0]
    assert "an image's orientation tag turns it" in problem.what
    assert problem.places == ("image 1 (0.png) is 48 x 64, not 64 x 48",)
