"""The exponential moving average of the weights, which is trained along, evaluated and saved beside them."""

import logging
from collections.abc import Mapping
from typing import Any

from detectron2.engine import HookBase
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

logger = logging.getLogger(__name__)

# Of it in a checkpoint, and the end of its metrics' names.
EMA = "ema"


class WeightAverage:
    """A copy of a model whose parameters are the average of that model's over the updates; buffers are the last ones.

    Attributes:
        is_started: whether it holds weights that were trained, by an update or from a checkpoint.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Copy ``model``, which must not have hooks yet: they would be copied, too, with all that they hold.

        ``decay``, from 0 to 1, is the share of the average that an update keeps; of the weights it takes the rest.
        """
        self._averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay)).requires_grad_(False)

    @property
    def model(self) -> nn.Module:
        """The copy."""
        return self._averaged.module

    @property
    def is_started(self) -> bool:
        return bool(self._averaged.n_averaged > 0)

    def update(self, model: nn.Module) -> None:
        """Take in the weights of ``model``; the first ones as they are."""
        self._averaged.update_parameters(model)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors under the model's names."""
        state: dict[str, Tensor] = self.model.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from an average; the checkpointer has compared the names, on the weights of the same checkpoint."""
        self.model.load_state_dict(state, strict=False)
        self._averaged.n_averaged.fill_(1)


class Averaging(HookBase):
    """Updates the average after every step; in the hooks it comes before what saves and evaluates it."""

    def __init__(self, average: WeightAverage, model: nn.Module) -> None:
        """Average the weights of ``model``, without a wrapper for several processes."""
        self._average = average
        self._model = model

    def before_train(self) -> None:
        if self._average.is_started:
            return
        if self.trainer.start_iter:
            logger.warning("The checkpoint has no average of the weights (SOLVER.EMA): it starts from the weights.")
        self._average.update(self._model)

    def after_step(self) -> None:
        self._average.update(self._model)


def with_average(results: Mapping[str, Any], averaged: Mapping[str, Any], datasets: int) -> dict[str, Any]:
    """Join the metrics of the weights with those of their average, whose names get ``_ema`` at their end.

    Args:
        results: as ``Trainer.test`` returns them: by task, or if there are several datasets by dataset and task.
        averaged: of the average, on the same datasets.
        datasets: how many there are.
    """
    if datasets > 1:
        return {name: with_average(found, averaged[name], 1) for name, found in results.items()}
    return {**results, **{f"{task}_{EMA}": metrics for task, metrics in averaged.items()}}
