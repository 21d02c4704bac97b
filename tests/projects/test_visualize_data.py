"""Pictures of training data, from the command line."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import launch
from PIL import Image

from lite_detr_d2.detector import DetrDetector
from lite_detr_d2.engine import argument_parser
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
    assert f"{sheet} has 5 images, of seed 7, with {kept} boxes" in log.text
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


@dataclass(frozen=True)
class Trained:
    """A training, and of its first inputs the files and the pixels, (H, W, 3) in RGB."""

    run: Path
    seen: list[tuple[str, Any]]


def trained(folder: Path, data: Path, *options: object) -> Trained:
    """Train for two iterations of two images."""
    seen = []
    forward = DetrDetector.forward

    def noted(self: DetrDetector, batch: list[dict[str, Any]]) -> Any:
        if self.training:
            seen.extend((Path(each["file_name"]).name, each["image"].permute(1, 2, 0).numpy().copy()) for each in batch)
        return forward(self, batch)

    common = ("SOLVER.MAX_ITER", 2, "SOLVER.STEPS", "()", "DATASETS.TEST", "()", "OUTPUT_DIR", folder)
    words = ["--config-file", TINY, "--dataset", data, *common, *options]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DetrDetector, "forward", noted)
        launch(load_script("train_net").main, 1, args=(argument_parser("").parse_args(list(map(str, words))),))
    return Trained(folder, seen)


def assert_seen(drawn: list[TrainingImage], seen: list[tuple[str, Any]]) -> None:
    assert [image.name for image in drawn] == [name for name, _ in seen]
    for image, (_, pixels) in zip(drawn, seen, strict=True):
        assert image.pixels.shape == pixels.shape
        assert (image.pixels == pixels).all()


def forget(run: Path) -> None:
    """Let a dataset be as registered as in another program."""
    for name in yaml.safe_load((run / "config.yaml").read_text())["DATASETS"]["TRAIN"]:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


class TestRun:
    """What a training was trained on, of its OUTPUT_DIR alone."""

    @pytest.mark.parametrize("seed", [-1, 11])
    def test_the_first_images_that_it_saw(
        self, data: Path, tmp_path: Path, drawn: list[TrainingImage], log: pytest.LogCaptureFixture, seed: int
    ) -> None:
        """Also where its seed was drawn, and what it was trained on is not there any more but for its images."""
        case = trained(tmp_path / "run", data, "SEED", seed, "INPUT.CROP.ENABLED", True, "INPUT.CROP.SIZE", "[20, 24]")
        assert len(case.seen) == 4
        for file in ("train.json", "val.json"):
            (data / file).unlink()
        forget(case.run)
        before = sorted(case.run.rglob("*"))
        sheet, statistics = tmp_path / "sheet.png", tmp_path / "statistics.png"
        script.main([str(case.run), "--output", str(sheet), "--images", "4", "--statistics", str(statistics)])
        assert_seen(drawn, case.seen)
        assert sorted(case.run.rglob("*")) == before
        kept = torch.load(case.run / "model_final.pth")["trainer"]["seed"]
        assert seed in (-1, kept)
        assert f"{sheet} has 4 images, of seed {kept}, with " in log.text
        assert "typical" not in log.text
        assert statistics.is_file()

    def test_a_zip_that_is_gone(self, data: Path, tmp_path: Path, drawn: list[TrainingImage]) -> None:
        archive = Path(shutil.make_archive(str(tmp_path / "mine.v4"), "zip", data))
        case = trained(tmp_path / "run", archive, "SEED", -1)
        archive.unlink()
        forget(case.run)
        script.main([str(case.run), "--output", str(tmp_path / "sheet.png"), "--images", "4"])
        assert_seen(drawn, case.seen)

    def test_overrides_and_another_seed(self, data: Path, tmp_path: Path, drawn: list[TrainingImage]) -> None:
        """Come after the run, wherever options are."""
        case = trained(tmp_path / "run", data, "SEED", 5)
        output = ("--output", str(tmp_path / "sheet.png"), "--images", "4")
        script.main([str(case.run), *output, "--seed", "5", "INPUT.MIN_SIZE_TRAIN", "(40,)"])
        assert [image.name for image in drawn] == [name for name, _ in case.seen]
        assert {min(image.pixels.shape[:2]) for image in drawn} == {40}
        drawn.clear()
        script.main([*output, str(case.run), "SEED", "5"])
        assert_seen(drawn, case.seen)

    def test_another_dataset(self, data: Path, tmp_path: Path, drawn: list[TrainingImage]) -> None:
        """As this training would be trained on it."""
        case = trained(tmp_path / "run", data)
        other = write_coco_folder(tmp_path / "other", coco_content(images=1), coco_content(images=1))
        script.main([str(case.run), "--dataset", str(other), "--output", str(tmp_path / "sheet.png"), "--images", "2"])
        assert [image.name for image in drawn] == ["0.png", "0.png"]

    def test_a_seed_that_nothing_tells(
        self, data: Path, tmp_path: Path, drawn: list[TrainingImage], log: pytest.LogCaptureFixture
    ) -> None:
        """Of a training that was stopped before its first checkpoint, or whose weights alone were kept."""
        run = trained(tmp_path / "run", data, "SEED", -1).run
        for path in run.glob("*.pth"):
            path.unlink()
        torch.save({"model": {}}, run / "model_final.pth")
        (run / "model_0000001.pth").write_bytes(b"damaged")
        script.main([str(run), "--output", str(tmp_path / "sheet.png")])
        assert f"SEED is -1, and no checkpoint in {run} has the one drawn: these images, of seed 0, are ty" in log.text
        assert len(drawn) == 12
        log.clear()
        script.main([str(run), "--output", str(tmp_path / "sheet.png"), "--seed", "3"])
        assert "typical" not in log.text

    def test_a_dataset_that_is_not_there(self, data: Path, tmp_path: Path) -> None:
        run = trained(tmp_path / "run", data).run
        sheet = ["--output", str(tmp_path / "sheet.png")]
        shutil.rmtree(run / "dataset")
        forget(run)
        message = (
            r"was trained on is not in \S+run/dataset, .*\(data\w*_train\) is not registered: name it, --dataset P"
        )
        with pytest.raises(InputError, match=message):
            script.main([str(run), *sheet])
        (run / "config.yaml").unlink()
        for folder, message in ((run, "has no config.yaml"), (tmp_path / "none", "there is no such run")):
            with pytest.raises(InputError, match=message):
                script.main([str(folder), *sheet])
        assert not (tmp_path / "sheet.png").exists()


def test_a_config_without_a_seed_shows_what_is_typical(
    data: Path, tmp_path: Path, drawn: list[TrainingImage], log: pytest.LogCaptureFixture
) -> None:
    run("--dataset", data, "--output", tmp_path / "sheet.png", "SEED", "-1")
    assert "SEED is -1, and each training draws its own: these images, of seed 0, are typical" in log.text
    assert "has 12 images, of seed 0, with " in log.text


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
        (output, "give one of RUN, and --config-file FILE"),
        (("run", "--config-file", "a.yaml", *output), "give one of RUN, and --config-file FILE"),
        (("run", *output, "SEED"), "give one of RUN, and --config-file FILE; after it, each KEY has its VALUE"),
        (("--config-file", "a.yaml", *output, "SEED"), "each KEY has its VALUE"),
        (("", *output), "give one of RUN, and --config-file FILE"),
        (("run",), "give --output FILE for a sheet of images, or --statistics FILE, or both"),
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
    assert len(examples) == 5
    for number, example in enumerate(examples):
        args = script.parse(example)
        assert (args.run, args.config_file, args.dataset) == (
            (None, "FILE", "DIR") if number else ("output/mine", None, None)
        )
        assert args.opts == ([] if "INPUT.MIN_SIZE_TRAIN" not in example else ["INPUT.MIN_SIZE_TRAIN", "(480,)"])


def test_the_command_of_the_documentation_runs(data: Path, tmp_path: Path) -> None:
    """As it is written, from the root of the repository; a failure is one line."""
    command, of_a_run, _ = commands((ROOT / "docs" / "visualizing.md").read_text())
    assert script.parse(of_a_run).run == "output/mine"
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
