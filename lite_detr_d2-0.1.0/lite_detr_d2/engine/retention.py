"""Checkpoints of a training: when they are written, and which stay."""

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from detectron2.engine import HookBase

from ..checkpoint import is_intact, iteration_of, seal_of, skimmed
from ..wording import in_short, shown
from .checkpointer import SafeCheckpointer
from .last_checkpoint import BEST, FINAL, PERIODIC

logger = logging.getLogger(__name__)


class PeriodicSaving(HookBase):
    """Writes ``model_NNNNNNN.pth`` after every so many iterations, keeps the newest, and writes ``model_final.pth``.

    Of the former it deletes those that it has written itself, also before a resume, and that are still what it wrote:
    a checkpoint has the list of those before it. A training that is resumed after its last iteration, and has no whole
    ``model_final.pth``, gets it.
    """

    def __init__(self, checkpointer: SafeCheckpointer, period: int, keep: int) -> None:
        """Save after every ``period`` iterations, and keep the last ``keep`` checkpoints; with 0, all."""
        self._checkpointer = checkpointer
        self._period = period
        self._keep = keep
        # Name of a file -> its checksum; "" of the one that is being written, which cannot hold its own.
        self._written: dict[str, str] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"written": dict(self._written)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._written = dict(state["written"])
        own = f"model_{self.trainer.iter:07d}.pth"
        if self._written.get(own) == "":
            self._written[own] = seal_of(self._path(own)) or ""

    def before_train(self) -> None:
        if self.trainer.start_iter >= max(self.trainer.max_iter, 1):
            with at_iteration_done(self.trainer):
                self.finish()

    def after_step(self) -> None:
        iteration = self.trainer.iter
        if (iteration + 1) % self._period == 0:
            self.save()
        if iteration >= self.trainer.max_iter - 1:
            self.finish()

    def finish(self) -> None:
        """Write ``model_final.pth``, of the last iteration that is done, unless it is there."""
        final = self._path(f"{FINAL}.pth")
        is_new = self.trainer.iter >= self.trainer.start_iter
        if is_new or not (is_intact(final) and iteration_of(final) == self.trainer.iter):
            self._checkpointer.save(FINAL, iteration=self.trainer.iter)

    def save(self) -> str:
        """Save the iteration that is at its end, if that is not done, and return the file."""
        name = f"model_{self.trainer.iter:07d}"
        path = self._path(f"{name}.pth")
        if not self._written.get(f"{name}.pth"):
            self._written[f"{name}.pth"] = ""
            self._checkpointer.save(name, iteration=self.trainer.iter)
            self._written[f"{name}.pth"] = seal_of(path) or ""
            self._delete_old()
        return path

    def _delete_old(self) -> None:
        if self._keep == 0 or not self._checkpointer.save_to_disk:
            return
        names = sorted((name for name in self._written if PERIODIC.fullmatch(name)), key=_iteration_in_name)
        deleted, strange = [], []
        for name in names[: -self._keep]:
            digest, path = self._written.pop(name), self._path(name)
            if not os.path.isfile(path):
                continue
            if not digest or seal_of(path) != digest:
                strange.append(name)
                continue
            try:
                os.unlink(path)
                deleted.append(name)
            except OSError as error:
                logger.warning("%s cannot be deleted: %s.", shown(path), error.strerror)
        if deleted:
            logger.info("SOLVER.KEEP_LAST is %d: deleted %s", self._keep, in_short(deleted))
        if strange:
            logger.warning("%s stays: it is not what this training wrote.", in_short(strange))

    def _path(self, name: str) -> str:
        return os.path.join(self._checkpointer.save_dir, name)


class BestSaving(HookBase):
    """Writes ``model_best.pth`` when an evaluation finds a higher AP than all before; it comes after that in the hooks.

    The file itself says what AP it has, so that it stays the best after a resume, from whatever checkpoint.

    Attributes:
        dataset: what is evaluated on.
        ap: the highest so far, in percent; -inf before there is one.
        iteration: of that; the one before the first before there is one.
    """

    def __init__(self, checkpointer: SafeCheckpointer, dataset: str) -> None:
        """Compare the AP on ``dataset``, the first of those that are evaluated on."""
        self._checkpointer = checkpointer
        self.dataset = dataset
        self.ap = -math.inf
        self.iteration = -1
        self._seen: object = None

    def before_train(self) -> None:
        path = os.path.join(self._checkpointer.save_dir, f"{BEST}.pth")
        self.iteration = self.trainer.start_iter - 1
        if self.trainer.start_iter == 0 or not os.path.isfile(path):
            return
        if not is_intact(path):
            logger.warning("%s is damaged: the next evaluation writes it anew.", shown(path))
            return
        best = skimmed(path).get("best")
        if not isinstance(best, dict) or best.get("dataset") != self.dataset:
            logger.warning("%s is not of an evaluation on %r: the next one writes it anew.", shown(path), self.dataset)
            return
        self.ap, self.iteration = float(best["AP"]), iteration_of(path) or 0

    def after_step(self) -> None:
        self._save_if_better()

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:  # else an error has ended it
            with at_iteration_done(self.trainer):
                self._save_if_better()

    def _save_if_better(self) -> None:
        results = getattr(self.trainer, "_last_eval_results", None)
        if results is None or results is self._seen:
            return
        self._seen = results
        ap = results.get(self.dataset, results).get("bbox", {}).get("AP", math.nan)
        if ap > self.ap:  # and not NaN, where there is nothing to measure
            self.ap, self.iteration = float(ap), self.trainer.iter
            best = {"AP": self.ap, "dataset": self.dataset}
            self._checkpointer.save(BEST, is_last=False, iteration=self.iteration, best=best)


def _iteration_in_name(name: str) -> int:
    match = PERIODIC.fullmatch(name)
    return int(match[1]) if match else -1


@contextmanager
def at_iteration_done(trainer: Any) -> Iterator[None]:
    """Let a trainer whose iterations are all done, or that has none left to do, say which was the last.

    detectron2's says the next one then. In an iteration, nothing changes.
    """
    counted = trainer.iter
    if counted >= trainer.max_iter:
        trainer.iter = max(trainer.max_iter, trainer.start_iter) - 1
    try:
        yield
    finally:
        trainer.iter = counted
