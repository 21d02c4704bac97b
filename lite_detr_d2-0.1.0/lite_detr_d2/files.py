"""Writing files."""

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from .errors import InputError
from .wording import shown

UNFINISHED = ".unfinished"


def write_atomically(path: str, write: Callable[[IO[bytes]], object]) -> None:
    """Let ``write`` fill a temporary file, sync it, rename it, and sync the folder.

    Whatever fails before the rename leaves what was at ``path``, and nothing else; a crash may leave the temporary
    file, too, whose name ends in ``.unfinished``. Once this returns, the file outlasts a loss of power.

    Raises:
        InputError: the system does not let it be written: there is no space left, no permission, or the like.
    """
    unfinished = f"{path}{UNFINISHED}"
    try:
        with open(unfinished, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        _sync_folder(os.path.dirname(path) or os.curdir)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(unfinished)
        cause = system_error(error)
        if cause is None:
            raise
        raise InputError(f"{shown(path)} cannot be written: {cause.strerror or cause}.") from error


def text_around(path: Path, begin: str, end: str) -> tuple[str, str]:
    """What a file has up to the line ``begin``, and from the line ``end`` on, with these: what is between is written.

    Raises:
        InputError: it cannot be read, or has no such lines.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise InputError(f"{shown(path)} cannot be read: {reason}.") from error
    before, has_begin, rest = text.partition(f"{begin}\n")
    _, has_end, after = rest.partition(f"{end}\n")
    if not (has_begin and has_end):
        raise InputError(
            f"{shown(path)} has no line {end if has_begin else begin}: what is written goes between {begin} and {end}."
        )
    return before + has_begin, has_end + after


def check_output(path: Path) -> None:
    """See that a file can be written, before there is anything to write. Its folder has to be there.

    Raises:
        InputError: it is a folder, or there is no folder for it that can be written to.
    """
    if path.is_dir():
        raise InputError(f"{shown(path)} is a folder: name a file.")
    folder = path.parent
    if not folder.is_dir():
        cause, cure = (
            (f"{shown(folder)} is a file, not a folder", "Name another.")
            if folder.exists()
            else (f"there is no folder {shown(folder)}", "Make it first, or correct the name.")
        )
        raise InputError(f"{shown(path)} cannot be written: {cause}. {cure}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(
            f"{shown(path)} cannot be written: the folder {shown(folder)} is read-only. Give the permission, or name "
            "another."
        )


def _sync_folder(folder: str) -> None:
    """Make a rename in it last; some file systems know no such thing, and leave it to themselves."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(opened)


def system_error(error: BaseException | None) -> OSError | None:
    """The system's error behind ``error``: torch reports a failed write as one of its own."""
    while isinstance(error, Exception) and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error if isinstance(error, OSError) else None
