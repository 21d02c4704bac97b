"""Unpack a dataset's .zip, once, into a folder of ours."""

import errno
import hashlib
import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from ...errors import InputError
from ...wording import shown
from .tree import is_junk

_NAME_SHOWN = 80
_BY_HAND = "Unpack it by hand, and name the folder."


def unpack(archive: Path, workspace: Path) -> Path:
    """Unpack a .zip below ``workspace``, or find what was unpacked of one with the same files before.

    Returns:
        The folder with its files; what systems add to archives is left out.

    Raises:
        InputError: it is no whole .zip, is encrypted, has entries that would land elsewhere or are links, or there is
            no space.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = {_target(archive, entry): entry for entry in opened.infolist() if not entry.is_dir()}
            wanted = {path: entry for path, entry in entries.items() if not any(is_junk(part) for part in path.parts)}
            folder = workspace / f"{archive.stem[:_NAME_SHOWN]}-{_key(wanted)}"
            if not folder.is_dir():
                _unpack(opened, wanted, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{shown(archive)} is broken, or no .zip ({error}). Download or copy it again.") from error
    except NotImplementedError as error:  # a method of compression, or an archive in several parts
        raise InputError(f"{shown(archive)} cannot be unpacked here ({error}). {_BY_HAND}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(_no_space(archive, workspace)) from error
        raise InputError(
            f"{shown(archive)} cannot be unpacked to {shown(workspace)} ({error.strerror or error})."
        ) from error
    return folder


def _target(archive: Path, entry: zipfile.ZipInfo) -> PurePosixPath:
    """Where an entry goes, below the folder."""
    name = entry.filename
    if not entry.flag_bits & 0x800:  # said to be in an old code page, and written in UTF-8 all the same
        try:
            name = name.encode("cp437").decode("utf-8")
        except UnicodeError:
            name = entry.filename
    path = PurePosixPath(name.replace("\\", "/"))
    if not path.parts or path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        raise InputError(f"{shown(archive)} has an entry that would land outside its folder: {shown(name)}.")
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise InputError(f"{shown(archive)} has an entry that is a link: {shown(name)}. {_BY_HAND}")
    if entry.flag_bits & 0x1:
        raise InputError(f"{shown(archive)} is encrypted. {_BY_HAND}")
    return path


def _key(entries: dict[PurePosixPath, zipfile.ZipInfo]) -> str:
    """Name what is in the archive: the sums over all files are in its directory."""
    digest = hashlib.sha256()
    for path, entry in entries.items():
        digest.update(f"{path}\0{entry.file_size}\0{entry.CRC}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:12]


def _unpack(opened: zipfile.ZipFile, entries: dict[PurePosixPath, zipfile.ZipInfo], folder: Path) -> None:
    workspace = folder.parent
    workspace.mkdir(parents=True, exist_ok=True)
    if sum(entry.file_size for entry in entries.values()) > shutil.disk_usage(workspace).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=workspace))
    try:
        for path, entry in entries.items():
            target = unfinished / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with opened.open(entry) as source, open(target, "wb") as stream:
                shutil.copyfileobj(source, stream, 1 << 20)
        try:
            unfinished.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _no_space(archive: Path, workspace: Path) -> str:
    return (
        f"There is no space to unpack {shown(archive)} in {shown(workspace)}. Make space, or unpack it elsewhere and "
        "name the folder."
    )
