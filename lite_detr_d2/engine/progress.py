"""What a training writes of its progress, and goes on without where the disk is full or fails."""

import logging
from collections.abc import Callable
from contextlib import suppress

from detectron2.utils.events import EventWriter

logger = logging.getLogger(__name__)


class Dispensable(EventWriter):
    """A writer whose files are no reason to stop: that they cannot be written is said once."""

    def __init__(self, writer: EventWriter) -> None:
        self._writer = writer
        self._has_failed = False

    def write(self) -> None:
        # detectron2's line of progress, written once more where a training stops, divides by the iterations since.
        with suppress(ZeroDivisionError):
            self._try(self._writer.write)

    def close(self) -> None:
        self._try(self._writer.close)

    def _try(self, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError as error:
            if not self._has_failed:
                logger.warning(
                    "What %s writes to OUTPUT_DIR cannot be written: %s. The training goes on, and writes it again "
                    "where it can; checkpoints need space, too.",
                    *(type(self._writer).__name__, error.strerror or error),
                )
            self._has_failed = True
