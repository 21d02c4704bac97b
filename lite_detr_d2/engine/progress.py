"""What a training shows and writes of its progress, and goes on without where the disk is full or fails."""

import logging
import math
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, EventWriter, get_event_storage

from ..wording import one_line

logger = logging.getLogger(__name__)


class EarlyProgress(HookBase):
    """Says how long the training takes, soon after its beginning: the lines of progress begin after 20 iterations."""

    _AFTER = (2, 10)  # its own iterations

    def after_step(self) -> None:
        own, done, now = self.trainer.iter + 1 - self.trainer.start_iter, self.trainer.iter + 1, time.perf_counter()
        if own == 1:
            self._first_ended = now  # the first one is no measure
        elif own in self._AFTER and done < self.trainer.max_iter and comm.is_main_process():
            rest = _rest((now - self._first_ended) / (own - 1), self.trainer.max_iter - done)
            logger.info("iteration %s of %s, about %s to go", f"{done:,}", f"{self.trainer.max_iter:,}", rest)


class ProgressLine(EventWriter):
    """A line for people: the loss and its parts in the last decoder layer, the pace, and what remains."""

    PARTS = {"loss_ce": "class", "loss_bbox": "boxes", "loss_giou": "GIoU"}

    def __init__(self, max_iter: int, window: int = 20) -> None:
        """Make one of a training of so many iterations; figures are medians over the last ``window`` of them."""
        self._max_iter, self._window = max_iter, window
        self._last: tuple[int, float] | None = None

    def write(self) -> None:
        """Log a line on how the training goes, where one is due."""
        storage = get_event_storage()
        done = storage.iter + 1
        if done == self._max_iter + 1:  # written once more by the last evaluation
            return
        parts = ", ".join(
            f"{name} {value:.3f}"
            for key, name in self.PARTS.items()
            if (value := self._median(storage, key)) is not None
        )
        loss, data = self._median(storage, "total_loss"), self._median(storage, "data_time")
        words = [
            f"iteration {done:,} of {self._max_iter:,}",
            f"loss {loss:.2f} (last layer: {parts})" if loss is not None else "",
            f"learning rate {storage.history('lr').latest():.2g}" if "lr" in storage.histories() else "",
            self._pace(done, data),
            f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if torch.cuda.is_available() else "",
        ]
        logger.info("%s", ", ".join(filter(None, words)))

    def _median(self, storage: EventStorage, key: str) -> float | None:
        if key not in storage.histories():
            return None
        return float(storage.history(key).median(max(1, storage.count_samples(key, self._window))))

    def _pace(self, done: int, data: float | None) -> str:
        """Seconds of an iteration since the last line, or the start; and how long the rest takes at that."""
        now, last = time.perf_counter(), self._last
        self._last = done, now
        if last is not None and last[0] >= done:
            return ""
        # Before the first line, it is that of most iterations: the very first ones take longer.
        seconds = self._median(get_event_storage(), "time") if last is None else (now - last[1]) / (done - last[0])
        if seconds is None:
            return ""
        waits = f" ({data:.2f} s for data)" if data is not None and data > 0.1 * seconds else ""
        return f"{seconds:.2f} s each{waits}, {_rest(seconds, self._max_iter - done)} to go"


def _rest(seconds: float, iterations: int) -> timedelta:
    return timedelta(seconds=round(seconds * iterations))


class Dispensable(EventWriter):
    """A writer that is no reason to stop: that it fails is said once.

    It is not tried again before ten times as long has passed as it took to fail: a service that is not reached for a
    minute does not hold up every twentieth iteration.
    """

    def __init__(
        self, writer: EventWriter, what: str, hint: str, errors: tuple[type[Exception], ...] = (OSError,)
    ) -> None:
        """Wrap a writer.

        Args:
            writer: to wrap.
            what: it writes, for the message.
            hint: what else to know where it fails.
            errors: how it may fail.
        """
        self._writer, self._what, self._hint, self._errors = writer, what, hint, errors
        self._has_failed = False
        self._not_before = -math.inf

    def write(self) -> None:
        if time.monotonic() < self._not_before:
            return
        # detectron2's line of progress, written once more where a training stops, divides by the iterations since.
        with suppress(ZeroDivisionError):
            self._try(self._writer.write)

    def close(self) -> None:
        self._try(self._writer.close)

    def _try(self, action: Callable[[], object]) -> None:
        began = time.monotonic()
        try:
            action()
        except self._errors as error:
            now = time.monotonic()
            self._not_before = now + 10 * (now - began)
            if not self._has_failed:
                logger.warning(
                    "%s cannot be written: %s. The training goes on, and writes it again where it can; %s.",
                    *(self._what, (getattr(error, "strerror", None) or one_line(error)).rstrip("."), self._hint),
                )
            self._has_failed = True
