"""Pictures of training data, from the command line."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from detectron2.data import DatasetCatalog
from PIL import Image

from lite_detr_d2.errors import InputError
from lite_detr_d2.visualization.training_images import TrainingImage
from tests.data.folders import coco_content, write_coco_folder

from .scripts import PROJECT, TINY, load_script

script = load_script("visualize_data")
ROOT = PROJECT.parents[1]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Eight images of two boxes; one is a crowd."""
    content = coco_content(images=8)
    content["annotations"][3]["iscrowd"] = 1
    return write_coco_folder(tmp_path / "data", content, coco_content(images=8))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[TrainingImage]:
    """What is on the sheet."""
    seen: list[TrainingImage] = []
    draw = script.draw_training_images

    def noted(images: list[TrainingImage], names: Any) -> Any:
        assert names == ["ant", "cat", "dog"]
        seen.extend(images)
        return draw(images, names)

    monkeypatch.setattr(script, "draw_training_images", noted)
    return seen


def run(*arguments: object, config: Path = TINY) -> None:
    script.main(["--config-file", str(config), *map(str, arguments)])


def test_both_pictures(data: Path, tmp_path: Path, drawn: list[TrainingImage], log: pytest.LogCaptureFixture) -> None:
    sheet, statistics = tmp_path / "sheet.png", tmp_path / "statistics.png"
    before = sorted(data.rglob("*"))
    run("--dataset", data, "--output", sheet, "--statistics", statistics, "--images", 5)
    assert Image.open(sheet).size[0] == 4 * 3.6 * 120
    assert Image.open(statistics).size == (1800, 960)
    assert len(drawn) == 5
    assert sorted(data.rglob("*")) == before
    assert not Path("output", "dataset").exists()
    kept, lost = sum(len(image.boxes) for image in drawn), sum(image.lost for image in drawn)
    crowds = sum(image.crowds for image in drawn)
    assert kept + lost + crowds == 10
    assert f"5 images, of seed 7, are in {sheet}: boxes: {kept}" in log.text
    assert (f"cut away or empty: {lost} (" in log.text) == bool(lost)


def test_augmentation_and_seed(data: Path, tmp_path: Path, drawn: list[TrainingImage]) -> None:
    """Sizes are of the config; a crop may lose boxes; the same seed is the same picture."""
    options = ("--dataset", data, "--output", tmp_path / "sheet.png", "--images", 30)
    run(*options, "--seed", 3, "INPUT.CROP.ENABLED", "True", "INPUT.CROP.SIZE", "[20, 24]")
    cropped = list(drawn)
    assert any(image.lost for image in cropped)
    assert all(min(image.pixels.shape[:2]) in (56, 64) for image in cropped)
    drawn.clear()
    run(*options, "--seed", 3, "INPUT.CROP.ENABLED", "True", "INPUT.CROP.SIZE", "[20, 24]")
    assert [image.caption() for image in drawn] == [image.caption() for image in cropped]
    assert all((one.pixels == other.pixels).all() for one, other in zip(drawn, cropped, strict=True))
    drawn.clear()
    run(*options, "--seed", 3, "INPUT.CROP.ENABLED", "False")
    assert not any(image.lost for image in drawn)
    assert {image.pixels.shape[:2] for image in drawn} == {(56, 75), (64, 85)}


REGISTERS = """
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

DatasetCatalog.register("of_mine", lambda: [{"file_name": "a.png", "image_id": 0, "width": 9, "height": 8}])
MetadataCatalog.get("of_mine").thing_classes = ["a", "b"]
"""


def test_a_registered_dataset_without_annotations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has statistics, and nothing to train on."""
    (tmp_path / "registers_mine.py").write_text(REGISTERS)
    monkeypatch.syspath_prepend(tmp_path)
    named = ("DATASETS.TRAIN", "('of_mine',)", "MODEL.LITE_DETR.NUM_CLASSES", 2)
    with pytest.raises(InputError, match=r"no dataset 'of_mine' is registered"):
        run("--statistics", tmp_path / "statistics.png", *named)
    imported = ("--import", "registers_mine")
    try:
        run(*imported, "--statistics", tmp_path / "statistics.png", *named)
        assert Image.open(tmp_path / "statistics.png").size == (1800, 960)
        with pytest.raises(InputError, match=r"nothing to train on in 'of_mine': there are no annotations"):
            run(*imported, "--output", tmp_path / "sheet.png", *named)
    finally:
        DatasetCatalog.remove("of_mine")
    assert not (tmp_path / "sheet.png").exists()


def test_bad_input_is_one_message(data: Path, tmp_path: Path) -> None:
    sheet = ("--output", tmp_path / "sheet.png")
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        ((*sheet, "--dataset", tmp_path / "none"), r"There is no folder .*none"),
        ((*sheet, "--dataset", tmp_path / "empty"), r"empty is no dataset: it is empty"),
        ((*sheet, "DATASETS.TRAIN", "()"), r"DATASETS\.TRAIN is empty: give --dataset DIR"),
        ((*sheet, "DATASETS.TRAIN", "('none',)"), r"DATASETS\.TRAIN: no dataset 'none' is registered"),
        ((*sheet, "--on-bad", "drop"), r"--on-bad drop needs --dataset\."),
        ((*sheet, "--dataset", data, "INPUT.FOO", 1), r"INPUT\.FOO is not a key"),
        ((*sheet, "--dataset", data, "INPUT.CROP.TYPE", "foo"), r"INPUT\.CROP\.TYPE is 'foo'"),
        (("--output", tmp_path / "a.txt", "--dataset", data), r"a\.txt is not named as a picture"),
        (("--output", tmp_path / "no" / "a.png", "--dataset", data), r"there is no folder .*no\. Make it first"),
        (("--statistics", tmp_path, "--dataset", data), r"is not named as a picture"),
        ((*sheet, "--statistics", tmp_path / "no" / "a.png", "--dataset", data), r"there is no folder .*no\."),
    ):
        with pytest.raises(InputError, match=message):
            run(*arguments)
    with pytest.raises(InputError, match=r"none\.yaml: there is no such file\. Name a config file"):
        run(*sheet, "--dataset", data, config=tmp_path / "none.yaml")
    assert not list(tmp_path.glob("*.png"))


def test_an_image_that_cannot_be_read_is_named(data: Path, tmp_path: Path) -> None:
    """Only behind its header, which a look at the dataset does not see."""
    path = data / "images" / "2.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"Image \S+2\.png \(image id 3\) cannot be read"):
        run("--dataset", data, "--output", tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()


def test_wrong_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = ("--output", str(tmp_path / "a.png"))
    for arguments, message in (
        (output, "--config-file"),
        (("--config-file", "a.yaml"), "give --output FILE for a sheet of images, or --statistics FILE, or both"),
        (("--config-file", "a.yaml", *output, "--images", "0"), "expected a whole number, 1 at least"),
        (("--config-file", "a.yaml", *output, "--images", "101"), "'101': expected 100 images at most"),
        (("--config-file", "a.yaml", *output, "--seed", "-1"), "expected a whole number, 0 at least"),
        (("--config-file", "a.yaml", *output, "--dataset", ""), "the name is empty"),
    ):
        with pytest.raises(SystemExit) as stop:
            script.main(list(arguments))
        assert stop.value.code == 2
        assert message in capsys.readouterr().err


def commands(text: str) -> list[list[str]]:
    lines = re.findall(r"visualize_data\.py (.*--\w+ \S+\.png.*)$", text.replace("\\\n", " "), flags=re.M)
    return [shlex.split(line) for line in lines]


def test_the_examples_of_the_help_are_taken() -> None:
    examples = commands(script.__doc__ or "")
    assert len(examples) == 4
    for example in examples:
        args = script.parse(example)
        assert args.dataset == "DIR"
        assert args.opts == ([] if "INPUT.MIN_SIZE_TRAIN" not in example else ["INPUT.MIN_SIZE_TRAIN", "(480,)"])


def test_the_command_of_the_documentation_runs(data: Path, tmp_path: Path) -> None:
    """As it is written, from the root of the repository; a failure is one line."""
    (command,) = commands((ROOT / "docs" / "visualizing.md").read_text())
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    data.rename(tmp_path / "mydata")
    words = [sys.executable, str(PROJECT / "visualize_data.py"), *command]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.glob("*.png")} == {"samples.png", "statistics.png"}
    (tmp_path / "mydata" / "train.json").write_text(json.dumps({}))
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
