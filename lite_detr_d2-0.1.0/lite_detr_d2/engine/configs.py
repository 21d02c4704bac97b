"""From the config that a command line names to one that is valid and knows its datasets."""

import argparse

from detectron2.config import CfgNode, get_cfg
from detectron2.utils.file_io import PathManager

from ..config import (
    EXAMPLE_CONFIG,
    add_lite_detr_config,
    is_detector,
    merge_file,
    merge_overrides,
    validate_config,
)
from ..data import CocoFolder
from ..errors import InputError
from ..wording import shown


def read_config(args: argparse.Namespace) -> CfgNode:
    """Return the config of ``args.config_file`` with the overrides ``args.opts``, not frozen.

    Each value that they set is checked; what keys are to each other is left to :func:`validate_config`.

    Raises:
        InputError: no config of a detector of this package is given, the file cannot be read, or a key or a value is
            wrong.
    """
    cfg = merged_config(args)
    if not is_detector(cfg):
        file = f"Config {shown(args.config_file)} is of no detector of this package" if args.config_file else ""
        raise InputError(f"{file or 'No config is given'}: name one, {EXAMPLE_CONFIG}.")
    return cfg


def merged_config(args: argparse.Namespace) -> CfgNode:
    """The config of a file and overrides, whatever it is of."""
    late = [word for word in args.opts if str(word).startswith("--")]
    if late:
        raise InputError(f"{late[0]} comes after KEY VALUE pairs, which end the options: put it before them.")
    if args.config_file and not PathManager.isfile(args.config_file):
        what = "it is a folder" if PathManager.isdir(args.config_file) else "there is no such file"
        raise InputError(f"Config {shown(args.config_file)}: {what}. Name a config file.")
    cfg = get_cfg()
    add_lite_detr_config(cfg)
    if args.config_file:
        merge_file(cfg, args.config_file)
    merge_overrides(cfg, args.opts)
    return cfg


def use_dataset(cfg: CfgNode, folder: CocoFolder, test: str, overrides: list[str]) -> None:
    """Let a config train on a dataset, and evaluate on the half ``test``, but for what the overrides say."""
    cfg.DATASETS.TRAIN = (folder.train,) if folder.train else ()
    cfg.DATASETS.TEST = (test,)
    cfg.MODEL.LITE_DETR.NUM_CLASSES = len(folder.classes)
    cfg.INPUT.MAX_VALUE = folder.max_value
    cfg.merge_from_list(overrides)


def check_config(cfg: CfgNode, file: str) -> None:
    """Check a config as a whole; errors name the file that it is of.

    Raises:
        InputError: it is not valid.
    """
    try:
        validate_config(cfg)
    except ValueError as error:
        source = f"Config {file}: " if file else ""
        raise InputError(f"{source}{error}") from error


def check_named(cfg: CfgNode, half: str) -> None:
    """Check that ``cfg.DATASETS`` names datasets of a half, "TRAIN" or "TEST".

    Raises:
        InputError: it names none.
    """
    if not cfg.DATASETS[half]:
        raise InputError(
            f"DATASETS.{half} is empty: give --dataset DIR, which has to have a half for it, or the names of datasets "
            "registered with detectron2."
        )
