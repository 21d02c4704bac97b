"""A folder in COCO format becomes a pair of detectron2 datasets."""

import json
import logging
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from lite_detr_d2.data import register_coco_folder
from lite_detr_d2.errors import InputError

from .folders import coco_content, write_coco_folder


def test_a_folder_is_registered(tmp_path: Path) -> None:
    folder = register_coco_folder(write_coco_folder(tmp_path / "pets_a", val=coco_content(images=2)))
    assert (folder.train, folder.val) == ("pets_a_train", "pets_a_val")
    assert folder.classes == ("ant", "cat", "dog")  # in the order of their ids
    assert MetadataCatalog.get(folder.val).thing_classes == ["ant", "cat", "dog"]
    train, val = DatasetCatalog.get(folder.train), DatasetCatalog.get(folder.val)
    assert (len(train), len(val)) == (4, 2)
    assert Path(train[3]["file_name"]) == tmp_path / "pets_a" / "images" / "3.png"
    assert [annotation["category_id"] for annotation in train[0]["annotations"] + train[1]["annotations"]] == [
        0,
        1,
        2,
        0,
    ]


def test_val_wins_over_test(tmp_path: Path) -> None:
    root = write_coco_folder(tmp_path / "pets_b", val_name="test")
    write_coco_folder(root, val=coco_content(images=1))
    assert len(DatasetCatalog.get(register_coco_folder(root).val)) == 1


def test_test_stands_in_for_val(tmp_path: Path) -> None:
    root = write_coco_folder(tmp_path / "pets_c", val=coco_content(images=2), val_name="test")
    assert len(DatasetCatalog.get(register_coco_folder(root).val)) == 2


def test_registering_again_changes_nothing(tmp_path: Path) -> None:
    root = write_coco_folder(tmp_path / "pets_d")
    assert register_coco_folder(root) == register_coco_folder(f"{root}/../pets_d")


def test_a_second_folder_of_the_same_name_is_refused(tmp_path: Path) -> None:
    register_coco_folder(write_coco_folder(tmp_path / "one" / "pets_e"))
    with pytest.raises(InputError, match=r"'pets_e_train' is registered already.*Rename the folder"):
        register_coco_folder(write_coco_folder(tmp_path / "two" / "pets_e"))


def test_the_problems_of_both_files_are_listed(tmp_path: Path) -> None:
    train, val = coco_content(), coco_content()
    train["annotations"][0]["bbox"] = [0, 0, -1, 1]
    val["annotations"][0]["image_id"] = 77
    val["categories"][0]["name"] = "lion"
    root = write_coco_folder(tmp_path / "pets_f")
    (root / "train.json").write_text(json.dumps(train))
    (root / "val.json").write_text(json.dumps(val))
    with pytest.raises(InputError) as error:
        register_coco_folder(root)
    message = str(error.value)
    assert str(root) in message
    assert "train.json: a box has a negative side" in message
    assert "val.json: an annotation's image is not in 'images': annotation 10 (image 77)" in message
    assert "the same categories; they differ in 3: cat, 3: lion" in message
    assert "pets_f_train" not in DatasetCatalog


def test_harmless_problems_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train = coco_content()
    train["annotations"][0]["bbox"] = [3, 3, 0, 5]
    root = write_coco_folder(tmp_path / "pets_g", train=train)
    logger = logging.getLogger("lite_detr_d2")
    logger.addHandler(caplog.handler)  # its messages do not propagate once detectron2 has set it up
    try:
        register_coco_folder(root)
    finally:
        logger.removeHandler(caplog.handler)
    assert "pets_g/train.json: a box has no area" in caplog.text
    assert "annotation 10 of image 1" in caplog.text


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("images", "needs a folder images/"),
        ("train.json", "train.json: the annotation file is missing"),
        ("val.json", "val.json: "),
    ],
)
def test_an_incomplete_folder_is_refused(tmp_path: Path, missing: str, message: str) -> None:
    root = write_coco_folder(tmp_path / "pets_h")
    (root / missing).rename(root / "elsewhere")
    with pytest.raises(InputError, match=message):
        register_coco_folder(root)
