"""What a training says and draws at its end, whatever it had to evaluate on."""

import json
import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.engine import launch
from PIL import Image

from lite_detr_d2.engine import Trainer, argument_parser
from lite_detr_d2.engine.stop import TrainingStopped
from lite_detr_d2.evaluation import ending
from lite_detr_d2.evaluation.ending import log_end
from tests.data.folders import coco_content, write_coco_folder
from tests.engine.conftest import loggers_propagate  # noqa: F401  (a fixture)
from tests.engine.stops import stoppable_config
from tests.projects.scripts import TINY, load_script

train_net = load_script("train_net")

Train = Callable[..., Path]


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """Runs train_net on a folder of data; returns OUTPUT_DIR."""

    def run(data: Path, *arguments: object) -> Path:
        output = tmp_path / "out put"
        command = ["--config-file", TINY, "--dataset", data, *arguments, "OUTPUT_DIR", output]
        launch(train_net.main, 1, args=(argument_parser("").parse_args(list(map(str, command))),))
        return output

    return run


def said_at_the_end(output: Path) -> str:
    """What follows the last checkpoint and evaluation in the log, in which lines of one message have no head."""
    return (output / "log.txt").read_text().partition("The training is done:")[2]


def is_a_picture(path: Path) -> bool:
    with Image.open(path) as image:
        return min(image.size) > 200 and bool(np.asarray(image.convert("L")).std() > 10)


def test_a_training(train: Train, tmp_path: Path) -> None:
    output = train(write_coco_folder(tmp_path / "data"))
    told = said_at_the_end(output)
    assert re.search(r"time: 0:\d\d:\d\d; 0:\d\d:\d\d in steps, of which 0:\d\d:\d\d waiting for data", told)
    for name in ("ant", "cat", "dog"):
        assert re.search(rf"^  {name} +\d+ +\d", told, re.MULTILINE), name
    assert f"  to predict:  python projects/LiteDETR/predict.py '{output}' --input IMAGES --output FOUND" in told
    assert f"  its errors:  python projects/LiteDETR/evaluate.py '{output}'" in told
    for picture in ("predictions.png", "curves.png"):
        assert f": {output / picture}" in told
        assert is_a_picture(output / picture)


def test_nothing_to_find(train: Train, tmp_path: Path) -> None:
    bare = {**coco_content(), "annotations": []}
    output = train(write_coco_folder(tmp_path / "data", coco_content(), bare))
    told = (output / "log.txt").read_text()
    assert told.count("val.json has no boxes to find: there is nothing to score.") == 1
    assert "curves: " in said_at_the_end(output)
    assert not (output / "predictions.png").exists()


def test_nothing_to_evaluate_on(train: Train, tmp_path: Path) -> None:
    output = train(write_coco_folder(tmp_path / "data"), "DATASETS.TEST", "()")
    assert "predictions" not in said_at_the_end(output)
    assert is_a_picture(output / "curves.png")


@pytest.mark.parametrize("picture", ["predictions.png", "curves.png"])
def test_a_picture_that_cannot_be_written(train: Train, tmp_path: Path, picture: str) -> None:
    """The other one is there."""
    (tmp_path / "out put" / picture).mkdir(parents=True)
    output = train(write_coco_folder(tmp_path / "data"))
    assert f"{output / picture} cannot be written: Is a directory." in (output / "log.txt").read_text()
    told = said_at_the_end(output)
    assert f": {output / picture}" not in told
    assert "to predict: " in told
    (other,) = {"predictions.png", "curves.png"} - {picture}
    assert is_a_picture(output / other)


def test_the_average_of_the_weights_is_evaluated_too(train: Train, tmp_path: Path) -> None:
    """What is drawn is of the weights."""
    output = train(write_coco_folder(tmp_path / "data"), "SOLVER.EMA.ENABLED", "True")
    assert (output / "ema" / "inference" / "coco_instances_results.json").is_file()
    assert is_a_picture(output / "predictions.png")
    assert not (output / "ema" / "predictions.png").exists()


def test_an_evaluation_alone_draws_nothing(train: Train, tmp_path: Path) -> None:
    data = write_coco_folder(tmp_path / "data")
    output = train(data)
    for picture in ("predictions.png", "curves.png"):
        (output / picture).unlink()
    train(data, "--eval-only", "MODEL.WEIGHTS", output / "model_final.pth")
    assert not list(output.glob("*.png"))
    assert (output / "log.txt").read_text().count("The training is done:") == 1


def test_a_training_with_nothing_left_to_do(train: Train, tmp_path: Path) -> None:
    data = write_coco_folder(tmp_path / "data")
    train(data)
    (tmp_path / "out put" / "log.txt").write_text("")
    output = train(data, "--resume")
    assert "time: 0:00:" in said_at_the_end(output)
    assert "predictions: " in said_at_the_end(output)


def test_a_training_that_is_stopped_is_not_done(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(trainer: Trainer) -> None:
        raise TrainingStopped(143)

    monkeypatch.setattr(Trainer, "train", stopped)
    with pytest.raises(TrainingStopped):
        train(write_coco_folder(tmp_path / "data"))
    assert "The training is done" not in (tmp_path / "out put" / "log.txt").read_text()


def ended(cfg: Any, output: Path) -> Trainer:
    cfg.OUTPUT_DIR = str(output)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    log_end(trainer, time.perf_counter())
    return trainer


def test_several_datasets_are_said(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    cfg = stoppable_config(tmp_path / "data")
    other = stoppable_config(tmp_path / "other")
    cfg.DATASETS.TEST = (*cfg.DATASETS.TRAIN, *other.DATASETS.TRAIN)
    ended(cfg, tmp_path / "run")
    assert set(json.loads((tmp_path / "run" / "eval_metrics.json").read_text())) == set(cfg.DATASETS.TEST)
    assert "predictions: of 2 datasets none are drawn; evaluate.py --dataset DIR does, of one" in log.messages[-1]
    assert not (tmp_path / "run" / "predictions.png").exists()


def test_an_image_that_is_gone_is_said(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    cfg = stoppable_config(tmp_path / "data")
    cfg.DATASETS.TEST = cfg.DATASETS.TRAIN
    trainer = ended(cfg, tmp_path / "run")
    for image in (tmp_path / "data" / "images").iterdir():
        image.write_bytes(b"")
    log.clear()
    log_end(trainer, time.perf_counter(), ["my.encoder", "mine"])
    warned = [record.getMessage() for record in log.records if record.levelno == logging.WARNING]
    assert len([message for message in warned if ".png cannot be read: the file is empty" in message]) == 1
    run = f"{tmp_path / 'run'} --import my.encoder --import mine"
    assert f"predict.py {run} --input IMAGES" in log.messages[-1]
    assert f"evaluate.py {run}" in log.messages[-1]


def test_the_worst_come_first_and_none_comes_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[list[int]] = []
    monkeypatch.setattr(ending, "draw_images", lambda *arguments: chosen.append(arguments[3]))
    cfg = stoppable_config(tmp_path / "data")
    cfg.DATASETS.TEST = cfg.DATASETS.TRAIN
    ended(cfg, tmp_path / "run")
    (images,) = chosen
    assert sorted(images) == list(range(1, 10))
