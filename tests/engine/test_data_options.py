"""Where the data is, as the command line says it."""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from lite_detr_d2.engine import argument_parser, setup
from lite_detr_d2.errors import InputError
from tests.data.folders import SIZE, coco_content, write_coco_folder, write_images

TINY = Path(__file__).parent / "tiny.yaml"


def parse(tmp_path: Path, *arguments: object) -> argparse.Namespace:
    words = ["--config-file", str(TINY), *map(str, arguments), "OUTPUT_DIR", str(tmp_path / "output")]
    return argument_parser("").parse_args(words)


def image_ids(name: str) -> set[int]:
    return {image["image_id"] for image in DatasetCatalog.get(name)}


def write_three_halves(root: Path) -> Path:
    content = coco_content(images=6)
    for half, identifiers in (("train", (1, 2, 3)), ("valid", (4, 5)), ("test", (6,))):
        part = {
            **content,
            "images": [image for image in content["images"] if image["id"] in identifiers],
            "annotations": [box for box in content["annotations"] if box["image_id"] in identifiers],
        }
        write_images(root / half, part)
        (root / half / "_annotations.coco.json").write_text(json.dumps(part))
    return root


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dataset", "a", "--train-json", "b"), "--dataset a and --train-json: give one of the two"),
        (("--dataset", "a", "--images", "b"), "--dataset a and --images: give one of the two"),
        (("--val-json", "b"), "--val-json needs --train-json"),
        (("--images", "b"), "--images needs --train-json"),
        (("--eval-only", "--images", "b"), "--images needs --train-json; to evaluate only, --eval-only and --val-json"),
        (("--dataset", "a", "--split", "test"), "--split test is kept for the end: it needs --eval-only"),
        (("--on-bad", "drop"), "--on-bad drop needs --dataset"),
        (("--eval-only", "--split", "test"), "--split test needs --dataset"),
    ],
)
def test_options_that_contradict_each_other_are_named(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        setup(parse(tmp_path, *arguments))


def test_files_that_lie_anywhere(tmp_path: Path) -> None:
    content = coco_content()
    write_images(tmp_path / "pictures", content)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "boxes.json").write_text(json.dumps(content))
    files = ("--train-json", tmp_path / "a" / "boxes.json", "--val-json", tmp_path / "b" / "boxes.json")
    cfg = setup(parse(tmp_path, *files, "--images", tmp_path / "pictures"))
    assert image_ids(cfg.DATASETS.TRAIN[0]) == image_ids(cfg.DATASETS.TEST[0]) == {1, 2, 3, 4}
    assert cfg.MODEL.LITE_DETR.NUM_CLASSES == 3


def test_one_file_that_lies_anywhere_is_evaluated_on(tmp_path: Path) -> None:
    content = coco_content(images=5)
    write_images(tmp_path / "pictures", content)
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    files = ("--val-json", tmp_path / "boxes.json", "--images", tmp_path / "pictures")
    cfg = setup(parse(tmp_path, "--eval-only", *files))
    assert (cfg.DATASETS.TRAIN, image_ids(cfg.DATASETS.TEST[0])) == ((), {1, 2, 3, 4, 5})
    with pytest.raises(InputError, match="boxes.json has no test half beside"):
        setup(parse(tmp_path, "--eval-only", "--split", "test", *files))


def test_one_file_that_lies_anywhere_is_split(tmp_path: Path) -> None:
    content = coco_content(images=5)
    write_images(tmp_path / "pictures", content)
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    cfg = setup(parse(tmp_path, "--train-json", tmp_path / "boxes.json", "--images", tmp_path / "pictures"))
    train, val = image_ids(cfg.DATASETS.TRAIN[0]), image_ids(cfg.DATASETS.TEST[0])
    assert (len(train), len(val), train | val) == (4, 1, {1, 2, 3, 4, 5})


def test_a_zip_is_unpacked_to_the_output_folder_once(tmp_path: Path) -> None:
    root = write_coco_folder(tmp_path / f"{tmp_path.name}_zipped")
    archive = Path(shutil.make_archive(str(root), "zip", root))
    shutil.rmtree(root)
    for _ in range(2):
        cfg = setup(parse(tmp_path, "--dataset", archive))
        (image, *_) = DatasetCatalog.get(cfg.DATASETS.TRAIN[0])
        assert Path(image["file_name"]).is_relative_to(tmp_path / "output" / "dataset")
    assert {path.name for path in tmp_path.iterdir()} == {archive.name, "output"}


def test_the_third_half_is_evaluated_on_when_asked_for(tmp_path: Path) -> None:
    root = write_three_halves(tmp_path / f"{tmp_path.name}_three")
    cfg = setup(parse(tmp_path, "--dataset", root))
    assert image_ids(cfg.DATASETS.TEST[0]) == {4, 5}
    cfg = setup(parse(tmp_path, "--dataset", root, "--eval-only", "--split", "test"))
    assert image_ids(cfg.DATASETS.TEST[0]) == {6}
    assert cfg.DATASETS.TEST[0] == f"{root.name}_test"


def test_a_third_half_that_is_not_there_is_named(tmp_path: Path) -> None:
    root = write_coco_folder(tmp_path / f"{tmp_path.name}_two")
    with pytest.raises(InputError, match=rf"--split test: \S+_two has no test half beside '{root.name}_val'"):
        setup(parse(tmp_path, "--dataset", root, "--eval-only", "--split", "test"))


def test_what_cannot_be_used_is_dropped_when_asked_for(tmp_path: Path) -> None:
    content = coco_content()
    content["annotations"][0]["bbox"] = [1000, 0, 5, 5]
    root = write_coco_folder(tmp_path / f"{tmp_path.name}_bad")
    (root / "train.json").write_text(json.dumps(content))
    with pytest.raises(
        InputError, match=r"'bbox' lies outside its image: annotation 10 of image 1[\s\S]*--on-bad drop"
    ):
        setup(parse(tmp_path, "--dataset", root))
    cfg = setup(parse(tmp_path, "--dataset", root, "--on-bad", "drop"))
    assert sum(len(image["annotations"]) for image in DatasetCatalog.get(cfg.DATASETS.TRAIN[0])) == 7


def test_deep_images_set_the_range_that_all_are_read_by(tmp_path: Path, said: list[str]) -> None:
    root = write_coco_folder(tmp_path / f"{tmp_path.name}_deep")
    for number, largest in enumerate((3000, 100, 900, 4000)):
        values = np.full(SIZE[::-1], largest, dtype=np.uint16)
        Image.fromarray(values).save(root / "images" / f"{number}.png")
    cfg = setup(parse(tmp_path, "--dataset", root))
    assert cfg.INPUT.MAX_VALUE == 4095
    (message,) = (text for text in said if text.startswith("Dataset "))
    assert "bit depth of more than 8 bits: its values are scaled to 8 (4)" in message
    assert "INPUT.MAX_VALUE 4095.0" in message
    assert MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).thing_dataset_id_to_contiguous_id == {1: 0, 3: 1, 7: 2}


def test_an_override_of_the_range_wins(tmp_path: Path) -> None:
    root = write_coco_folder(tmp_path / f"{tmp_path.name}_range")
    arguments = parse(tmp_path, "--dataset", root)
    assert setup(arguments).INPUT.MAX_VALUE == 0
    arguments.opts += ["INPUT.MAX_VALUE", "4095.0"]
    assert setup(arguments).INPUT.MAX_VALUE == 4095


def test_a_folder_without_a_training_half_can_be_evaluated_on(tmp_path: Path) -> None:
    root = write_three_halves(tmp_path / f"{tmp_path.name}_no_train")
    shutil.rmtree(root / "train")
    cfg = setup(parse(tmp_path, "--dataset", root, "--eval-only"))
    assert image_ids(cfg.DATASETS.TEST[0]) == {4, 5}
    with pytest.raises(InputError, match=r"DATASETS\.TRAIN is empty"):
        setup(parse(tmp_path / "other", "--dataset", root))
