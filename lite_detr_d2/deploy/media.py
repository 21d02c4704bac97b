"""What prediction is asked for: images and videos named one by one, by folders or by patterns, and cameras.

A folder is searched with those below it, in the order of the names. Hidden files and what systems leave there are no
inputs, nor is what lies in the output folder: that is of an earlier prediction. Other files of a folder or pattern that
are not named as images or videos are passed over, and counted.
"""

import glob
import itertools
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from ..data.sources.tree import IMAGE_SUFFIXES, walk
from ..errors import InputError
from ..wording import in_short, shown

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ogv")
    + (".ts", ".mts", ".m2ts")
)
PICTURE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pnm")
)
"""Of files that hold an RGB picture as it is; those of other formats get ``_PICTURE`` besides."""

_PICTURE, _VIDEO = ".png", ".mp4"
_OF_SHELLS = ("~", "$", "{")
_CAMERA = re.compile(r"webcam(?::(\d{1,3}))?")


@dataclass(frozen=True)
class Media:
    """An image, a video or a camera.

    Attributes:
        path: of the file; of a camera, what it was asked for by.
        name: what it is called: the path below the folder that was given, or below that of the file or pattern; where
            inputs from several places would share one, all are called by their paths below the folder that they share.
        camera: its number; None of files.
    """

    path: Path
    name: PurePath
    camera: int | None = None

    @property
    def is_video(self) -> bool:
        """Whether it is a video or a camera."""
        return self.camera is not None or self.path.suffix.lower() in VIDEO_SUFFIXES

    @property
    def output_name(self) -> PurePath:
        """The name of the file with its detections: its own where that format is written, else with a suffix more."""
        if self.camera is not None:
            return self.name.with_name(self.name.name + _VIDEO)
        suffix = self.name.suffix.lower()
        own, other = ((_VIDEO,), _VIDEO) if self.is_video else (PICTURE_SUFFIXES, _PICTURE)
        return self.name if suffix in own else self.name.with_name(self.name.name + other)


def find_media(inputs: Sequence[str], output: Path | None) -> list[Media]:
    """Find all inputs.

    Args:
        inputs: files, folders, patterns in which ``**`` stands for folders of any depth, or alone ``webcam`` or
            ``webcam:1``, ``webcam:2``, ... for a camera.
        output: the output folder, which may lie in one of the folders, and need not be there yet; None for none.

    Returns:
        Each file once, in the order of the names.

    Raises:
        InputError: an input is not there, a folder has no images or videos, nothing matches a pattern, or a camera is
            not the only input.
    """
    cameras = [name for name in inputs if _camera(name) is not None]
    if cameras and len(inputs) > 1:
        raise InputError(f"{cameras[0]} goes on until it is stopped: give it as the only input.")
    if cameras:
        return [Media(Path(cameras[0]), PurePath(cameras[0].replace(":", "_")), _camera(cameras[0]))]
    found: dict[str, tuple[Path, Path]] = {}
    for name in inputs:
        for path, root in _files(name, output):
            found.setdefault(os.path.abspath(path), (path, root))
    return sorted(_named(found), key=lambda media: media.name)


def plan_outputs(media: Iterable[Media], folder: Path | None) -> Mapping[Media, Path | None]:
    """Choose the file that each input's picture or video is written to, and make the folder of all; without, none is.

    Raises:
        InputError: the folder cannot be written to; one would be written over an input, whatever paths lead there, or
            two would be the same file; or a camera's recording over what is there.
    """
    if folder is None:
        return dict.fromkeys(media)
    planned = {item: folder / item.output_name for item in media}
    sources = {place: item for item in planned if item.camera is None and (place := place_of(item.path))}
    writers: dict[Path, Media] = {}
    for item, target in planned.items():
        place = place_of(target)
        if place in sources:
            raise InputError(
                f"{shown(target)} is the input {shown(sources[place].path)}, which is never written over: name another "
                "output folder."
            )
        if place and item.camera is not None:
            raise InputError(
                f"{shown(target)} is there, and a recording is not written over: move it, or name another."
            )
        if target in writers:
            raise InputError(
                f"{shown(writers[target].path)} and {shown(item.path)} would both be written to {shown(target)}: "
                "predict on them one after the other, into folders of their own."
            )
        writers[target] = item
    make_folder(folder)
    renamed = [
        shown(target.name) for item, target in planned.items() if target.name != item.name.name and item.camera is None
    ]
    if renamed:
        logger.info("Written in another format than the input's (%d): %s", len(renamed), in_short(renamed))
    return planned


def make_folder(folder: Path) -> None:
    """Make a folder to write to, with those above it.

    Raises:
        InputError: it cannot be made, or written to.
    """
    if os.path.isfile(folder):  # and not Path's, which fail of names that are too long
        raise InputError(f"{shown(folder)} is a file, and is to be the folder of the pictures: name another.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The folder {shown(folder)} cannot be made: {error.strerror}. Name another.") from error
    if not os.access(folder, os.W_OK):
        raise InputError(f"The folder {shown(folder)} cannot be written to: give the permission, or name another.")


def place_of(path: Path) -> tuple[int, int] | None:
    """What tells a file or folder from all others, whatever path leads to it; None if it is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _camera(name: str) -> int | None:
    match = _CAMERA.fullmatch(name)
    return int(match[1] or 0) if match else None


def _files(name: str, output: Path | None) -> Iterator[tuple[Path, Path]]:
    """The files that an input names, each with the folder that its own name begins below."""
    path = Path(name)
    if os.path.isdir(path):
        yield from _named_as_media(f"The folder {shown(path)}", _below(path), path, output)
    elif os.path.exists(path):
        yield path, path.parent
    elif glob.has_magic(name):
        matches = [Path(match) for match in sorted(glob.glob(name, recursive=True))]
        if not matches:
            raise InputError(f"No file matches {shown(name)}: correct the pattern.{_not_replaced(name)}")
        files = itertools.chain.from_iterable(_below(match) if match.is_dir() else [match] for match in matches)
        fixed = itertools.takewhile(lambda part: not glob.has_magic(part), path.parts[:-1])
        yield from _named_as_media(f"What matches {shown(name)}", files, Path(*fixed), output)
    else:
        raise InputError(f"There is no file or folder {shown(name)}: correct the name.{_not_replaced(name)}")


def _not_replaced(name: str) -> str:
    """A hint, where a name has what a shell replaces, and has not replaced because of quotes."""
    left = next((sign for sign in _OF_SHELLS if (name.startswith(sign) if sign == "~" else sign in name)), None)
    return f" The {left} in it is for the shell, which leaves it as it is in quotes." if left else ""


def _below(folder: Path) -> list[Path]:
    return sorted(itertools.chain.from_iterable(walk(folder).files.values()))


def _named_as_media(what: str, files: Iterable[Path], root: Path, output: Path | None) -> Iterator[tuple[Path, Path]]:
    """Those that are named as images or videos, and are not below the output folder; say what is left out."""
    others: dict[Path, None] = {}
    earlier: dict[Path, None] = {}
    found: dict[Path, None] = {}
    inside: dict[Path, bool] = {}
    for file in files:
        if file.parent not in inside:
            inside[file.parent] = _is_inside(file.parent, root, output)
        if file.suffix.lower() not in IMAGE_SUFFIXES | VIDEO_SUFFIXES:
            others[file] = None
        else:
            (earlier if inside[file.parent] else found)[file] = None
    for left_out, why in ((others, "not named as images or videos"), (earlier, "in the output folder")):
        if left_out:
            names = in_short([shown(file.relative_to(root)) for file in left_out])
            logger.warning("%s: passed over, as %s (%d): %s", what, why, len(left_out), names)
    if not found:
        raise InputError(f"{what} has no images or videos: name the folder or the files that are to be predicted on.")
    yield from ((file, root) for file in found)


def _is_inside(folder: Path, root: Path, output: Path | None) -> bool:
    """Whether a folder is the output folder or in it, where that itself lies below ``root``."""
    place = place_of(output) if output else None
    parts = folder.relative_to(root).parts
    return place is not None and any(
        place_of(root.joinpath(*parts[: count + 1])) == place for count in range(len(parts))
    )


def _named(found: Mapping[str, tuple[Path, Path]]) -> Iterator[Media]:
    names = {place: PurePath(path.relative_to(root)) for place, (path, root) in found.items()}
    if len(set(names.values())) < len(names):
        shared = os.path.commonpath(list(names))
        names = {place: PurePath(os.path.relpath(place, shared)) for place in names}
    return (Media(found[place][0], name) for place, name in names.items())
