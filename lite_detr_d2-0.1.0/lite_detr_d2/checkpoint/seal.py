"""Checksums of checkpoint files: whatever is damaged in them is found before they are used.

Our own end in the SHA-256 of all that comes before. torch reads a file that is a zip archive without checking it, and
both it and other readers of zip archives pass over the comment at the end, which is where the checksum is.
"""

import hashlib
import json
import os
import zipfile
from pathlib import Path
from typing import IO, Any, cast

import torch

# The record at the end of an archive begins with a signature and ends in the length of the comment that follows.
_END, _END_SIZE, _LENGTH_SIZE = b"PK\5\6", 22, 2
_START = b"PK\3\4"
_MARK = b"lite_detr_d2 sha256 "
_SEAL_SIZE = len(_MARK) + 2 * hashlib.sha256().digest_size
_CHUNK = 2**20

# safetensors has its metadata at the beginning: there the checksum is of the file with zeros in its place. A second
# sign says that there is one, so that damage to one of them does not pass for a file of somebody else.
_DIGEST_KEY = "lite_detr_d2.sha256"
_SIGN_KEY = "lite_detr_d2.sealed"
_NO_DIGEST = "0" * 2 * hashlib.sha256().digest_size
UNSEALED = {_SIGN_KEY: "yes", _DIGEST_KEY: _NO_DIGEST}


class DamagedError(Exception):
    """A file whose content is not what was written; the message says what is wrong with it."""


class _Hashed:
    """A file, to be written to, and the checksum of what is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    def write(self, data: Any) -> int:
        self._hash.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def digest(self) -> str:
        return self._hash.hexdigest()


def save_sealed(content: object, file: IO[bytes]) -> None:
    """``torch.save``, with the checksum of the whole at the end; ``torch.load`` reads it as any other."""
    hashed = _Hashed(file)
    torch.save(content, cast(IO[bytes], hashed))
    seal = _MARK + hashed.digest().encode()
    file.seek(-_LENGTH_SIZE, os.SEEK_END)
    file.write(len(seal).to_bytes(_LENGTH_SIZE, "little") + seal)


def is_torch_archive(path: str | Path) -> bool:
    """Whether a file is one of ``torch.save`` by its beginning, as torch itself tells them."""
    with open(path, "rb") as file:
        return file.read(len(_START)) == _START


def seal_of(path: str | Path) -> str | None:
    """The checksum that a file of :func:`save_sealed` has at its end, unchecked; None where there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(-_SEAL_SIZE, os.SEEK_END)
            seal = file.read()
    except OSError:
        return None
    return seal[len(_MARK) :].decode("latin1") if seal.startswith(_MARK) else None


def verify(path: str | Path) -> bool:
    """Read a whole file of ``torch.save``, and compare it with its checksums.

    Returns:
        Whether it has any: our own at its end, or those that an archive has of each of its records. Files of torch
        before 1.6 have none.

    Raises:
        DamagedError: the content is another.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _END_SIZE - _SEAL_SIZE))
        end = file.read()
        _check_end(end)
        # Either sign is enough, so that damage to one of them does not pass for a file of somebody else.
        if end.startswith(_END) or _MARK in end:
            _check_seal(file, size)
            return True
    if not (is_torch_archive(path) or zipfile.is_zipfile(path)):
        return False
    _check_records(path)
    return True


def is_intact(path: str | Path) -> bool:
    """Whether a file is there, and is what its checksums say; a file without any is not known to be."""
    try:
        return verify(path)
    except (DamagedError, OSError):
        return False


def iteration_of(path: str | Path) -> int | None:
    """The iteration that an intact checkpoint was saved after; None where it has none."""
    iteration = skimmed(path).get("iteration")
    return iteration if isinstance(iteration, int) else None


def skimmed(path: str | Path) -> dict[str, Any]:
    """What an intact checkpoint holds, of which tensors are read when they are used; nothing if it is no mapping."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # torch has another type for each way in which a file can be foreign
        return {}
    return content if isinstance(content, dict) else {}


def _check_end(end: bytes) -> None:
    """Compare where a file ends with where its archive does, if that is within these last bytes."""
    place = end.rfind(_END)
    length = int.from_bytes(end[place + _END_SIZE - _LENGTH_SIZE :][:_LENGTH_SIZE], "little")
    if place >= 0 and place + _END_SIZE + length != len(end):
        raise DamagedError("it does not end where it says")


def _check_seal(file: IO[bytes], size: int) -> None:
    """Compare a sealed file of ``size`` bytes with its checksum, which is of the file before it was sealed."""
    file.seek(0)
    found = _hash_of(file, size - _SEAL_SIZE - _LENGTH_SIZE)
    found.update(bytes(_LENGTH_SIZE))
    expected = _SEAL_SIZE.to_bytes(_LENGTH_SIZE, "little") + _MARK + found.hexdigest().encode()
    if file.read() != expected:
        raise DamagedError("its content does not fit its checksum")


def _check_records(path: str | Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except OSError:
        raise
    except Exception as error:  # zipfile has another type for each way in which a record can be wrong
        raise DamagedError("it is no whole archive") from error
    if damaged is not None:
        raise DamagedError(f"its record {damaged} does not fit its checksum")


def seal_safetensors(data: bytes) -> bytes:
    """Put the checksum in its place in a safetensors file, whose metadata has ``UNSEALED``."""
    place = data.index(f'"{_DIGEST_KEY}":"{_NO_DIGEST}"'.encode()) + len(_DIGEST_KEY) + 4
    digest = hashlib.sha256(data).hexdigest().encode()
    return data[:place] + digest + data[place + len(digest) :]


def verify_safetensors(path: str | Path) -> bool:
    """As :func:`verify`, of a safetensors file; those of others have no checksum."""
    with open(path, "rb") as file:
        length = file.read(8)
        size = int.from_bytes(length, "little")
        if size > os.path.getsize(path):
            raise DamagedError("it ends within its header")
        header = file.read(size)
        try:
            stated = json.loads(header).get("__metadata__", {}).get(_DIGEST_KEY)
        except (ValueError, AttributeError) as error:
            raise DamagedError("its header is none") from error
        if stated is None:
            if any(key.encode() in header for key in UNSEALED):
                raise DamagedError("its checksum is not where it was")
            return False
        found = hashlib.sha256(length + header.replace(str(stated).encode(), _NO_DIGEST.encode(), 1))
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    if found.hexdigest() != stated:
        raise DamagedError("its content does not fit its checksum")
    return True


def _hash_of(file: IO[bytes], size: int) -> "hashlib._Hash":
    """The checksum of the next ``size`` bytes."""
    found = hashlib.sha256()
    while size > 0 and (chunk := file.read(min(size, _CHUNK))):
        found.update(chunk)
        size -= len(chunk)
    return found
