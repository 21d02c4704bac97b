"""Going on with a training under another config: what was learnt stays, and what the config says acts from then on."""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import yaml
from detectron2.config import CfgNode
from detectron2.solver import LRMultiplier
from torch import nn
from torch.optim import Optimizer

from ..errors import InputError

logger = logging.getLogger(__name__)

# They do not matter to a training that goes on; of the classes the checkpointer speaks.
_IGNORED = ("OUTPUT_DIR", "MODEL.WEIGHTS", "MODEL.LITE_DETR.INIT", "MODEL.LITE_DETR.CLASS_NAMES")
# What decides which parameters are trained, and which of them share a group.
_GROUP_KEYS = (
    "MODEL.BACKBONE.FREEZE_AT, SOLVER.FREEZE, BASE_LR, WEIGHT_DECAY, WEIGHT_DECAY_NORM, WEIGHT_DECAY_BIAS, "
    "BIAS_LR_FACTOR, BACKBONE_MULTIPLIER and OFFSET_MULTIPLIER"
)


def parameter_names(model: nn.Module, optimizer: Optimizer) -> list[str]:
    """Return the names of the parameters in the order in which the optimizer's state numbers them."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return [names[parameter] for parameter in _parameters(optimizer)]


def optimizer_state(
    saved: Mapping[str, Any], saved_names: list[str] | None, model: nn.Module, optimizer: Optimizer
) -> dict[str, Any]:
    """Fit a saved state to an optimizer whose groups may be others, parameter by parameter.

    Args:
        saved: a ``state_dict`` of an optimizer.
        saved_names: its :func:`parameter_names`; None for a checkpoint that has none, which needs the same groups.
        model: whose parameters the optimizer has.
        optimizer: it is not changed.

    Returns:
        A ``state_dict`` with the optimizer's own groups. Parameters that were not trained before have no state, and
        neither has any if the state is of another kind of optimizer; the log says so.

    Raises:
        InputError: the names are not known, and the groups differ.
    """
    own: dict[str, Any] = optimizer.state_dict()
    if _is_adam(saved) != _is_adam(own):
        logger.warning("The checkpoint's optimizer is not the SOLVER.OPTIMIZER of the config: its state starts anew.")
        return {**own, "state": {}}
    names = parameter_names(model, optimizer)
    if saved_names is None:
        if not _has_same_groups(saved, optimizer):
            raise InputError(
                "Cannot resume: the checkpoint does not know the names of its optimizer's parameters, as of an earlier "
                f"version, and they are grouped in another way. Give the {_GROUP_KEYS} that it was trained with; or "
                "start anew from it, without --resume, as MODEL.WEIGHTS."
            )
        saved_names = names
    numbers = {name: number for number, name in enumerate(saved_names)}
    fresh = [name for name in names if name not in numbers]
    if fresh:
        logger.info("%d parameters were not trained before, %s the first of them.", len(fresh), fresh[0])
    state = {
        number: saved["state"][numbers[name]]
        for number, name in enumerate(names)
        if numbers.get(name) in saved["state"]
    }
    return {**own, "state": state}


def restart_schedule(scheduler: LRMultiplier, optimizer: Optimizer) -> None:
    """Give a schedule whose state was loaded the optimizer's own rates, and the optimizer those of the iteration."""
    scheduler.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
    if scheduler.last_epoch <= scheduler._max_iter:  # else there is no such iteration
        for group, rate in zip(optimizer.param_groups, scheduler.get_lr(), strict=True):
            group["lr"] = rate


def keep_metrics_before(iteration: int, file: str) -> None:
    """Take out of ``metrics.json`` what is of iterations that are trained again, and a line that was not finished.

    An evaluation's metrics stand behind losses of later iterations, and stay.
    """
    if not os.path.isfile(file):
        return
    with open(file, "r+b") as stream:  # in place: its writer has opened it
        lines = stream.readlines()
        kept = [line for line in lines if line.endswith(b"\n") and _iteration_of(line) < iteration]
        if len(kept) < len(lines):
            logger.info("%s ends where iteration %d begins, with which the training goes on.", file, iteration)
            stream.seek(0)
            stream.writelines(kept)
            stream.truncate()


def _iteration_of(line: bytes) -> int:
    try:
        return int(json.loads(line)["iteration"])
    except (ValueError, KeyError, TypeError):
        return -1


def changed_settings(saved: str, cfg: CfgNode) -> list[str]:
    """Return the keys of ``cfg`` whose values are others than in ``saved``, a config's dump, as "KEY old -> new"."""
    before, now = (dict(_settings(yaml.safe_load(text) or {})) for text in (saved, cfg.dump()))
    changed = (key for key in now if key in before and before[key] != now[key] and key not in _IGNORED)
    return [f"{key} {before[key]} -> {now[key]}" for key in changed]


def _settings(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _settings(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _is_adam(state: Mapping[str, Any]) -> bool:
    return "betas" in state["param_groups"][0]


def _has_same_groups(saved: Mapping[str, Any], optimizer: Optimizer) -> bool:
    sizes = [len(group["params"]) for group in saved["param_groups"]]
    if sizes != [len(group["params"]) for group in optimizer.param_groups]:
        return False
    shapes = [parameter.shape for parameter in _parameters(optimizer)]
    return all(
        value.shape in ((), shapes[number])
        for number, state in saved["state"].items()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    )


def _parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
