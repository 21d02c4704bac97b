"""What the command lines of prediction, evaluation, export and pictures have in common."""

import argparse
import math
from pathlib import Path
from typing import NoReturn

from ..engine import add_import, add_trust_pickle


class DetectorParser(argparse.ArgumentParser):
    """Of command lines with ``--opts``, behind which KEY VALUE overrides go: its errors say so."""

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments"):
            message += " (KEY VALUE overrides of a config go behind --opts)"
        super().error(message)


def detector_arguments(
    parser: argparse.ArgumentParser, title: str, description: str, *, several: bool = False
) -> argparse._ArgumentGroup:
    """Add ``run``, ``--config-file``, ``--weights``, ``--opts`` and ``--trust-pickle``: see :func:`.run.load_trained`.

    And ``--import``, for what the config may name. With ``several``, there are any number of ``runs`` instead of one.
    """
    group = parser.add_argument_group(title, description)
    group.add_argument(
        "runs" if several else "run",
        metavar="RUN",
        nargs="*" if several else "?",
        type=name,
        help="OUTPUT_DIR of a training: its final or last checkpoint",
    )
    group.add_argument("--config-file", metavar="FILE", type=name, help="a config of this package")
    group.add_argument(
        "--weights",
        metavar="FILE",
        type=name,
        help="its checkpoint, ours or a published one; of a RUN, another one than the last, such as model_best.pth",
    )
    group.add_argument(
        "--opts",
        metavar="KEY VALUE",
        nargs="+",
        default=[],
        help="overrides of that config, as train_net.py takes them at its end",
    )
    add_import(group)
    add_trust_pickle(group)
    return group


def check_config(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the program where ``--config-file``, ``--weights`` or ``--opts`` lacks another one that it needs."""
    runs = args.runs if "runs" in args else [run for run in [args.run] if run is not None]
    if args.config_file is not None and args.weights is None:
        parser.error("--config-file needs --weights FILE, its checkpoint")
    if args.weights is not None and args.config_file is None and len(runs) != 1:
        parser.error("--weights needs --config-file FILE, or the one RUN that it is a checkpoint of")
    if args.opts and args.config_file is None:
        parser.error("--opts needs --config-file: a RUN has its own config")


def positive(text: str) -> int:
    """Parse a whole number from 1 on."""
    return _whole(text, 1)


def from_zero(text: str) -> int:
    """Parse a whole number from 0 on."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    if not (text.strip().isdecimal() and int(text) >= least):
        raise argparse.ArgumentTypeError(f"'{text}': expected a whole number, {least} at least")
    return int(text)


def score(text: str) -> float:
    """Parse a score."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"'{text}': expected a score from 0 to 1")
    return value


def name(text: str) -> str:
    """Take a name that is one: a shell makes an empty one of a variable that is not set."""
    if not text:
        raise argparse.ArgumentTypeError("the name is empty")
    return text


def path(text: str) -> Path:
    """Take the name of a file or folder."""
    return Path(name(text))
