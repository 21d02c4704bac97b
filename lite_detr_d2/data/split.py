"""Split an annotation file in two, and keep the split with the results that rest on it."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from detectron2.utils import comm

from ..errors import InputError
from ..files import write_atomically
from .validation import Problem, read_annotations

Content = dict[str, Any]

logger = logging.getLogger(__name__)

# Where in a half's 'info' it is recorded what the half was made from.
_RECORD = "lite_detr_d2"
# One image in so many is evaluated on, and no more than COCO evaluates on.
_ONE_IN = 5
_MOST_FOR_VAL = 5000


def split_annotations(source: Path, folder: Path, *, keep: bool) -> dict[Path, int]:
    """Make ``folder/train.json`` and ``folder/val.json`` of one annotation file, or find those made of it before.

    One image in five goes to val.json, at least one and at most 5,000. Which ones depends on the image ids alone.
    Except for images and their annotations, both files are like the source. Their ``info`` records its path, size and
    SHA-256. Only the main process writes; all processes have to call this together.

    Args:
        source: an annotation file in which :func:`validate_dataset` found nothing fatal.
        folder: where to write; it is made if need be.
        keep: whether results rest on a split that is there already: then it is not replaced if the source has changed.

    Returns:
        The number of images by file, of the training half first.

    Raises:
        InputError: the source has one image only; ``folder`` has a split of another content and ``keep`` is True; or
            it has files of these names that are no split, or cannot be written.
    """
    outcome: dict[Path, int] | InputError = {}
    if comm.is_main_process():
        try:
            outcome = _find_or_make(source, folder, keep)
        except InputError as error:
            outcome = error
        except OSError as error:
            outcome = InputError(f"The split of {source} cannot be written to {folder}: {error.strerror}.")
    # The others wait here for the files, and learn of an error instead of waiting for ever.
    outcome = comm.all_gather(outcome)[0]
    if isinstance(outcome, InputError):
        raise outcome
    return outcome


def _find_or_make(source: Path, folder: Path, keep: bool) -> dict[Path, int]:
    data = source.read_bytes()
    record = {"split_from": str(source), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    files = (folder / "train.json", folder / "val.json")
    present = {file: _read_half(file) for file in files if file.exists()}
    recorded = [content["info"][_RECORD] for content in present.values()]
    others = [old["split_from"] for old in recorded if old["sha256"] != record["sha256"]]
    if len(recorded) == len(files) and not others:
        counts = {file: len(content["images"]) for file, content in present.items()}
        logger.info("Of %s, the split in %s is used: %s", source, folder, _describe(counts))
        return counts
    if others:
        changed = f"The split in {folder} is of {others[0]}, with another content than {source} has now."
        if keep:
            raise InputError(
                f"{changed} Restore the file that was trained on, train anew without --resume, or give another "
                "OUTPUT_DIR."
            )
        logger.warning("%s It is made anew.", changed)
    return _write_halves(json.loads(data), record, files)


def _read_half(file: Path) -> Content:
    content, _ = read_annotations(file)
    info = content.get("info")
    record = info.get(_RECORD) if isinstance(info, dict) else None
    if not (isinstance(record, dict) and {"split_from", "sha256"} <= record.keys()):
        raise InputError(
            f"{file} is not a split that was made here, and would be overwritten by one: move it, or give another "
            "OUTPUT_DIR."
        )
    return content


def _write_halves(content: Content, record: dict[str, Any], files: tuple[Path, Path]) -> dict[Path, int]:
    source, folder = record["split_from"], files[0].parent
    chosen = _images_for_val([image["id"] for image in content["images"]], source)
    info = content.get("info")
    content["info"] = {**(info if isinstance(info, dict) else {}), _RECORD: record}
    halves = {
        file: {
            **content,
            "images": [image for image in content["images"] if (image["id"] in chosen) == is_val],
            "annotations": [box for box in content["annotations"] if (box["image_id"] in chosen) == is_val],
        }
        for file, is_val in zip(files, (False, True), strict=True)
    }
    if not all(half["annotations"] for half in halves.values()):
        raise InputError(
            f"{source} is the only annotation file, and too few of its images have annotations: split in two, one half "
            "has none. Split it by hand, or add annotations."
        )
    folder.mkdir(parents=True, exist_ok=True)
    counts = {file: len(half["images"]) for file, half in halves.items()}
    for file, half in halves.items():
        _write(file, half)
    logger.info("%s is the only annotation file. Split into %s: %s", source, folder, _describe(counts))
    for file, half in halves.items():
        present = {box["category_id"] for box in half["annotations"]}
        missing = tuple(category["name"] for category in half["categories"] if category["id"] not in present)
        if missing:
            logger.warning("%s: %s", file, Problem(False, "classes without an annotation", missing))
    return counts


def _write(file: Path, content: Content) -> None:
    write_atomically(str(file), lambda stream: stream.write(json.dumps(content).encode()))


def _images_for_val(identifiers: list[int], source: str) -> set[int]:
    if len(identifiers) == 1:
        raise InputError(
            f"{source} is the only annotation file, and its one image cannot be split into one to train on and one to "
            "evaluate on. Add images, or an annotation file to evaluate on."
        )
    count = min(max(len(identifiers) // _ONE_IN, 1), _MOST_FOR_VAL)
    # By a hash, images that are added later move few of the others to the other half.
    shuffled = sorted(identifiers, key=lambda identifier: hashlib.sha256(str(identifier).encode()).digest())
    return set(shuffled[:count])


def _describe(counts: dict[Path, int]) -> str:
    return ", ".join(f"{count} images in {file.name}" for file, count in counts.items())
