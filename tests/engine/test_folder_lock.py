"""One training at a time in a folder, whoever dies."""

import errno
import fcntl
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lite_detr_d2.engine.folder_lock import LOCK_FILE, only_training_in, refuse_beside_training
from lite_detr_d2.errors import InputError

KEPT: list[object] = []


def trained_elsewhere(folder: Path) -> str:
    going_on = f"OUTPUT_DIR '{folder}' is that of a training that is going on"
    return rf"{going_on} \(process {{pid}} on {socket.gethostname()}, since 20"


def take(folder: Path) -> None:
    lock = only_training_in(str(folder))
    lock.__enter__()
    KEPT.append(lock)


@contextmanager
def another_process(work: Callable[[], None]) -> Iterator[int]:
    """Fork a process that says when ``work`` is done, and then waits to be killed."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        work()
        os.write(writing, b"done")
        signal.pause()
    os.read(reading, 4)
    try:
        yield process
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def test_a_second_training_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    with another_process(lambda: take(tmp_path)) as first:
        for second in (
            lambda: take(tmp_path),
            lambda: refuse_beside_training(str(tmp_path)),
        ):
            with pytest.raises(InputError, match=trained_elsewhere(tmp_path).format(pid=first)):
                second()
        link = tmp_path.parent / f"{tmp_path.name} by another name"
        link.symlink_to(tmp_path)
        with pytest.raises(InputError, match=f"process {first} on"), only_training_in(str(link)):
            pass
    refuse_beside_training(str(tmp_path))
    with only_training_in(str(tmp_path)):
        pass


def test_what_a_killed_training_has_forked_is_not_in_the_way(tmp_path: Path) -> None:
    pid_file = tmp_path / "child"

    def train() -> None:
        take(tmp_path)
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        pid_file.write_text(str(child))

    with another_process(train):
        pass
    child = int(pid_file.read_text())
    try:
        os.kill(child, 0)
        began = time.monotonic()
        with only_training_in(str(tmp_path)):
            assert time.monotonic() - began < 1
    finally:
        os.kill(child, signal.SIGKILL)


def test_it_is_let_go_at_the_end_and_on_errors(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), only_training_in(str(tmp_path)):
        with only_training_in(str(tmp_path)):  # the same process again
            pass
        refuse_beside_training(str(tmp_path))
        owner = json.loads((tmp_path / LOCK_FILE).read_text())
        assert (owner["pid"], owner["host"]) == (os.getpid(), socket.gethostname())
        raise ZeroDivisionError
    assert not os.listdir(tmp_path)
    with another_process(lambda: take(tmp_path)):
        pass


def test_an_evaluation_leaves_nothing(tmp_path: Path) -> None:
    refuse_beside_training(str(tmp_path))
    refuse_beside_training(str(tmp_path / "not there"))
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("content", "warned"),
    [
        ({"pid": 1, "host": "far away", "since": "2026-01-01"}, True),
        ({"pid": 1, "host": socket.gethostname(), "since": "2026-01-01"}, False),
        ([], False),
        ("", False),
    ],
)
def test_what_is_left_by_another_machine_is_said(
    tmp_path: Path, said: list[str], content: object, warned: bool
) -> None:
    (tmp_path / LOCK_FILE).write_text(json.dumps(content) if content else "")
    with only_training_in(str(tmp_path)):
        pass
    assert len(said) == warned
    assert all("of process 1 on far away, since 2026-01-01" in message for message in said)


def test_without_locks_nothing_is_guarded_and_that_is_said(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lockf(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", lockf)
    with only_training_in(str(tmp_path)):
        assert [message for message in said if "has no locks (No locks available)" in message] == said
        assert len(said) == 1


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).mkdir()
    with (
        pytest.raises(InputError, match=f"{LOCK_FILE} cannot be written: Is a directory"),
        only_training_in(str(tmp_path)),
    ):
        pass
