"""Train, evaluate, stop and resume as a user does; and every kind of bad input."""

import json
import os
import pickle
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.engine import launch

from lite_detr_d2.engine import argument_parser
from tests.checkpoint.test_pickles import Calls
from tests.data.folders import (
    coco_content,
    write_coco_folder,
    write_coco_layout,
    write_images,
    write_single_file_folder,
)

from .scripts import PROJECT, TINY, load_script

train_net = load_script("train_net")


def run(*arguments: object) -> None:
    args = argument_parser(train_net.__doc__).parse_args(["--config-file", str(TINY), *map(str, arguments)])
    launch(train_net.main, 1, args=(args,))


def error_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run into a user's error; return its one message."""
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert "Traceback" not in str(stop.value)
    assert "Traceback" not in capsys.readouterr().out
    assert str(stop.value).startswith("error: ")
    return str(stop.value)


@dataclass(frozen=True)
class Trained:
    dataset: Path
    output: Path

    def checkpoint(self, name: str) -> dict[str, Any]:
        checkpoint: dict[str, Any] = torch.load(self.output / f"{name}.pth")
        return checkpoint


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Four iterations in one go, with an evaluation at their end."""
    dataset = write_coco_folder(tmp_path_factory.mktemp("train_net"))
    output = tmp_path_factory.mktemp("output")
    run("--dataset", dataset, "OUTPUT_DIR", output)
    return Trained(dataset, output)


def test_training_leaves_what_it_should(trained: Trained) -> None:
    metrics = json.loads((trained.output / "eval_metrics.json").read_text())
    assert {"AP", "AP50", "APs", "APm", "APl", "AP-ant", "AP-cat", "AP-dog"} <= set(metrics["bbox"])
    last = json.loads((trained.output / "metrics.json").read_text().splitlines()[0])
    assert last["iteration"] == 3
    assert last["lr"] == pytest.approx(2e-5)
    assert {"config.yaml", "log.txt", "model_final.pth"} <= set(os.listdir(trained.output))
    results = json.loads((trained.output / "inference" / "coco_instances_results.json").read_text())
    assert {result["category_id"] for result in results} <= {1, 3, 7}
    assert {result["image_id"] for result in results} == {1, 2, 3, 4}


def test_evaluating_the_checkpoint_gives_the_same(trained: Trained, tmp_path: Path) -> None:
    weights = trained.output / "model_final.pth"
    run("--dataset", trained.dataset, "--eval-only", "MODEL.WEIGHTS", weights, "OUTPUT_DIR", tmp_path)
    for file in ("eval_metrics.json", "inference/coco_instances_results.json"):
        assert (tmp_path / file).read_bytes() == (trained.output / file).read_bytes()


def test_evaluation_can_take_the_last_checkpoint(trained: Trained) -> None:
    before = (trained.output / "eval_metrics.json").read_bytes()
    (trained.output / "eval_metrics.json").unlink()
    run("--dataset", trained.dataset, "--eval-only", "--resume", "OUTPUT_DIR", trained.output)
    assert (trained.output / "eval_metrics.json").read_bytes() == before
    assert f"Loading from {trained.output / 'model_final.pth'}" in (trained.output / "log.txt").read_text()


def test_resuming_goes_on_where_training_stopped(trained: Trained, tmp_path: Path) -> None:
    common = ("--dataset", trained.dataset, "OUTPUT_DIR", tmp_path, "DATASETS.TEST", "()")
    run(*common, "SOLVER.MAX_ITER", 2, "SOLVER.STEPS", "()")
    first = Trained(trained.dataset, tmp_path).checkpoint("model_final")
    torch.testing.assert_close(first["model"], trained.checkpoint("model_0000001")["model"], rtol=0, atol=0)
    run("--resume", *common)
    log = (tmp_path / "log.txt").read_text()
    assert "Starting training from iteration 2" in log
    resumed, whole = Trained(trained.dataset, tmp_path).checkpoint("model_final"), trained.checkpoint("model_final")
    assert resumed["iteration"] == whole["iteration"] == 3
    trainers = resumed["trainer"], whole["trainer"]
    schedules = [trainer["hooks"]["LRScheduler"]["last_epoch"] for trainer in trainers]
    assert schedules == [4, 4]
    optimizers = [trainer["_trainer"]["optimizer"] for trainer in trainers]
    for optimizer in optimizers:
        assert {float(state["step"]) for state in optimizer["state"].values()} == {4.0}
    assert optimizers[0]["param_groups"] == optimizers[1]["param_groups"]


def test_one_epoch_of_one_image_trains(tmp_path: Path) -> None:
    """A batch that is larger than the set shows its image several times, while the learning rate rises."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"_BASE_: {TINY}\nSOLVER: {{WARMUP_ITERS: 2, REFERENCE_NUM_IMAGES: 300}}")
    one = coco_content(images=1)
    dataset = write_coco_folder(tmp_path / f"{tmp_path.name}_one", one, one)
    output = tmp_path / "output"
    run("--config-file", recipe, "--dataset", dataset, "--epochs", 1, "OUTPUT_DIR", output, "DATASETS.TEST", "()")
    assert Trained(dataset, output).checkpoint("model_final")["iteration"] == 0
    log = (output / "log.txt").read_text()
    assert "Schedule for 1 training images at batch 2, 2.0 epochs: SOLVER.MAX_ITER 1, SOLVER.STEPS ()" in log


def test_cocos_own_layout_trains(tmp_path: Path) -> None:
    dataset = write_coco_layout(tmp_path / f"{tmp_path.name}_coco")
    output = tmp_path / "output"
    run("--dataset", dataset, "OUTPUT_DIR", output, "SOLVER.MAX_ITER", 2, "SOLVER.REFERENCE_NUM_IMAGES", 118287)
    results = json.loads((output / "inference" / "coco_instances_results.json").read_text())
    assert {result["image_id"] for result in results} == {5}
    log = (output / "log.txt").read_text()
    assert "Schedule for 4 training images at batch 2, 1.0 epochs: SOLVER.MAX_ITER 2, SOLVER.STEPS (1,)" in log
    assert {file.name for file in (output / "dataset").iterdir()} == {"report.json", "train.json", "val.json"}


def test_a_split_is_made_once_and_used_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = write_single_file_folder(tmp_path / f"{tmp_path.name}_single")
    common = ("--dataset", dataset, "OUTPUT_DIR", tmp_path / "output")
    log = tmp_path / "output" / "log.txt"
    run(*common, "SOLVER.MAX_ITER", 1, "SOLVER.STEPS", "()")
    assert "train.json is the only annotation file. Split into" in log.read_text()
    halves = {file: file.read_bytes() for file in (tmp_path / "output" / "dataset").iterdir()}
    assert {file.name for file in halves} == {"report.json", "train.json", "val.json"}
    evaluated = json.loads((tmp_path / "output" / "inference" / "coco_instances_results.json").read_text())
    val = json.loads((tmp_path / "output" / "dataset" / "val.json").read_text())
    assert {result["image_id"] for result in evaluated} == {image["id"] for image in val["images"]}

    run("--resume", *common, "SOLVER.MAX_ITER", 2, "SOLVER.STEPS", "()")
    assert "Starting training from iteration 1" in log.read_text()
    run("--resume", "--eval-only", *common)
    assert log.read_text().count("the split in") == 2
    assert {file: file.read_bytes() for file in halves} == halves

    content = coco_content(images=6)
    write_images(dataset / "images", content)
    (dataset / "train.json").write_text(json.dumps(content))
    for option in ("--resume", "--eval-only"):
        assert "with another content than" in error_of(capsys, option, *common)
    assert {file: file.read_bytes() for file in halves} == halves


def test_an_override_of_the_class_count_wins_and_is_checked(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ("OUTPUT_DIR", tmp_path, "MODEL.LITE_DETR.NUM_CLASSES", 5)
    message = error_of(capsys, "--dataset", trained.dataset, *overrides)
    assert f"NUM_CLASSES is 5, and dataset '{trained.dataset.name}_train' has 3 classes" in message


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("MODEL.LITE_DETR.ENCODER.SPEC", "H3L2"), "MODEL.LITE_DETR.ENCODER.SPEC: 'H3L2'"),
        (("MODEL.LITE_DETR.ENCODER.SPEC", "H2L1-(1+1)x1"), "H2L1-(1+1)x1"),
        (("MODEL.LITE_DETR.NO_SUCH_KEY", 1), "NO_SUCH_KEY"),
        (("SOLVER.MAX_ITER", "many"), "SOLVER.MAX_ITER"),
        (("SOLVER.MAX_ITER",), "has no value: give it one"),
        (("DATASETS.TRAIN", "()"), "DATASETS.TRAIN is empty: give --dataset DIR"),
        (("MODEL.WEIGHTS", "gone.pth"), "MODEL.WEIGHTS: there is no file gone.pth"),
        (("MODEL.DEVICE", "foo"), "MODEL.DEVICE is 'foo'"),
        (("INPUT.CROP.TYPE", "foo"), "INPUT.CROP.TYPE is 'foo'"),
    ],
)
def test_a_bad_config_is_one_message(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], overrides: tuple[object, ...], expected: str
) -> None:
    assert expected in error_of(capsys, "--dataset", trained.dataset, "OUTPUT_DIR", tmp_path, *overrides)


def test_a_pickle_that_says_more_than_arrays_has_to_be_trusted(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = {name: value.numpy() for name, value in trained.checkpoint("model_final")["model"].items()}
    canary, weights = tmp_path / "canary", tmp_path / "model.pkl"
    content = {"model": state, "__author__": "somebody", "extra": Calls(os.mkdir, str(canary))}
    weights.write_bytes(pickle.dumps(content))
    common = ("--dataset", trained.dataset, "MODEL.WEIGHTS", weights, "OUTPUT_DIR", tmp_path / "output")
    short = ("SOLVER.MAX_ITER", 1, "SOLVER.STEPS", "()")
    for options in ((), ("--eval-only",)):
        message = error_of(capsys, *options, *common, *short)
        assert re.search(r"^error: MODEL\.WEIGHTS: \S+model\.pkl .*holds \w+\.mkdir, .*--trust-pickle", message)
        assert not canary.exists()
        run("--trust-pickle", *options, *common, *short)
        assert canary.exists()
        canary.rmdir()


def test_a_missing_config_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "gone.yaml" in error_of(capsys, "--config-file", tmp_path / "gone.yaml")


def test_forgetting_the_config_file_is_an_error(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is read or written: the first word on it."""
    overrides = ("OUTPUT_DIR", tmp_path / "output", "MODEL.WEIGHTS", "", "SOLVER.MAX_ITER", 1)
    message = error_of(capsys, "--dataset", tmp_path / "gone", "--config-file", "", *overrides)
    assert message.startswith("error: No config is given: name one, such as --config-file configs/dino/lite_dino_tiny")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("SOLVER: {MAX_ITER: 1}\n")  # nor is this one's any of ours
    message = error_of(capsys, "--dataset", trained.dataset, "--config-file", recipe, *overrides)
    assert message.startswith(f"error: Config {recipe} is of no detector of this package: name one, such as --config-")
    recipe.write_text("MODEL: {META_ARCHITECTURE: RetinaNet}\n")  # as detectron2's own
    message = error_of(capsys, "--dataset", trained.dataset, "--config-file", recipe, *overrides)
    assert message.startswith(f"error: Config {recipe}: MODEL.META_ARCHITECTURE is 'RetinaNet': expected one of ")
    assert "such as --config-file configs/dino/lite_dino_tiny.yaml" in message
    assert not (tmp_path / "output").exists()


def test_forgetting_the_config_file_from_the_command_line(tmp_path: Path) -> None:
    """In one process and in several."""
    for options in ((), ("--num-gpus", "2")):
        command = [sys.executable, str(PROJECT / "train_net.py"), "--dataset", str(tmp_path / "gone"), *options]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: No config is given: name one, such as --config-file configs/dino/")
        assert list(tmp_path.iterdir()) == []


def test_evaluation_needs_weights(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = error_of(capsys, "--dataset", trained.dataset, "--eval-only", "OUTPUT_DIR", tmp_path)
    assert "--eval-only needs a checkpoint: set MODEL.WEIGHTS" in message


def test_a_checkpoint_of_another_architecture_is_refused(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = trained.output / "model_final.pth"
    common = ("--dataset", trained.dataset, "OUTPUT_DIR", tmp_path, "MODEL.WEIGHTS", weights)
    message = error_of(capsys, *common, "MODEL.LITE_DETR.HIDDEN_DIM", 128)
    assert f"{weights} is a checkpoint of another architecture" in message
    assert re.search(r"HIDDEN_DIM is \d+ in the file, 128 in the config", message)
    message = error_of(capsys, "--eval-only", *common, "MODEL.LITE_DETR.ENCODER.SPEC", "H3L1-(2+1)x1")
    assert "ENCODER.SPEC is HxLy-(1+1)x1 in the file, HxLy-(2+1)x1 in the config" in message
    message = error_of(capsys, "--eval-only", *common, "MODEL.LITE_DETR.DECODER.NUM_LAYERS", 1)
    assert "MODEL.LITE_DETR.DECODER.NUM_LAYERS is 2 in the file, 1 in the config" in message
    message = error_of(capsys, *common, "MODEL.LITE_DETR.ENCODER.NAME", "DeformableEncoder")
    assert f"{weights} is a checkpoint of another architecture" in message


def test_training_starts_from_weights_of_other_classes(trained: Trained, tmp_path: Path) -> None:
    content = coco_content()
    content["categories"].append({"id": 9, "name": "owl"})
    dataset = write_coco_folder(tmp_path / f"{tmp_path.name}_owls", train=content, val=content)
    weights = ("MODEL.WEIGHTS", trained.output / "model_final.pth", "SOLVER.MAX_ITER", 1, "SOLVER.STEPS", "()")
    run("--dataset", dataset, "OUTPUT_DIR", tmp_path, *weights, "DATASETS.TEST", "()")
    state = Trained(dataset, tmp_path).checkpoint("model_final")["model"]
    assert state["decoder.heads.0.class_embed.bias"].shape == (4,)


def test_without_a_dataset_to_evaluate_on_metrics_stay(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "eval_metrics.json").write_text("{}  ")
    run(
        *("--dataset", trained.dataset, "OUTPUT_DIR", tmp_path, "DATASETS.TEST", "()"),
        *("SOLVER.MAX_ITER", 1, "SOLVER.STEPS", "()"),
    )
    assert (tmp_path / "eval_metrics.json").read_text() == "{}  "


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: int) -> None:
    dataset = write_coco_folder(tmp_path)
    for image in (dataset / "images").iterdir():
        image.write_bytes(image.read_bytes()[:-40])
    message = error_of(capsys, "--dataset", dataset, "OUTPUT_DIR", tmp_path, "DATALOADER.NUM_WORKERS", workers)
    assert message.startswith(f"error: Image {dataset / 'images'}{os.sep}")
    assert "cannot be read: image file is truncated" in message


def diverging(trained: Trained, output: Path) -> tuple[object, ...]:
    rate = ("SOLVER.BASE_LR", 1e30, "SOLVER.CLIP_GRADIENTS.ENABLED", False)
    return "--dataset", trained.dataset, *rate, "OUTPUT_DIR", output


def test_weights_that_have_diverged_detect_nothing(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The batches after the first are passed over, and the training ends before too many are bad."""
    message = error_of(capsys, *diverging(trained, tmp_path))
    assert message.startswith("error: predicted boxes are not finite: the weights have diverged")


def test_diverging_training_is_explained(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = error_of(capsys, *diverging(trained, tmp_path), "SOLVER.MAX_SKIPPED_STEPS", 0)
    assert message.startswith("error: Iteration 1: ")
    log = (tmp_path / "log.txt").read_text()
    assert f"Exception during training: {message.removeprefix('error: ')}" in log
    assert "Traceback" not in log
    assert str(trained.dataset / "images") in message
    assert "lower SOLVER.BASE_LR" in message


def test_all_problems_of_a_dataset_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = coco_content()
    content["annotations"][0]["bbox"] = [0, 0, -5, 5]
    content["annotations"][1]["category_id"] = 2
    dataset = write_coco_folder(tmp_path, train=content)
    message = error_of(capsys, "--dataset", dataset, "OUTPUT_DIR", tmp_path / "output")
    assert "annotation 10 of image 1 ([0, 0, -5, 5])" in message
    assert "annotation 11 (category 2)" in message


def test_the_program_fails_with_one_line(tmp_path: Path) -> None:
    command = [sys.executable, str(PROJECT / "train_net.py"), "--config-file", str(TINY), "--num-gpus", "65"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT.parents[1]), "PYTHONWARNINGS": "ignore"}
    result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("error: --num-gpus 65 on the CPU, and this machine has ")
    assert result.stderr.count("\n") == 1
