"""Datasets in Pascal VOC's format: whichever way the halves are stated, the boxes are the same."""

from pathlib import Path

import pytest

from lite_detr_d2.data.normalise import normalise
from lite_detr_d2.data.source import PLACE, UNREAD
from lite_detr_d2.errors import InputError

from ..folders import SIZE, coco_content, half_of, write_images, write_voc_files
from ..halves import places
from .helpers import boxes, folders, found, sizes

DEVKIT = {"Annotations": "JPEGImages"}
LISTS = {"ImageSets/Main/train.txt": "0\n1\n", "ImageSets/Main/val.txt": "2\n3\n"}
LAYOUTS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "Roboflow": ({"train": "train", "valid": "valid"}, {}),
    "supervision": (
        {"train/annotations": "train/images", "valid/annotations": "valid/images"},
        {},
    ),
    "below": ({"annotations/train": "images/train", "annotations/val": "images/val"}, {}),
    "lists": ({"Annotations": "JPEGImages", "./Annotations": "./JPEGImages"}, LISTS),
    "lists of a class beside": (
        {"Annotations": "JPEGImages", "./Annotations": "./JPEGImages"},
        {**LISTS, "ImageSets/Main/ant_train.txt": "0  1\n1 -1\n", "ImageSets/Main/trainval.txt": "0\n1\n2\n3\n"},
    ),
    "trainval and test": (
        {"Annotations": "JPEGImages", "./Annotations": "./JPEGImages"},
        {"ImageSets/Main/trainval.txt": "0\n1", "ImageSets/Main/test.txt": "2 1\n3 -1\n"},
    ),
    "folders below": (
        {"Annotations/a": "JPEGImages/a", "Annotations/b": "JPEGImages/b"},
        {"ImageSets/Main/train.txt": "a/0\na/1\n", "ImageSets/Main/val.txt": '"b/2"\nb\\3\n'},
    ),
}


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize("first", [1, 0])
@pytest.mark.parametrize(("layout", "files"), LAYOUTS.values(), ids=LAYOUTS)
def test_two_halves(tmp_path: Path, layout: dict[str, str], files: dict[str, str], first: int) -> None:
    root = write(write_voc_files(tmp_path / "set", layout, first=first), files)
    original = coco_content()
    if not first:  # what shows it: a box at the edge, of a half that need not be the one that is read
        original["annotations"][-1]["bbox"][0] = 0
        file = next(root.rglob("3.xml"))
        file.write_text(file.read_text().replace("<xmin>24</xmin>", "<xmin>0</xmin>"))
        original["annotations"][-1]["bbox"][2] += 24
    source = found(root)
    assert source.kind == "Pascal VOC"
    assert list(source.halves) == ["train", "val"]
    for place, (half, folder) in enumerate(zip(source.halves.values(), layout.values(), strict=True)):
        content = half.read()
        assert boxes(content) == boxes(half_of(original, range(2 * place, 2 * place + 2)))
        assert content["categories"] == [{"id": 1, "name": "ant"}, {"id": 2, "name": "cat"}, {"id": 3, "name": "dog"}]
        assert sizes(content) == {SIZE}
        assert folders(half, source) == {Path(folder).as_posix()}
        assert {file.name for file in half.files} >= {f"{2 * place}.xml", f"{2 * place + 1}.xml"}


@pytest.mark.parametrize("files", [{}, {"ImageSets/Main/default.txt": "0\n1\n"}, {"labelmap.txt": "ant:1,2,3::\n"}])
@pytest.mark.parametrize("layout", [DEVKIT, {"Annotations": "images"}, {"xml": "photos"}, {".": "."}])
def test_one_half_is_trained_on(tmp_path: Path, layout: dict[str, str], files: dict[str, str]) -> None:
    source = found(write(write_voc_files(tmp_path / "set", layout), files))
    assert list(source.halves) == ["train"]
    assert boxes(source.halves["train"].read()) == boxes(coco_content(images=2))


def test_the_devkit_may_be_entered(tmp_path: Path) -> None:
    write(write_voc_files(tmp_path / "VOCdevkit" / "VOC2007", {"Annotations": "JPEGImages"}), {})
    write(tmp_path / "VOCdevkit" / "VOC2007", {"ImageSets/Main/train.txt": "0\n", "ImageSets/Main/val.txt": "1\n"})
    assert list(found(tmp_path / "VOCdevkit").halves) == ["train", "val"]


@pytest.mark.parametrize(
    ("corners", "box"),
    [
        # Whole numbers count pixels from 1; edges from 0 show by one that starts before 1, or by decimal points.
        ("1 1 16 12", [0, 0, 16, 12]),
        ("0 1 16 12", [0, 1, 16, 11]),
        ("5.5 6.25 20.5 12.0", [5.5, 6.25, 15, 5.75]),
        ("5.0 6.0 21.0 18.0", [5, 6, 16, 12]),
    ],
)
def test_corners(tmp_path: Path, corners: str, box: list[float]) -> None:
    names = ("xmin", "ymin", "xmax", "ymax")
    inner = "".join(f"<{name}> {value}\n</{name}>" for name, value in zip(names, corners.split(), strict=True))
    text = f"<annotation><object><name>ant</name><bndbox>{inner}</bndbox></object></annotation>"
    root = write(tmp_path / "set", {"0.xml": text})
    write_images(root, coco_content(images=1))
    content = found(root).halves["train"].read()
    assert content["annotations"][0]["bbox"] == box
    assert content["annotations"][0]["area"] == box[2] * box[3]
    assert sizes(content) == {SIZE}  # of the image, as the file does not say


def test_one_broken_corner_does_not_change_how_all_are_read(tmp_path: Path) -> None:
    root = write_voc_files(tmp_path / "set", DEVKIT)
    file = root / "Annotations" / "0.xml"
    file.write_text(file.read_text().replace("<xmin>5<", "<xmin>-3<").replace("<ymin>7<", "<ymin>7.5<", 1))
    content = found(root).halves["train"].read()
    assert boxes(content)[1:] == boxes(coco_content(images=2))[1:]
    assert content["annotations"][0]["bbox"] == [-4, 6.5, 24, 11.5]


OBJECT = "<object><name>ant</name><bndbox><xmin>{}</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox></object>"


@pytest.mark.parametrize(
    ("text", "bbox", "category", "place"),
    [
        (f"<annotation>{OBJECT.format('x')}</annotation>", ["x", "2", "3", "4"], "ant", " object 1"),
        (f"<annotation>{OBJECT.format('')}</annotation>", ["", "2", "3", "4"], "ant", " object 1"),
        ("<annotation><object><name>ant</name></object></annotation>", [None] * 4, "ant", " object 1"),
        (
            f"<annotation>{OBJECT.format(1).replace('<name>ant</name>', '')}</annotation>",
            [0, 1, 3, 3],
            None,
            " object 1",
        ),
    ],
)
def test_what_cannot_be_read_is_handed_on(
    tmp_path: Path, text: str, bbox: list[object], category: str | None, place: str
) -> None:
    root = write(write_voc_files(tmp_path / "set", DEVKIT), {"Annotations/1.xml": text})
    content = found(root).halves["train"].read()
    last = content["annotations"][-1]
    names = {c["id"]: c["name"] for c in content["categories"]}
    assert (last["bbox"], names.get(last["category_id"])) == (bbox, category)
    assert last[PLACE].startswith(f"Annotations/1.xml{place}")
    assert [image["file_name"] for image in content["images"]] == ["JPEGImages/0.png", "JPEGImages/1.png"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<annotation><object>", "no element found: line 1, column 20"),
        ("", "no element found: line 1, column 0"),
        ("<annotations/>", "it holds <annotations>, not <annotation>"),
        (
            '<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>',
            "it defines entities, which can grow without limit",
        ),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', "unknown encoding: "),
    ],
)
def test_an_image_whose_file_cannot_be_read_is_not_taken_for_an_empty_one(
    tmp_path: Path, text: str, reason: str
) -> None:
    root = write(write_voc_files(tmp_path / "set", DEVKIT), {"Annotations/1.xml": text})
    outcome = normalise(found(root))
    (place,) = places(outcome, "labels-unreadable")
    assert place.startswith(f"Annotations/1.xml ({reason}")
    content = outcome.halves["train"].content
    assert [image["file_name"] for image in content["images"]] == ["JPEGImages/0.png"]
    assert len(content["annotations"]) == 2
    assert outcome.report.errors == tuple(f for f in outcome.report.errors if f.id == "labels-unreadable")


def test_images_without_a_file(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    root = write_voc_files(tmp_path / "set", DEVKIT)
    (root / "Annotations" / "1.xml").unlink()
    assert len(found(root).halves["train"].read()["images"]) == 1
    assert "1 images without an XML file are left out (JPEGImages/1.png)" in log.text
    # In a list, it is missing.
    content = found(write(root, {"ImageSets/Main/train.txt": "0\n1\n"})).halves["train"].read()
    assert len(content["images"]) == 2
    assert content["images"][-1][UNREAD] == "1 has no XML file"
    # Of a half without annotations, none is.
    write(root, {"ImageSets/Main/train.txt": "0\n", "ImageSets/Main/test.txt": "1\n"})
    content = found(root).halves["val"].read()
    assert (len(content["images"]), content["annotations"]) == (1, [])


def test_files_without_an_image_are_handed_on(tmp_path: Path) -> None:
    root = write_voc_files(tmp_path / "set", DEVKIT)
    (root / "JPEGImages" / "1.png").unlink()
    images = found(root).halves["train"].read()["images"]
    assert images[1] == {"id": 2, "file_name": "1.png", "width": SIZE[0], "height": SIZE[1]}


def test_the_name_in_the_file_may_be_old(tmp_path: Path) -> None:
    root = write_voc_files(tmp_path / "set", DEVKIT)
    file = root / "Annotations" / "1.xml"
    file.write_text(file.read_text().replace("1.png", "before.jpg"))
    (root / "JPEGImages" / "0.bmp").write_bytes(b"another of the same stem")
    images = found(root).halves["train"].read()["images"]
    assert [image["file_name"] for image in images] == ["JPEGImages/0.png", "JPEGImages/1.png"]


@pytest.mark.parametrize("size", ["<width>0</width><height>0</height>", "<width>x</width>", ""])
def test_a_size_that_is_not_stated_is_the_images(tmp_path: Path, size: str) -> None:
    root = write_voc_files(tmp_path / "set", DEVKIT)
    file = root / "Annotations" / "1.xml"
    file.write_text(file.read_text().replace("<width>64</width><height>48</height>", size))
    assert sizes(found(root).halves["train"].read()) == {SIZE}


def test_lists_of_something_else_are_refused(tmp_path: Path) -> None:
    root = write(write_voc_files(tmp_path / "set", DEVKIT), {"ImageSets/Main/train.txt": "a\nb\n"})
    with pytest.raises(InputError, match=r"None of the names in ImageSets/Main/train\.txt is that of an XML file"):
        found(root)
