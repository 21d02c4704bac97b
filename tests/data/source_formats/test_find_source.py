"""What is named may be anything: what is no dataset is told what it looks like, and what to do."""

import json
import os
import zipfile
from pathlib import Path

import pytest

from lite_detr_d2.data.sources import find_source
from lite_detr_d2.data.sources.tree import walk
from lite_detr_d2.data.sources.words import half_of_name
from lite_detr_d2.errors import InputError

from ..folders import coco_content, write_coco_files, write_images
from .helpers import found, image_file, places

BOX = {"x": 1, "y": 2, "width": 3, "height": 4}


@pytest.mark.parametrize(
    ("name", "half"),
    [
        *((name, "train") for name in ("train", "Train", "TRAINING", "train2017", "my_train", "train-1", "trainSet")),
        *((name, "val") for name in ("val", "valid", "validation", "Val2017", "instances_val", "set.val")),
        *((name, "test") for name in ("test", "testing", "test-dev2017", "image_info_test2017")),
        *((name, "trainval") for name in ("trainval", "train_val", "pascal_trainval0712")),
        *((name, "") for name in ("restrain", "strain", "valley", "value", "latest", "testimony", "default", "")),
        ("train_test", ""),
    ],
)
def test_the_half_of_a_name(name: str, half: str) -> None:
    assert half_of_name(name) == half


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"id": 1, "data": {"image": "a.png"}, "annotations": [{"result": []}]}], "Label Studio's own JSON"),
        ([{"image": "a.png", "label": [{**BOX, "original_width": 9}]}], "Label Studio's own JSON"),
        ({"version": "5", "shapes": [], "imagePath": "a.png", "imageData": "x" * 100_000}, "Labelme's JSON"),
        ({"a.png9": {"filename": "a.png", "regions": [{"shape_attributes": BOX}]}}, "the VGG Image Annotator's JSON"),
        ([{"image": "a.png", "annotations": [{"label": "x", "coordinates": BOX}]}], "CreateML's JSON"),
        ([{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}], "detections in COCO's result format"),
        ([{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}], "annotations without COCO's lists"),
        ({"info": {}, "categories": {"label": {}}, "items": []}, "Datumaro's own JSON"),
        ({"description": "", "objects": [{"classTitle": "x"}]}, "Supervisely's JSON"),
        ({"asset": {}, "regions": []}, "VoTT's own JSON"),
    ],
)
def test_other_formats_are_known(tmp_path: Path, content: object, message: str) -> None:
    write_images(tmp_path / "set" / "images", coco_content())
    file = tmp_path / "set" / "export.json"
    file.write_text(json.dumps(content))
    expected = rf"export\.json.* looks like {message}.*: export the dataset as COCO, YOLO or Pascal VOC"
    for named in (file.parent, file):
        with pytest.raises(InputError, match=expected):
            found(file.parent, named)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "it is empty"),
        ({".hidden": "", "Thumbs.db": ""}, "it is empty"),
        ({"a.doc": "", "b/c.doc": ""}, "none of its 2 files is an annotation file"),
        ({"images/0.png": "", "images/1.jpg": ""}, r"it has 2 images \(in \S+/images\)"),
        ({"images/0.png": "", "1.jpg": ""}, r"it has 2 images \(in \S+set, images\)"),
        (
            {"train/0.png": "", "train/boxes.csv": "x"},
            r"it has 1 images .*; boxes\.csv is in a format that is not read: export the dataset",
        ),
        (
            {f"{n}.json": '{"shapes": [], "imagePath": ""}' for n in range(3)},
            r"0\.json \(and others\) looks like Labelme",
        ),
        ({"train.json": "", "b.txt": ""}, r"train\.json is empty"),
        ({"annotations.xml": "<?xml?><annotations><version>1.1"}, r"annotations\.xml looks like CVAT's own XML"),
        ({"feed.xml": "<rss/>"}, r"feed\.xml is not Pascal VOC's XML"),
        ({"set.zip": "", "x.txt": ""}, r"set\.zip is packed: name the \.zip itself"),
    ],
)
def test_a_folder_that_is_no_dataset(tmp_path: Path, files: dict[str, str], message: str) -> None:
    (tmp_path / "set").mkdir()
    for name, text in files.items():
        (tmp_path / "set" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "set" / name).write_text(text)
    with pytest.raises(InputError, match=rf"set is no dataset: {message}.*What is read: COCO .*YOLO .*Pascal VOC"):
        found(tmp_path / "set")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone", r"There is no folder \S+gone\."),
        ("gone.zip", r"There is no file \S+gone\.zip\."),
        ("x" * 300, "cannot be read .*too long"),
        ("a\0b", "cannot be read"),
        ("a.png/b", "cannot be read .*Not a directory"),
        ("a.png", "is no dataset, but an image: name the folder"),
        ("a.xml", "is no dataset, but one file of one: name the folder"),
        ("a.tar.gz", "is no dataset, but an archive of another kind"),
        ("a.csv", "is no dataset, but a file of another kind.*What is read"),
        ("a.yaml", "does not describe a dataset in YOLO's format"),
        ("a.json", r"a\.json is no annotation file in COCO format: it is empty"),
        ("a.zip", r"a\.zip is broken, or no \.zip"),
    ],
)
def test_what_else_may_be_named(tmp_path: Path, name: str, message: str) -> None:
    for file in ("a.png", "a.xml", "a.tar.gz", "a.csv", "a.yaml", "a.json", "a.zip"):
        (tmp_path / file).write_text("")
    with pytest.raises(InputError, match=message):
        find_source(str(tmp_path / name), tmp_path / "workspace")


def test_the_path_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_coco_files(tmp_path / "set", {"train.json": "images"})
    monkeypatch.chdir(tmp_path)
    assert find_source("set", Path("workspace")).root == tmp_path / "set"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_source("~/set", Path("workspace")).root == tmp_path / "set"


def test_a_link_to_a_folder_is_that_folder_and_one_to_a_file_lies_where_it_lies(tmp_path: Path) -> None:
    root = write_coco_files(tmp_path / "set", {"train.json": "images"})
    (tmp_path / "link").symlink_to(root)
    assert found(tmp_path / "link").root == root
    assert found(root, tmp_path / "link" / "train.json").root == root / "train.json"
    (tmp_path / "store").mkdir()
    (root / "train.json").rename(tmp_path / "store" / "7")
    (root / "train.json").symlink_to(tmp_path / "store" / "7")
    assert image_file(found(root, root / "train.json").halves["train"], "0.png") == root / "images" / "0.png"


def test_links_are_followed_but_not_in_a_circle(tmp_path: Path) -> None:
    write_coco_files(tmp_path / "elsewhere", {"train.json": "images", "val.json": "images"})
    root = tmp_path / "set"
    (root / "images").mkdir(parents=True)
    (root / "annotations").symlink_to(tmp_path / "elsewhere")
    (root / "images" / "again").symlink_to(root)
    (root / "images" / "itself").symlink_to("itself")
    (root / "images" / "gone.json").symlink_to("nowhere")
    assert list(found(root).halves) == ["train", "val"]
    assert [file.name for file in walk(root).with_suffix(".json")] == ["train.json", "val.json", "gone.json"]


def test_what_is_no_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"gone is not there: name a folder\."):
        walk(tmp_path / "gone")
    with pytest.raises(InputError, match=r"file is a file, not a folder: name a folder\."):
        walk(tmp_path / "file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_folders_without_permission_are_said(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    root = write_coco_files(tmp_path / "set", {"train.json": "images", "val.json": "images"})
    (root / "lost+found").mkdir(mode=0)
    assert list(found(root).halves) == ["train", "val"]
    assert "lost+found" in log.text
    root.chmod(0)
    try:
        with pytest.raises(InputError, match="cannot be listed: check its permissions"):
            found(root)
    finally:
        root.chmod(0o700)


def test_listing_may_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture) -> None:
    root = write_coco_files(tmp_path / "set", {"train.json": "images", "val.json": "images", "a/b.json": "a"})
    scan = os.scandir

    def refuse(folder: "os.PathLike[str]") -> object:
        if os.fspath(folder).endswith(refused):
            raise PermissionError(13, "Permission denied")
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    refused = "/set/a"
    assert list(found(root).halves) == ["train", "val"]
    assert "Folders that cannot be listed are left out" in log.text and "/set/a" in log.text
    refused = "/set"
    with pytest.raises(InputError, match=r"The folder \S+/set cannot be listed: check its permissions"):
        found(root)


def test_names_need_not_be_unicode(tmp_path: Path) -> None:
    root = write_coco_files(tmp_path / "set", {"train.json": "images", "val.json": "images"})
    odd = os.fsdecode(b"K\xe4fer.json")
    (root / odd).write_text(json.dumps(coco_content()))
    source = found(root)
    assert [file.name for file in source.unused] == [odd]
    assert source.fingerprint() == found(root).fingerprint()
    (root / "train.json").rename(root / os.fsdecode(b"train_\xe4.json"))
    assert len(found(root).fingerprint()) == 64
    (root / "val.json").rename(root / "other.json")
    with pytest.raises(InputError, match=r"named as one to evaluate on: K.udce4fer\.json") as error:
        found(root)
    str(error.value).encode("utf-8")


def test_the_fingerprint_changes_with_what_is_read(tmp_path: Path) -> None:
    root = write_coco_files(tmp_path / "set", {"train.json": "images", "val.json": "images"})
    before = found(root).fingerprint()
    (root / "notes.txt").write_text("of no matter")
    assert found(root).fingerprint() == before
    (root / "val.json").write_text((root / "val.json").read_text() + " ")
    assert found(root).fingerprint() != before


def test_many_files_take_no_time(tmp_path: Path) -> None:
    root = write_coco_files(tmp_path / "set", {"train.json": "images", "val.json": "images"})
    for number in range(20_000):
        os.close(os.open(root / "images" / f"{number}.txt", os.O_CREAT))
    assert image_file(found(root).halves["train"], "0.png").is_file()


def test_an_archive_in_the_folder_is_no_data(tmp_path: Path) -> None:
    root = write_coco_files(tmp_path / "set", {"train.json": "images", "val.json": "images"})
    with zipfile.ZipFile(root / "images.zip", "w") as packed:
        packed.writestr("train.json", "{}")
    assert places(found(root)) == {"train": ("train.json", {"images"}), "val": ("val.json", {"images"})}
