"""A dataset becomes datasets of detectron2."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from lite_detr_d2.data import CocoFolder, find_source, is_name_of, register_coco_folder, register_source
from lite_detr_d2.data.prepare import prepare
from lite_detr_d2.errors import InputError
from tests.helpers import warnings_of_the_package

from .folders import coco_content, write_coco_folder, write_single_file_folder
from .halves import source_in, source_of
from .probes import boxes_trained_on, perfect_ap


@pytest.fixture(autouse=True)
def _registry() -> Iterator[None]:
    before = set(DatasetCatalog)
    yield
    for name in set(DatasetCatalog) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def files(folder: CocoFolder, half: str = "train") -> set[Path]:
    return {Path(image["file_name"]) for image in DatasetCatalog.get(getattr(folder, half))}


def test_a_folder_is_registered(tmp_path: Path) -> None:
    folder = register_coco_folder(write_coco_folder(tmp_path / "pets", val=coco_content(images=2)))
    assert (folder.train, folder.val, folder.test) == ("pets_train", "pets_val", "")
    assert folder.classes == ("ant", "cat", "dog")  # in the order of their ids
    assert folder.num_images == {"pets_train": 4, "pets_val": 2}
    assert folder.max_value == 0
    metadata = MetadataCatalog.get(folder.val)
    assert metadata.thing_classes == ["ant", "cat", "dog"]
    assert metadata.thing_dataset_id_to_contiguous_id == {1: 0, 3: 1, 7: 2}
    assert Path(metadata.json_file).name == "val.json"
    train, val = DatasetCatalog.get(folder.train), DatasetCatalog.get(folder.val)
    assert (len(train), len(val)) == (4, 2)
    assert Path(train[3]["file_name"]) == tmp_path / "pets" / "images" / "3.png"
    classes = [annotation["category_id"] for annotation in train[0]["annotations"] + train[1]["annotations"]]
    assert classes == [0, 1, 2, 0]
    assert boxes_trained_on(folder.train) == 8
    assert perfect_ap(folder.val, coco_content(), tmp_path) == pytest.approx(100)


def test_a_third_half_is_registered(tmp_path: Path) -> None:
    root = write_coco_folder(tmp_path / "pets")
    source = source_of(root, train=coco_content(), val=coco_content(images=2), test=coco_content(images=1))
    folder = register_source(lambda _: source)
    assert (folder.val, folder.test) == ("pets_val", "pets_test")
    assert folder.num_images == {"pets_train": 4, "pets_val": 2, "pets_test": 1}


@pytest.mark.parametrize("half", ["val", "test"])
def test_a_half_to_evaluate_on_alone_is_registered(tmp_path: Path, half: str) -> None:
    root = write_coco_folder(tmp_path / "pets")
    source = source_of(root, **{half: coco_content(images=2)})
    folder = register_source(lambda _: source)
    assert (folder.train, folder.val) == ("", f"pets_{half}")
    assert perfect_ap(folder.val, coco_content(), tmp_path) == pytest.approx(100)


def test_registering_again_changes_nothing(tmp_path: Path) -> None:
    root = write_coco_folder(tmp_path / "pets")
    folder = register_coco_folder(root)
    MetadataCatalog.get(folder.train).thing_colors = [(1, 2, 3)] * 3
    assert register_coco_folder(f"{root}/../pets") == folder
    assert MetadataCatalog.get(folder.train).thing_colors == [(1, 2, 3)] * 3


def test_what_is_said_is_said_again_of_what_is_found_again(tmp_path: Path) -> None:
    content = coco_content()
    content["annotations"][0]["area"] = 0
    root = write_coco_folder(tmp_path / "pets", train=content)
    with warnings_of_the_package() as messages:
        for _ in range(2):
            register_coco_folder(root, split_folder=tmp_path / "work")
    first, second = messages
    assert first == second
    assert first.startswith(f"Dataset {root}: train: 'area' is missing")


@pytest.mark.parametrize("name", ["coco_2017", "voc_2007", "coco_2014"])
@pytest.mark.parametrize("linked", [False, True])
def test_the_name_of_a_dataset_that_is_known_gets_a_number(tmp_path: Path, name: str, linked: bool) -> None:
    known = {dataset: MetadataCatalog.get(dataset).as_dict() for dataset in DatasetCatalog if dataset.startswith(name)}
    assert known
    root = write_coco_folder(tmp_path / name)
    if linked:
        (tmp_path / "link").symlink_to(root)
        root = tmp_path / "link"
    folder = register_coco_folder(root)
    assert (folder.train, folder.val) == (f"{name}_2_train", f"{name}_2_val")
    assert register_coco_folder(root) == folder
    assert boxes_trained_on(folder.train) == 8
    assert perfect_ap(folder.val, coco_content(), tmp_path) == pytest.approx(100)
    for dataset, metadata in known.items():
        assert MetadataCatalog.get(dataset).as_dict() == metadata


@pytest.mark.parametrize("name", ["link", "coco_2017"])
def test_a_link_is_the_folder_that_it_leads_to(tmp_path: Path, name: str) -> None:
    root = write_coco_folder(tmp_path / "pets")
    (tmp_path / name).symlink_to(root)
    folder = register_coco_folder(tmp_path / name)
    assert folder.train == "pets_train"
    assert register_coco_folder(root) == folder
    assert boxes_trained_on(folder.train) == 8


def test_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    roots = [write_coco_folder(tmp_path / parent / "pets") for parent in ("one", "two", "three")]
    folders = [register_coco_folder(root) for root in roots]
    assert [folder.train for folder in folders] == ["pets_train", "pets_2_train", "pets_3_train"]
    assert [register_coco_folder(root) for root in roots] == folders
    for root, folder in zip(roots, folders, strict=True):
        assert files(folder) == set((root / "images").iterdir())


@pytest.mark.parametrize("work", ["work", None])
def test_changed_content_is_registered_anew(tmp_path: Path, work: str | None) -> None:
    options = {"split_folder": tmp_path / work} if work else {}
    root = write_coco_folder(tmp_path / "pets")
    assert len(DatasetCatalog.get(register_coco_folder(root, **options).train)) == 4
    for change in ({"images": 3}, {"images": 2}):
        content = coco_content(**change)
        for category in content["categories"]:  # other ids for the same names
            category["id"] += change["images"]
        for box in content["annotations"]:
            box["category_id"] += change["images"]
        write_coco_folder(root, train=content, val=content)
        folder = register_coco_folder(root, **options)
        assert folder.train == "pets_train"
        assert folder.num_images["pets_train"] == change["images"]
        assert boxes_trained_on(folder.train) == 2 * change["images"]
        assert perfect_ap(folder.val, content, tmp_path) == pytest.approx(100)


def test_other_classes_are_registered_anew(tmp_path: Path) -> None:
    root = write_coco_folder(tmp_path / "pets")
    register_coco_folder(root, split_folder=tmp_path / "work")
    content = coco_content()
    content["categories"].append({"id": 9, "name": "emu"})
    write_coco_folder(root, train=content)
    folder = register_coco_folder(root, split_folder=tmp_path / "work")
    assert folder.classes == ("ant", "cat", "dog", "emu")
    assert MetadataCatalog.get(folder.val).thing_classes == ["ant", "cat", "dog", "emu"]
    assert len(DatasetCatalog.get(folder.val)) == 4


def test_a_half_that_is_no_more_is_forgotten(tmp_path: Path) -> None:
    root = write_coco_folder(tmp_path / "pets", val_name="test")
    write_coco_folder(root)
    assert register_source(lambda _: source_in(root, "train", "val", "test")).test == "pets_test"
    assert register_source(lambda _: source_in(root, "train", "val")).test == ""
    assert "pets_test" not in DatasetCatalog
    assert "pets_test" not in MetadataCatalog.list()


def test_an_annotation_file_gives_its_name(tmp_path: Path) -> None:
    root = write_coco_folder(tmp_path / "pets")
    source = source_in(root, "train", "val")
    folder = register_source(lambda _: type(source)(root / "train.json", "COCO", source.halves))
    assert folder.train == "train_train"


def test_a_single_file_is_split(tmp_path: Path) -> None:
    root = write_single_file_folder(tmp_path / "pets")
    folder = register_coco_folder(root, split_folder=tmp_path / "work")
    assert folder.num_images == {"pets_train": 4, "pets_val": 1}
    assert files(folder, "train") | files(folder, "val") == set((root / "images").iterdir())
    assert Path(MetadataCatalog.get(folder.val).json_file) == tmp_path / "work" / "val.json"
    assert register_coco_folder(root, split_folder=tmp_path / "work", keep_split=True) == folder


def test_nothing_is_registered_of_what_cannot_be_used(tmp_path: Path) -> None:
    train, val = coco_content(), coco_content()
    train["annotations"][0]["bbox"] = [0, 0, -1, 1]
    val["annotations"][0]["image_id"] = 77
    val["categories"][0]["name"] = "lion"
    root = write_coco_folder(tmp_path / "pets", train=train, val=val)
    with pytest.raises(InputError) as error:
        register_coco_folder(root, split_folder=tmp_path / "work")
    message = str(error.value)
    assert f"The dataset in {root} cannot be used:" in message
    assert "train: a 'bbox' has a negative side: annotation 10 of image 1" in message
    assert "val: an annotation's 'image_id' is not in 'images': annotation 10 (image 77)" in message
    assert "categories contradict each other: id 3 has the names 'cat', 'lion'" in message
    assert "drop" not in message  # it would not do
    assert "pets_train" not in DatasetCatalog
    assert not (tmp_path / "work").exists()


def test_files_that_are_not_used_are_said(tmp_path: Path) -> None:
    root = write_coco_folder(tmp_path / "pets")
    source = source_in(root, "train", "val")
    with warnings_of_the_package() as messages:
        register_source(lambda _: type(source)(root, "COCO", source.halves, (root / "more.json",)))
    (message,) = messages
    assert f"an annotation file beside those of the dataset is not used: {root / 'more.json'}" in message


def test_an_unreadable_half_is_one_of_the_problems(tmp_path: Path) -> None:
    train = coco_content()
    train["annotations"][0]["bbox"] = [0, 0, -1, 1]
    root = write_coco_folder(tmp_path / "pets", train=train)
    (root / "val.json").write_text(json.dumps(coco_content())[:-9])
    with pytest.raises(InputError) as error:
        register_coco_folder(root)
    assert "has a negative side" in str(error.value)
    assert f"val: the annotation file {root / 'val.json'} is not JSON" in str(error.value)


@pytest.mark.parametrize(
    ("name", "half", "is_its"),
    [
        ("mine_train", "train", True),
        ("mine_2_train", "train", True),
        ("mine_12_val", "val", True),
        ("mine_val", "train", False),
        ("mine_test", "test", False),  # it has none
        ("other_mine_train", "train", False),
        ("mine_two_train", "train", False),
        ("coco_2017_train", "train", False),
    ],
)
def test_names_are_known_again_in_another_program(tmp_path: Path, name: str, half: str, is_its: bool) -> None:
    write_coco_folder(tmp_path / "mine")
    prepared = prepare(lambda _: find_source(tmp_path / "mine", tmp_path), tmp_path / "ready")
    assert is_name_of(name, prepared, half) is is_its
