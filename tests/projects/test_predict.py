"""Predict as a user does, from a training's folder to pictures, videos and JSON that COCO's tools score."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.engine import launch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lite_detr_d2.engine import argument_parser
from lite_detr_d2.errors import InputError
from tests.data.folders import SIZE, write_coco_folder
from tests.deploy.videos import cut, frames_of, write_video

from .scripts import PROJECT, TINY, load_script

predict, train_net = load_script("predict"), load_script("train_net")
LEARN = "SOLVER.MAX_ITER 60 SOLVER.STEPS () SOLVER.BASE_LR 0.001 SOLVER.CHECKPOINT_PERIOD 1000 INPUT.RANDOM_FLIP none"


def run(*arguments: object) -> int:
    code: int = predict.main([str(argument) for argument in arguments])
    return code


@dataclass(frozen=True)
class Trained:
    """A tiny detector that finds something, and its evaluation."""

    run: Path
    data: Path

    @property
    def images(self) -> Path:
        return self.data / "images"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    data, output = write_coco_folder(tmp_path_factory.mktemp("data")), tmp_path_factory.mktemp("run")
    command = ["--config-file", str(TINY), "--dataset", str(data), "OUTPUT_DIR", str(output), *LEARN.split()]
    launch(train_net.main, 1, args=(argument_parser("").parse_args(command),))
    return Trained(output, data)


def test_the_json_scores_what_the_evaluation_scored(trained: Trained, tmp_path: Path) -> None:
    results, annotations = tmp_path / "results.json", trained.data / "val.json"
    files = ("--json", results, "--annotations", annotations)
    assert run(trained.run, "--input", trained.images, "--output", tmp_path / "out", "--threshold", 0, *files) == 0

    truth = COCO(str(annotations))
    scored = COCOeval(truth, truth.loadRes(str(results)), "bbox")
    scored.evaluate()
    scored.accumulate()
    scored.summarize()
    metrics = json.loads((trained.run / "eval_metrics.json").read_text())["bbox"]
    assert metrics["AP"] > 5
    assert scored.stats[:3] * 100 == pytest.approx([metrics["AP"], metrics["AP50"], metrics["AP75"]], abs=0.01)

    ours, evaluated = (
        sorted(json.loads(file.read_text()), key=lambda record: (record["image_id"], -record["score"]))
        for file in (results, trained.run / "inference" / "coco_instances_results.json")
    )
    assert len(ours) == len(evaluated) == 4 * 60  # each query with each class
    for key in ("image_id", "category_id"):
        assert [record[key] for record in ours] == [record[key] for record in evaluated]
    for key, tolerance in (("bbox", 1e-3), ("score", 1e-5)):
        np.testing.assert_allclose(*([record[key] for record in each] for each in (ours, evaluated)), atol=tolerance)
    names = {category["id"]: category["name"] for category in truth.dataset["categories"]}
    assert all(record["category_name"] == names[record["category_id"]] for record in ours)


def test_pictures_videos_and_json(
    trained: Trained, tmp_path: Path, log: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    inputs = tmp_path / "inputs"
    shutil.copytree(trained.images, inputs / "images")
    write_video(inputs / "clip.mp4", frames=6)
    (inputs / "notes.txt").touch()
    found, results = tmp_path / "found", tmp_path / "results.json"
    options = ("--threshold", 0.05, "--batch", 3, "--json", results)
    assert run(trained.run, "--input", inputs, "--output", found, *options) == 0
    files = {path.relative_to(found).as_posix() for path in found.rglob("*.*")}
    assert files == {"clip.mp4", *(f"images/{number}.png" for number in range(4))}
    with Image.open(found / "images" / "0.png") as image:
        assert image.size == SIZE
    assert len(frames_of(found / "clip.mp4")[0]) == 6
    records = json.loads(results.read_text())
    assert {record["image_id"]: record["file_name"] for record in records if "frame" not in record} == {
        number + 2: f"images/{number}.png" for number in range(4)
    }
    assert {(record["image_id"], record["file_name"]) for record in records if "frame" in record} <= {(1, "clip.mp4")}
    assert {(record["category_id"], record["category_name"]) for record in records} <= {
        (1, "ant"),
        (2, "cat"),
        (3, "dog"),
    }
    assert min(record["score"] for record in records) >= 0.05
    assert f"its weights of {trained.run / 'model_final.pth'}" in log.text
    assert re.search(r"5 of 5 inputs are done, with [1-9]\d* detections from a score of 0\.?\d* on: see", log.text)
    assert "notes.txt" in log.text
    assert "%|" not in capfd.readouterr().err  # a progress bar is for terminals


def test_where_nothing_scores_enough(trained: Trained, tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    options = ("--input", trained.data / "images", "--json", tmp_path / "found.json")
    predict.main([str(word) for word in (trained.run, *options, "--threshold", 1)])
    assert "with 0 detections from a score of 1 on" in log.text
    assert log.text.count("A lower --threshold takes what scores less") == 1


def test_a_config_and_weights(trained: Trained, tmp_path: Path) -> None:
    results = []
    model = ("--config-file", trained.run / "config.yaml", "--weights", trained.run / "model_final.pth")
    for number, source in enumerate(((trained.run,), model)):
        results.append(tmp_path / f"{number}.json")
        options = ("--output", tmp_path / "out", "--json", results[-1], "--threshold", 0, "--device", "cpu")
        assert run(*source, "--input", trained.images / "0.png", *options) == 0
    assert results[0].read_bytes() == results[1].read_bytes()


def test_inputs_that_cannot_be_read(trained: Trained, tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    inputs = tmp_path / "inputs"
    shutil.copytree(trained.images, inputs)
    (inputs / "1.png").write_bytes(b"")
    cut(write_video(inputs / "clip.mkv"), 0.6)
    cut(write_video(inputs / "clip.mp4"), 0.6)
    assert run(trained.run, "--input", inputs, "--output", tmp_path / "out") == 3
    for name, reason in (("1.png", "cannot be read: the file is empty"), ("clip.mkv", "is damaged or cut short")):
        assert f"{inputs / name} {reason}" in log.text
    assert f"{inputs / 'clip.mp4'} cannot be opened" in log.text
    assert "3 of 6 inputs are done, with " in log.text
    assert "3 of 6 inputs could not be read to their end" in log.text
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.png", "2.png", "3.png", "clip.mkv.mp4"]


def test_without_pictures(trained: Trained, tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    inputs, results = ("--input", trained.images, "--threshold", 0), [tmp_path / "0.json", tmp_path / "1.json"]
    assert run(trained.run, *inputs, "--json", results[0], "--output", tmp_path / "out") == 0
    log.clear()
    before = sorted(tmp_path.rglob("*"))
    assert run(trained.run, *inputs, "--json", results[1]) == 0
    assert sorted(tmp_path.rglob("*")) == sorted([*before, results[1]])
    assert results[0].read_bytes() == results[1].read_bytes()
    assert "4 of 4 inputs are done, with " in log.text


def test_nothing_that_can_be_read_is_an_error(trained: Trained, tmp_path: Path) -> None:
    """And leaves what an earlier prediction wrote."""
    results = tmp_path / "results.json"
    assert run(trained.run, "--input", trained.images, "--threshold", 0, "--json", results) == 0
    before = results.read_bytes()
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "b.mp4"):
        (tmp_path / "in" / name).write_bytes(b"nothing")
    command = [PROJECT / "predict.py", trained.run, *rest(trained, tmp_path, input=tmp_path / "in"), "--json", results]
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: None of the 2 inputs can be read: each is named above.\n"
    for name in ("a.jpg", "b.mp4"):
        assert str(tmp_path / "in" / name) in done.stdout
    assert results.read_bytes() == before


def test_ctrl_c_ends_a_video_properly(trained: Trained, tmp_path: Path) -> None:
    """What was written can be played, and there is no JSON."""
    write_video(tmp_path / "clip.mp4", frames=3000)
    options = ("--input", tmp_path / "clip.mp4", "--output", tmp_path / "out", "--json", tmp_path / "results.json")
    command = [sys.executable, PROJECT / "predict.py", trained.run, *options]
    words = [str(word) for word in command]
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)  # a process that tests in the background start ignores it
    try:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("out/*.unfinished.mp4")) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        text, _ = process.communicate()
    assert process.returncode == 130, text
    assert "results.json is not written" in " ".join(text.split())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["clip.mp4"]
    assert 1 <= len(frames_of(tmp_path / "out" / "clip.mp4")[0]) < 3000
    assert not (tmp_path / "results.json").exists()


def test_wrong_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--input", "a.jpg", "--output", tmp_path / "out")
    for arguments in (
        ("run", "--output", "out"),
        ("run", "--input", "a.jpg", "--threshold", "0.5"),
        ("run", "--input", "a.jpg"),
        where,
        ("run", "--model", "a.onnx", *where),
        ("run", "--config-file", "a.yaml", "--weights", "a.pth", *where),
        ("--config-file", "a.yaml", *where),
        ("--weights", "a.pth", *where),
        ("run", *where, "--threshold", "1.5"),
        ("run", *where, "--threshold", "nan"),
        ("run", *where, "--threshold", "half"),
        ("run", *where, "--batch", "0"),
        ("run", *where, "--batch", "two"),
        ("", *where),
        ("run", *where, "--json", ""),
        ("run", "--input", "", "--output", tmp_path / "out"),
        ("run", "--input", "a.jpg", "--output", ""),
        ("--model", "", *where),
        ("run", *where, "--dtype", "float16"),
        ("run", *where, "--annotations", "val.json"),
        ("run", *where, "--compile"),
        ("run", *where, "--thresh", "0.5"),
    ):
        with pytest.raises(SystemExit) as stop:
            run(*arguments)
        assert stop.value.code == 2
        message = capsys.readouterr().err
        assert "Traceback" not in message
        assert not re.search(r"invalid \w+ value", message)  # as argparse says of what raises a ValueError
    assert list(tmp_path.iterdir()) == []


def bad_inputs(trained: Trained, folder: Path) -> dict[str, tuple[list[Any], str]]:
    """Arguments beside what is right, and what is said."""
    (folder / "file").touch()
    (folder / "empty").mkdir()
    (folder / "others.json").write_text(
        json.dumps({"images": [{"id": 1, "file_name": "0.png"}], "categories": [{"id": 1, "name": "car"}]})
    )
    return {
        "no such run": ([folder / "none", *rest(trained, folder)], r"none: there is no such run"),
        "no such file": ([trained.run, *rest(trained, folder, input=folder / "a.jpg")], r"no file or folder .*a\.jpg"),
        "an empty folder": ([trained.run, *rest(trained, folder, input=folder / "empty")], "empty has no images"),
        "a pattern": ([trained.run, *rest(trained, folder, input=folder / "*.jpg")], r"No file matches .*\*\.jpg"),
        "a file for a folder": (
            [trained.run, *rest(trained, folder, output=folder / "file")],
            "file is a file, and is",
        ),
        "the input's folder": ([trained.run, *rest(trained, folder, output=trained.images)], "is never written over"),
        "json in a file": (
            [trained.run, *rest(trained, folder), "--json", folder / "file" / "a.json"],
            "a.json cannot be written: .*file is a file",
        ),
        "json in no folder": (
            [trained.run, *rest(trained, folder), "--json", folder / "none" / "a.json"],
            "a.json cannot be written: there is no folder .*none",
        ),
        "a folder for json": ([trained.run, *rest(trained, folder), "--json", folder], "is a folder: name a file"),
        "no annotations": (
            [trained.run, *rest(trained, folder), "--json", folder / "a.json", "--annotations", folder / "none.json"],
            "none.json is not there: name a file of annotations",
        ),
        "a checkpoint": (
            [trained.run / "model_final.pth", *rest(trained, folder)],
            r"model_final\.pth is a file, .* give that folder alone, ",
        ),
        "a checkpoint for a model": (
            ["--model", trained.run / "model_final.pth", *rest(trained, folder)],
            r"model_final\.pth is a file, .* give that folder alone, ",
        ),
        "no images at all": (
            [trained.run, *rest(trained, folder, input=folder / "file")],
            "file cannot be read: the file",
        ),
        "other classes": (
            [trained.run, *rest(trained, folder), "--json", folder / "a.json", "--annotations", folder / "others.json"],
            "none of the model's classes",
        ),
        "a device": ([trained.run, *rest(trained, folder), "--device", "cuda:9"], "cuda:9"),
    }


def rest(trained: Trained, folder: Path, **changed: Path) -> list[Any]:
    """What a prediction needs beside a model."""
    given = {"input": trained.images / "0.png", "output": folder / "out", **changed}
    return [word for key, value in given.items() for word in (f"--{key}", value)]


def test_bad_input_is_one_line(trained: Trained, tmp_path: Path) -> None:
    for name, (arguments, message) in bad_inputs(trained, tmp_path).items():
        if name == "a device" and torch.cuda.device_count() > 9:
            continue
        with pytest.raises(InputError, match=message) as error:
            run(*arguments)
        assert "\n" not in str(error.value), name


def test_the_command_ends_with_its_error_alone(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    command = [PROJECT / "predict.py", trained.run, *rest(trained, tmp_path, input=tmp_path / "empty")]
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: The folder {tmp_path / 'empty'} has no images or videos")
    assert done.stderr.count("\n") == 1
