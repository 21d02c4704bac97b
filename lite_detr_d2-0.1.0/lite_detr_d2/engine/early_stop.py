"""A training that does not get better any more ends before its last iteration."""

import logging
import math
from collections.abc import Callable

from detectron2.engine import HookBase
from detectron2.utils import comm

from .retention import BestSaving

logger = logging.getLogger(__name__)


class TrainingEnded(SystemExit):
    """A training that is done before its last iteration; ``Trainer.train`` returns then, as after the last one."""


class EarlyStop(HookBase):
    """Ends a training after so many evaluations in a row without a higher AP than before.

    How many there were follows from the iteration of the best one, which ``model_best.pth`` has: so a kill between an
    evaluation and the next checkpoint does not matter. It comes after ``BestSaving`` in the hooks. As long as no
    evaluation could measure an AP, as on images without annotations, it ends nothing, and says so once.
    """

    def __init__(self, best: BestSaving, period: int, patience: int, finish: Callable[[], None]) -> None:
        """Make the hook.

        Args:
            best: what notes the best evaluation.
            period: iterations between evaluations, at least 1.
            patience: evaluations, at least 1.
            finish: writes ``model_final.pth``.
        """
        self._best = best
        self._period = period
        self._patience = patience
        self._finish = finish
        self._is_said = False

    def before_train(self) -> None:
        if self.trainer.start_iter < self.trainer.max_iter:
            self._end_if_due(self.trainer.start_iter - 1)

    def after_step(self) -> None:
        # After the last iteration nothing is left to stop.
        if (self.trainer.iter + 1) % self._period == 0 and self.trainer.iter + 1 < self.trainer.max_iter:
            self._end_if_due(self.trainer.iter)

    def _end_if_due(self, done: int) -> None:
        """``done`` is the last iteration that is done."""
        since_best = (done + 1) // self._period - (self._best.iteration + 1) // self._period
        is_due = since_best >= self._patience
        if is_due and self._best.ap == -math.inf:
            is_due = False
            self._say_without_effect()
        if not comm.all_gather(is_due)[0]:  # the main process alone knows the metrics
            return
        logger.info(
            "%d evaluations without a higher AP on %r than %.2f after iteration %d: the training ends after iteration "
            "%d of %d (SOLVER.EARLY_STOP.PATIENCE is %d).",
            *(since_best, self._best.dataset, self._best.ap, self._best.iteration, done),
            *(self.trainer.max_iter - 1, self._patience),
        )
        self.trainer.iter = done  # before the training it is the next one
        self._finish()
        raise TrainingEnded(0)

    def _say_without_effect(self) -> None:
        if comm.is_main_process() and not self._is_said:
            self._is_said = True
            logger.warning(
                "SOLVER.EARLY_STOP.PATIENCE has no effect: no AP on %r could be measured so far.", self._best.dataset
            )
