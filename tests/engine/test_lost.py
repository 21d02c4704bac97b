"""What is said when a data-loading process or another of the training is lost, or shared memory is full."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader, Dataset, get_worker_info

from lite_detr_d2.data import DetrDatasetMapper
from lite_detr_d2.engine import one_line_errors
from lite_detr_d2.engine.lost import is_connection_lost, what_was_lost
from tests.data.folders import write_coco_folder
from tests.projects.test_train_net import error_of, run


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
    with pytest.raises(SystemExit) as stop, one_line_errors():
        for _ in DataLoader(Deadly(end), num_workers=2):
            pass
    assert str(stop.value).startswith("error: ")
    assert str(stop.value).count("\n") == 0
    for word in (*words, "--resume"):
        assert word in str(stop.value)


@pytest.mark.parametrize("option", ["--eval-only", None])
def test_in_training_and_in_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str | None
) -> None:
    common: tuple[object, ...] = ("--dataset", write_coco_folder(tmp_path), "OUTPUT_DIR", tmp_path / "output")
    if option:
        run(*common, "SOLVER.MAX_ITER", 1, "SOLVER.STEPS", "()", "DATASETS.TEST", "()")
        common = (option, *common, "MODEL.WEIGHTS", tmp_path / "output" / "model_final.pth")
    whole = DetrDatasetMapper.__call__

    def killed(self: DetrDatasetMapper, record: dict[str, Any]) -> object:
        if get_worker_info() is not None:
            die(signal.SIGKILL)
        return whole(self, record)

    monkeypatch.setattr(DetrDatasetMapper, "__call__", killed)
    message = error_of(capsys, *common, "DATALOADER.NUM_WORKERS", 1)
    assert message.startswith("error: A data-loading process was killed")


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
