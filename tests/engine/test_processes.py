"""Several processes: started by our launcher or by torchrun, they train as one; and end together."""

import argparse
import itertools
import json
import math
import os
import signal
import subprocess
import sys
from operator import itemgetter
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from detectron2.engine import HookBase
from detectron2.utils import comm

from lite_detr_d2.data import register_coco_folder
from lite_detr_d2.engine import Trainer, argument_parser, launch_checked, read_config
from lite_detr_d2.engine.folder_lock import LOCK_FILE
from lite_detr_d2.engine.processes import _signals_passed_on
from lite_detr_d2.errors import InputError
from lite_detr_d2.modeling.criterion import Criterion
from tests.data.folders import coco_content, write_coco_folder

from ..projects.test_train_net import run, train_net
from .dying import end
from .stops import processes_naming
from .test_exact_resume import assert_same_training, train
from .test_folder_lock import another_process, take

TINY = Path(__file__).parent / "tiny.yaml"
ROOT = Path(__file__).parents[2]
PLACE = {
    "RANK": 0,
    "WORLD_SIZE": 1,
    "LOCAL_RANK": 0,
    "LOCAL_WORLD_SIZE": 1,
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": 29500,
}


def parse(*arguments: object) -> argparse.Namespace:
    return argument_parser("").parse_args(["--config-file", str(TINY), *map(str, arguments)])


def fail_everywhere(args: argparse.Namespace) -> None:
    end("all")


def fail_in_one(args: argparse.Namespace) -> None:
    end("one")
    comm.synchronize()


def fail_by_a_bug(args: argparse.Namespace) -> None:
    end("bug")


def train_as_a_user(args: argparse.Namespace) -> None:
    train_net.main(args)  # in another process, its module has no name to be imported by


def end_with_a_code(args: argparse.Namespace) -> None:
    sys.exit(75)


@pytest.mark.parametrize(
    ("main", "said", "code"),
    [
        (fail_everywhere, "error: mend it\n", 1),
        (fail_in_one, "error: mend it\n", 1),
        (fail_by_a_bug, "ZeroDivisionError: a bug\n", 1),
        (end_with_a_code, "", 75),
    ],
)
def test_what_processes_have_to_say_is_said_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], main: object, said: str, code: int
) -> None:
    with pytest.raises(SystemExit) as stop:
        launch_checked(main, parse("--num-gpus", 2, "OUTPUT_DIR", tmp_path))
    assert stop.value.code == code
    error = capfd.readouterr().err
    assert error.count("error: ") + error.count("Traceback") == bool(said)
    assert said in error
    assert not os.listdir(tmp_path)


def run_dying(how: str, output: Path, dataset: Path, *launcher: str) -> subprocess.CompletedProcess[str]:
    command = [
        *launcher,
        str(Path(__file__).parent / "dying.py"),
        "--config-file",
        str(TINY),
        "--dataset",
        str(dataset),
    ]
    if launcher == (sys.executable,):
        command += ["--num-gpus", "2"]
    overrides = ["OUTPUT_DIR", str(output), "DATALOADER.NUM_WORKERS", "1", "SOLVER.REFERENCE_NUM_IMAGES", "0"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore",
        "DYING": how,
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [*command, *overrides], env=environment, capture_output=True, text=True, check=False, timeout=300
    )


TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


@pytest.mark.parametrize(
    ("how", "launcher"), [("killed", (sys.executable,)), ("killed", TORCHRUN), ("loader", (sys.executable,))]
)
def test_a_lost_process_ends_all_with_one_message(tmp_path: Path, how: str, launcher: tuple[str, ...]) -> None:
    dataset = write_coco_folder(tmp_path / "data")
    result = run_dying(how, tmp_path / "output", dataset, *launcher)
    assert result.returncode == 1, result.stderr
    told = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    if how == "loader":
        assert ["A data-loading process was killed" in line for line in told] == [True]
    elif launcher == TORCHRUN:  # which may end the other before it sees what happened, and has a text of its own
        assert all("The connection to the other processes" in line for line in told)
        assert len(told) <= 1
    else:
        assert ["Process 1 of 2 was killed (SIGKILL)" in line for line in told] == [True]
        assert result.stderr.count("Traceback") == 0
    assert not processes_naming(str(tmp_path))
    assert not (tmp_path / "output" / "model_final.pth").exists()


def test_torchrun_restarts_a_training_where_it_was(tmp_path: Path) -> None:
    dataset = write_coco_folder(tmp_path / "data")
    result = run_dying("killed once", tmp_path / "output", dataset, *TORCHRUN, "--max_restarts", "1")
    assert result.returncode == 0, result.stderr
    whole = run_dying("", tmp_path / "whole", dataset, *TORCHRUN)
    assert whole.returncode == 0, whole.stderr
    assert "FutureWarning" not in whole.stderr
    found, expected = (torch.load(tmp_path / name / "model_final.pth") for name in ("output", "whole"))
    assert_same_training(found, expected)
    assert "Starting training from iteration 2" in (tmp_path / "output" / "log.txt").read_text()


@pytest.mark.parametrize("processes", [1, 2])
def test_torchrun_does_not_restart_into_another_training(tmp_path: Path, processes: int) -> None:
    output = tmp_path / "output"
    output.mkdir()
    (output / "model_final.pth").write_bytes(b"another's")
    launcher = (*TORCHRUN[:-1], str(processes), "--max_restarts", "1")
    result = run_dying("", output, write_coco_folder(tmp_path / "data"), *launcher)
    assert result.returncode == 1
    told = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(told) == 2  # starts
    assert all("has a training in it (model_final.pth)" in line for line in told)
    assert [path.name for path in output.iterdir()] == ["model_final.pth"]


def test_a_second_training_and_an_evaluation_are_refused(tmp_path: Path) -> None:
    with another_process(lambda: take(tmp_path)):
        for options in ((), ("--eval-only",)):
            with pytest.raises(InputError, match="is that of a training that is going on"):
                launch_checked(fail_everywhere, parse(*options, "OUTPUT_DIR", tmp_path))
    assert os.listdir(tmp_path) == [LOCK_FILE]


def train_whole_and_stopped(args: argparse.Namespace) -> None:
    root = Path(args.dataset)
    cfg = read_config(args)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (register_coco_folder(root).train,), ()
    cfg.MODEL.LITE_DETR.NUM_CLASSES = 3
    whole = train(cfg, root / "whole")
    for number, stops in enumerate(((1,), (0, 3))):
        assert_same_training(
            train(cfg, root / f"stopped {number}", stops=stops), {**whole, "trainer": dict(whole["trainer"])}
        )
    (root / f"{comm.get_rank()} of {comm.get_world_size()}").touch()


def test_two_processes_resume_bit_by_bit(tmp_path: Path) -> None:
    write_coco_folder(tmp_path, coco_content(images=9))
    overrides = ("SOLVER.MAX_ITER", 6, "SOLVER.CHECKPOINT_PERIOD", 2, "OUTPUT_DIR", tmp_path / "output")
    launch_checked(train_whole_and_stopped, parse("--num-gpus", 2, "--dataset", tmp_path, *overrides))
    assert (tmp_path / "0 of 2").exists()
    assert (tmp_path / "1 of 2").exists()


def train_with_a_bad_part(args: argparse.Namespace) -> None:
    """In one of two processes, the losses of the last part of the second batch are not finite."""
    cfg = read_config(args)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (register_coco_folder(Path(args.dataset)).train,), ()
    cfg.MODEL.LITE_DETR.NUM_CLASSES = 3
    compute, calls = Criterion.__call__, itertools.count()

    def diverge(*inputs: Any) -> dict[str, torch.Tensor]:
        is_bad = next(calls) == 3 and comm.get_rank() == 1
        return {name: loss * (math.nan if is_bad else 1) for name, loss in compute(*inputs).items()}

    seen = []

    class Look(HookBase):
        def after_step(self) -> None:
            model = self.trainer.checkpointer.model
            seen.append({name: value.clone() for name, value in model.named_parameters()})

    trainer = Trainer(cfg)
    trainer.register_hooks([Look()])
    with patch.object(Criterion, "__call__", diverge):
        trainer.train()
    first, second, third = seen
    assert trainer._trainer.skipped == 1
    assert all(torch.equal(second[name], value) for name, value in first.items())
    assert any(not torch.equal(third[name], value) for name, value in second.items())
    both = comm.all_gather(third)
    assert all(torch.equal(both[0][name], both[1][name]) for name in third)


def test_a_part_that_is_bad_in_one_process_is_passed_over_in_both(tmp_path: Path) -> None:
    write_coco_folder(tmp_path, coco_content(images=9))
    options = (
        "SOLVER.MAX_ITER",
        3,
        "SOLVER.STEPS",
        "()",
        "SOLVER.ACCUMULATE",
        2,
        "SOLVER.IMS_PER_BATCH",
        4,
        "OUTPUT_DIR",
        tmp_path / "run",
    )
    launch_checked(train_with_a_bad_part, parse("--num-gpus", 2, "--dataset", tmp_path, *options))
    lines = (tmp_path / "run" / "bad_batches.json").read_text().splitlines()
    records = sorted(map(json.loads, lines), key=itemgetter("rank"))
    assert [(record["iteration"], record["rank"]) for record in records] == [(1, 0), (1, 1)]
    assert records[0]["problem"] == "in another process, a loss is not finite"
    assert "loss_bbox = nan" in records[1]["problem"]


@pytest.mark.parametrize("images", [1, 3])
def test_two_processes_evaluate_as_one(tmp_path: Path, images: int) -> None:
    """Also where one has fewer images, or none."""
    val = coco_content(images=images)
    dataset = write_coco_folder(tmp_path / f"{tmp_path.name}_{images}", val=val)
    both, one = tmp_path / "both", tmp_path / "one"
    launch_checked(train_as_a_user, parse("--num-gpus", 2, "--dataset", dataset, "OUTPUT_DIR", both))
    run("--eval-only", "--dataset", dataset, "OUTPUT_DIR", one, "MODEL.WEIGHTS", both / "model_final.pth")
    for file in ("eval_metrics.json", "inference/coco_instances_results.json"):
        assert (one / file).read_bytes() == (both / file).read_bytes()
    assert (both / "log.txt.rank1").exists()
    assert not (both / LOCK_FILE).exists()


def set_environment(monkeypatch: pytest.MonkeyPatch, **values: object) -> None:
    for name, value in {**PLACE, **values}.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, str(value))


def test_one_process_under_torchrun_is_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = write_coco_folder(tmp_path)
    run("--dataset", dataset, "OUTPUT_DIR", tmp_path / "plain")
    set_environment(monkeypatch)
    launch_checked(train_net.main, parse("--dataset", dataset, "OUTPUT_DIR", tmp_path / "torchrun"))
    plain, torchrun = (torch.load(tmp_path / name / "model_final.pth") for name in ("plain", "torchrun"))
    assert_same_training(torchrun, plain)


@pytest.mark.parametrize(("options", "resumes"), [((), True), (("--eval-only",), False)])
def test_a_training_that_torchrun_restarts_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], resumes: bool
) -> None:
    for count in (0, 1):
        set_environment(monkeypatch, TORCHELASTIC_RESTART_COUNT=count)
        seen: list[bool] = []
        launch_checked(lambda args, seen=seen: seen.append(args.resume), parse(*options, "OUTPUT_DIR", tmp_path))
        assert seen == [resumes and count > 0]


@pytest.mark.parametrize(
    ("environment", "options", "message"),
    [
        ({}, ("--num-gpus", 2), "--num-gpus 2 under torchrun"),
        ({}, ("--num-machines", 2), "--num-machines 2 under torchrun"),
        ({"LOCAL_RANK": None, "WORLD_SIZE": 2}, (), "has RANK and WORLD_SIZE, but not LOCAL_RANK"),
        ({"LOCAL_WORLD_SIZE": None, "MASTER_PORT": None}, (), "but not LOCAL_WORLD_SIZE, MASTER_PORT"),
        ({"WORLD_SIZE": "two"}, (), "WORLD_SIZE=two"),
        ({"MASTER_PORT": 0}, (), "a port that is not 0"),
        ({"WORLD_SIZE": 5, "LOCAL_WORLD_SIZE": 2}, (), "5 processes, 2 of them on this machine"),
    ],
)
def test_contradictions_with_torchrun_are_named(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, object], options: tuple[object, ...], message: str
) -> None:
    set_environment(monkeypatch, **environment)
    with pytest.raises(InputError, match=message):
        launch_checked(fail_everywhere, parse(*options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--num-gpus", 65), "--num-gpus 65 on the CPU, and this machine has 3 CPU cores"),
        (("--num-gpus", 0), "--num-gpus 0, --num-machines 1, --machine-rank 0: expected at least one"),
        (("--num-gpus", 2, "MODEL.DEVICE", "cuda"), "--num-gpus 2, and this machine has 0. .* add MODEL.DEVICE cpu"),
        (("--num-machines", 2, "MODEL.DEVICE", "cuda"), "this machine has 0"),
        (("--num-machines", 2), "--num-machines 2 needs --dist-url tcp://HOST:PORT"),
        (("--num-machines", 2, "--machine-rank", 2), "--machine-rank 2: expected"),
        (("--num-gpus", 2, "--dist-url", "file:///tmp/store"), "--dist-url is 'file:///tmp/store': expected tcp"),
        (("--num-gpus", 2, "--dist-url", "tcp://127.0.0.1:x"), "expected tcp"),
        (("--num-gpus", 2, "NO.SUCH", "KEY"), "NO.SUCH"),
    ],
)
def test_impossible_numbers_are_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, options: tuple[object, ...], message: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(3)))
    with pytest.raises(InputError, match=message):
        launch_checked(fail_everywhere, parse(*options))


@pytest.mark.parametrize(
    ("device", "message"),
    [("cuda", "--num-gpus 3, and this machine has 2 GPUs"), ("cuda:1", "each needs a GPU of its own")],
)
def test_each_process_needs_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch, device: str, message: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match=message):
        launch_checked(fail_everywhere, parse("--num-gpus", 3, "MODEL.DEVICE", device))


def test_a_batch_that_cannot_be_shared_is_named_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options = ("--num-gpus", 2, "--dataset", write_coco_folder(tmp_path), "OUTPUT_DIR", tmp_path / "output")
    with pytest.raises(SystemExit):
        launch_checked(train_as_a_user, parse(*options, "SOLVER.IMS_PER_BATCH", 3))
    assert capfd.readouterr().err.count("error: SOLVER.IMS_PER_BATCH is 3: expected a multiple of the number") == 1


def ignore_and_wait(args: argparse.Namespace) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    comm.synchronize()
    if comm.get_rank() == 0:
        os.kill(os.getppid(), signal.SIGTERM)
    signal.pause()


def test_signals_reach_every_process(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        launch_checked(ignore_and_wait, parse("--num-gpus", 2, "OUTPUT_DIR", tmp_path))
    assert stop.value.code == 143


def test_a_signal_that_is_ignored_is_not_passed_on() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with _signals_passed_on([]) as passed_on:
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGUSR1)
        assert passed_on == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGHUP, before)
