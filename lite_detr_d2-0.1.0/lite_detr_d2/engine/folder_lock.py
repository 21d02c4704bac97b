"""One training at a time in a folder.

The lock is POSIX's, of a process: data-loading processes, which are forked, have no part in it and cannot keep it when
the training is killed; the system takes it back from a process that ends, however it does.
"""

import errno
import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

from ..errors import InputError

logger = logging.getLogger(__name__)

LOCK_FILE = "training.lock"
# An evaluation that looks whether the lock is free, or a process that is just ending, has it for a moment.
_PATIENCE = 2.0
_HELD_BY_ANOTHER = (errno.EACCES, errno.EAGAIN)
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)
# The process, which a fork changes, and the files it has: it could take a lock twice, and would lose it with the first.
_held: set[tuple[int, str]] = set()


@contextmanager
def only_training_in(folder: str) -> Iterator[None]:
    """Keep other processes from training in a folder, which is there; this process may ask again.

    Raises:
        InputError: another process trains in it, which it names; or the file of the lock cannot be written.
    """
    path = _path(folder)
    mine = os.getpid(), path
    if mine in _held:
        yield
        return
    try:
        file = _lock(path, folder)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}.") from error
    _held.add(mine)
    try:
        yield
    finally:
        _held.discard(mine)
        # Before it is let go: afterwards it may be another's.
        with suppress(OSError):
            os.unlink(path)
        os.close(file)


def refuse_beside_training(folder: str) -> None:
    """Raise an error if another process trains in a folder.

    Raises:
        InputError: one does, which it names.
    """
    path = _path(folder)
    if (os.getpid(), path) in _held or not os.path.isfile(path):
        return
    with suppress(OSError):
        file = os.open(path, os.O_RDWR)
        try:
            _try_lock(file)
        except BlockingIOError:
            raise _taken(path, folder) from None
        finally:
            os.close(file)


def _path(folder: str) -> str:
    return os.path.join(os.path.realpath(folder), LOCK_FILE)


def _lock(path: str, folder: str) -> int:
    """Return the open file of a lock that this process has."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _try_lock(file)
            if _is_at(file, path):  # and not one that has been let go meanwhile
                _sign(file, path)
                return file
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(file)
                raise _taken(path, folder) from None
            time.sleep(0.1)
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _try_lock(file: int) -> None:
    """Raise BlockingIOError if another process has it."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD_BY_ANOTHER:
            raise BlockingIOError(*error.args) from error
        if error.errno not in _NO_LOCKS:
            raise
        logger.warning(
            "The file system of OUTPUT_DIR has no locks (%s): nothing keeps a second training out of it.",
            error.strerror,
        )


def _is_at(file: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def _sign(file: int, path: str) -> None:
    """Write who has it, and say if one on another machine, which may not see our locks, has left its own name."""
    before = _owner(os.pread(file, 4096, 0))
    if before and before["host"] != socket.gethostname():
        logger.warning(
            "%s is of process %s on %s, since %s. As far as this machine sees, it has ended. A shared file "
            "system without locks between machines (NFS mounted with nolock, for one) would not show it: make sure.",
            *(path, before["pid"], before["host"], before["since"]),
        )
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    content = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since})
    os.ftruncate(file, 0)
    os.pwrite(file, content.encode(), 0)


def _owner(content: bytes) -> dict[str, Any] | None:
    """Who signed; None if it is not known."""
    try:
        owner = json.loads(content)
        return {key: owner[key] for key in ("pid", "host", "since")}
    except (ValueError, KeyError, TypeError):
        return None


def _taken(path: str, folder: str) -> InputError:
    try:
        with open(path, "rb") as file:
            owner = _owner(file.read())
    except OSError:
        owner = None
    who = "process {pid} on {host}, since {since}".format(**owner) if owner else "another process"
    return InputError(
        f"OUTPUT_DIR {folder!r} is that of a training that is going on ({who}). Wait until it ends, stop it, or give "
        "another OUTPUT_DIR; to evaluate one of its checkpoints meanwhile, with MODEL.WEIGHTS."
    )
