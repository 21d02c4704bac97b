"""Datasets in YOLO's format: whichever way the halves and classes are stated, the boxes are the same."""

from pathlib import Path

import pytest
from PIL import ExifTags, Image

from lite_detr_d2.data.normalise import normalise
from lite_detr_d2.data.source import PLACE
from lite_detr_d2.errors import InputError

from ..folders import SIZE, coco_content, half_of, write_coco_files, write_images, write_yolo_files
from ..halves import places
from .helpers import boxes, folders, found, sizes

NAMES = "names: [ant, cat, dog]\n"
SIDE_BY_SIDE = {"train/labels": "train/images", "valid/labels": "valid/images"}
BELOW = {"labels/train": "images/train", "labels/val": "images/val"}
DARKNET = {"obj_train_data": "obj_train_data", "obj_valid_data": "obj_valid_data"}
# By the label files' folders, the images' folder; and the other files.
LAYOUTS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "Roboflow": (SIDE_BY_SIDE, {"data.yaml": f"train: ../train/images\nval: ../valid/images\nnc: 3\n{NAMES}"}),
    "Ultralytics": (
        BELOW,
        {
            "my.yaml": "path: ../datasets/my\ntrain: images/train\nval: images/val\n"
            "names:\n  0: ant\n  1: cat\n  2: dog\n"
        },
    ),
    "of another machine": (
        BELOW,
        {"data.yaml": f"train: /content/my/images/train\nval: 'C:\\my\\images\\val'\ntest: # none\n{NAMES}"},
    ),
    "folders that hold both": (SIDE_BY_SIDE, {"dataset.yml": f"train: [train]\nval: valid\n{NAMES}"}),
    "halves by folder": (BELOW, {"data.yaml": f"nc: 3\n{NAMES}"}),
    "a file of names for each half": (SIDE_BY_SIDE, {"train/data.yaml": NAMES, "valid/data.yaml": NAMES}),
    "lists": (
        BELOW,
        {
            "data.yaml": f"path: .\ntrain: train.txt\nval: lists/val.txt\n{NAMES}",
            "train.txt": "./images/train/0.png\n\n./images/train/1.png\n",
            "lists/val.txt": "data/images/val/2.png\r\ndata\\images\\val\\3.png",
        },
    ),
    "Darknet": (
        DARKNET,
        {
            "obj.data": "classes = 3\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\n",
            "obj.names": "ant\ncat\ndog\n",
            "train.txt": "data/obj_train_data/0.png\ndata/obj_train_data/1.png\n",
            "valid.txt": "data/obj_valid_data/2.png\ndata/obj_valid_data/3.png\n",
        },
    ),
    "classes.txt": (SIDE_BY_SIDE, {"classes.txt": "ant\ncat\ndog\n", "notes.json": '{"categories": []}'}),
    "beside the images": (
        {"train": "train", "val": "val"},
        {"train/classes.txt": "ant\ncat\ndog", "val/classes.txt": "ant\ncat\ndog"},
    ),
    "labels elsewhere": ({"txt/train": "train", "txt/val": "val"}, {"classes.txt": "ant\ncat\ndog"}),
}


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(("layout", "files"), LAYOUTS.values(), ids=LAYOUTS)
def test_two_halves(tmp_path: Path, layout: dict[str, str], files: dict[str, str]) -> None:
    source = found(write(write_yolo_files(tmp_path / "set", layout), files))
    assert source.kind == "YOLO"
    assert list(source.halves) == ["train", "val"]
    for place, (half, folder) in enumerate(zip(source.halves.values(), layout.values(), strict=True)):
        content = half.read()
        assert boxes(content) == boxes(half_of(coco_content(), range(2 * place, 2 * place + 2)))
        assert [category["name"] for category in content["categories"]] == ["ant", "cat", "dog"]
        assert sizes(content) == {SIZE}
        assert folders(half, source) == {folder}
        assert {image.name for image in half.images} == {f"{2 * place}.png", f"{2 * place + 1}.png"}
        assert len([file for file in half.files if file.parent in {source.root / name for name in layout}]) >= 2


def test_one_half_is_trained_on(tmp_path: Path) -> None:
    root = write_yolo_files(tmp_path / "set", {"labels": "images"})
    source = found(write(root, {"classes.txt": "ant\ncat\ndog\n"}))
    assert list(source.halves) == ["train"]
    assert boxes(source.halves["train"].read()) == boxes(coco_content(images=2))


def test_test_is_a_third_half(tmp_path: Path) -> None:
    root = write_yolo_files(tmp_path / "set", {**SIDE_BY_SIDE, "test/labels": "test/images"})
    text = f"train: train/images\nval: valid/images\ntest: test/images\n{NAMES}"
    assert list(found(write(root, {"data.yaml": text})).halves) == ["train", "val", "test"]


def test_a_yaml_file_may_be_named(tmp_path: Path) -> None:
    root = write_yolo_files(tmp_path / "set", BELOW)
    write(root, {"a.yaml": f"train: images/train\n{NAMES}", "b.yaml": f"train: images/val\n{NAMES}"})
    source = found(root, root / "b.yaml")
    assert {image["file_name"] for image in source.halves["train"].read()["images"]} == {
        "images/val/2.png",
        "images/val/3.png",
    }
    with pytest.raises(InputError, match=r"several files .*: a\.yaml, b\.yaml\. Call the one to use data\.yaml"):
        found(root)


def test_images_may_be_elsewhere(tmp_path: Path) -> None:
    write_yolo_files(tmp_path / "images of it", {"labels/train": "images/train"})
    write(tmp_path / "set", {"data.yaml": f"path: {tmp_path / 'images of it'}\ntrain: images/train\n{NAMES}"})
    half = found(tmp_path / "set").halves["train"]
    assert boxes(half.read()) == boxes(coco_content(images=2))
    assert (half.folders[0] / half.read()["images"][0]["file_name"]).is_file()


@pytest.mark.parametrize(
    ("line", "box"),
    [
        ("0 0.5 0.5 0.25 0.5", [24, 12, 16, 24]),
        ("0 0.5 0.5 0.25 0.5 0.93", [24, 12, 16, 24]),  # a confidence
        ("0.0 5e-1 .5 0.25 0.5", [24, 12, 16, 24]),
        ("\tant  0.5 0.5 0.25 0.5  ", [24, 12, 16, 24]),
        ("0 0.25 0.5 0.75 0.25 0.5 1", [16, 12, 32, 36]),  # a triangle
        ("0 0.25 0.25 0.75 0.25 0.75 1 0.25 1", [16, 12, 32, 36]),
        ("0 0.5 0.5 0.25 0.5 0.1 0.1 2 0.9 0.9 2", [24, 12, 16, 24]),  # with two keypoints
    ],
)
def test_lines(tmp_path: Path, line: str, box: list[float]) -> None:
    root = write_yolo_files(tmp_path / "set", {"labels": "images"})
    write(root, {"data.yaml": f"{NAMES}kpt_shape: [2, 3]\n", "labels/0.txt": f"\n{line}\n", "labels/1.txt": ""})
    content = found(root).halves["train"].read()
    (annotation,) = content["annotations"]
    assert annotation["bbox"] == pytest.approx(box)
    assert (annotation["category_id"], annotation["image_id"], annotation["iscrowd"]) == (0, 1, 0)
    assert annotation[PLACE] == "labels/0.txt line 2"


@pytest.mark.parametrize(
    ("line", "category", "values"),
    [
        ("1 0.5 0.5 0.25", 1, ["0.5", "0.5", "0.25"]),
        ("1 0.5 0.5 0.25 x", 1, ["0.5", "0.5", "0.25", "x"]),
        ("1 0,5 0,5 0,25 0,5", 1, ["0,5", "0,5", "0,25", "0,5"]),
        ("1", 1, []),
        ("cow 1 2 3", "cow", ["1", "2", "3"]),
        ("1 0.1 0.1 0.2 0.2 0.3 0.3 0.4", 1, ["0.1", "0.1", "0.2", "0.2", "0.3", "0.3", "0.4"]),
    ],
)
def test_a_line_that_is_none_is_handed_on(tmp_path: Path, line: str, category: object, values: list[str]) -> None:
    root = write(write_yolo_files(tmp_path / "set", {"labels": "images"}), {"data.yaml": NAMES})
    with open(root / "labels" / "1.txt", "a") as stream:
        stream.write(line)
    *others, last = found(root).halves["train"].read()["annotations"]
    assert len(others) == 4
    assert (last["category_id"], last["bbox"], last["image_id"]) == (category, values, 2)
    assert last[PLACE] == "labels/1.txt line 3"


def test_classes_beyond_the_names_are_handed_on(tmp_path: Path) -> None:
    root = write(write_yolo_files(tmp_path / "set", {"labels": "images"}), {"data.yaml": NAMES})
    write(root, {"labels/0.txt": "7 0.5 0.5 0.1 0.1\ncow 0.5 0.5 0.1 0.1\n1.5 0.5 0.5 0.1 0.1\n"})
    annotations = found(root).halves["train"].read()["annotations"]
    assert [annotation["category_id"] for annotation in annotations[:3]] == [7, "cow", "1.5"]


def test_an_image_without_a_label_file_has_no_boxes(tmp_path: Path) -> None:
    root = write(write_yolo_files(tmp_path / "set", {"labels": "images"}), {"data.yaml": NAMES})
    (root / "labels" / "0.txt").unlink()
    content = found(root).halves["train"].read()
    assert len(content["images"]) == 2
    assert {annotation["image_id"] for annotation in content["annotations"]} == {2}


@pytest.mark.parametrize("lost", [False, True])
def test_an_image_whose_label_file_cannot_be_read_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    root = write(write_yolo_files(tmp_path / "set", BELOW), {"data.yaml": NAMES})
    if lost:
        (root / "images" / "train" / "0.png").unlink()
    source, read = found(root), Path.read_bytes

    def refuse(file: Path) -> bytes:
        if file.name == "0.txt":
            raise PermissionError(13, "Permission denied")
        return read(file)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    outcome = normalise(source)
    (place,) = places(outcome, "annotation-without-image" if lost else "labels-unreadable")
    assert place.startswith("labels/train/0.txt: ") and "Permission denied" in place
    assert len(outcome.report.errors) == 1
    content = outcome.halves["train"].content
    assert (len(content["images"]), len(content["annotations"])) == (1, 2)


def test_a_label_file_without_an_image_is_handed_on(tmp_path: Path) -> None:
    root = write(write_yolo_files(tmp_path / "set", BELOW), {"data.yaml": NAMES})
    (root / "images" / "val" / "3.png").unlink()
    write(root, {"labels/val/readme.txt": "of no image", "labels/val/classes.txt": "ant\n"})
    source = found(root)
    content = source.halves["val"].read()
    lost = [annotation for annotation in content["annotations"] if annotation["image_id"] == "labels/val/3.txt"]
    assert [annotation[PLACE] for annotation in lost] == ["labels/val/3.txt line 1", "labels/val/3.txt line 2"]
    assert len(content["annotations"]) == 4
    assert root / "labels" / "val" / "3.txt" in source.halves["val"].files
    assert len(source.halves["train"].read()["annotations"]) == 4


def test_an_image_that_is_not_there_is_handed_on(tmp_path: Path) -> None:
    root = write_yolo_files(tmp_path / "set", {"labels": "images"})
    write(root, {"data.yaml": f"train: train.txt\n{NAMES}", "train.txt": "images/0.png\nimages/gone.png\n"})
    images = found(root).halves["train"].read()["images"]
    assert images[1] == {"id": 2, "file_name": "images/gone.png"}


@pytest.mark.parametrize("line", ["//images/gone.png", "\0", "a\0b.png", "/", "x" * 300, "..", "C:\\gone.png"])
def test_any_line_may_be_in_a_list(tmp_path: Path, line: str) -> None:
    root = write_yolo_files(tmp_path / "set", {"labels": "images"})
    write(root, {"data.yaml": f"train: train.txt\n{NAMES}", "train.txt": f"images/0.png\n{line}\n"})
    source = found(root)
    images = source.halves["train"].read()["images"]
    assert [image["width"] for image in images if "width" in image] == [SIZE[0]]
    assert (len(images), len(source.fingerprint())) == (2, 64)


def test_an_image_that_cannot_be_read_is_handed_on(tmp_path: Path) -> None:
    root = write(write_yolo_files(tmp_path / "set", {"labels": "images"}), {"data.yaml": NAMES})
    write(root, {"images/0.png": "no image"})
    content = found(root).halves["train"].read()
    assert content["images"][0] == {"id": 1, "file_name": "images/0.png"}
    assert {annotation["image_id"] for annotation in content["annotations"]} == {2}


def test_sizes_are_those_of_the_upright_image(tmp_path: Path) -> None:
    root = write(write_yolo_files(tmp_path / "set", {"labels": "images"}), {"data.yaml": NAMES})
    image = Image.new("RGB", SIZE)
    exif = image.getexif()
    exif[ExifTags.Base.Orientation] = 6
    image.save(root / "images" / "0.png", exif=exif)
    write(root, {"labels/0.txt": "0 0.5 0.5 0.5 0.25"})
    content = found(root).halves["train"].read()
    assert (content["images"][0]["width"], content["images"][0]["height"]) == SIZE[::-1]
    assert content["annotations"][0]["bbox"] == [12, 24, 24, 16]


def test_names_are_strings(tmp_path: Path) -> None:
    root = write_yolo_files(tmp_path / "set", {"labels": "images"})
    write(root, {"data.yaml": "names: [no, 1, 'Käfer']"})
    content = found(root).halves["train"].read()
    assert content["categories"] == [{"id": 0, "name": "no"}, {"id": 1, "name": "1"}, {"id": 2, "name": "Käfer"}]


def test_classes_without_names_are_called_by_their_numbers(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    root = write_yolo_files(tmp_path / "set", {"labels": "images"})
    categories = found(root).halves["train"].read()["categories"]
    assert categories == [{"id": number, "name": str(number)} for number in range(3)]
    assert "does not name its classes" in log.text


def test_classes_may_be_named_in_label_files(tmp_path: Path) -> None:
    root = write_yolo_files(tmp_path / "set", BELOW)
    names = ("ant", "cat", "dog")
    for file in root.glob("labels/*/*.txt"):
        lines = [line.partition(" ") for line in file.read_text().splitlines()]
        file.write_text("\n".join(f"{names[int(number)]} {rest}" for number, _, rest in lines))
    (root / "labels" / "val" / "2.txt").write_text("dog 0.5 0.5 0.1 0.1")
    half = found(root).halves["val"].read()
    assert [category["name"] for category in half["categories"]] == ["ant", "cat", "dog"]
    assert ("2.png", "dog", 28.8, 21.6, 6.4, 4.8) in boxes(half)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"train: images/gone\n{NAMES}", r"images to train on are in images/gone, which is not there"),
        (f"train: images\nval: ../valid/images\n{NAMES}", r"images to evaluate on are in \.\./valid/images.*'val'"),
        ("train: images\nnc: 4\nnames: [ant, cat, dog]", "'names' has 3 classes, 'nc' says 4"),
        ("names: {0: ant, 2: cat}", "'names' is not numbered from 0 on: 0, 2"),
        ("names: {a: ant}", "'names' is not by number"),
        ("names: ant", "'names' is no list"),
        ("names: [ant", "is not YAML"),
        ("a: " + "[" * 5000, "is not YAML"),
    ],
)
def test_what_is_wrong_with_a_yaml_file(tmp_path: Path, text: str, message: str) -> None:
    write(write_yolo_files(tmp_path / "set", {"labels": "images"}), {"data.yaml": text})
    with pytest.raises(InputError, match=rf"data\.yaml.*{message}"):
        found(tmp_path / "set")


def test_a_test_folder_that_is_not_there_is_said(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    root = write_yolo_files(tmp_path / "set", SIDE_BY_SIDE)
    write(root, {"data.yaml": f"train: train/images\nval: valid/images\ntest: ../test/images\n{NAMES}"})
    assert list(found(root).halves) == ["train", "val"]
    assert "'test' is left out, as there is no ../test/images" in log.text


def test_images_without_any_label_file_are_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "set", {"data.yaml": f"train: images\n{NAMES}"})
    write_images(root / "images", coco_content())
    with pytest.raises(InputError, match=r"None of the images .*has a label file, such as 0\.txt for images/0\.png"):
        found(root)
    for image in root.glob("images/*"):
        image.unlink()
    with pytest.raises(InputError, match="has no images"):
        found(root)


def test_a_label_file_that_may_be_of_several_images_is_refused(tmp_path: Path) -> None:
    root = write_yolo_files(tmp_path / "set", {"a": "one", "b": "one"})
    write(root, {"data.yaml": NAMES, "b/0.txt": ""})
    with pytest.raises(InputError, match=r"0\.png may belong to several label files: a/0\.txt, b/0\.txt"):
        found(root)


def test_names_that_differ_are_refused(tmp_path: Path) -> None:
    root = write_yolo_files(tmp_path / "set", {"train": "train", "val": "val"})
    write(root, {"train/classes.txt": "ant\ncat", "val/classes.txt": "cat\nant"})
    with pytest.raises(InputError, match=r"class names, which differ: train/classes\.txt, val/classes\.txt"):
        found(root)


def test_other_yaml_files_do_not_matter(tmp_path: Path) -> None:
    root = write(write_yolo_files(tmp_path / "set", {"labels": "images"}), {"data.yaml": NAMES})
    write(root, {"hyp.yaml": "lr0: 0.01", "model.yaml": "nc: 80\nbackbone: []", "ci.yml": "a: [", "list.yaml": "- a"})
    assert len(found(root).halves["train"].read()["annotations"]) == 4


def test_coco_files_come_first(tmp_path: Path) -> None:
    root = write(write_yolo_files(tmp_path / "set", {"labels": "images"}), {"data.yaml": NAMES})
    assert found(write_coco_files(root, {"train.json": "images"})).kind == "COCO"
