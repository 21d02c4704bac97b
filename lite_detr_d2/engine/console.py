"""What the console shows of a program: what a person reads. ``log.txt`` has all of it."""

import logging
import re
import sys
import textwrap

from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

_WIDTH = 120
# The indentation, and the name of a row if spaces set it off: the rest of a long line goes below what follows.
_BEGIN = re.compile(r"\s*(?:\S+\s{2,})?")
# detectron2's and fvcore's own account of environment, config, model and data is hundreds of lines. Names of loggers,
# also as detectron2's formatter shortens them, in place.
_SHOWN = ("lite_detr", "detectron2.evaluation.evaluator", "d2.evaluation.evaluator")
# What detectron2 warns of each time that it reads a dataset whose category ids have gaps, as COCO's have: it maps them.
_OF_GAPS = "Category ids in annotations are not in"


def open_log(folder: str, *, verbose: bool) -> list[logging.Handler]:
    """Let loggers write to ``log.txt`` in a folder, and what a person reads to standard output, too.

    Args:
        folder: is made if it is not there.
        verbose: whether to show everything there.

    Returns:
        The handlers of this package's logger.
    """
    # detectron2 keeps loggers by these arguments: when it asks for its own in the same way, it gets these.
    opened = [
        setup_logger(folder, distributed_rank=comm.get_rank(), name="lite_detr_d2", abbrev_name="lite_detr"),
        setup_logger(folder, distributed_rank=comm.get_rank(), name="fvcore"),
        setup_logger(folder, distributed_rank=comm.get_rank()),
    ]
    if not verbose:
        for logger in opened:
            _make_plain(logger)
    return list(opened[0].handlers)


def open_console() -> None:
    """Let loggers write what a person reads to standard output, as a training does; and to no file."""
    for logger in (setup_logger(name="lite_detr_d2", abbrev_name="lite_detr"), setup_logger()):
        _make_plain(logger)


def _make_plain(logger: logging.Logger) -> None:
    for handler in logger.handlers:
        if getattr(handler, "stream", None) is sys.stdout:
            handler.addFilter(_is_for_people)
            handler.setFormatter(_Plain(datefmt="%H:%M:%S"))


class _Plain(logging.Formatter):
    """The time and the message, in lines that fit a screen."""

    def format(self, record: logging.LogRecord) -> str:
        message = super().format(record)
        if record.levelno >= logging.WARNING:
            message = f"{record.levelname.lower()}: {message}"
        first, *others = message.split("\n")
        time = f"{self.formatTime(record, self.datefmt)} "
        lines = [_wrapped(first, time, " " * len(time))]
        lines += [_wrapped(line, "", " " * _begin(line)) for line in others]
        return "\n".join(lines)


def _begin(line: str) -> int:
    match = _BEGIN.match(line)
    return match.end() if match else 0


def _wrapped(line: str, begin: str, following: str) -> str:
    return textwrap.fill(
        line,
        _WIDTH,
        initial_indent=begin,
        subsequent_indent=following,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
        replace_whitespace=False,
    )


def _is_for_people(record: logging.LogRecord) -> bool:
    if record.levelno >= logging.WARNING:
        return _OF_GAPS not in str(record.msg)
    return record.levelno >= logging.INFO and record.name.startswith(_SHOWN)
