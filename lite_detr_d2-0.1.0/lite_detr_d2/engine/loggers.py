"""Weights & Biases and MLflow: a training's figures, pictures and config as a run there, which ``--resume`` goes on."""

import json
import logging
import os
import re
import sys
import time
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from detectron2.config import CfgNode
from detectron2.utils.events import EventWriter, get_event_storage

from ..config.schema import leaves
from ..extras import check_extra, import_extra
from ..files import write_atomically
from ..wording import shown
from .early_stop import TrainingEnded
from .progress import Dispensable
from .tensorboard import tag_of

logger = logging.getLogger(__name__)

# Of the runs of a training, in its OUTPUT_DIR.
RUNS = "loggers.json"
# Of Weights & Biases's projects and MLflow's experiments, unless their own environment variables name another.
_PROJECT = "lite_detr_d2"
_WINDOW = 20  # iterations that figures are medians over, as detectron2's writers have it


class End(Enum):
    """How a training has ended."""

    FINISHED = "it is done"
    KILLED = "it was asked to stop, and may go on"
    FAILED = "by an error"


class RunWriter(EventWriter):
    """Writes what is new in detectron2's event storage to a run of a service; the tags are those of :func:`tag_of`."""

    title: ClassVar[str]
    package: ClassVar[str]
    cure: ClassVar[str]

    def __init__(self, cfg: CfgNode) -> None:
        """Make one of the training of ``cfg``; the run begins at the first :meth:`write`.

        Raises:
            InputError: the service's package is not installed.
        """
        self._module: Any = import_extra(self.package, extra=self.package)
        self._cfg = cfg
        self._has_begun = False
        self._last_write = -1

    def write(self) -> None:
        """Write; whatever the service raises comes through."""
        if not self._has_begun:
            identifier, where = self._begin(_runs_in(self._cfg.OUTPUT_DIR).get(self.package))
            self._has_begun = True
            _remember(self._cfg.OUTPUT_DIR, self.package, identifier)
            logger.info("%s: the run %s, %s", self.title, identifier, where)
        storage = get_event_storage()
        new: dict[int, dict[str, float]] = defaultdict(dict)
        for name, (value, iteration) in storage.latest_with_smoothing_hint(_WINDOW).items():
            if iteration > self._last_write:
                new[iteration][tag_of(name)] = value
        for iteration, figures in sorted(new.items()):
            self._log(iteration, figures)
            self._last_write = iteration
        for tag, picture, iteration in storage._vis_data:
            self._log_picture(iteration, tag, _pixels(picture))

    def close(self) -> None:
        if self._has_begun:
            self._end(_end_of_training())

    @abstractmethod
    def _begin(self, identifier: str | None) -> tuple[str, str]:
        """Go on with a run, or begin one; return its identifier, and where it is to be seen."""

    @abstractmethod
    def _log(self, iteration: int, figures: Mapping[str, float]) -> None: ...

    @abstractmethod
    def _log_picture(self, iteration: int, tag: str, pixels: npt.NDArray[np.uint8]) -> None:
        """Log (H, W, 3) RGB."""

    @abstractmethod
    def _end(self, end: End) -> None: ...


class WandB(RunWriter):
    """Weights & Biases; its environment variables act, so ``WANDB_MODE=offline`` writes to ``OUTPUT_DIR/wandb``."""

    title, package = "Weights & Biases", "wandb"
    cure = "'wandb login' tells it who you are, and WANDB_MODE=offline keeps all of it on the disk"

    def _begin(self, identifier: str | None) -> tuple[str, str]:
        folder = os.path.abspath(self._cfg.OUTPUT_DIR)
        ours = {"project": _PROJECT, "name": os.path.basename(folder), "dir": folder}
        options = {key: value for key, value in ours.items() if f"WANDB_{key.upper()}" not in os.environ}
        if identifier is not None:
            options["id"] = identifier
        # The console is to stay what a person reads, and log.txt has all of it.
        quiet = self._module.Settings(silent=True, console="off")
        self._run = self._module.init(**options, resume="allow", settings=quiet)
        self._run.config.update(_as_dict(self._cfg), allow_val_change=True)
        # A training that goes on repeats iterations, which as its own steps would be dropped.
        self._run.define_metric("iteration")
        self._run.define_metric("*", step_metric="iteration")
        return self._run.id, f"in {shown(Path(self._run.dir).parent)}" if self._run.offline else self._run.url

    def _log(self, iteration: int, figures: Mapping[str, float]) -> None:
        self._run.log({**figures, "iteration": iteration})

    def _log_picture(self, iteration: int, tag: str, pixels: npt.NDArray[np.uint8]) -> None:
        self._run.log({tag: self._module.Image(pixels), "iteration": iteration})

    def _end(self, end: End) -> None:
        self._run.finish(exit_code=int(end is not End.FINISHED))


class MLflow(RunWriter):
    """MLflow, by ``mlflow-skinny``; ``MLFLOW_TRACKING_URI`` says where, and ``MLFLOW_EXPERIMENT_NAME`` in which one."""

    title, package = "MLflow", "mlflow"
    cure = "MLFLOW_TRACKING_URI names the server"

    _MOST_FIGURES, _MOST_PARAMETERS, _LONGEST_NAME = 1000, 100, 250  # of a request, and of a name

    def _begin(self, identifier: str | None) -> tuple[str, str]:
        self._client = self._module.MlflowClient()
        self._run = identifier if identifier is not None and self._goes_on(identifier) else self._new_run()
        return self._run, f"in {self._module.get_tracking_uri()}"

    def _goes_on(self, identifier: str) -> bool:
        try:
            self._client.update_run(identifier, status="RUNNING")
        except self._module.exceptions.MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            logger.warning("MLflow does not know the run %s of %s: it begins another.", identifier, RUNS)
            return False
        return True

    def _new_run(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(name)
        run: str = self._client.create_run(
            number, run_name=os.path.basename(os.path.abspath(self._cfg.OUTPUT_DIR))
        ).info.run_id
        parameters = [self._module.entities.Param(key, str(value)) for key, value in leaves(self._cfg)]
        for part in _parts(parameters, self._MOST_PARAMETERS):
            self._client.log_batch(run, params=part)
        self._client.log_text(run, self._cfg.dump(), "config.yaml")
        return run

    def _log(self, iteration: int, figures: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        metrics = [
            self._module.entities.Metric(self._name(tag, r"[^\w\-. :]"), value, now, iteration)
            for tag, value in figures.items()
        ]
        for part in _parts(metrics, self._MOST_FIGURES):
            self._client.log_batch(self._run, metrics=part)

    def _log_picture(self, iteration: int, tag: str, pixels: npt.NDArray[np.uint8]) -> None:
        self._client.log_image(self._run, pixels, key=self._name(tag, r"[^A-Za-z0-9_\-. ]"), step=iteration)

    def _end(self, end: End) -> None:
        self._client.set_terminated(self._run, end.name)

    def _name(self, tag: str, refused: str) -> str:
        """A tag without what MLflow refuses: characters become their codes, and parts that are no names ``_``."""
        parts = [re.sub(refused, lambda match: f"_{ord(match[0]):x}", part) for part in tag.split("/")]
        return "/".join("_" if part in ("", ".", "..") else part for part in parts)[: self._LONGEST_NAME]


LOGGERS: Mapping[str, type[RunWriter]] = {kind.package: kind for kind in (WandB, MLflow)}


def check_loggers(cfg: CfgNode) -> None:
    """See that what ``LOGGERS`` names is installed.

    Raises:
        InputError: something is not.
    """
    for name in cfg.LOGGERS:
        check_extra(name, extra=name)


def build_loggers(cfg: CfgNode) -> list[EventWriter]:
    """The writers that ``LOGGERS`` names; what fails in them is said, and ends nothing.

    Raises:
        InputError: a package is not installed.
    """
    writers = [LOGGERS[name](cfg) for name in cfg.LOGGERS]
    return [Dispensable(each, f"What goes to {each.title}", each.cure, (Exception,)) for each in writers]


def forget_runs(folder: str) -> None:
    """Let a training that starts anew in ``OUTPUT_DIR`` have runs of its own."""
    Path(folder, RUNS).unlink(missing_ok=True)


def _runs_in(folder: str) -> dict[str, str]:
    """Package -> the identifier of the training's run."""
    file = Path(folder, RUNS)
    try:
        runs = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        return {str(package): str(identifier) for package, identifier in runs.items()}
    except (ValueError, AttributeError):
        logger.warning("%s cannot be read: other runs begin.", shown(file))
        return {}


def _remember(folder: str, package: str, identifier: str) -> None:
    content = json.dumps({**_runs_in(folder), package: identifier}).encode()
    write_atomically(os.path.join(folder, RUNS), lambda file: file.write(content))


def _end_of_training() -> End:
    """How the training ends whose hooks detectron2 runs in a ``finally``."""
    error = sys.exc_info()[1]
    if error is None or isinstance(error, TrainingEnded):
        return End.FINISHED
    return End.FAILED if isinstance(error, Exception) else End.KILLED


def _as_dict(node: CfgNode) -> dict[str, Any]:
    return {key: _as_dict(value) if isinstance(value, CfgNode) else value for key, value in node.items()}


def _pixels(picture: Any) -> npt.NDArray[np.uint8]:
    """(H, W, 3) of what detectron2's storage holds: (3, H, W), uint8, or floating point from 0 to 1."""
    array = np.asarray(picture)
    if array.dtype != np.uint8:
        array = (255 * array).round().clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(array.transpose(1, 2, 0))


def _parts(values: Sequence[Any], most: int) -> list[list[Any]]:
    iterator = iter(values)
    return list(iter(lambda: list(islice(iterator, most)), []))
