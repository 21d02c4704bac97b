"""What the command lines of prediction and of export have in common."""

import argparse

from ..engine import add_trust_pickle


def detector_arguments(parser: argparse.ArgumentParser, title: str, description: str) -> argparse._ArgumentGroup:
    """Add ``run``, ``--config-file``, ``--weights`` and ``--trust-pickle``, which :func:`.run.load_trained` takes."""
    group = parser.add_argument_group(title, description)
    group.add_argument("run", metavar="RUN", nargs="?", help="OUTPUT_DIR of a training: its final or last checkpoint")
    group.add_argument("--config-file", metavar="FILE", help="a config of this package")
    group.add_argument("--weights", metavar="FILE", help="its checkpoint, ours or a published one")
    add_trust_pickle(group)
    return group


def positive(text: str) -> int:
    """Parse a whole number from 1 on."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected 1 at least")
    return value
