"""A training as a job of submitit's local executor: it is submitted, stopped, queued again, and ends as one in a go."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryFile

import pytest
import torch

from lite_detr_d2.engine.submit import Job
from tests.data.folders import write_coco_folder
from tests.projects.scripts import PROJECT, TINY

LOCAL = "cluster=local,timeout_min=10"


def train_net(dataset: Path, output: Path, *options: str, iterations: int = 40) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(PROJECT / "train_net.py"), "--config-file", str(TINY), "--dataset", str(dataset)]
    settings = {
        **{"SOLVER.MAX_ITER": iterations, "SOLVER.STEPS": "()", "SOLVER.CHECKPOINT_PERIOD": 5, "SEED": 1},
        **{"SOLVER.REFERENCE_NUM_IMAGES": 0, "TEST.EVAL_PERIOD": 0, "OUTPUT_DIR": output},
    }
    words = [str(word) for pair in settings.items() for word in pair]
    with TemporaryFile("w+") as out, TemporaryFile("w+") as err:  # a pipe would be open as long as a job, which has it
        done = subprocess.run([*command, *options, *words], stdout=out, stderr=err, text=True, check=False)
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess(done.args, done.returncode, out.read(), err.read())


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco_folder(tmp_path_factory.mktemp("data"))


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def logged(output: Path) -> str:
    return "".join(path.read_text() for path in (output / "jobs").glob("*_log.out"))


def trainings_in(output: Path) -> list[int]:
    """The processes of submitit that hold a training in this folder."""
    command = ["pgrep", "-f", f"submitit.core._submit {output}/jobs"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return [int(number) for number in found.stdout.split()]


def test_a_job_that_is_interrupted_is_queued_again_and_ends_as_one_that_was_not(dataset: Path, tmp_path: Path) -> None:
    whole, output = tmp_path / "whole", tmp_path / "output"
    assert train_net(dataset, whole).returncode == 0
    submitted = train_net(dataset, output, "--submit", LOCAL)
    assert submitted.returncode == 0, submitted.stderr
    assert submitted.stdout.startswith("Submitted job ")
    assert f"logs to {output}/jobs/" in submitted.stdout
    wait_for((output / "last_checkpoint").is_file)
    (job,) = trainings_in(output)
    os.kill(job, signal.SIGUSR2)  # as submitit does before the time is up
    wait_for(lambda: (output / "model_final.pth").is_file() and "Job completed successfully" in logged(output))
    said = logged(output)
    assert said.count("SIGUSR1: stopped after ") == 1
    assert said.count("Requeued job") == 1
    expected, found = (torch.load(folder / "model_final.pth")["model"] for folder in (whole, output))
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_training_that_fails_is_not_queued_again(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    submitted = train_net(tmp_path / "data", tmp_path / "output", "--submit", LOCAL)
    assert submitted.returncode == 0, submitted.stderr
    wait_for(lambda: "Submitted job triggered an exception" in logged(tmp_path / "output"))
    said = logged(tmp_path / "output")
    assert "error: " in said
    assert "Requeued" not in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--submit", "timeout_min"), "--submit is 'timeout_min': expected KEY=VALUE,KEY=VALUE"),
        (("--submit", "cluster=local"), "has no timeout_min"),
        (("--submit", f"{LOCAL},nodes=2"), "has nodes=2: a job is one task on one machine"),
        (("--submit", "cluster=moon,timeout_min=1"), "has cluster=moon: expected slurm or local"),
        (("--submit", f"{LOCAL},nonsense=1"), "submitit says: "),
        (("--submit", "cluster=slurm,timeout_min=1"), "submitit says: "),
        (("--submit", LOCAL, "--overwrite"), "a cluster may start a job several times"),
        (("--submit", LOCAL, "--eval-only"), "--submit is for trainings"),
        (("--sub", LOCAL), "--submit has to be given in full"),
    ],
)
def test_what_is_wrong_is_one_line(dataset: Path, tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    result = train_net(dataset, tmp_path / "output", *options)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert said in result.stderr


@pytest.mark.parametrize(
    ("ends", "goes_on"),
    [
        ("signal.SIG_DFL", True),  # as one that has not begun yet, and has nothing to save
        ("lambda *_: sys.exit(128 + signal.SIGUSR1)", True),  # as several processes, of which one has not
        ("lambda *_: sys.exit(75)", True),
        ("lambda *_: sys.exit(1)", False),
        ("lambda *_: os.kill(os.getpid(), signal.SIGKILL)", False),
    ],
)
def test_what_is_interrupted_is_queued_again_unless_it_fails(tmp_path: Path, ends: str, goes_on: bool) -> None:
    ready = tmp_path / "ready"
    code = (
        f"import os, pathlib, signal, sys\nsignal.signal(signal.SIGUSR1, {ends})\n"
        f"pathlib.Path({str(ready)!r}).touch()\nsignal.pause()"
    )
    job = Job([sys.executable, "-c", code])
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(job)
        wait_for(ready.is_file)
        again = job.checkpoint()
        with pytest.raises(RuntimeError, match="has ended with exit code"):
            running.result()
    assert (again is not None) == goes_on


def test_what_is_submitted_must_be_able_to_begin(dataset: Path, tmp_path: Path) -> None:
    assert train_net(dataset, tmp_path / "output", iterations=1).returncode == 0
    result = train_net(dataset, tmp_path / "output", "--submit", LOCAL)
    assert result.returncode == 1
    assert "has a training in it" in result.stderr
    assert not (tmp_path / "output" / "jobs").exists()
