"""A folder in COCO format becomes a pair of detectron2 datasets."""

import json
import logging
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from lite_detr_d2.data import register_coco_folder
from lite_detr_d2.errors import InputError

from .folders import coco_content, write_coco_folder, write_coco_layout, write_single_file_folder


def test_a_folder_is_registered(tmp_path: Path) -> None:
    folder = register_coco_folder(write_coco_folder(tmp_path / "pets_a", val=coco_content(images=2)))
    assert (folder.train, folder.val) == ("pets_a_train", "pets_a_val")
    assert folder.classes == ("ant", "cat", "dog")  # in the order of their ids
    assert folder.num_images == {"pets_a_train": 4, "pets_a_val": 2}
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


def test_cocos_own_layout_is_registered(tmp_path: Path) -> None:
    folder = register_coco_folder(write_coco_layout(tmp_path / "pets_i"))
    assert folder.num_images == {"pets_i_train": 4, "pets_i_val": 1}
    train, val = DatasetCatalog.get(folder.train), DatasetCatalog.get(folder.val)
    assert Path(train[3]["file_name"]) == tmp_path / "pets_i" / "train2017" / "3.png"
    assert [Path(image["file_name"]) for image in val] == [tmp_path / "pets_i" / "val2017" / "4.png"]


def test_the_problems_of_cocos_files_name_them(tmp_path: Path) -> None:
    root = write_coco_layout(tmp_path / "pets_j")
    (root / "train2017" / "2.png").unlink()
    (root / "annotations" / "instances_val2017.json").write_text("")
    with pytest.raises(InputError) as error:
        register_coco_folder(root)
    message = str(error.value)
    assert f"instances_train2017.json: an image file is missing in {root / 'train2017'}: image 3 (2.png)" in message
    assert "annotations/instances_val2017.json: the annotation file is empty" in message


def test_a_single_file_is_split(tmp_path: Path) -> None:
    root = write_single_file_folder(tmp_path / "pets_k")
    folder = register_coco_folder(root, split_folder=tmp_path / "halves")
    assert folder.num_images == {"pets_k_train": 4, "pets_k_val": 1}
    images = DatasetCatalog.get(folder.train) + DatasetCatalog.get(folder.val)
    assert {Path(image["file_name"]) for image in images} == set((root / "images").iterdir())
    assert Path(MetadataCatalog.get(folder.val).json_file) == tmp_path / "halves" / "val.json"
    assert register_coco_folder(root, split_folder=tmp_path / "halves", keep_split=True) == folder


def test_a_file_is_in_order_before_it_is_split(tmp_path: Path) -> None:
    root = write_single_file_folder(tmp_path / "pets_l")
    content = coco_content(images=5)
    del content["annotations"][0]["area"]  # wherever its image goes
    content["annotations"][1]["bbox"] = [0, 0, -1, 1]
    (root / "train.json").write_text(json.dumps(content))
    with pytest.raises(
        InputError, match=r"(?s)train\.json: a box has a negative side.*train\.json: .*needs a number 'area'"
    ):
        register_coco_folder(root, split_folder=tmp_path / "halves")
    assert not (tmp_path / "halves").exists()


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("images", "needs a folder images/"),
        ("train.json", "train.json: the annotation file is missing"),
        ("val.json", r"train.json is the only annotation file .* such as val.json, or pass split_folder"),
    ],
)
def test_an_incomplete_folder_is_refused(tmp_path: Path, missing: str, message: str) -> None:
    root = write_coco_folder(tmp_path / "pets_h")
    (root / missing).rename(root / "elsewhere")
    with pytest.raises(InputError, match=message):
        register_coco_folder(root)
