"""An ``OUTPUT_DIR`` is of one training: it is not mixed with another, and what a killed one left half-written goes."""

import argparse
import logging
import os
import re
from pathlib import Path
from urllib.parse import urlparse

from detectron2.config import CfgNode
from detectron2.utils import comm

from ..checkpoint import check_there, seal_of
from ..errors import InputError
from ..files import UNFINISHED
from ..wording import in_short, shown
from .ema import EMA
from .last_checkpoint import TAG, is_checkpoint_name

logger = logging.getLogger(__name__)

_METRICS = "metrics.json"
_OVERWRITTEN = "overwritten_"  # and a number
# What programs show beside what the next training writes.
_RECORDS = re.compile(r"metrics\.json|eval_metrics\.json|bad_batches\.json|loggers\.json|events\.out\.tfevents\..*")
# What is written whole: in the folder and in that of the average of the weights; and in that of the dataset.
_WHOLE = re.compile(r"model_\w+\.pth|last_checkpoint|eval_metrics\.json|loggers\.json|config\.yaml")
_WHOLE_DATASET = re.compile(r"(train|val|test|report)\.json")


def check_output_folder(folder: str, args: argparse.Namespace) -> None:
    """Refuse to start a training where there is one.

    Args:
        folder: ``OUTPUT_DIR``, which need not be there.
        args: the command line; ``--resume``, ``--overwrite`` and ``--eval-only`` count.

    Raises:
        InputError: naming what was found, and both ways on; or two of these options exclude each other.
    """
    if args.overwrite and (args.resume or args.eval_only):
        other = "--resume" if args.resume else "--eval-only"
        raise InputError(f"--overwrite starts a training anew: leave it or {other} out.")
    if args.overwrite or args.resume or args.eval_only or not comm.is_main_process():
        return
    found = found_of_training(folder)
    if found:
        names = in_short([path.name for path in found], 3)
        raise InputError(
            f"OUTPUT_DIR {shown(folder)} has a training in it ({names}): go on with it with --resume, replace it with "
            "--overwrite, or name another folder."
        )


def check_weights(cfg: CfgNode, args: argparse.Namespace) -> None:
    """See that what a training starts from is there, and stays, before anything in ``OUTPUT_DIR`` is changed.

    Raises:
        InputError: a file is not there, or is one that ``--overwrite`` deletes; or the command names ``MODEL.WEIGHTS``,
            and the config file an ``INIT``, which a training starts from instead.
    """
    if args.resume:  # what there is in OUTPUT_DIR comes first
        return
    folders = [cfg.OUTPUT_DIR, *map(str, _overwritten(cfg.OUTPUT_DIR))] if args.overwrite else []
    deleted = [os.path.realpath(path) for folder in folders for path in _checkpoints(folder)]
    init, named = "" if args.eval_only else cfg.MODEL.LITE_DETR.INIT, args.opts[::2]
    if init and cfg.MODEL.WEIGHTS and "MODEL.WEIGHTS" in named and "MODEL.LITE_DETR.INIT" not in named:
        raise InputError(
            f"MODEL.WEIGHTS is {cfg.MODEL.WEIGHTS}, and {shown(args.config_file)} has MODEL.LITE_DETR.INIT {init}, "
            "which a training starts from instead: add MODEL.LITE_DETR.INIT '', or leave MODEL.WEIGHTS out."
        )
    for key, source in (("MODEL.WEIGHTS", cfg.MODEL.WEIGHTS), ("MODEL.LITE_DETR.INIT", init)):
        file = urlparse(source)._replace(query="").geturl()
        if not file:
            continue
        # Beside INIT, WEIGHTS are read only where there is another backbone: a recipe's may be missing.
        if source == init or not init or key in named:
            check_there(key, file)
        if os.path.realpath(file) in deleted:
            raise InputError(f"{key} is {source}, which --overwrite would delete: name another OUTPUT_DIR, or copy it.")


def found_of_training(folder: str) -> list[Path]:
    """The files that tell that there is a training in a folder: checkpoints, which is the last, and its metrics."""
    return [*_checkpoints(folder), *(path for path in _named(folder, TAG, _METRICS) if path.stat().st_size)]


def make_room(cfg: CfgNode, args: argparse.Namespace) -> None:
    """With ``--overwrite``, move what is of another training into a folder of its own in ``OUTPUT_DIR``."""
    if not args.overwrite or not comm.is_main_process():
        return
    folder = cfg.OUTPUT_DIR
    records = [path for path in _files(folder) if _RECORDS.fullmatch(path.name) and path.stat().st_size]
    averaged = [path for path in [Path(folder, EMA)] if path.is_dir()]
    moved = [*_checkpoints(folder), *records, *averaged]
    for path in _named(folder, TAG):  # first: it never names what is gone
        path.unlink()
    if moved:
        target = _new_folder(folder)
        for path in moved:
            path.rename(target / path.name)
        logger.info("--overwrite: moved %s to %s", in_short([path.name for path in moved]), shown(target))


def delete_overwritten(folder: str) -> None:
    """Delete the checkpoints of this package that ``--overwrite`` has moved, now that a training has what it needs.

    Those of a start that failed, which were moved before, are among them.
    """
    if not comm.is_main_process():
        return
    for target in _overwritten(folder):
        ours = [path for path in _checkpoints(str(target)) if seal_of(path) is not None]
        for path in ours:
            path.unlink()
        if ours:
            logger.info("--overwrite: deleted %d checkpoints (%s)", len(ours), in_short([path.name for path in ours]))
        if not any(target.iterdir()):
            target.rmdir()


def remove_unfinished(folder: str, args: argparse.Namespace) -> None:
    """Remove what a training that was killed had begun to write; no other training may be running in the folder."""
    if args.eval_only or not comm.is_main_process():
        return
    averaged, dataset = os.path.join(folder, EMA), os.path.join(folder, "dataset")
    for where, names in ((folder, _WHOLE), (averaged, _WHOLE), (dataset, _WHOLE_DATASET)):
        for path in _files(where):
            if path.name.endswith(UNFINISHED) and names.fullmatch(path.name.removesuffix(UNFINISHED)):
                path.unlink()
                logger.info("Removed %s, which was never finished.", shown(path))


def _checkpoints(folder: str) -> list[Path]:
    return [path for path in _files(folder) if is_checkpoint_name(path.name)]


def _named(folder: str, *names: str) -> list[Path]:
    return [path for path in _files(folder) if path.name in names]


def _files(folder: str) -> list[Path]:
    try:
        return sorted(path for path in Path(folder).iterdir() if path.is_file())
    except (OSError, ValueError):  # it is not there; or cannot be read, which is said where it is written to
        return []


def _overwritten(folder: str) -> list[Path]:
    """Where ``--overwrite`` has moved what was of other trainings."""
    found = Path(folder).glob(f"{_OVERWRITTEN}*")
    return sorted(path for path in found if path.name.removeprefix(_OVERWRITTEN).isdecimal() and path.is_dir())


def _new_folder(folder: str) -> Path:
    number = 1
    while (target := Path(folder, f"{_OVERWRITTEN}{number}")).exists():
        number += 1
    target.mkdir()
    return target
