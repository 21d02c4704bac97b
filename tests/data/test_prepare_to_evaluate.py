"""What is made ready to evaluate on only, and what is said where nothing is left."""

from pathlib import Path
from typing import Any

import pytest

from lite_detr_d2.data.prepare import Prepared, prepare
from lite_detr_d2.data.source import Source
from lite_detr_d2.errors import InputError

from ..helpers import warnings_of_the_package
from .folders import coco_content, write_coco_folder
from .halves import source_of


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_coco_folder(tmp_path / "pets")


def made(source: Source, folder: Path, **options: Any) -> Prepared:
    return prepare(lambda _: source, folder, **options)


def test_to_evaluate_needs_no_training_half(root: Path, tmp_path: Path) -> None:
    train = coco_content()
    train["images"][0]["file_name"] = "not_copied.png"
    source = source_of(root, train=train, val=coco_content())
    prepared = made(source, tmp_path / "work", training=False)
    assert set(prepared.halves) == {"val"}
    assert list(prepared.categories.values()) == ["ant", "cat", "dog"]
    assert "train" not in str(prepared.report.findings)
    assert made(source, tmp_path / "work", training=False) == prepared
    with pytest.raises(InputError, match=r"train: an image file is missing, with 2 boxes: image 1 \(not_copied.png\)"):
        made(source, tmp_path / "work")
    trained = made(source, tmp_path / "work", on_bad="drop")
    assert set(trained.halves) == {"train", "val"}
    with warnings_of_the_package() as messages:
        assert made(source, tmp_path / "work", training=False, keep=True) == trained
    assert messages == []


def test_what_is_wrong_with_the_half_to_evaluate_on_still_counts(root: Path, tmp_path: Path) -> None:
    val = coco_content()
    val["annotations"][0]["bbox"] = [0, 0, -1, 1]
    with pytest.raises(InputError, match="val: a 'bbox' has a negative side"):
        made(source_of(root, train=coco_content(), val=val), tmp_path / "work", training=False)


def test_one_file_without_annotations_is_to_evaluate_on(root: Path, tmp_path: Path) -> None:
    source = source_of(root, train={**coco_content(), "annotations": []})
    prepared = made(source, tmp_path / "work", training=False)
    assert {name: half.num_images for name, half in prepared.halves.items()} == {"val": 4}
    assert [(f.id, f.half) for f in prepared.report.findings] == [("nothing-to-score", "val")]
    with pytest.raises(InputError, match="no annotations to train on"):
        made(source, tmp_path / "work")


def test_to_evaluate_on_a_part_of_one_file_is_said(root: Path, tmp_path: Path) -> None:
    said = "only val.json is evaluated on, as if the rest had been trained on"
    source = source_of(root, train=coco_content())
    trained, other = tmp_path / "trained", tmp_path / "other"
    made(source, trained)
    for folder, count in ((trained, 0), (other, 1)):
        with warnings_of_the_package() as messages:
            assert made(source, folder, training=False, keep=True).halves["val"].num_images == 1
        assert sum(said in message for message in messages) == count


@pytest.mark.parametrize(
    ("bbox", "on_bad", "said"),
    [
        ([5, 5, 0, 0], "error", "a 'bbox' has no area: left out (8)"),
        ([5, 5, -1, 2], "drop", "dropped: a 'bbox' has a negative side (8)"),
    ],
)
def test_where_nothing_is_left_it_says_why(root: Path, tmp_path: Path, bbox: list[int], on_bad: str, said: str) -> None:
    train = coco_content()
    train["annotations"] = [{**annotation, "bbox": bbox} for annotation in train["annotations"]]
    with pytest.raises(InputError) as caught:
        made(source_of(root, train=train, val=coco_content()), tmp_path / "work", on_bad=on_bad)
    assert "train: there are no annotations to train on" in str(caught.value)
    assert f"train: {said}" in str(caught.value)
    assert "--on-bad drop" not in str(caught.value)
