"""The same picture twice: within a half it counts twice, and between halves the figures are too good."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path

from ..findings import Check, Finding, Findings, Severity
from .similar import Thumbnails, similar_pairs
from .table import HalfTable

_CURE = "keep all pictures of one scene in one half"

LEAKAGE = Check(
    "leakage",
    Severity.WARNING,
    "an image is in another half, too, byte for byte: what is measured on it is too good",
    "remove it from one of them",
)
LEAKAGE_NEAR = Check(
    "leakage-near",
    Severity.WARNING,
    "an image looks like one of another half (resized, recompressed, brighter or darker, or taken a moment later): "
    "what is measured on it is too good",
    _CURE,
)
IMAGE_DUPLICATE = Check(
    "image-duplicate",
    Severity.WARNING,
    "an image is there twice, byte for byte: it counts twice, or lacks the other's boxes",
    "remove one of them",
)
IMAGE_NEAR_DUPLICATE = Check(
    "image-near-duplicate",
    Severity.INFO,
    "an image looks like another (resized, recompressed, brighter or darker, or taken a moment later)",
    f"{_CURE}, should you split it",
)

# Indices of an image, and of an earlier one, counted through all halves.
Pair = tuple[int, int]

_READERS = 8
_BATCH = 64  # files, for a thread at a time
_TAIL = 4096  # bytes


def same_files(tables: Sequence[HalfTable]) -> list[Pair]:
    """Find the images whose files have the same bytes; only files of equal size and equal last bytes are read.

    Returns:
        For each image, and each half that has an earlier one with the same bytes: both.
    """
    half_of = [half for half, table in enumerate(tables) for _ in table.files]
    pairs = []
    for group in _groups([path for table in tables for path in table.paths()]):
        firsts: dict[int, int] = {}
        for image in group:
            pairs += [(image, first) for first in firsts.values()]
            firsts.setdefault(half_of[image], image)
    return sorted(pairs)


def same_findings(tables: Sequence[HalfTable], pairs: Iterable[Pair]) -> list[Finding]:
    """Say which images have the same bytes."""
    return list(_findings(tables, pairs, within=IMAGE_DUPLICATE, between=LEAKAGE))


def near_findings(tables: Sequence[HalfTable], thumbnails: Thumbnails, same: Iterable[Pair]) -> list[Finding]:
    """Say which images look alike, but for those that are the same anyway.

    Args:
        tables: the halves.
        thumbnails: of all their images in turn.
        same: what :func:`same_files` has found.
    """
    half_of = [half for half, table in enumerate(tables) for _ in table.files]
    known = {(image, half_of[other]) for image, other in same}
    near = similar_pairs(thumbnails, [len(table.files) for table in tables])
    pairs = [(image, other) for image, other in near if (image, half_of[other]) not in known]
    return list(_findings(tables, pairs, within=IMAGE_NEAR_DUPLICATE, between=LEAKAGE_NEAR))


def _findings(
    tables: Sequence[HalfTable], pairs: Iterable[Pair], *, within: Check, between: Check
) -> Iterator[Finding]:
    images = [(half, file) for half, table in enumerate(tables) for file in table.files]
    found = [Findings(table.name) for table in tables]
    for image, other in pairs:
        (half, file), (other_half, other_file) = images[image], images[other]
        if half == other_half:
            found[half].add(within, f"{file} (as {other_file})")
        else:
            found[half].add(between, f"{file} (as {other_file} of {tables[other_half].name})")
    for findings in found:
        yield from findings


def _groups(paths: Sequence[str]) -> Iterator[list[int]]:
    """The indices of files with the same bytes, ascending. Files that cannot be read are in no group."""
    images_of: dict[str, list[int]] = defaultdict(list)
    folders: dict[str, str] = {}
    for index, path in enumerate(paths):
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        images_of[os.path.join(folders[folder], name)].append(index)
    groups = [list(images_of)]
    keys: tuple[Callable[[str], Hashable], ...] = (os.path.getsize, _tail, _digest)
    with ThreadPoolExecutor(_READERS) as pool:
        for key in keys:
            files = [file for group in groups for file in group]
            batches = [files[start : start + _BATCH] for start in range(0, len(files), _BATCH)]
            known = dict(zip(files, chain.from_iterable(pool.map(partial(_all, key), batches)), strict=True))
            groups = [part for group in groups for part in _parts(group, known)]
    alike = {file for group in groups for file in group}
    groups += [[file] for file, images in images_of.items() if len(images) > 1 and file not in alike]
    for group in groups:
        yield sorted(index for file in group for index in images_of[file])


def _parts(group: Sequence[str], keys: Mapping[str, Hashable]) -> list[list[str]]:
    """Part a group by its members' keys, and keep the parts of several members."""
    parts: dict[Hashable, list[str]] = defaultdict(list)
    for file in group:
        if keys[file] is not None:
            parts[keys[file]].append(file)
    return [part for part in parts.values() if len(part) > 1]


def _all(key: Callable[[str], Hashable], files: Sequence[str]) -> list[Hashable | None]:
    """The files' keys; None for those that cannot be read."""

    def read(file: str) -> Hashable | None:
        try:
            return key(file)
        except OSError:  # said when the image is opened
            return None

    return list(map(read, files))


def _tail(file: str) -> bytes:
    with open(file, "rb") as stream:
        stream.seek(max(os.fstat(stream.fileno()).st_size - _TAIL, 0))
        return stream.read()


def _digest(file: str) -> bytes:
    return hashlib.sha256(Path(file).read_bytes()).digest()
