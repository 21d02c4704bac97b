"""The halves of a dataset are found in both layouts."""

import json
from pathlib import Path

import pytest

from lite_detr_d2.data import Half, Halves, find_halves
from lite_detr_d2.errors import InputError

from .folders import coco_content, write_coco_layout, write_images


def write(file: Path, content: object = "") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def write_instances(root: Path, *names: str, images: str = "images") -> None:
    for name in names:
        write(root / "annotations" / f"instances_{name}.json", coco_content(images=1))
    write_images(root / images, coco_content(images=1))


@pytest.mark.parametrize(
    ("present", "val"),
    [
        (("train", "val", "test"), "val"),
        (("train", "test"), "test"),
        (("train",), None),
        (("val",), "val"),  # that train.json is missing is for validation to say
    ],
)
def test_plain_files(tmp_path: Path, present: tuple[str, ...], val: str | None) -> None:
    (tmp_path / "images").mkdir()
    for name in present:
        write(tmp_path / f"{name}.json")
    halves = find_halves(tmp_path)
    assert halves.train == Half(tmp_path / "train.json", tmp_path / "images")
    assert halves.val == (val and Half(tmp_path / f"{val}.json", tmp_path / "images"))


@pytest.mark.parametrize(
    ("names", "train", "val"),
    [
        (("train2017", "val2017"), "train2017", "val2017"),
        (("Train", "valid", "test"), "Train", "valid"),
        (("train", "test-dev", "person"), "train", "test-dev"),
        (("default",), "default", None),
        (("val2017",), "val2017", None),
    ],
)
def test_names_of_cocos_files(tmp_path: Path, names: tuple[str, ...], train: str, val: str | None) -> None:
    write_instances(tmp_path, *names)
    write(tmp_path / "annotations" / "captions_train2017.json")
    files = [name and tmp_path / "annotations" / f"instances_{name}.json" for name in (train, val)]
    halves = find_halves(tmp_path)
    assert [halves.train.annotations, halves.val and halves.val.annotations] == files


@pytest.mark.parametrize("folder", ["default", "images/default", "images", "."])
def test_image_folders_of_coco(tmp_path: Path, folder: str) -> None:
    write_instances(tmp_path, "default", images=folder)
    (tmp_path / "default").mkdir(exist_ok=True)  # empty, it is not taken
    assert find_halves(tmp_path).train.images == tmp_path / folder


def test_each_half_has_its_own_image_folder(tmp_path: Path) -> None:
    root = write_coco_layout(tmp_path)
    assert find_halves(root) == Halves(
        Half(root / "annotations" / "instances_train2017.json", root / "train2017"),
        Half(root / "annotations" / "instances_val2017.json", root / "val2017"),
    )


def test_file_names_may_start_with_the_folder(tmp_path: Path) -> None:
    content = coco_content(images=2)
    write_images(tmp_path / "train2017", content)
    for image in content["images"]:
        image["file_name"] = f"train2017/{image['file_name']}"
    write(tmp_path / "annotations" / "instances_train2017.json", content)
    assert find_halves(tmp_path).train.images == tmp_path


def test_cocos_files_win_over_a_test_file_beside_them(tmp_path: Path) -> None:
    write_instances(tmp_path, "train", "val")
    write(tmp_path / "test.json")
    assert find_halves(tmp_path).train.annotations == tmp_path / "annotations" / "instances_train.json"
    train = write(tmp_path / "train.json")
    assert find_halves(tmp_path).train.annotations == train


def test_a_missing_image_does_not_hide_the_folder(tmp_path: Path) -> None:
    write_instances(tmp_path, "default", images="images/default")
    write(tmp_path / "annotations" / "instances_default.json", coco_content(images=3))
    (tmp_path / "images" / "default" / "0.png").rename(tmp_path / "images" / "default" / "2.png")
    assert find_halves(tmp_path).train.images == tmp_path / "images" / "default"


def test_without_any_image_the_folders_are_listed(tmp_path: Path) -> None:
    write_instances(tmp_path, "default", images="pictures")
    with pytest.raises(InputError, match=r"None of the images of \S+instances_default\.json.*0\.png") as error:
        find_halves(tmp_path)
    for folder in ("default/", "images/default/", "images/"):
        assert f"{tmp_path}/{folder}" in str(error.value)


@pytest.mark.parametrize("content", ["", "[]", {"images": [7]}, {"images": [{"file_name": 7}]}])
def test_a_broken_annotation_file_is_left_to_validation(tmp_path: Path, content: object) -> None:
    file = write(tmp_path / "annotations" / "instances_default.json", content)
    assert find_halves(tmp_path) == Halves(Half(file, tmp_path / "default"), None)


def test_several_files_for_a_half_are_refused(tmp_path: Path) -> None:
    write_instances(tmp_path, "train2014", "train2017", "val2017")
    with pytest.raises(
        InputError, match=r"instances_train2014\.json, instances_train2017\.json\. Leave the one to use"
    ):
        find_halves(tmp_path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("train", "other"), r"named as one to evaluate on: instances_other\.json, instances_train\.json"),
        (("val", "other"), "named as one to train on"),
    ],
)
def test_names_that_say_nothing_are_refused(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    write_instances(tmp_path, *names)
    with pytest.raises(InputError, match=message):
        find_halves(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no folder \S+gone\."):
        find_halves(tmp_path / "gone")


def test_another_folder_is_told_what_both_layouts_look_like(tmp_path: Path) -> None:
    write_images(tmp_path / "images", coco_content())
    with pytest.raises(InputError, match=r"is no dataset: it needs train\.json.*annotations/instances_train\*\.json"):
        find_halves(tmp_path)


def test_plain_files_need_their_image_folder(tmp_path: Path) -> None:
    write(tmp_path / "train.json")
    write(tmp_path / "test.json")
    with pytest.raises(InputError, match=r"needs a folder images/ beside train\.json and test\.json"):
        find_halves(tmp_path)
