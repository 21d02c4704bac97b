"""A training's runs in Weights & Biases (offline) and MLflow (in a folder), read back from what they leave."""

import json
import math
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image
from wandb.proto import wandb_internal_pb2

from lite_detr_d2.engine.tensorboard import tag_of
from tests.data.folders import SIZE, write_coco_folder
from tests.projects.scripts import PROJECT, TINY

ITERATIONS = 6


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco_folder(tmp_path_factory.mktemp("data"))


def train_net(
    dataset: Path, output: Path, *options: str, iterations: int = ITERATIONS, **environment: str
) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(PROJECT / "train_net.py"), "--config-file", str(TINY), "--dataset", str(dataset)]
    settings = {
        **{"SOLVER.MAX_ITER": iterations, "SOLVER.STEPS": "()", "SOLVER.CHECKPOINT_PERIOD": 2, "SEED": 1},
        **{"SOLVER.REFERENCE_NUM_IMAGES": 0, "TEST.EVAL_PERIOD": 2, "TEST.PICTURES": 2},
        **{"LOGGERS": '["wandb", "mlflow"]', "OUTPUT_DIR": output},
    }
    words = [str(word) for pair in settings.items() for word in pair]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "MLFLOW_"))}
    offline = {"WANDB_MODE": "offline", "MLFLOW_TRACKING_URI": str(output.parent / "mlruns")}
    return subprocess.run(
        [*command, *options, *words],
        env={**kept, **offline, "MLFLOW_ALLOW_FILE_STORE": "true", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def metrics_of(output: Path) -> dict[tuple[str, int], float]:
    """Tag and iteration -> value, of metrics.json."""
    records = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    return {
        (tag_of(name), record["iteration"]): value
        for record in records
        for name, value in record.items()
        if name not in ("iteration", "eta_seconds")
    }


def records_of(file: Path) -> Iterator[Any]:
    """What Weights & Biases keeps: LevelDB's log, of blocks with pieces of records behind checksum, length and kind."""
    data, block, head = file.read_bytes(), 2**15, struct.calcsize("<IHB")
    place, record = head, b""  # the file begins with a header of that size
    while place + head <= len(data):
        if block - place % block < head:
            place += block - place % block
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        record += data[place + head : place + head + length]
        place += head + length
        if kind in (1, 4):  # a whole record, or the last piece of one
            parsed = wandb_internal_pb2.Record()
            parsed.ParseFromString(record)
            yield parsed
            record = b""


def history_of(file: Path) -> list[dict[str, Any]]:
    return [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in records_of(file)
        if record.WhichOneof("record_type") == "history"
    ]


def wandb_files(output: Path) -> list[Path]:
    return sorted(output.glob("wandb/offline-run-*/*.wandb"), key=lambda file: file.stat().st_mtime)


def mlflow_run(output: Path) -> tuple[MlflowClient, Run]:
    client = MlflowClient(str(output.parent / "mlruns"))
    experiment = client.get_experiment_by_name("lite_detr_d2")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    return client, run


def assert_equal(found: float, expected: float) -> None:
    assert found == pytest.approx(expected, nan_ok=True)


def test_what_a_training_leaves(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole one; and one that goes on from its end."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    output = tmp_path / "mine"
    result = train_net(dataset, output)
    assert result.returncode == 0, result.stdout + result.stderr
    said = " ".join(result.stdout.split())
    assert "cannot be written" not in said
    assert "wandb" not in result.stderr
    runs = json.loads((output / "loggers.json").read_text())
    for title, package in (("Weights & Biases", "wandb"), ("MLflow", "mlflow")):
        assert f"{title}: the run {runs[package]}, in " in said
    expected = metrics_of(output)
    assert len(expected) > 30
    check_wandb(output, runs["wandb"], expected)
    check_mlflow(output, runs["mlflow"], expected)
    check_resume(dataset, output, runs)


def check_wandb(output: Path, identifier: str, expected: dict[tuple[str, int], float]) -> None:
    (file,) = wandb_files(output)
    begun = next(record.run for record in records_of(file) if record.WhichOneof("record_type") == "run")
    assert (begun.run_id, begun.project, begun.display_name) == (identifier, "lite_detr_d2", "mine")
    assert not any(record.exit.exit_code for record in records_of(file))
    config = {
        item.key: json.loads(item.value_json)
        for record in records_of(file)
        if record.WhichOneof("record_type") == "config"
        for item in record.config.update
    }
    assert config["SOLVER"]["MAX_ITER"] == ITERATIONS
    assert config["MODEL"]["LITE_DETR"]["CLASS_NAMES"] == ["ant", "cat", "dog"]
    rows = history_of(file)
    found = {(tag, row["iteration"]): value for row in rows for tag, value in row.items()}
    for key, value in expected.items():
        assert_equal(math.nan if found[key] == "NaN" else float(found[key]), value)
    pictures = sorted((row["iteration"], value) for row in rows for tag, value in row.items() if tag.endswith("/path"))
    assert [iteration for iteration, _ in pictures] == [1, 1, 3, 3, ITERATIONS, ITERATIONS]
    for _, name in pictures:
        with Image.open(file.parent / "files" / name) as image:
            assert image.size == (2 * SIZE[0], SIZE[1])


def check_mlflow(output: Path, identifier: str, expected: dict[tuple[str, int], float]) -> None:
    client, run = mlflow_run(output)
    assert (run.info.run_id, run.info.run_name, run.info.status) == (identifier, "mine", "FINISHED")
    assert run.data.params["SOLVER.MAX_ITER"] == str(ITERATIONS)
    assert run.data.params["MODEL.META_ARCHITECTURE"] == "DINO"
    for (tag, iteration), value in expected.items():
        values = {metric.step: metric.value for metric in client.get_metric_history(identifier, tag)}
        assert_equal(values[iteration], value)
    artifacts = [artifact.path for artifact in client.list_artifacts(identifier)]
    assert "config.yaml" in artifacts
    pictures = [artifact.path for artifact in client.list_artifacts(identifier, "images")]
    names = sorted(path for path in pictures if path.endswith(".png"))
    assert len(names) == 6
    folder = output.parent / "mlruns" / run.info.experiment_id / identifier / "artifacts"
    with Image.open(folder / names[0]) as image:
        assert image.size == (2 * SIZE[0], SIZE[1])
        assert np.asarray(image).std() > 10


def check_resume(dataset: Path, output: Path, runs: dict[str, str]) -> None:
    resumed = train_net(dataset, output, "--resume", iterations=ITERATIONS + 1)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "cannot be written" not in resumed.stdout
    assert json.loads((output / "loggers.json").read_text()) == runs
    assert [file.stem for file in wandb_files(output)] == [f"run-{runs['wandb']}"] * 2
    client, run = mlflow_run(output)
    assert (run.info.run_id, run.info.status) == (runs["mlflow"], "FINISHED")
    steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "loss/total")]
    assert steps[-1] == ITERATIONS


@pytest.mark.parametrize(
    "environment",
    [
        {"WANDB_MODE": "online"},  # and nobody is logged in
        {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"},
        {"MLFLOW_TRACKING_URI": "/dev/null/mlruns"},
        {"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"},  # which mlflow-skinny does not have
    ],
)
def test_what_cannot_be_reached_ends_nothing(dataset: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    environment = {**environment, "HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc")}
    result = train_net(dataset, tmp_path / "mine", iterations=1, **environment)
    assert result.returncode == 0, result.stdout + result.stderr
    text = " ".join(result.stdout.split())
    assert text.count("cannot be written: ") == 1
    title = "Weights & Biases" if "WANDB_MODE" in environment else "MLflow"
    assert f"warning: What goes to {title} cannot be written: " in text
    assert (tmp_path / "mine" / "model_final.pth").is_file()
    assert "Traceback" not in result.stdout + result.stderr
