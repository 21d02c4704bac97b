"""What is said when a data-loading process or another of the training is lost, or shared memory is full."""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, Dataset

from lite_detr_d2.engine import one_line_errors
from lite_detr_d2.engine.lost import is_connection_lost, what_was_lost
from tests.data.folders import write_coco_folder
from tests.projects.scripts import PROJECT, TINY
from tests.projects.test_train_net import run

# A module of the user's, whose data-loading processes die.
DEADLY = """
import os
import signal

from torch.utils.data import get_worker_info

from lite_detr_d2.data import DetrDatasetMapper

whole = DetrDatasetMapper.__call__


def killed(self, record):
    if get_worker_info() is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(self, record)


DetrDatasetMapper.__call__ = killed
"""


def die(by: signal.Signals) -> None:
    os.kill(os.getpid(), by)


def fail(message: str) -> None:
    raise RuntimeError(message)


class Deadly(Dataset[int]):
    def __init__(self, end: Callable[[], None]) -> None:
        self.end = end

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        if index == 2:
            self.end()
        return index


def message_of(training: Callable[[], object]) -> str:
    """Return what a training ends with that is run in a process of its own.

    PyTorch raises the death of a data-loading process wherever the main thread is: that must not be in pytest.
    """
    receiver, sender = multiprocessing.Pipe(duplex=False)

    def run_in_it() -> None:
        with pytest.raises(SystemExit) as stop, one_line_errors():
            training()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        sender.send(str(stop.value))

    process = multiprocessing.get_context("fork").Process(target=run_in_it)
    process.start()
    sender.close()
    message: str = receiver.recv()
    process.join()
    assert process.exitcode == 0
    return message


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (
            lambda: die(signal.SIGKILL),
            ("A data-loading process was killed", "memory ran out", "DATALOADER.NUM_WORKERS lower"),
        ),
        (lambda: die(signal.SIGSEGV), ("A data-loading process was killed", "DATALOADER.NUM_WORKERS lower")),
        (lambda: die(signal.SIGBUS), ("shared memory", "/dev/shm", "DATALOADER.NUM_WORKERS lower")),
        (lambda: fail("unable to write to file </torch_1_2_3>: No space left on device (28)"), ("/dev/shm",)),
        (lambda: fail("unable to mmap 9 bytes from file </torch_1_2_3>: Cannot allocate memory (12)"), ("/dev/shm",)),
        (lambda: fail("received 0 items of ancdata"), ("ulimit -n", "DATALOADER.NUM_WORKERS lower")),
        (lambda: os._exit(3), ("A data-loading process was killed",)),
    ],
)
def test_a_lost_data_loading_process(end: Callable[[], None], words: tuple[str, ...]) -> None:
    message = message_of(lambda: list(DataLoader(Deadly(end), num_workers=2)))
    assert message.startswith("error: ")
    assert message.count("\n") == 0
    for word in (*words, "--resume"):
        assert word in message


def test_its_signal_may_come_late() -> None:
    """The connection to it breaks first, and PyTorch raises an error for each."""

    def training() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        batches = iter(DataLoader(Deadly(lambda: None), num_workers=1))
        (loading,) = multiprocessing.active_children()
        loading.kill()
        os.waitid(os.P_PID, loading.pid or 0, os.WEXITED | os.WNOWAIT)
        raise RuntimeError(f"DataLoader worker (pid(s) {loading.pid}) exited unexpectedly from {batches}")

    assert message_of(training).startswith("error: A data-loading process was killed")


@pytest.mark.parametrize("option", ["--eval-only", None])
def test_in_training_and_in_evaluation(tmp_path: Path, option: str | None) -> None:
    common: tuple[object, ...] = ("--dataset", write_coco_folder(tmp_path), "OUTPUT_DIR", tmp_path / "output")
    if option:
        run(*common, "SOLVER.MAX_ITER", 1, "SOLVER.STEPS", "()", "DATASETS.TEST", "()")
        common = (option, *common, "MODEL.WEIGHTS", tmp_path / "output" / "model_final.pth")
    (tmp_path / "deadly.py").write_text(DEADLY)
    program = (sys.executable, PROJECT / "train_net.py", "--config-file", TINY, "--import", "deadly")
    options = (*common, "DATALOADER.NUM_WORKERS", 1)
    done = subprocess.run(
        [str(word) for word in (*program, *options)],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: A data-loading process was killed")


def test_what_comes_of_it_is_not_what_was_lost() -> None:
    """An error at the end of a training that has failed does not hide why."""
    try:
        try:
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
        finally:
            raise RuntimeError("[gloo/transport/tcp/pair.cc:561] Connection closed by peer")
    except RuntimeError as error:
        assert what_was_lost(error).startswith("A data-loading process was killed")
        assert not is_connection_lost(error)


@pytest.mark.parametrize(
    "error", [RuntimeError("shape mismatch"), ConnectionResetError(104, "reset"), EOFError(), None]
)
def test_other_errors_are_left_as_they_are(error: Exception | None) -> None:
    assert not what_was_lost(error)
