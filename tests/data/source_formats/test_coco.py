"""Annotation files in COCO format are found in every layout, with their images."""

import json
from pathlib import Path

import pytest

from lite_detr_d2.data.sources import sniff, source_of_files
from lite_detr_d2.errors import InputError

from ..folders import coco_content, write_coco_files, write_coco_layout, write_images
from .helpers import found, image_file, places, relative

# By the annotation file, its images' folder; and what each is to be.
TWO_HALVES = {
    "plain": {"train.json": "images", "val.json": "images"},
    "COCO": {"annotations/instances_train2017.json": "train2017", "annotations/instances_val2017.json": "val2017"},
    "COCO below images": {
        "annotations/instances_train2017.json": "images/train2017",
        "annotations/instances_val2017.json": "images/val2017",
    },
    "Roboflow": {"train/_annotations.coco.json": "train", "valid/_annotations.coco.json": "valid"},
    "annotations": {"annotations/train.json": "images", "annotations/val.json": "images"},
    "own folders": {"train.json": "train", "val.json": "val"},
    "own folders below images": {"train.json": "images/train", "val.json": "images/val"},
    "a file in each image folder": {"images/train/boxes.json": "images/train", "images/val/boxes.json": "images/val"},
    "FiftyOne": {"train/labels.json": "train/data", "validation/labels.json": "validation/data"},
    "supervision": {"train/annotations.json": "train/images", "valid/annotations.json": "valid/images"},
    "CVAT": {
        "annotations/instances_Train.json": "images/Train",
        "annotations/instances_Validation.json": "images/Validation",
    },
    "Datumaro": {"annotations/instances_train.json": "images/train", "annotations/instances_val.json": "images/val"},
    "words before": {"pcb_train.json": "images", "pcb_valid.json": "images"},
    "words behind": {"train_annotations.json": "train_images", "val_annotations.json": "val_images"},
    "long words": {"training.json": "training", "validation.json": "validation"},
    "val otherwise": {"train.json": "images", "validation.json": "images"},
    "val in a folder": {"train.json": "images", "valid/labels.json": "valid"},
    "test for val": {"train.json": "images", "test.json": "images"},
    "one folder of another name": {"train.json": "photos", "val.json": "photos"},
    "upper case": {"TRAIN.JSON": "Images", "VAL.JSON": "Images"},
    "camel case": {"trainAnnotations.json": "images", "valAnnotations.json": "images"},
}
ONE_FILE = {
    "plain": {"train.json": "images"},
    "Label Studio": {"result.json": "images"},
    "FiftyOne": {"labels.json": "data"},
    "CVAT": {"annotations/instances_default.json": "images/default"},
    "CVAT without subsets": {"annotations/instances_default.json": "images"},
    "named as another half": {"annotations/instances_val2017.json": "val2017"},
    "Roboflow": {"train/_annotations.coco.json": "train"},
    "deep": {"a/b/c/anything.json": "a/b/c"},
    "beside the images": {"any name.json": "."},
    "one folder of another name": {"any name.json": "some/photos"},
}


@pytest.mark.parametrize("layout", TWO_HALVES.values(), ids=TWO_HALVES)
def test_two_halves(tmp_path: Path, layout: dict[str, str]) -> None:
    source = found(write_coco_files(tmp_path / "set", layout))
    files = dict(zip(("train", "val"), layout, strict=True))
    assert source.kind == "COCO"
    assert places(source) == {half: (file, {layout[file]}) for half, file in files.items()}
    assert source.unused == ()
    contents = {name: half.read() for name, half in source.halves.items()}
    assert [image["file_name"] for image in contents["val"]["images"]] == ["2.png", "3.png"]
    assert all(half.files == (half.origin,) and not half.images for half in source.halves.values())


@pytest.mark.parametrize("layout", ONE_FILE.values(), ids=ONE_FILE)
def test_one_file_is_trained_on(tmp_path: Path, layout: dict[str, str]) -> None:
    source = found(write_coco_files(tmp_path / "set", layout))
    ((file, folder),) = layout.items()
    assert places(source) == {"train": (file, {folder})}


@pytest.mark.parametrize(
    "layout",
    [
        {"train.json": "images", "val.json": "images", "test.json": "images"},
        {"train/_annotations.coco.json": "train", "valid/_annotations.coco.json": "valid"}
        | {"test/_annotations.coco.json": "test"},
        {"train.json": "train", "val.json": "val", "other/test_set.json": "other"},
    ],
)
def test_test_is_a_third_half(tmp_path: Path, layout: dict[str, str]) -> None:
    source = found(write_coco_files(tmp_path / "set", layout))
    assert places(source) == {
        half: (file, {layout[file]}) for half, file in zip(("train", "val", "test"), layout, strict=True)
    }


def test_without_a_file_to_train_on_there_is_no_train(tmp_path: Path) -> None:
    source = found(write_coco_files(tmp_path / "set", {"val.json": "val", "test.json": "test"}))
    assert places(source) == {"val": ("val.json", {"val"}), "test": ("test.json", {"test"})}


@pytest.mark.parametrize(
    ("used", "unused"),
    [
        # Other annotations of COCO's images.
        (
            ["annotations/instances_train2017.json", "annotations/instances_val2017.json"],
            ["annotations/person_keypoints_train2017.json", "annotations/person_keypoints_val2017.json"]
            + ["annotations/image_info_test2017.json", "annotations/image_info_test-dev2017.json"],
        ),
        # instances_* before others beside it; near files before far ones; both halves of one export before a mixture.
        (["annotations/instances_train.json", "annotations/instances_val.json"], ["annotations/boxes_train.json"]),
        (["train.json", "val.json"], ["annotations/instances_train.json", "annotations/instances_val.json"]),
        (["annotations/instances_train.json", "annotations/instances_val.json"], ["train.json"]),
        (["train.json", "val.json"], ["old/train.json", "all.json"]),
        (["train.json", "test.json"], ["annotations/instances_train.json", "annotations/instances_test.json"]),
        # trainval is both of the others.
        (["train.json", "val.json"], ["trainval.json"]),
        (["trainval.json", "test.json"], []),
        (["a_train.json", "b_val.json"], ["other.json"]),
    ],
)
def test_what_is_chosen_of_several(tmp_path: Path, used: list[str], unused: list[str]) -> None:
    source = found(write_coco_files(tmp_path / "set", dict.fromkeys([*unused, *used], "images")))
    assert [relative(half.origin, source) for half in source.halves.values()] == used
    assert sorted(relative(file, source) for file in source.unused) == sorted(unused)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            ["train2014.json", "train2017.json", "val2017.json"],
            r"several annotation files to train on: train2014\.json",
        ),
        (["train.json", "a_val.json", "b_val.json"], r"several annotation files to evaluate on: a_val\.json, b_val"),
        (["a/train.json", "a/val.json", "b/train.json", "b/val.json"], r"to train on: a/train\.json, b/train\.json"),
        (["train.json", "other.json"], r"named as one to evaluate on: other\.json, train\.json\. Call it val\.json"),
        (["val.json", "other.json"], r"named as one to train on: other\.json, val\.json\. Call it train\.json"),
        (["one.json", "two.json"], r"named as one to train on: one\.json, two\.json"),
    ],
)
def test_what_cannot_be_told_is_listed(tmp_path: Path, files: list[str], message: str) -> None:
    write_coco_files(tmp_path / "set", dict.fromkeys(files, "images"))
    with pytest.raises(InputError, match=message) as error:
        found(tmp_path / "set")
    assert "--train-json" in str(error.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("val.json", "", r"val\.json is named as an annotation file to evaluate on, but is empty"),
        ("valid.json", "[1, 2]", "has not COCO's lists"),
        ("val_annotations.json", "no JSON", "is not JSON"),
        ("test.json", '[{"image_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]', "detections in COCO's result format"),
    ],
)
def test_a_half_in_another_format_is_not_passed_over(tmp_path: Path, name: str, text: str, message: str) -> None:
    write_coco_files(tmp_path / "set", {"train.json": "images"})
    (tmp_path / "set" / name).write_text(text)
    with pytest.raises(InputError, match=message):
        found(tmp_path / "set")


@pytest.mark.parametrize("block", [1, 7, 8, 9])
def test_a_large_file_is_searched_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(sniff, "_BLOCK", block)
    (tmp_path / "train.json").write_text(json.dumps(coco_content()))
    (tmp_path / "other.json").write_text('{"info": "images", "categories": []}')
    assert sniff.look(tmp_path / "train.json").is_coco
    assert not sniff.look(tmp_path / "other.json").is_coco


def test_other_files_do_not_matter(tmp_path: Path) -> None:
    root = write_coco_files(tmp_path / "set", {"train.json": "images", "val.json": "images"})
    content = json.dumps(coco_content())
    others = {
        "package.json": '{"name": "x"}',
        "config.json": "{}",
        "categories.json": '[{"id": 1, "name": "x"}]',
        "train_config.json": '{"images": 4}',
        "val_results.json": '[{"image_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]',
        "notes.json": '{"categories": [], "info": {}}',
        "broken.json": "{",
        "Thumbs.db": "",
        "._train.json": content,
        "__MACOSX/val.json": content,
        ".ipynb_checkpoints/train-checkpoint.json": content,
        "images/.DS_Store": "",
    }
    for name, text in others.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    source = found(root)
    assert places(source) == {"train": ("train.json", {"images"}), "val": ("val.json", {"images"})}
    assert source.unused == ()


def test_a_half_never_has_the_others_images(tmp_path: Path) -> None:
    root = write_coco_files(tmp_path / "set", {"train.json": "train", "val.json": "val"})
    source = found(root)
    assert root / "val" not in source.halves["train"].folders
    assert root / "train" not in source.halves["val"].folders


def test_file_names_may_start_with_a_folder(tmp_path: Path) -> None:
    root = write_coco_layout(tmp_path / "set")
    file = root / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    content["images"][0]["file_name"] = "val2017/4.png"
    file.write_text(json.dumps(content))
    assert image_file(found(root).halves["val"], "val2017/4.png").is_file()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("order", [("images", "annotations", "categories"), ("categories", "annotations", "images")])
def test_files_are_known_by_their_keys(tmp_path: Path, encoding: str, order: tuple[str, ...]) -> None:
    content = coco_content()
    content["annotations"] *= 2000  # more than the start of the file that is looked at first
    write_images(tmp_path / "set" / "images", coco_content())
    text = json.dumps({key: content[key] for key in order}, indent=1)
    (tmp_path / "set" / "any.json").write_bytes(text.encode(encoding))
    half = found(tmp_path / "set").halves["train"]
    assert half.read() == content


def test_content_is_not_looked_at(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.json").write_text('{"images": 7, "categories": ')
    with pytest.raises(InputError, match=r"train\.json is not JSON"):
        found(tmp_path / "set").halves["train"].read()


class TestFilesThatAreNamed:
    """Annotation files may be named instead of a folder."""

    def test_one(self, tmp_path: Path) -> None:
        root = write_coco_files(tmp_path, {"annotations/instances_val2017.json": "val2017", "other.json": "images"})
        file = root / "annotations" / "instances_val2017.json"
        source = found(root, file)
        assert list(source.halves) == ["train"]
        assert image_file(source.halves["train"], "0.png") == root / "val2017" / "0.png"

    def test_what_is_above_its_folder_is_not_searched(self, tmp_path: Path) -> None:
        root = write_coco_files(tmp_path / "set", {"train.json": "images"})
        assert tmp_path not in found(root, root / "train.json").halves["train"].folders

    @pytest.mark.parametrize("folder", ["images", "elsewhere", "pictures/train"])
    def test_two_and_their_images(self, tmp_path: Path, folder: str) -> None:
        root = write_coco_files(tmp_path, {"a.json": folder, "b.json": folder.replace("train", "val")})
        source = source_of_files(
            train_json=root / "a.json", val_json=str(root / "b.json"), images=root / Path(folder).parts[0]
        )
        assert [half.origin for half in source.halves.values()] == [root / "a.json", root / "b.json"]
        assert image_file(source.halves["train"], "0.png").is_file()
        assert image_file(source.halves["val"], "2.png").is_file()

    def test_one_to_evaluate_on(self, tmp_path: Path) -> None:
        root = write_coco_files(tmp_path, {"any.json": "images"})
        source = source_of_files(val_json=root / "any.json")
        assert list(source.halves) == ["val"]
        assert image_file(source.halves["val"], "0.png").is_file()

    def test_what_is_wrong_with_them(self, tmp_path: Path) -> None:
        file = write_coco_files(tmp_path, {"any.json": "images"}) / "any.json"
        (tmp_path / "list.json").write_text("[]")
        for arguments, message in (
            ({}, "Name an annotation file"),
            ({"train_json": tmp_path / "gone.json"}, r"gone\.json.*No such file"),
            ({"train_json": tmp_path / "list.json"}, r"list\.json is no annotation file in COCO format"),
            ({"train_json": file, "images": tmp_path / "gone"}, "There is no folder"),
            ({"train_json": file, "images": file}, "There is no folder"),
        ):
            with pytest.raises(InputError, match=message):
                source_of_files(**arguments)
