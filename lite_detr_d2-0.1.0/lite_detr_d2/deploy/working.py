"""Folders to work in: one beside what is to be written, which one process has at a time, and a temporary one."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from ..errors import InputError
from ..files import system_error
from ..wording import shown

_LOCK = "lock"


@contextmanager
def unfinished(output: Path) -> Iterator[Path]:
    """A hidden folder beside a file, to make it in; it is removed in the end.

    What a process that was killed left in it is removed first.

    Raises:
        InputError: another process makes the file, something else is where the folder is to be, or the system does not
            let it be written.
    """
    folder = output.with_name(f".{output.name}.unfinished")
    try:
        lock = _take(folder)
        if lock is None:
            raise InputError(f"{shown(output)} is being exported by another process: wait for it, or name another.")
        with lock:
            try:
                _empty(folder)
                yield folder
            finally:
                _remove(folder)
    except Exception as error:
        cause = system_error(error)
        if cause is None or isinstance(error, InputError):
            raise
        raise InputError(f"{shown(output)} cannot be written: {cause.strerror or cause}.") from error


@contextmanager
def temporary() -> Iterator[Path]:
    """A folder that is removed in the end, where the system has such.

    Raises:
        InputError: the system does not let it be written to.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="lite_detr_d2_") as name:
            yield Path(name)
    except Exception as error:
        cause = system_error(error)
        if cause is None or isinstance(error, InputError):
            raise
        where = f"The temporary folder, {shown(tempfile.tempdir)}," if tempfile.tempdir else "A temporary folder"
        raise InputError(
            f"{where} cannot be written to: {cause.strerror or cause}. Make room there, or name another by TMPDIR."
        ) from error


def _take(folder: Path) -> IO[bytes] | None:
    """Make a folder, and lock it for this process until the file is closed; None where another process has it."""
    path = folder / _LOCK
    while True:
        if folder.is_symlink() or folder.is_file():
            raise InputError(f"{shown(folder)} is in the way of a folder to work in: remove it.")
        with suppress(FileExistsError):
            folder.mkdir()
        with ExitStack() as stack:
            try:
                file = stack.enter_context(path.open("wb"))
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_current = os.path.samestat(os.fstat(file.fileno()), path.stat())
            except BlockingIOError:
                return None
            except FileNotFoundError:
                is_current = False
            # Else, the process that had it has just removed it.
            if is_current:
                stack.pop_all()
                return file


def _remove(folder: Path) -> None:
    """Remove a folder, as far as the system lets it: the lock last, after which it may be another process's."""
    with suppress(OSError):
        _empty(folder)
        (folder / _LOCK).unlink()
        folder.rmdir()


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != _LOCK:
            path.unlink()
