"""Training that is asked to stop by a signal finishes the iteration, saves, says so, and ends with a code for why."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import distributed, nn

from ..signals import noted_signals
from .retention import at_iteration_done

logger = logging.getLogger(__name__)

# Exit codes: 128 + the number of the signal, as shells tell it; and EX_TEMPFAIL, 75, to be queued again. A terminal
# that was closed counts as SIGTERM.
EXIT_CODES = {
    signal.SIGTERM: 128 + signal.SIGTERM,
    signal.SIGINT: 128 + signal.SIGINT,
    signal.SIGUSR1: os.EX_TEMPFAIL,
    signal.SIGHUP: 128 + signal.SIGTERM,
}


class TrainingStopped(SystemExit):
    """A training that was asked to stop, and has saved; ``code`` is that of ``EXIT_CODES``."""


class Stop(HookBase):
    """Ends a training after the iteration in which a signal came; an evaluation that goes on then is broken off.

    It has to be the last hook.
    """

    def __init__(self, models: Iterable[nn.Module], save: Callable[[], str]) -> None:
        """Make the hook.

        Args:
            models: what is run in evaluations.
            save: saves a checkpoint of the current iteration, and returns the file.
        """
        self._save = save
        self._noted: Callable[[], int] = lambda: 0
        for model in models:
            model.register_forward_pre_hook(self._break_off)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note the signals of ``EXIT_CODES``, for as long as the context lasts; a second one ends the process."""
        with noted_signals(EXIT_CODES, again=signal.SIG_DFL) as self._noted:
            yield

    def after_step(self) -> None:
        number = self._agreed()
        if number:
            self._end(number)

    def _break_off(self, model: nn.Module, _: object) -> None:
        # Several processes cannot agree here: they have other numbers of images.
        if not model.training and comm.get_world_size() == 1 and self._noted():
            self._end(self._noted())

    def _agreed(self) -> int:
        """The signal of this or of another process: all of them stop after the same iteration."""
        if comm.get_world_size() == 1:
            return self._noted()
        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        number = torch.tensor(self._noted(), device=device)
        distributed.all_reduce(number, distributed.ReduceOp.MAX)
        return int(number)

    def _end(self, number: int) -> None:
        with at_iteration_done(self.trainer):
            logger.warning(
                "%s: stopped after %d iterations, which are saved in %s. --resume goes on from there.",
                *(signal.Signals(number).name, self.trainer.iter + 1, self._save()),
            )
        comm.synchronize()  # the first process saves, and is ended when another one has ended
        raise TrainingStopped(EXIT_CODES[signal.Signals(number)])


def leave_signals_to_main(_: int) -> None:
    """In a data-loading process: leave signals to the main process, as they often come to the whole group.

    A SIGTERM of the main process itself ends it, by which that ends those that it no longer needs.
    """
    for number in EXIT_CODES.keys() - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)
    # A handler would not be told who sends it.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    threading.Thread(target=_wait_for_main, daemon=True).start()


def _wait_for_main() -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
        pass
    os._exit(0)
