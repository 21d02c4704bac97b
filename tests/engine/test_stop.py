"""A training that is asked to stop saves first, and says how to go on."""

import argparse
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase, hooks
from detectron2.engine.hooks import PeriodicWriter
from detectron2.utils import comm

from lite_detr_d2.checkpoint import is_intact
from lite_detr_d2.engine import Trainer, argument_parser, launch_checked, processes
from lite_detr_d2.engine.stop import EXIT_CODES, Stop, TrainingStopped
from lite_detr_d2.signals import noted_signals
from tests.data.folders import write_coco_folder
from tests.projects.scripts import PROJECT, TINY

from .stops import LENGTH, assert_same_training, processes_naming, stoppable_config, train


@pytest.fixture(autouse=True)
def _heeded() -> Iterator[None]:
    """The tests may run where signals are ignored, as in a shell's background; programs inherit that."""
    handlers = {number: signal.getsignal(number) for number in EXIT_CODES}
    for number in EXIT_CODES:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def cfg(tmp_path: Path) -> CfgNode:
    return stoppable_config(tmp_path)


class Signal(HookBase):
    """Sends this process a signal in an iteration."""

    def __init__(self, number: int, iteration: int) -> None:
        self.number, self.iteration = number, iteration

    def before_step(self) -> None:
        if self.trainer.iter == self.iteration:
            os.kill(os.getpid(), self.number)


def stop(cfg: CfgNode, output: Path, number: int, iteration: int) -> TrainingStopped:
    cfg = cfg.clone()
    cfg.OUTPUT_DIR = str(output)
    torch.manual_seed(0)
    trainer = Trainer(cfg)
    trainer.register_hooks([Signal(number, iteration)])
    with pytest.raises(TrainingStopped) as stopped:
        trainer.train()
    return stopped.value


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGUSR1", 75), ("SIGHUP", 143)])
def test_the_iteration_is_finished_and_saved(
    cfg: CfgNode, tmp_path: Path, log: pytest.LogCaptureFixture, name: str, code: int
) -> None:
    handlers = [signal.getsignal(number) for number in EXIT_CODES]
    assert stop(cfg, tmp_path / "stopped", signal.Signals[name], iteration=2).code == code
    assert [signal.getsignal(number) for number in EXIT_CODES] == handlers
    said = [message for message in log.messages if message.startswith(name)]
    assert len(said) == 1
    assert "stopped after 3 iterations, " in said[0]
    assert "model_0000002.pth. --resume goes on from there" in said[0]
    expected = train(cfg, tmp_path / "whole")
    assert_same_training(train(cfg, tmp_path / "stopped"), expected)


def test_progress_may_have_been_written_in_the_iteration(
    cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By detectron2, which divides by the iterations since then for as long as it has no mean of the times."""
    monkeypatch.setattr(hooks, "PeriodicWriter", lambda writers, period: PeriodicWriter(writers, 1))
    assert stop(cfg, tmp_path / "stopped", signal.SIGUSR1, iteration=0).code == 75


def test_an_evaluation_is_broken_off(cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is done again where the training goes on, if it is the last one."""
    cfg.DATASETS.TEST = cfg.DATASETS.TRAIN
    evaluate = Trainer.test.__func__

    def signalled(cls: type[Trainer], *args: object) -> object:
        os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(cls, *args)

    monkeypatch.setattr(Trainer, "test", classmethod(signalled))
    with pytest.raises(TrainingStopped):
        train(cfg, tmp_path / "run", TEST__EVAL_PERIOD=3)
    assert (tmp_path / "run" / "model_0000002.pth").is_file()
    assert not (tmp_path / "run" / "eval_metrics.json").exists()
    monkeypatch.undo()
    train(cfg, tmp_path / "run")
    assert (tmp_path / "run" / "eval_metrics.json").is_file()


def test_in_the_last_evaluation_no_iteration_is_made_up(
    cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    """It may be stopped several times, and the training made longer: no image of it is left out."""
    expected = train(cfg, tmp_path / "whole", SOLVER__MAX_ITER=LENGTH + 2)
    cfg.DATASETS.TEST = cfg.DATASETS.TRAIN
    with monkeypatch.context() as patch:
        evaluate = Trainer.test.__func__

        def signalled(cls: type[Trainer], *args: object) -> object:
            os.kill(os.getpid(), signal.SIGTERM)
            return evaluate(cls, *args)

        patch.setattr(Trainer, "test", classmethod(signalled))
        for _ in range(2):
            log.clear()
            with pytest.raises(TrainingStopped):
                train(cfg, tmp_path / "run")
            assert sum(f"stopped after {LENGTH} iterations, " in message for message in log.messages) == 1
            last = (tmp_path / "run" / "last_checkpoint").read_text()
            assert torch.load(tmp_path / "run" / last)["iteration"] == LENGTH - 1
    cfg.DATASETS.TEST = ()
    assert_same_training(train(cfg, tmp_path / "run", SOLVER__MAX_ITER=LENGTH + 2), expected)


class Slow:
    """Takes its time to save, in the first process."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __call__(self) -> str:
        if comm.is_main_process():
            time.sleep(3)
            self.file.touch()
        return str(self.file)


def stop_slowly(args: argparse.Namespace) -> None:
    hook = Stop([], Slow(Path(args.opts[-1], "saved")))
    hook.trainer = SimpleNamespace(iter=1, max_iter=9)
    with hook.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        hook.after_step()


def test_processes_wait_for_the_one_that_saves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "GRACE", 0.5)
    options = ["--config-file", str(TINY), "--num-gpus", "2", "OUTPUT_DIR", str(tmp_path)]
    with pytest.raises(SystemExit) as stopped:
        launch_checked(stop_slowly, argument_parser("").parse_args(options))
    assert stopped.value.code == 143
    assert (tmp_path / "saved").is_file()


def test_in_a_thread_there_are_no_signals(cfg: CfgNode, tmp_path: Path) -> None:
    thread = threading.Thread(target=train, args=(cfg, tmp_path / "run"))
    thread.start()
    thread.join()
    assert (tmp_path / "run" / "model_final.pth").is_file()


ALONE: tuple[str, ...] = ()
TWO = ("--num-gpus", "2")


@contextmanager
def program(
    folder: Path, *processes: str, ignored: tuple[signal.Signals, ...] = ()
) -> Iterator["subprocess.Popen[bytes]"]:
    """A long training that has saved, in a session of its own; what it says goes to a file, as a pipe would be full."""
    write_coco_folder(folder / "data")
    command = [sys.executable, str(PROJECT / "train_net.py"), "--config-file", str(TINY), *processes, "--dataset"]
    options = ["DATALOADER.NUM_WORKERS", 2, "OUTPUT_DIR", folder / "run", "SOLVER.REFERENCE_NUM_IMAGES", 0]
    command += [str(folder / "data"), *map(str, options), "SOLVER.MAX_ITER", "100000", "SOLVER.STEPS", "()"]
    command += ["SOLVER.CHECKPOINT_PERIOD", "1", "MODEL.DEVICE", "cpu"]

    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            until = time.monotonic() + 300
            while not (folder / "run" / "last_checkpoint").is_file():
                assert process.poll() is None and time.monotonic() < until
                time.sleep(0.1)
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def assert_stopped(folder: Path, number: signal.Signals) -> None:
    """It has said so, once, and has saved."""
    output = (folder / "said").read_text()
    assert "Traceback" not in output
    (iterations,) = re.findall(rf"{number.name}: stopped after (\d+) iterations, ", output)
    last = (folder / "run" / "last_checkpoint").read_text()
    assert torch.load(folder / "run" / last)["iteration"] == int(iterations) - 1


@pytest.mark.parametrize(
    ("number", "code", "processes", "to_group"),
    [
        (signal.SIGINT, 130, ALONE, True),
        (signal.SIGTERM, 143, ALONE, True),
        (signal.SIGINT, 130, TWO, True),
        (signal.SIGTERM, 143, TWO, False),
        (signal.SIGUSR1, 75, TWO, False),
    ],
)
def test_a_program_that_is_told_to_stop(
    tmp_path: Path, number: signal.Signals, code: int, processes: tuple[str, ...], to_group: bool
) -> None:
    """To the whole group as a terminal does, which data-loading processes are not to die of; or the first process."""
    with program(tmp_path, *processes) as process:
        (os.killpg if to_group else os.kill)(process.pid, number)
        assert process.wait(timeout=300) == code
    assert_stopped(tmp_path, number)


@pytest.mark.parametrize("ignored", [(), (signal.SIGINT,)])
def test_processes_end_when_what_has_started_them_is_killed(
    tmp_path: Path, ignored: tuple[signal.Signals, ...]
) -> None:
    with program(tmp_path, *TWO, ignored=ignored) as process:
        process.kill()
        process.wait()
        until = time.monotonic() + 120
        while processes_naming(str(tmp_path)):
            assert time.monotonic() < until
            time.sleep(0.2)
    assert is_intact(tmp_path / "run" / (tmp_path / "run" / "last_checkpoint").read_text())


def test_what_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with noted_signals([signal.SIGHUP, signal.SIGTERM]) as noted:
            os.kill(os.getpid(), signal.SIGHUP)
            assert noted() == 0
            os.kill(os.getpid(), signal.SIGTERM)
            assert noted() == signal.SIGTERM
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_signal_ends_the_process_at_once() -> None:
    code = (
        "import os, signal\nfrom lite_detr_d2.signals import noted_signals\n"
        "with noted_signals([signal.SIGINT], again=signal.SIG_DFL):\n"
        "    for _ in range(2): os.kill(os.getpid(), signal.SIGINT)\n"
        "    raise SystemExit('still there')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGINT, ""), done.stderr
    assert "still there" not in done.stderr
