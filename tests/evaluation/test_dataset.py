"""What a detector is evaluated on, and which of its classes are the dataset's."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from detectron2.config import CfgNode

from lite_detr_d2.data import register_coco_folder
from lite_detr_d2.deploy.run import TrainedModel
from lite_detr_d2.errors import InputError
from lite_detr_d2.evaluation.dataset import config_for, named_dataset, own_dataset
from tests.data.folders import coco_content, write_coco_folder, write_single_file_folder
from tests.deploy.exports import load as load_trained
from tests.deploy.exports import write_run
from tests.helpers import warnings_of_the_package


@pytest.fixture
def trained(small_cfg: CfgNode, tmp_path: Path) -> TrainedModel:
    """Of three classes: cat, ant, dog, which is not the order of the ids of the folders of tests."""
    run = write_run(small_cfg, tmp_path / "run", class_names=["cat", "ant", "dog"])
    return load_trained(run)


def renamed(names: dict[str, str], **changes: Any) -> dict[str, Any]:
    """A half whose categories have other names."""
    content = {**coco_content(), **changes}
    categories = [{**each, "name": names.get(each["name"], each["name"])} for each in content["categories"]]
    return {**content, "categories": categories}


def test_classes_are_matched_by_their_names(trained: TrainedModel, tmp_path: Path) -> None:
    data = write_coco_folder(tmp_path / "data")
    with warnings_of_the_package() as said:
        dataset = named_dataset(trained, str(data))
    assert said == []
    by_id = {category["id"]: category["name"] for category in dataset.content["categories"]}
    assert [by_id[category] for category in dataset.categories] == ["cat", "ant", "dog"]
    assert dataset.class_names == ["ant", "cat", "dog"]
    assert [image["image_id"] for image in dataset.images] == [1, 2, 3, 4]
    assert all(Path(image["file_name"]).is_file() for image in dataset.images)
    numbers = [[box["category_id"] for box in image["annotations"]] for image in dataset.images]
    assert numbers == [[0, 1], [2, 0], [1, 2], [0, 1]]


def test_what_only_one_side_knows_is_said(trained: TrainedModel, tmp_path: Path) -> None:
    half = renamed({"dog": "cow"})
    data = write_coco_folder(tmp_path / "data", half, half)
    with warnings_of_the_package() as said:
        dataset = named_dataset(trained, str(data))
    assert said == [
        f"Classes of the model that {data} does not have, whose detections are left out (1): dog",
        f"Classes of {data} that the model does not know, whose objects count as not found (1): cow",
    ]
    assert dataset.categories[2] is None
    assert dataset.class_names == ["ant", "cat", "cow"]


def test_a_dataset_of_other_classes(trained: TrainedModel, tmp_path: Path) -> None:
    half = renamed({"dog": "cow", "cat": "hen", "ant": "bee"})
    data = write_coco_folder(tmp_path / "data", half, half)
    with pytest.raises(
        InputError, match=rf"^{data} has none of the model's classes \(cat, ant, dog\), but bee, hen, c"
    ):
        named_dataset(trained, str(data))


@pytest.mark.parametrize("annotations", ["none", "crowds"])
def test_nothing_to_find(trained: TrainedModel, tmp_path: Path, annotations: str) -> None:
    boxes = [{**box, "iscrowd": 1} for box in coco_content()["annotations"]] if annotations == "crowds" else []
    data = write_coco_folder(tmp_path / "data", None, {**coco_content(), "annotations": boxes})
    with pytest.raises(InputError, match=r"val.json has no boxes to find: there is nothing to score\. Name another"):
        named_dataset(trained, str(data))


def test_halves(trained: TrainedModel, tmp_path: Path) -> None:
    """Three images to validate on, and four to test on."""
    few = {**coco_content(), "images": coco_content()["images"][:3]}
    few["annotations"] = [box for box in few["annotations"] if box["image_id"] < 4]
    data = write_coco_folder(tmp_path / "data", None, few)
    with pytest.raises(InputError, match=rf"^--split test: {data} has no half of that name, but val\.$"):
        named_dataset(trained, str(data), split="test")
    (data / "test.json").write_text(json.dumps(coco_content()))
    assert len(named_dataset(trained, str(data)).images) == 3
    assert len(named_dataset(trained, str(data), split="test").images) == 4
    (data / "val.json").unlink()
    assert len(named_dataset(trained, str(data)).images) == 4


class TestOneFile:
    """Annotations that stand alone."""

    def test_it_is_taken_in_full(self, trained: TrainedModel, tmp_path: Path) -> None:
        data = write_single_file_folder(tmp_path / "data", images=5)
        for path in (data, data / "train.json"):
            assert len(named_dataset(trained, str(path)).images) == 5

    def test_of_what_it_was_trained_on_its_half_is_taken(self, trained: TrainedModel, tmp_path: Path) -> None:
        data = write_single_file_folder(tmp_path / "data", images=5)
        register_coco_folder(data, split_folder=tmp_path / "run" / "dataset")
        own, named = own_dataset(trained), named_dataset(trained, str(data))
        assert own.annotations == tmp_path / "run" / "dataset" / "val.json"
        assert own.images == named.images
        assert len(own.images) == 1


def test_a_training_s_own_classes_are_in_its_order(trained: TrainedModel, tmp_path: Path) -> None:
    """Whatever they have been renamed to."""
    half = renamed({"dog": "cow", "cat": "hen", "ant": "bee"})
    data = write_coco_folder(tmp_path / "data", half, half)
    register_coco_folder(data, split_folder=tmp_path / "run" / "dataset")
    for dataset in (own_dataset(trained), named_dataset(trained, str(data))):
        assert list(dataset.categories) == sorted(category["id"] for category in dataset.content["categories"])


@pytest.mark.parametrize("split", ["val", "test"])
def test_there_is_no_dataset(trained: TrainedModel, tmp_path: Path, split: str) -> None:
    with pytest.raises(InputError, match=rf"no dataset in {tmp_path}/run/dataset, .* name one, --dataset DIR"):
        own_dataset(trained, split=split)


def test_another_number_of_classes(trained: TrainedModel, tmp_path: Path) -> None:
    half = renamed({}, categories=[*coco_content()["categories"], {"id": 9, "name": "cow"}])
    register_coco_folder(write_coco_folder(tmp_path / "data", half, half), split_folder=tmp_path / "run" / "dataset")
    with pytest.raises(
        InputError, match=r"val.json has 4 categories, and the detector 3 classes \(cat, ant, dog\)\. N"
    ):
        own_dataset(trained)


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda _: None], ids=["empty", "a file", "missing"])
def test_it_is_no_dataset(trained: TrainedModel, tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "nothing")
    with pytest.raises(InputError, match="nothing"):
        named_dataset(trained, str(tmp_path / "nothing"))


def test_what_images_need_is_in_the_config(trained: TrainedModel, tmp_path: Path) -> None:
    dataset = replace(named_dataset(trained, str(write_coco_folder(tmp_path / "data"))), max_value=4095.0)
    cfg = config_for(trained.cfg, dataset)
    assert cfg.INPUT.MAX_VALUE == 4095
    assert not cfg.is_frozen()
    assert trained.cfg.INPUT.MAX_VALUE == 0
