"""What is wrong with a dataset is found, all of it, with the ids."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lite_detr_d2.data import Problem, validate_dataset

from .folders import SIZE, coco_content, write_images

Content = dict[str, Any]


@pytest.fixture
def content(tmp_path: Path) -> Content:
    content = coco_content(images=3)
    write_images(tmp_path / "images", content)
    return content


def validate(root: Path, content: Content, scored: bool = True) -> tuple[Problem, ...]:
    (root / "val.json").write_text(json.dumps(content))
    return validate_dataset(root / "val.json", root / "images", scored=scored).problems


def set_box(box: Any) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        content["annotations"][1]["bbox"] = box

    return change


def test_a_dataset_in_order_has_no_problems(tmp_path: Path, content: Content) -> None:
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != 2]  # an image may have none
    content["annotations"][0]["bbox"] = [0, 0, *SIZE]
    content["annotations"][1]["bbox"] = [-0.5, -0.5, SIZE[0] + 1, SIZE[1] + 1]  # rounding
    assert validate(tmp_path, content) == ()
    report = validate_dataset(tmp_path / "val.json", tmp_path / "images")
    assert report.categories == {1: "ant", 3: "cat", 7: "dog"}


@pytest.mark.parametrize(
    ("box", "fatal", "what"),
    [
        ([20, 6, -3, 5], True, "negative side"),
        ([20, 6, math.nan, 5], True, "four finite numbers"),
        ([20, 6, math.inf, 5], True, "four finite numbers"),
        ([20, 6, 5], True, "four finite numbers"),
        (["20", 6, 5, 5], True, "four finite numbers"),
        ([], True, "four finite numbers"),
        ([SIZE[0], 0, 5, 5], True, "outside its image"),
        ([-6, 0, 5, 5], True, "outside its image"),
        ([20, 6, 0, 5], False, "no area"),
        ([20, 6, 5, SIZE[1]], False, "reaches beyond its image"),
    ],
)
def test_a_bad_box_is_found(tmp_path: Path, content: Content, box: Any, fatal: bool, what: str) -> None:
    set_box(box)(content)
    (problem,) = validate(tmp_path, content)
    assert problem.fatal is fatal
    assert what in problem.what
    assert len(problem.places) == 1
    assert problem.places[0].startswith("annotation 11 of image 1")


def remove_key(kind: str, key: str) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        del content[kind][-1][key]

    return change


def set_key(kind: str, key: str, value: Any) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        content[kind][-1][key] = value

    return change


def empty(kind: str) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        content[kind] = []

    return change


@pytest.mark.parametrize(
    ("change", "what", "place"),
    [
        (empty("annotations"), "there are no annotations", ""),
        (remove_key("images", "width"), "needs the keys id, file_name, width, height", "images[2]"),
        (remove_key("annotations", "bbox"), "needs the keys", "annotations[5]"),
        (remove_key("annotations", "area"), "needs a number 'area'", "annotation 15"),
        (remove_key("annotations", "iscrowd"), "'iscrowd'", "annotation 15"),
        (set_key("annotations", "area", "x"), "needs a number 'area'", "annotation 15"),
        (set_key("annotations", "iscrowd", None), "'iscrowd' must be 0 or 1", "annotation 15 (None)"),
        (set_key("annotations", "id", 0), "number annotations from 1", "annotation 0"),
        (set_key("annotations", "id", [1]), "'id' must be an integer", "annotations[5]"),
        (set_key("annotations", "image_id", [1]), "'image_id' must be an integer", "annotations[5]"),
        (set_key("annotations", "category_id", [1]), "'category_id' must be an integer", "annotations[5]"),
        (set_key("images", "file_name", None), "'file_name' must be a string", "images[2]"),
        (set_key("categories", "name", None), "'name' must be a string", "categories[2]"),
        (set_key("categories", "name", "cat"), "a name is used by more than one category", "category cat"),
        (set_key("annotations", "id", 10), "more than one annotation", "annotation 10"),
        (set_key("images", "id", 1), "more than one image", "image 1"),
        (set_key("categories", "id", 3), "more than one category", "category 3"),
        (set_key("annotations", "image_id", 99), "image is not in 'images'", "annotation 15 (image 99)"),
        (set_key("annotations", "category_id", 4), "category is not in 'categories'", "annotation 15 (category 4)"),
        (set_key("annotations", "ignore", 1), "'ignore' is not supported", "annotation 15"),
        (set_key("images", "file_name", "gone.png"), "image file is missing", "image 3 (gone.png)"),
        (set_key("images", "file_name", "a\\2.png"), "parted by /, not \\", "image 3 (a\\2.png)"),
        (set_key("images", "height", 47), "not of its stated size", "image 3 (2.png) is 64 x 48, not 64 x 47"),
        (set_key("images", "height", "48"), "positive integers", "image 3 (2.png)"),
    ],
)
def test_a_fatal_problem_is_found(
    tmp_path: Path, content: Content, change: Callable[[Content], None], what: str, place: str
) -> None:
    change(content)
    found = {p.what: p for p in validate(tmp_path, content) if what in p.what}
    assert len(found) == 1
    (problem,) = found.values()
    assert problem.fatal
    assert problem.places == ((place,) if place else ())


def test_all_problems_are_found_at_once(tmp_path: Path, content: Content) -> None:
    for number, box in enumerate([[0, 0, 0, 1], [0, 0, -1, 1], [0, 0, -2, 1]]):
        content["annotations"][number]["bbox"] = box
    content["annotations"][3]["category_id"] = 2
    (tmp_path / "images" / "1.png").write_bytes(b"not an image")
    problems = validate(tmp_path, content)
    assert [problem.fatal for problem in problems] == [True, True, True, False]
    assert [len(problem.places) for problem in problems] == [1, 2, 1, 1]
    assert "cannot be opened: image 2 (1.png)" in str(problems[0])
    assert "annotation 11 of image 1 ([0, 0, -1, 1]), annotation 12 of image 2" in str(problems[1])


def test_some_things_matter_for_evaluation_only(tmp_path: Path, content: Content) -> None:
    remove_key("annotations", "area")(content)
    set_key("annotations", "id", 0)(content)
    assert validate(tmp_path, content, scored=False) == ()


def test_image_files_can_be_left_alone(tmp_path: Path, content: Content) -> None:
    set_key("images", "file_name", "gone.png")(content)
    set_key("annotations", "image_id", 99)(content)
    validate(tmp_path, content)
    (problem,) = validate_dataset(tmp_path / "val.json", None).problems
    assert "image is not in 'images'" in problem.what


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (None, "is missing"),
        ("", "is empty"),
        ('{"images": [', "is not JSON"),
        ("[]", "holds a list"),
        ('{"images": [], "categories": []}', "no list 'annotations'"),
    ],
)
def test_an_unreadable_annotation_file_is_one_problem(tmp_path: Path, text: str | None, what: str) -> None:
    if text is not None:
        (tmp_path / "train.json").write_text(text)
    report = validate_dataset(tmp_path / "train.json", tmp_path)
    assert [problem.fatal for problem in report.problems] == [True]
    assert what in str(report.problems[0])
    assert report.categories == {}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_an_encoding_that_pycocotools_does_not_read_is_found(tmp_path: Path, content: Content, encoding: str) -> None:
    (tmp_path / "train.json").write_text(json.dumps(content), encoding=encoding)
    (problem,) = validate_dataset(tmp_path / "train.json", tmp_path / "images").problems
    assert problem.fatal
    assert "is not JSON in UTF-8 without a byte order mark" in str(problem)


def test_an_annotation_file_without_permission_is_one_problem(
    tmp_path: Path, content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    (problem,) = validate(tmp_path, content)
    assert problem.fatal
    assert "the annotation file cannot be read ([Errno 13] Permission denied" in str(problem)


@pytest.mark.parametrize(("orientation", "problems"), [(1, 1), (3, 1), (6, 0), (8, 0)])
def test_sizes_are_those_of_the_upright_image(
    tmp_path: Path, content: Content, orientation: int, problems: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    width, height = SIZE
    Image.new("RGB", (height, width)).save(tmp_path / "images" / "0.png", exif=exif)
    assert len(validate(tmp_path, content)) == problems


def test_a_long_list_of_places_is_cut_in_the_text_only() -> None:
    problem = Problem(fatal=True, what="wrong", places=tuple(f"image {number}" for number in range(30)))
    assert str(problem).startswith("wrong: image 0, image 1,")
    assert str(problem).endswith("image 19 and 10 more")
