"""From a source to files in which nothing can go wrong, made once and found again."""

import atexit
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from detectron2.utils import comm

from ..errors import InputError
from ..files import write_atomically
from ..wording import listed
from .findings import Finding, Report, Severity
from .inspection import TrainingSizes, inspect_content
from .normalise import Normalised, checks, normalise
from .source import Content, Source, write_coco_file
from .split import split

logger = logging.getLogger(__name__)

ON_BAD = ("error", "drop")

_REPORT = "report.json"
# Other versions of what is written, or of the rules by which, are made anew.
_VERSION = 1
# What follows from other errors.
_CONSEQUENCES = (checks.NOTHING_TO_TRAIN_ON.id, checks.NOTHING_TO_SCORE.id)


@dataclass(frozen=True)
class PreparedHalf:
    """An annotation file in COCO format that is in order.

    Attributes:
        annotations: the file.
        images: the folder to which its ``file_name`` are relative, if they are not absolute.
        num_images: how many it lists.
    """

    annotations: Path
    images: Path
    num_images: int


@dataclass(frozen=True)
class Prepared:
    """A dataset in order, on disk.

    Attributes:
        root: what the user named.
        halves: "train" and "val", perhaps "test"; or of a dataset without a training half, those that it has.
        categories: the names of the classes by id, in the order of the ids.
        max_value: see :class:`Normalised`.
        report: what was repaired or left out.
        inspection: what else was found, see :func:`inspect_content`.
    """

    root: Path
    halves: Mapping[str, PreparedHalf]
    categories: Mapping[int, str]
    max_value: float
    report: Report
    inspection: Report


def prepare(
    find: Callable[[Path], Source],
    folder: Path | None,
    *,
    keep: bool = False,
    on_bad: str = "error",
    training: bool = True,
    sizes: TrainingSizes | None = None,
) -> Prepared:
    """Normalise a source, split it if it has a training half only, and write it to ``folder``; or find it there.

    It is found if it was made of the same content. Only the main process reads and writes; all have to call this
    together.

    Args:
        find: returns the source, and may unpack files to the folder that it is given.
        folder: where ``train.json``, ``val.json``, ``test.json`` and ``report.json`` go; it is made if need be. None
            for a temporary one.
        keep: whether results rest on what is there: a split is not replaced if the source has changed since, nor what
            was made of another dataset.
        on_bad: what becomes of images and boxes that somebody meant and that cannot be used: "error", or "drop" them.
            What is kept stays as it was made.
        training: whether there is to be a training half. If not, what is wrong with it does not matter beside another
            half, and one file without annotations is not split.
        sizes: how training resizes images, for the inspection; None for detectron2's defaults.

    Raises:
        InputError: as ``find`` does; with all that keeps the dataset from being used; ``folder`` has a split of another
            content and ``keep`` is True; or it has files of these names that were not made here, or cannot be written.
    """
    outcome = _outcome(find, folder, keep, _Demand(on_bad, training), sizes) if comm.is_main_process() else None
    # The others wait here for the files, and learn of an error instead of waiting for ever.
    outcome = comm.all_gather(outcome)[0]
    if isinstance(outcome, Prepared):
        return outcome
    raise outcome if outcome is not None else AssertionError("the main process has an outcome")


def find_prepared(folder: Path) -> Prepared | None:
    """What :func:`prepare` has made ready in a folder; None if it is not there, or not whole."""
    record = _read_record(folder)
    return _from_record(record, folder) if record and record["key"] else None


def _outcome(
    find: Callable[[Path], Source], folder: Path | None, keep: bool, demand: "_Demand", sizes: TrainingSizes | None
) -> Prepared | InputError:
    where: object = folder or "a temporary folder"
    try:
        where = workspace = folder or _temporary_folder()
        source = find(workspace)
        return _find_or_make(source, folder or workspace / _short_hash(source), keep, demand, sizes)
    except InputError as error:
        return error
    except OSError as error:
        return InputError(f"The dataset cannot be made ready in {where}: {error.strerror or error}.")
    except RecursionError:
        return InputError(f"The dataset cannot be written to {where}: a record has too many levels.")


def _short_hash(source: Source) -> str:
    """Of where a source is and of what it is made."""
    return hashlib.sha256(f"{source.root}\0{source.fingerprint()}".encode(errors="surrogateescape")).hexdigest()[:12]


@cache
def _temporary_folder() -> Path:
    """A folder for this process, and those that it starts."""
    folder, owner = tempfile.mkdtemp(prefix="lite_detr_d2_"), os.getpid()

    def remove() -> None:
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return Path(folder)


@dataclass(frozen=True)
class _Demand:
    """What a dataset is made ready for.

    Attributes:
        on_bad: see :func:`prepare`.
        training: likewise.
    """

    on_bad: str = "error"
    training: bool = True


def _ready(source: Source, demand: _Demand) -> Normalised:
    """Normalise a source, split it if need be, and raise what keeps it from being used.

    Raises:
        InputError: as :func:`prepare` does.
    """
    normalised = normalise(source)
    is_whole = set(source.halves) == {"train"}
    if is_whole and not demand.training and checks.NOTHING_TO_TRAIN_ON.id in {f.id for f in normalised.report.errors}:
        return _ready(replace(source, halves={"val": source.halves["train"]}), demand)
    if not is_whole and not demand.training:
        normalised = _without_training(normalised)
    report = normalised.report.dropped() if demand.on_bad == "drop" else normalised.report
    if report.errors:
        raise InputError(_refusal(source, report))
    normalised = replace(normalised, report=report)
    return split(normalised, str(source.halves["train"].origin)) if is_whole else normalised


def _without_training(normalised: Normalised) -> Normalised:
    halves = {name: half for name, half in normalised.halves.items() if name != "train"}
    findings = (finding for finding in normalised.report.findings if finding.half != "train")
    return replace(normalised, halves=halves, report=Report(tuple(findings)))


def _refusal(source: Source, report: Report) -> str:
    errors = [error for error in report.errors if error.id not in _CONSEQUENCES]
    lines = [error.text() for error in errors or report.errors]
    if not errors:  # what was left out says why nothing is left
        lines += report.lines(Severity.WARNING)
    if errors and all(error.droppable for error in errors):
        lines.append("Mend these; or leave out what has them: --on-bad drop, from Python on_bad='drop'.")
    return listed(f"The dataset in {source.root} cannot be used:", lines)


def _find_or_make(source: Source, folder: Path, keep: bool, demand: _Demand, sizes: TrainingSizes | None) -> Prepared:
    if demand.on_bad not in ON_BAD:
        raise InputError(f"on_bad is {demand.on_bad!r}: expected one of {', '.join(ON_BAD)}.")
    key = hashlib.sha256(f"{_VERSION} {source.fingerprint()}".encode()).hexdigest()
    record = _read_record(folder)
    if record and record["source"] != str(source.root) and keep:
        # What was trained on stays.
        folder = folder / _short_hash(source)
        record = _read_record(folder)
    is_ready = record and record["key"] == key and record["source"] == str(source.root)
    if record and is_ready and (record["training"] or not demand.training):
        prepared = _from_record(record, folder)
        files_matter = any(finding.id in checks.OF_FILES for finding in prepared.report.findings)
        if keep or (record["on_bad"] == demand.on_bad and not files_matter):
            what = "Of %s, the split in %s is used: %s" if record["split"] else "Of %s, what is ready in %s is used: %s"
            logger.info(what, source.root, folder, _describe(prepared))
            return prepared
    elif record and record["key"] and not is_ready:
        is_same = record["source"] == str(source.root)
        how = " with another content than it has now" if is_same else f", not of {source.root}"
        changed = f"What is in {folder} was made of {record['source']}{how}."
        if keep and record["split"]:
            raise InputError(
                f"{changed} Restore the file that was trained on, train anew without --resume, or give another "
                "OUTPUT_DIR."
            )
        logger.warning("%s It is made anew.", changed)
    normalised = _ready(source, demand)
    inspected = inspect_content(normalised, sizes=sizes)
    return _write(normalised, inspected, source, folder, {"key": key, **asdict(demand)}, record)


def _write(
    normalised: Normalised,
    inspected: Sequence[Finding],
    source: Source,
    folder: Path,
    made_by: Mapping[str, Any],
    old: dict[str, Any] | None,
) -> Prepared:
    folder.mkdir(parents=True, exist_ok=True)
    halves = {name: folder / f"{name}.json" for name in normalised.halves}
    if old is None:
        for file in (folder / _REPORT, *halves.values()):
            if file.exists():
                raise InputError(
                    f"{file} was not made here, and would be overwritten: move it, or give another OUTPUT_DIR."
                )
    first = next(iter(normalised.halves.values()))
    record: dict[str, Any] = {
        **made_by,
        "version": _VERSION,
        "source": str(source.root),
        "key": "",  # until all is written
        "split": source.halves.keys() < normalised.halves.keys(),
        "halves": {
            name: {"images": str(half.image_root), "num_images": len(half.content["images"])}
            for name, half in normalised.halves.items()
        },
        "categories": [[category["id"], category["name"]] for category in first.content["categories"]],
        "max_value": normalised.max_value,
        "findings": [finding.to_json() for finding in normalised.report.findings],
        "inspection": [finding.to_json() for finding in inspected],
    }
    _write_json(folder / _REPORT, record)
    for name, half in normalised.halves.items():
        write_coco_file(halves[name], _scorable(name, half.content))
    for name in set(old["halves"] if old else ()) - halves.keys():
        (folder / f"{name}.json").unlink(missing_ok=True)
    record["key"] = made_by["key"]
    _write_json(folder / _REPORT, record)
    prepared = _from_record(record, folder)
    origin = next(iter(source.halves.values())).origin
    if record["split"]:
        logger.info("%s is the only annotation file. Split into %s: %s", origin, folder, _describe(prepared))
        if not record["training"]:
            logger.warning(
                "Of %s, only val.json is evaluated on, as if the rest had been trained on. To evaluate on the whole of "
                "it: --eval-only --val-json FILE.",
                origin,
            )
    else:
        logger.info("%s (%s) is made ready in %s: %s", source.root, source.kind, folder, _describe(prepared))
    return prepared


def _scorable(name: str, content: Content) -> Content:
    """The content; without the list of annotations where detectron2 is to know that there is nothing to score."""
    is_scored = name == "train" or content["annotations"]
    return content if is_scored else {key: value for key, value in content.items() if key != "annotations"}


def _read_record(folder: Path) -> dict[str, Any] | None:
    """What is in ``folder``, with an empty key if it is not whole; None if nothing of ours is."""
    try:
        record = json.loads((folder / _REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(record, dict) or not {"version", "source", "key", "split", "halves"} <= record.keys():
        return None
    whole = record["version"] == _VERSION and all((folder / f"{name}.json").is_file() for name in record["halves"])
    return record if whole else {**record, "key": ""}


def _from_record(record: Mapping[str, Any], folder: Path) -> Prepared:
    halves = {
        name: PreparedHalf(folder / f"{name}.json", Path(half["images"]), half["num_images"])
        for name, half in record["halves"].items()
    }
    report, inspection = (Report(tuple(map(Finding.from_json, record[key]))) for key in ("findings", "inspection"))
    return Prepared(Path(record["source"]), halves, dict(record["categories"]), record["max_value"], report, inspection)


def _write_json(path: Path, content: object) -> None:
    write_atomically(str(path), lambda file: file.write(json.dumps(content, indent=1).encode()))


def _describe(prepared: Prepared) -> str:
    return ", ".join(f"{half.num_images} images in {half.annotations.name}" for half in prepared.halves.values())
