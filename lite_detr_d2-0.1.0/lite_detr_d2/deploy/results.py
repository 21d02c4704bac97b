"""Detections as COCO's list of results, with ids that an annotation file knows, or with ids of their own."""

import json
import logging
import os
import posixpath
import shutil
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
from detectron2.structures import Instances

from ..data.normalise.categories import category_name
from ..data.source import Content, read_coco_file
from ..errors import InputError
from ..files import check_output, write_atomically
from ..wording import in_short, shortened, shown
from .media import Media

logger = logging.getLogger(__name__)

Parts = tuple[str, ...]


@dataclass(frozen=True)
class Names:
    """How results call images and classes.

    Attributes:
        images: by input, ``image_id`` and ``file_name``; detections in other inputs are left out.
        categories: of each class its ``category_id``; detections of classes with None are left out.
        class_names: of each class.
    """

    images: Mapping[Media, tuple[Any, str]]
    categories: Sequence[Any]
    class_names: Sequence[str]

    def records(self, media: Media, detections: Instances, frame: int | None = None) -> list[dict[str, Any]]:
        """The results of an image, or of a video's frame of a number, in the order of the detections."""
        if media not in self.images:
            return []
        image_id, file_name = self.images[media]
        boxes = detections.pred_boxes.tensor.cpu().numpy().astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        found = zip(detections.pred_classes.tolist(), boxes.tolist(), detections.scores.tolist(), strict=True)
        return [
            {
                "image_id": image_id,
                "file_name": file_name,
                **({} if frame is None else {"frame": frame}),
                "category_id": self.categories[label],
                "category_name": self.class_names[label],
                "bbox": box,
                "score": score,
            }
            for label, box, score in found
            if self.categories[label] is not None
        ]


def own_names(media: Sequence[Media], class_names: Sequence[str]) -> Names:
    """Names without an annotation file: images count from 1 in the order of the inputs, and classes from 1."""
    images = {item: (number, item.name.as_posix()) for number, item in enumerate(media, 1)}
    return Names(images, range(1, len(class_names) + 1), class_names)


def names_of(file: Path, media: Sequence[Media], class_names: Sequence[str]) -> Names:
    """Names of an annotation file in COCO's format.

    An input is the image whose ``file_name`` its path ends with. Where none is, it is that of the same last part, if
    there is but one, which the log says. The log says, too, what has no counterpart.

    Raises:
        InputError: the file cannot be read, is of other images or classes altogether, or leaves open which of its
            images or categories is meant.
    """
    videos = [shown(item.path) for item in media if item.is_video]
    if videos:
        raise InputError(
            f"Annotations are of images, and not of videos ({in_short(videos)}): leave out --annotations, or predict "
            "on the images alone."
        )
    content = read_coco_file(file)
    return Names(_match_images(file, media, content), match_categories(file, class_names, content), class_names)


def match_categories(file: Path, class_names: Sequence[str], content: Content) -> list[Any]:
    """The category of each class, by name; None of one that has none, which the log says.

    Args:
        file: of the annotations, for messages.
        class_names: of the classes.
        content: of the file.

    Raises:
        InputError: none has one, or one has several.
    """
    used = {annotation.get("category_id") for annotation in content["annotations"] if isinstance(annotation, dict)}
    named: dict[str, list[Any]] = {}
    for category in content["categories"]:
        if isinstance(category, dict) and "name" in category and "id" in category:
            named.setdefault(category_name(category["name"]), []).append(category["id"])
    ids: list[Any] = []
    for name in class_names:
        candidates = named.get(category_name(name), [])
        if len(candidates) > 1:
            # The name of an export's root often is a class's, too.
            candidates = [identifier for identifier in candidates if identifier in used] or candidates
        if len(candidates) > 1:
            raise InputError(
                f"{shown(file)} has several categories '{name}', with ids {candidates}: rename all but one."
            )
        ids.append(candidates[0] if candidates else None)
    missing = [shortened(name) for name, identifier in zip(class_names, ids, strict=True) if identifier is None]
    if len(missing) == len(ids):
        raise InputError(
            f"{shown(file)} has none of the model's classes ({in_short(missing)}), but {in_short(list(named))}: take "
            "the annotation file of what the model was trained on."
        )
    if missing:
        logger.warning(
            "Classes of the model that %s does not have, whose detections are left out (%d): %s",
            *(shown(file), len(missing), in_short(missing)),
        )
    return ids


@contextmanager
def results_file(path: Path) -> Iterator["Results"]:
    """Open a JSON list that may become larger than the memory. It is there when the context ends without an error.

    Raises:
        InputError: it cannot be written.
    """
    check_output(path)
    try:
        unfinished = TemporaryFile(dir=path.parent)  # noqa: SIM115  (closed below)
    except OSError as error:
        raise InputError(f"{shown(path)} cannot be written: {error.strerror}. Name another file.") from error
    with unfinished:
        results = Results(unfinished)
        yield results
        if results.complete:
            unfinished.write(b"\n]\n" if results.count else b"[]\n")
            unfinished.seek(0)
            write_atomically(str(path), lambda file: shutil.copyfileobj(unfinished, file))


class Results:
    """A list that is being written.

    Attributes:
        count: of its records.
        complete: whether it becomes a file: not if the prediction is broken off.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.count = 0
        self.complete = True

    def add(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Write records, one a line."""
        for record in records:
            self._file.write((b",\n" if self.count else b"[\n") + json.dumps(record, allow_nan=False).encode())
            self.count += 1


def _match_images(file: Path, media: Sequence[Media], content: Content) -> dict[Media, tuple[Any, str]]:
    """The image of each input that has one, by ``file_name``."""
    records = [image for image in content["images"] if isinstance(image, dict) and "file_name" in image]
    by_name: dict[str, list[tuple[Parts, int]]] = {}
    for number, image in enumerate(records):
        parts = _parts(str(image["file_name"]))
        if parts:
            by_name.setdefault(parts[-1], []).append((parts, number))

    claims: dict[int, list[tuple[int, bool, Media]]] = {}
    for item in media:
        own = _parts(os.path.abspath(item.path))
        alike = [(_shared(own, parts), parts, number) for parts, number in by_name.get(own[-1], [])]
        most = max((shared for shared, _, _ in alike), default=0)
        best = [(parts, number) for shared, parts, number in alike if shared == most]
        if len(best) > 1:
            several = in_short([f"'{records[number]['file_name']}'" for _, number in best])
            raise InputError(
                f"{shown(item.path)} could be any of {several} of {shown(file)}: give the file or its folder by a path "
                "whose end is the file_name, and make file_name unique."
            )
        for parts, number in best:
            claims.setdefault(number, []).append((most, most == len(parts), item))
    matched = {}
    guessed = []
    for number, claimants in claims.items():
        most = max(shared for shared, _, _ in claimants)
        (_, whole, item), *others = [claim for claim in claimants if claim[0] == most]
        if others:
            raise InputError(
                f"{shown(item.path)} and {shown(others[0][2].path)} could both be '{records[number]['file_name']}' of "
                f"{shown(file)}: predict on one of the two."
            )
        matched[item] = (records[number].get("id"), str(records[number]["file_name"]))
        if not whole:
            guessed.append(f"{shown(item.path)} for '{matched[item][1]}'")
    _say_unmatched(file, media, matched, guessed, len(records))
    return matched


def _say_unmatched(
    file: Path, media: Sequence[Media], matched: Mapping[Media, tuple[Any, str]], guessed: Sequence[str], images: int
) -> None:
    unknown = [shown(item.path) for item in media if item not in matched]
    if not matched:
        raise InputError(
            f"{shown(file)} has none of the inputs ({in_short(unknown)}): take the annotation file of these images."
        )
    if guessed:
        logger.warning("Inputs that are taken for images of other folders (%d): %s", len(guessed), in_short(guessed))
    if unknown:
        logger.warning(
            "Inputs that are not in %s, and are left out of the JSON (%d): %s",
            *(shown(file), len(unknown), in_short(unknown)),
        )
    if len(matched) < images:
        logger.warning(
            "%s has %d images, of which %d are no inputs: a score counts their boxes as not found.",
            *(shown(file), images, images - len(matched)),
        )


def _parts(name: str) -> Parts:
    """A path's folders and file, whichever system wrote it."""
    path = posixpath.normpath(unicodedata.normalize("NFC", name).replace("\\", "/"))
    return tuple(part for part in path.split("/") if part not in ("", ".", ".."))


def _shared(one: Parts, other: Parts) -> int:
    """How many parts two paths share, counted from their ends."""
    count = 0
    for left, right in zip(reversed(one), reversed(other), strict=False):
        if left != right:
            break
        count += 1
    return count
