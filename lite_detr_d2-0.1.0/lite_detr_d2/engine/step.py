"""One iteration of training: a batch, seen at once or in parts, and a step of the optimizer unless it is bad."""

import json
import logging
import math
import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from ..detector import DetrDetector
from ..errors import InputError
from ..wording import in_short, shown
from .memory import is_out_of_memory, out_of_memory_in_training

logger = logging.getLogger(__name__)

Batch = list[dict[str, Any]]

_CURE = (
    "If the losses were growing, lower SOLVER.BASE_LR, warm up longer (SOLVER.WARMUP_ITERS), or turn off "
    "SOLVER.AMP.ENABLED; else look at the boxes of these images. --resume goes on from the last checkpoint."
)


class Step(SimpleTrainer):
    """detectron2's ``SimpleTrainer`` and ``AMPTrainer``, with batches in parts, and bad batches that are passed over.

    A batch is bad if a loss, a prediction that is to be matched, or a gradient is not finite, in any process. It
    changes nothing: it is written down in a file, and the training goes on with the next one, so many times in all.

    Attributes:
        skipped: how many batches were bad.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Batch],
        optimizer: Optimizer,
        *,
        parts: int = 1,
        most_skipped: int = 0,
        precision: torch.dtype | None = None,
        record: Path | None = None,
    ) -> None:
        """Make a step.

        Args:
            model: a detector, in DistributedDataParallel or not; it is set to training.
            data_loader: of the batches of this process.
            optimizer: of the model's parameters.
            parts: how many parts a batch is seen in, one after the other, to save memory: the gradients are those of
                the whole batch, whose number of boxes all losses are divided by.
            most_skipped: how many bad batches may be passed over.
            precision: of autocast, or None for none. Losses in float16 are scaled, which CUDA devices alone compute.
            record: a file that gets a line of JSON for each bad batch.
        """
        super().__init__(model, data_loader, optimizer)
        self.skipped = 0
        self._parts, self._most_skipped, self._record = parts, most_skipped, record
        self._precision = precision
        self._norm: float | None = None  # of the last gradients; not known where their scale is being looked for
        self._scaler = torch.amp.GradScaler("cuda", enabled=precision is torch.float16)
        self._is_distributed = isinstance(model, DistributedDataParallel)
        detector = model.module if self._is_distributed else model
        assert isinstance(detector, DetrDetector)
        self._detector = detector
        # What a forward pass changes, to be as it was if its batch is bad.
        self._statistics = [
            buffer
            for module in detector.modules()
            if isinstance(module, _BatchNorm)
            for buffer in module.buffers(recurse=False)
        ]

    def run_step(self) -> None:
        """Train on the next batch.

        Raises:
            FloatingPointError: it is bad, and no more may be passed over.
            InputError: memory ran out, naming its shapes.
        """
        start = time.perf_counter()
        batch = next(self._data_loader_iter)
        waited = time.perf_counter() - start
        self.optimizer.zero_grad()
        before = [buffer.clone() for buffer in self._statistics]
        try:
            losses = self._gradients(batch)
        except FloatingPointError as error:
            for buffer, value in zip(self._statistics, before, strict=True):
                buffer.copy_(value)
            self._pass_over(batch, str(error))
            return
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise InputError(out_of_memory_in_training(batch, self._parts, self._detector.device)) from error
        self.after_backward()
        self._write_metrics(losses, waited)
        self._write_figures(batch, start)
        self._scaler.step(self.optimizer)
        self._scaler.update()

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = super().state_dict()
        scaler = {"grad_scaler": self._scaler.state_dict()} if self._scaler.is_enabled() else {}
        return {**state, "skipped": self.skipped, **scaler}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.skipped = state_dict.get("skipped", 0)
        if self._scaler.is_enabled():
            self._scaler.load_state_dict(state_dict["grad_scaler"])

    def _gradients(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the gradients of a batch, and return its losses."""
        parts = _split(batch, self._parts)
        total: dict[str, Tensor] = {}
        self._norm = None
        with self._detector.criterion.counting(_num_boxes(batch), len(batch)) if len(parts) > 1 else nullcontext():
            for number, part in enumerate(parts, 1):
                # The last backward pass adds up the gradients of all processes.
                is_last = number == len(parts)
                with nullcontext() if is_last or not self._is_distributed else self.model.no_sync():
                    losses = self._losses(part)
                    self._scaler.scale(torch.stack(list(losses.values())).sum()).backward()
                total = {name: loss.detach() + total.get(name, 0.0) for name, loss in losses.items()}
        if not self._scaler.is_enabled():  # which looks for itself, and finds some while it looks for a scale
            self._norm = self._check_gradients()
        return total

    def _write_figures(self, batch: Batch, start: float) -> None:
        """What a training's curves show besides the losses, of this process, which began the step at ``start``."""
        if not comm.is_main_process():
            return
        storage = get_event_storage()
        storage.put_scalar("boxes", _num_boxes(batch))
        storage.put_scalar("images_per_second", len(batch) * comm.get_world_size() / (time.perf_counter() - start))
        if self._norm is not None:
            storage.put_scalar("grad_norm", self._norm)
        if self._detector.device.type == "cuda":
            storage.put_scalar("max_mem", torch.cuda.max_memory_allocated() / 2**30)

    def _losses(self, part: Batch) -> dict[str, Tensor]:
        """The losses of part of a batch, if they are finite in all processes."""
        problem, losses = "", {}
        device = self._detector.device.type
        try:
            with nullcontext() if self._precision is None else torch.autocast(device, self._precision):
                losses = self.model(part)
            wrong = [f"{name} = {loss.item()}" for name, loss in losses.items() if not bool(loss.isfinite())]
            problem = ", ".join(wrong)
        except FloatingPointError as error:
            problem = str(error)
        if self._anywhere(bool(problem)):
            raise FloatingPointError(problem or "in another process, a loss is not finite")
        return losses

    def _check_gradients(self) -> float:
        """The norm of all gradients together, if it is finite."""
        gradients = {name: parameter.grad for name, parameter in self._detector.named_parameters()}
        known = {name: gradient for name, gradient in gradients.items() if gradient is not None}
        norm = float(nn.utils.get_total_norm(known.values()))  # the same in all processes, whose sum they are
        if math.isfinite(norm):
            return norm
        wrong = [name for name, gradient in known.items() if not bool(gradient.isfinite().all())]
        if not wrong:  # too large for the optimizer to square
            raise FloatingPointError("gradients whose norm is not finite")
        raise FloatingPointError(f"gradients that are not finite ({len(wrong)}): {in_short(wrong)}")

    def _anywhere(self, flag: bool) -> bool:
        if comm.get_world_size() == 1:
            return flag
        number = torch.tensor(int(flag), device=self._detector.device)
        distributed.all_reduce(number, distributed.ReduceOp.MAX)
        return bool(number)

    def _pass_over(self, batch: Batch, problem: str) -> None:
        self.optimizer.zero_grad()
        self.skipped += 1
        files = [str(image.get("file_name", image.get("image_id"))) for image in batch]
        if self._record is not None:
            content = {"iteration": self.iter, "rank": comm.get_rank(), "problem": problem, "images": files}
            try:
                with self._record.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(content) + "\n")
            except OSError as error:  # no reason to stop
                logger.warning("%s cannot be written: %s.", shown(self._record), error.strerror)
        text = f"{problem}, on the images {in_short(files)}"
        if self.skipped > self._most_skipped:
            counted = f"{self.skipped} batches were bad, and SOLVER.MAX_SKIPPED_STEPS is {self._most_skipped}"
            raise FloatingPointError(f"{text}. {counted}. {_CURE}")
        logger.warning(
            "Iteration %d is passed over (%d of at most %d): %s", self.iter, self.skipped, self._most_skipped, text
        )


def _split(batch: Batch, parts: int) -> list[Batch]:
    """Up to so many parts, of as equal sizes as can be."""
    parts = min(parts, len(batch))
    bounds = [len(batch) * number // parts for number in range(parts + 1)]
    return [batch[start:end] for start, end in zip(bounds, bounds[1:], strict=False)]


def _num_boxes(batch: Sequence[dict[str, Any]]) -> int:
    return sum(len(image["instances"]) for image in batch if "instances" in image)
