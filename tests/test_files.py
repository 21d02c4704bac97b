"""A write that fails leaves what was there, no unfinished file, and one message."""

import errno
import io
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest
import torch

from lite_detr_d2 import files
from lite_detr_d2.checkpoint import is_intact, save_sealed
from lite_detr_d2.errors import InputError
from lite_detr_d2.files import check_output, text_around, write_atomically
from tests.data.folders import write_coco_folder
from tests.projects.scripts import PROJECT, TINY

LIMIT = 200_000
LARGE = torch.zeros(LIMIT)


@pytest.fixture
def small_disk() -> Any:
    """Files cannot grow beyond a limit, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "write", [lambda file: torch.save({"model": LARGE}, file), lambda file: file.write(LARGE.numpy().tobytes())]
)
@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.usefixtures("small_disk")
def test_no_space(tmp_path: Path, write: Callable[[IO[bytes]], object], exists: bool) -> None:
    path = tmp_path / "model.pth"
    if exists:
        path.write_bytes(b"before")
    with pytest.raises(InputError, match=rf"^{path} cannot be written: File too large\.$"):
        write_atomically(str(path), write)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == ([b"before"] if exists else [])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_what_the_system_refuses_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, call: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(InputError, match=rf"metrics\.json cannot be written: {os.strerror(number)}"):
        write_atomically(str(tmp_path / "metrics.json"), lambda file: file.write(b"{}"))
    assert not list(tmp_path.iterdir())


class FaultyDisk(io.FileIO):
    """Takes a few bytes at a time, and none beyond a limit."""

    limit = 2**60

    def write(self, data: Any) -> int:
        if self.tell() >= self.limit:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().write(bytes(data[:1000]))


def open_on_faulty_disk(path: str, mode: str) -> IO[bytes]:
    return io.BufferedWriter(FaultyDisk(path, mode))


@pytest.mark.parametrize("limit", [None, 0, 5_000, 60_000])
def test_a_disk_that_takes_less_than_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None
) -> None:
    path = tmp_path / "model.pth"
    content = {"model": torch.arange(20_000.0)}
    write_atomically(str(path), lambda file: save_sealed({"model": torch.zeros(3)}, file))
    before = path.read_bytes()
    monkeypatch.setattr(files, "open", open_on_faulty_disk, raising=False)
    if limit is None:
        write_atomically(str(path), lambda file: save_sealed(content, file))
        assert torch.equal(torch.load(path)["model"], content["model"])
    else:
        monkeypatch.setattr(FaultyDisk, "limit", limit)
        with pytest.raises(InputError, match=r"model\.pth cannot be written: Input/output error"):
            write_atomically(str(path), lambda file: save_sealed(content, file))
        assert path.read_bytes() == before
    assert is_intact(path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.pth"]


def test_the_folder_is_synced_after_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    sync, rename = os.fsync, os.replace

    def fsync(number: int) -> None:
        done.append("folder" if os.path.isdir(f"/proc/self/fd/{number}") else "file")
        sync(number)

    def replace(*paths: str) -> None:
        done.append("rename")
        rename(*paths)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.chdir(tmp_path)
    for path in (str(tmp_path / "metrics.json"), "metrics.json"):
        write_atomically(path, lambda file: file.write(b"{}"))
        assert done == ["file", "rename", "folder"]
        done.clear()


@pytest.mark.parametrize(("number", "is_said"), [(errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True)])
def test_a_folder_that_cannot_be_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, is_said: bool
) -> None:
    """Some file systems have no such thing."""
    sync = os.fsync

    def fsync(opened: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{opened}"):
            raise OSError(number, os.strerror(number))
        sync(opened)

    monkeypatch.setattr(os, "fsync", fsync)
    path = tmp_path / "metrics.json"
    if is_said:
        with pytest.raises(InputError, match=r"metrics\.json cannot be written: Input/output error"):
            write_atomically(str(path), lambda file: file.write(b"{}"))
    else:
        write_atomically(str(path), lambda file: file.write(b"{}"))
    assert path.read_bytes() == b"{}"
    assert len(os.listdir(tmp_path)) == 1


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone/metrics\.json cannot be written: No such file or directory"):
        write_atomically(str(tmp_path / "gone" / "metrics.json"), lambda file: file.write(b"{}"))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), TypeError("no bytes")])
def test_other_errors_stay_what_they_are(tmp_path: Path, error: BaseException) -> None:
    def fail(file: IO[bytes]) -> None:
        file.write(b"half")
        raise error

    with pytest.raises(type(error)):
        write_atomically(str(tmp_path / "model.pth"), fail)
    assert not list(tmp_path.iterdir())


def test_training_on_a_full_disk_ends_with_one_line(tmp_path: Path) -> None:
    """The checkpoint is the first file that is too large."""
    dataset, output = write_coco_folder(tmp_path / "set"), tmp_path / "output"
    command = [sys.executable, str(PROJECT / "train_net.py"), "--config-file", str(TINY), "--dataset", str(dataset)]
    result = subprocess.run(
        [*command, "OUTPUT_DIR", str(output)],
        env={**os.environ, "PYTHONPATH": str(PROJECT.parents[1]), "PYTHONWARNINGS": "ignore"},
        cwd=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "Traceback" not in result.stdout + result.stderr
    expected = f"error: {output / 'model_0000001.pth'} cannot be written: File too large."
    assert result.stderr.splitlines()[-1] == expected
    assert not list(output.glob("*.unfinished"))
    assert not list(output.glob("*.pth"))


def test_an_output_is_looked_at_before_there_is_anything_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    check_output(tmp_path / "new")
    check_output(tmp_path / "file")
    for name, message in (
        (".", "is a folder: name a file"),
        ("file/new", "cannot be written: .*file is a file, not a folder. Name another"),
        ("none/new", "cannot be written: there is no folder .*none. Make it first, or correct the name"),
        ("no\nne/new", r"no\\nne/new cannot be written"),
    ):
        with pytest.raises(InputError, match=message):
            check_output(tmp_path / name)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match="cannot be written: the folder .* is read-only. Give the permission, or name"):
        check_output(tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_text_around_the_first_marks(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("before\n<a>\nold\n<b>\nafter\n<a>\nmore\n<b>\n")
    assert text_around(path, "<a>", "<b>") == ("before\n<a>\n", "<b>\nafter\n<a>\nmore\n<b>\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<b>\n", r"page\.md has no line <a>: what is written goes between <a> and <b>\.$"),
        (b"<b>\n<a>\n", r"page\.md has no line <b>: "),
        (b"\xff", r"page\.md cannot be read: it is no text\.$"),
        (None, r"page\.md cannot be read: No such file or directory\.$"),
    ],
)
def test_marks_that_are_not_there(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "page.md"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        text_around(path, "<a>", "<b>")
