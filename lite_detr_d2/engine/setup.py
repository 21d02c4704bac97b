"""From a command line to a config: what the entry points share."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import yaml  # type: ignore[import-untyped]
from detectron2.config import CfgNode, get_cfg
from detectron2.engine import default_argument_parser, default_setup, launch
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from ..config import add_lite_detr_config, validate_config
from ..data import register_coco_folder
from ..errors import InputError
from .schedule import fit_schedule
from .trainer import check_datasets, on_available_device

# What yacs raises for unknown keys, values of the wrong type, and an odd number of overrides; and for unreadable files.
_CONFIG_ERRORS = (KeyError, ValueError, AssertionError, OSError, yaml.YAMLError)
# Errors whose message says all there is to say; the second is of losses and matching costs.
_EXPECTED_ERRORS = (InputError, FloatingPointError)


def argument_parser(description: str) -> argparse.ArgumentParser:
    """Return detectron2's usual arguments, and ``--dataset``."""
    parser: argparse.ArgumentParser = default_argument_parser(epilog=description)
    parser.add_argument(
        "--dataset",
        metavar="DIR",
        help="train and evaluate on this folder in COCO format: train.json, val.json or test.json, and images/; or "
        "annotations/instances_train*.json and instances_val*.json with COCO's image folders. A single annotation file "
        "is split, and the split kept in OUTPUT_DIR/dataset. It sets DATASETS.TRAIN, DATASETS.TEST and "
        "MODEL.LITE_DETR.NUM_CLASSES, and fits the schedule to the number of images unless "
        "SOLVER.REFERENCE_NUM_IMAGES is 0.",
    )
    return parser


def read_config(args: argparse.Namespace) -> CfgNode:
    """Return the config of ``args.config_file`` with the overrides ``args.opts``, neither checked nor frozen.

    Raises:
        InputError: the file cannot be read, or a key or the type of a value is wrong.
    """
    late = [word for word in args.opts if word.startswith("--")]
    if late:
        raise InputError(f"{late[0]} comes after KEY VALUE pairs, which end the options: put it before them.")
    cfg = get_cfg()
    add_lite_detr_config(cfg)
    try:
        if args.config_file:
            cfg.merge_from_file(args.config_file)
        cfg.merge_from_list(args.opts)
    except _CONFIG_ERRORS as error:
        raise InputError(f"Config {args.config_file} with overrides {args.opts}: {_text(error)}") from error
    return cfg


def setup(args: argparse.Namespace) -> CfgNode:
    """Make the config of one process, and set up its logging and random seeds.

    Args:
        args: as :func:`argument_parser` parses them. ``KEY VALUE`` overrides win over ``--dataset``, and that over the
            config file.

    Returns:
        The config, valid and frozen.

    Raises:
        InputError: the config or the dataset cannot be used.
    """
    cfg = read_config(args)
    try:
        os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)
    except OSError as error:
        raise InputError(f"OUTPUT_DIR is {cfg.OUTPUT_DIR!r}, and cannot be made a folder: {error.strerror}.") from error
    # detectron2's set-up below knows its own loggers only.
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="lite_detr_d2", abbrev_name="lite_detr")
    folder = None
    if args.dataset:
        # Weights that are resumed or evaluated were trained on the split that is there.
        folder = register_coco_folder(
            args.dataset, split_folder=Path(cfg.OUTPUT_DIR, "dataset"), keep_split=args.resume or args.eval_only
        )
        cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (folder.train,), (folder.val,)
        cfg.MODEL.LITE_DETR.NUM_CLASSES = len(folder.classes)
        cfg.merge_from_list(args.opts)
    try:
        validate_config(cfg)
    except ValueError as error:
        source = f"Config {args.config_file}: " if args.config_file else ""
        raise InputError(f"{source}{error}") from error
    halves = ("TEST",) if args.eval_only else ("TRAIN", "TEST")
    if not cfg.DATASETS[halves[0]]:
        raise InputError(
            f"DATASETS.{halves[0]} is empty: give --dataset DIR, or the names of datasets registered with detectron2."
        )
    check_datasets(cfg, *halves)
    # An override may name other training sets, whose sizes are not known here.
    if folder and not args.eval_only and set(cfg.DATASETS.TRAIN) <= folder.num_images.keys():
        recipe = read_config(argparse.Namespace(config_file=args.config_file, opts=[]))
        fit_schedule(cfg, recipe, args.opts, sum(folder.num_images[name] for name in cfg.DATASETS.TRAIN))
    cfg = on_available_device(cfg)
    cfg.freeze()
    default_setup(cfg, args)
    return cfg


def launch_checked(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    """Run ``main(args)`` in as many processes as ``args`` asks for.

    A process that fails has said why: then the program ends, with its exit code.

    Raises:
        InputError: there are not that many GPUs; detectron2 trains in several processes on GPUs only.
    """
    found = torch.cuda.device_count()
    if args.num_gpus * args.num_machines > 1 and args.num_gpus > found:
        raise InputError(
            f"--num-gpus {args.num_gpus}, and this machine has {found}. Ask for at most that many; without a GPU, "
            "leave the option out: one process trains on the CPU."
        )
    try:
        launch(main, args.num_gpus, args.num_machines, args.machine_rank, dist_url=args.dist_url, args=(args,))
    except ProcessExitedException as error:
        # A signal leaves no message of its own.
        sys.exit(str(error) if error.exit_code < 0 else error.exit_code)
    except ProcessRaisedException as error:
        sys.exit(str(error))  # the traceback of the process


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the program when the user has to mend something: its message on standard error, and no traceback."""
    # detectron2's training loop logs every error with its traceback before it passes it on.
    loop = logging.getLogger("detectron2.engine.train_loop")
    loop.addFilter(_without_expected_traceback)
    try:
        yield
    except _EXPECTED_ERRORS as error:
        sys.exit(f"error: {_text(error)}")
    finally:
        loop.removeFilter(_without_expected_traceback)


def _without_expected_traceback(record: logging.LogRecord) -> bool:
    if record.exc_info and isinstance(record.exc_info[1], _EXPECTED_ERRORS):
        record.msg, record.exc_info = f"{record.msg} {_text(record.exc_info[1])}", None
    return True


def _text(error: BaseException) -> str:
    """Return the message; without the traceback that a data-loading process puts around it."""
    # str() of a KeyError is the repr of its message.
    message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return message.rpartition(f"{type(error).__name__}: ")[2].strip() or type(error).__name__
