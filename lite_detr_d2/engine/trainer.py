"""detectron2's default trainer, with what DETR-like detectors need."""

import logging
import os
import warnings
import weakref
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import get_detection_dataset_dicts
from detectron2.engine import DefaultTrainer, HookBase, TrainerBase, create_ddp_model
from detectron2.engine.hooks import EvalHook, PeriodicCheckpointer, PreciseBN
from detectron2.evaluation import DatasetEvaluator
from detectron2.solver import LRMultiplier
from detectron2.utils import comm
from detectron2.utils.events import EventWriter, TensorboardXWriter
from detectron2.utils.logger import setup_logger
from torch import nn
from torch.optim import Optimizer

from ..config import warn_of_idle_keys, with_random_weights
from ..data import TrainingLoader
from ..errors import InputError
from ..randomness import STEP, deterministic_algorithms, seed_generators
from ..torch_compile import check_compiler
from .checkpointer import SafeCheckpointer
from .compilation import compile_training
from .datasets import annotation_errors, check_datasets, class_names, classes_for_checkpoints
from .early_stop import EarlyStop, TrainingEnded
from .ema import EMA, Averaging, WeightAverage, with_average
from .evaluation import BoxEvaluator, evaluation_loader, write_metrics
from .folder_lock import only_training_in
from .last_checkpoint import find_last_checkpoint
from .loggers import build_loggers, check_loggers, forget_runs
from .optimizer import build_optimizer, freeze
from .pictures import ValidationPictures
from .precise_norms import PreciseNorms
from .progress import Dispensable, EarlyProgress, ProgressLine
from .recompute import recompute
from .resume import changed_settings, keep_metrics_before, optimizer_state, parameter_names, restart_schedule
from .retention import BestSaving, PeriodicSaving
from .schedule import scaled_to_processes
from .step import Step
from .stop import Stop
from .summary import log_dataset
from .tensorboard import TensorBoard
from .training_data import load_images, training_loader, usable_images

logger = logging.getLogger(__name__)


class Trainer(DefaultTrainer):
    """Train and evaluate a detector of this package as ``cfg`` says.

    To detectron2's ``DefaultTrainer`` it adds DETR's optimizer (:func:`build_optimizer`) and augmentation
    (:class:`DetrDatasetMapper`), COCO's evaluation, and :class:`SafeCheckpointer`. Every evaluation writes its metrics
    to ``OUTPUT_DIR/eval_metrics.json`` and its detections to ``OUTPUT_DIR/inference``. Without CUDA it runs on the CPU.

    A training that is stopped and goes on, from a checkpoint of the same config and number of processes, gives the bits
    of one that was not stopped (on the CPU). SIGTERM, SIGINT, SIGHUP and SIGUSR1 stop it, see :class:`Stop`.

    Raises:
        InputError: a dataset is not there, or has another number of classes than the model; ``SOLVER.AMP`` with float16
            on the CPU; ``SOLVER.COMPILE`` without a compiler, or of what cannot be compiled.
        FloatingPointError: in training, when losses or gradients are not finite in more batches than
            SOLVER.MAX_SKIPPED_STEPS.
    """

    def __init__(self, cfg: CfgNode, *, trust_pickle: bool = False, resume: bool = False) -> None:
        """Build everything.

        Args:
            cfg: the config.
            trust_pickle: let a ``.pkl`` or ``.pyth`` file of weights hold, and run, anything.
            resume: what :meth:`resume_or_load` will be called with: where ``OUTPUT_DIR`` has a checkpoint to go on
                from, no weights of timm are fetched (``MODEL.TIMM.PRETRAINED``).
        """
        self._trust_pickle = trust_pickle
        cfg = on_available_device(cfg)
        check_datasets(cfg, "TRAIN", "TEST")
        _check_precision(cfg)
        check_loggers(cfg)
        if cfg.SOLVER.COMPILE:
            check_compiler(torch.device(cfg.MODEL.DEVICE), "SOLVER.COMPILE is True")
        for name in cfg.DATASETS.TEST:
            self.build_test_loader(cfg, name)  # what is wrong with it is to be known before the training, not after
        self._build(cfg, resume)
        # Of all that is drawn in training; a checkpoint keeps it.
        self.seed: int = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
        self._images_seen_before = 0
        self._pictures = ValidationPictures(cfg)
        warn_of_idle_keys(cfg)

    def _build(self, cfg: CfgNode, resume: bool) -> None:
        """As ``DefaultTrainer.__init__`` does, which of several processes knows only such as have a GPU each."""
        TrainerBase.__init__(self)
        self._loggers: list[EventWriter] = []  # of the main process
        if not logging.getLogger("detectron2").isEnabledFor(logging.INFO):
            setup_logger()
        cfg = scaled_to_processes(cfg, comm.get_world_size())
        self._awaits_checkpoint = (
            resume and cfg.MODEL.TIMM.PRETRAINED and find_last_checkpoint(cfg.OUTPUT_DIR, {"trainer"}) != ""
        )
        model = self.build_model(with_random_weights(cfg) if self._awaits_checkpoint else cfg)
        if cfg.SOLVER.COMPILE:
            compile_training(model)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg)
        devices = {"device_ids": None} if cfg.MODEL.DEVICE == "cpu" else {}
        with warnings.catch_warnings():
            # Of PyTorch, to whoever wants what it has meant in all versions.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            distributed = create_ddp_model(model, broadcast_buffers=False, **devices)
        self._trainer = Step(
            distributed,
            data_loader,
            optimizer,
            parts=cfg.SOLVER.ACCUMULATE,
            most_skipped=cfg.SOLVER.MAX_SKIPPED_STEPS,
            precision=getattr(torch, cfg.SOLVER.AMP.DTYPE) if cfg.SOLVER.AMP.ENABLED else None,
            record=Path(cfg.OUTPUT_DIR, "bad_batches.json"),
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = SafeCheckpointer(
            model,
            cfg.OUTPUT_DIR,
            **classes_for_checkpoints(cfg, "TRAIN"),
            trust_pickle=self._trust_pickle,
            trainer=weakref.proxy(self),
        )
        self.start_iter, self.max_iter, self.cfg = 0, cfg.SOLVER.MAX_ITER, cfg
        self.register_hooks(self.build_hooks())

    def build_hooks(self) -> list[HookBase | None]:
        """detectron2's, with the checkpoints, the evaluations and the stops of this package in their places."""
        hooks = [hook for hook in super().build_hooks() if not isinstance(hook, PeriodicCheckpointer)]
        evaluation = next(place for place, hook in enumerate(hooks) if isinstance(hook, EvalHook))
        solver, test = self.cfg.SOLVER, self.cfg.TEST
        for place, hook in enumerate(hooks):
            if isinstance(hook, PreciseBN):
                loader, batches = hook._data_loader, test.PRECISE_BN.NUM_ITER
                hooks[place] = PreciseNorms(test.EVAL_PERIOD, self.model, loader, batches)
        saving = PeriodicSaving(self.checkpointer, solver.CHECKPOINT_PERIOD, solver.KEEP_LAST)
        hooks[evaluation : evaluation + 1] = [saving, EvalHook(test.EVAL_PERIOD, self._evaluate)]
        if self.cfg.DATASETS.TEST:
            best = BestSaving(self.checkpointer, self.cfg.DATASETS.TEST[0])
            hooks.insert(evaluation + 2, best)
            if test.EVAL_PERIOD and solver.EARLY_STOP.PATIENCE:
                patience = solver.EARLY_STOP.PATIENCE
                hooks.append(EarlyStop(best, test.EVAL_PERIOD, patience, saving.finish))
        evaluated = [self.checkpointer.model]
        self._average = WeightAverage(self.checkpointer.model, solver.EMA.DECAY) if solver.EMA.ENABLED else None
        if self._average is not None:
            self.checkpointer.add_checkpointable(EMA, self._average)
            hooks.insert(evaluation, Averaging(self._average, self.checkpointer.model))
            evaluated.append(self._average.model)
        self._stop = Stop(evaluated, saving.save)
        return [*hooks, EarlyProgress(), self._stop]

    def build_writers(self) -> list[EventWriter]:
        """detectron2's, with other tags in TensorBoard, the line of progress on the console, and ``LOGGERS``."""
        stock = [writer for writer in super().build_writers() if not isinstance(writer, TensorboardXWriter)]
        self._loggers = build_loggers(self.cfg)

        def dispensable(writer: EventWriter) -> EventWriter:
            what = f"What {type(writer).__name__} writes to OUTPUT_DIR"
            return Dispensable(writer, what, "checkpoints need space, too")

        # TensorBoard's, which takes the pictures out of detectron2's storage, comes last.
        before = [dispensable(writer) for writer in (ProgressLine(self.max_iter), *stock)]
        return [*before, *self._loggers, dispensable(TensorBoard(self.cfg.OUTPUT_DIR))]

    def _evaluate(self) -> dict[str, Any]:
        """Evaluate the weights, and their average if there is one, whose files are in the folder ``ema``."""
        results = self.test(self.cfg, self.model)
        if self._average is not None:
            cfg = self.cfg.clone()
            cfg.defrost()
            cfg.OUTPUT_DIR = os.path.join(cfg.OUTPUT_DIR, EMA)
            averaged = self.test(cfg, self._average.model)
            results = with_average(results, averaged, len(cfg.DATASETS.TEST))
            if self.cfg.DATASETS.TEST and comm.is_main_process():
                write_metrics(self.cfg.OUTPUT_DIR, results)
        if comm.is_main_process():
            self._pictures.put(self.checkpointer.model)
        self._last_eval_results = results
        return results

    def resume_or_load(self, resume: bool = True) -> None:
        """Go on with the training in ``OUTPUT_DIR`` if ``resume`` and there is one; else start a new one.

        It starts from ``MODEL.LITE_DETR.INIT`` if that is set, and from ``MODEL.WEIGHTS`` if not, or for the backbone
        if INIT has another one. What has changed in the config since acts from the iteration on at which it goes on.
        """
        init, last = self.cfg.MODEL.LITE_DETR.INIT, self.checkpointer.get_checkpoint_file() if resume else ""
        if last:
            self.checkpointer.load(last)
            self.start_iter = self.iter + 1
        elif self._awaits_checkpoint:
            raise InputError(
                f"The trainer was made with resume=True, to go on from the checkpoint in {self.cfg.OUTPUT_DIR}, and "
                "has not fetched the weights of MODEL.TIMM.PRETRAINED: make another one, without resume."
            )
        elif init:
            self.checkpointer.initialize(init, backbone=self.cfg.MODEL.WEIGHTS)
        else:
            self.checkpointer.load(self.cfg.MODEL.WEIGHTS, checkpointables=[])
        self._check_same_start()
        if comm.is_main_process():
            if resume:  # also where it was killed before its first checkpoint
                keep_metrics_before(self.start_iter, os.path.join(self.cfg.OUTPUT_DIR, "metrics.json"))
            else:
                forget_runs(self.cfg.OUTPUT_DIR)
        if self.start_iter >= self.max_iter:
            logger.warning(
                "SOLVER.MAX_ITER is %d, and the training in %s has done %d iterations: there is nothing left to train. "
                "To go on, give a larger one.",
                *(self.max_iter, self.cfg.OUTPUT_DIR, self.start_iter),
            )

    def _check_same_start(self) -> None:
        starts = comm.all_gather(self.start_iter)
        if len(set(starts)) > 1:
            raise InputError(
                f"Process 0 begins at iteration {starts[0]}, and others at {sorted(set(starts) - {starts[0]})}: all "
                f"machines have to see the same OUTPUT_DIR ({self.cfg.OUTPUT_DIR})."
            )

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = super().state_dict()
        names = parameter_names(self.checkpointer.model, self.optimizer)
        return {
            **state,
            "config": self.cfg.dump(),
            "parameter_names": names,
            "seed": self.seed,
            "images_seen": self._images_seen_before + self._images_of(self.iter + 1 - self.start_iter),
        }

    def _images_of(self, iterations: int) -> int:
        return iterations * int(self.cfg.SOLVER.IMS_PER_BATCH)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        changed = changed_settings(state_dict.get("config", ""), self.cfg)
        if changed:
            iteration = state_dict["iteration"] + 1
            logger.warning("From iteration %d on, the config is another: %s", iteration, ", ".join(changed))
        self.seed = state_dict.get("seed", self.seed) if self.cfg.SEED < 0 else self.seed
        self._images_seen_before = state_dict.get("images_seen", self._images_of(state_dict["iteration"] + 1))
        inner = {**self._trainer.state_dict(), **state_dict["_trainer"]}  # without AMP, there is no scaler's state
        names = state_dict.get("parameter_names")
        inner["optimizer"] = optimizer_state(inner["optimizer"], names, self.checkpointer.model, self.optimizer)
        super().load_state_dict({**state_dict, "_trainer": inner})
        if isinstance(self.scheduler, LRMultiplier):  # a subclass may have another schedule
            restart_schedule(self.scheduler, self.optimizer)

    def train(self) -> Any:
        loader = self._trainer.data_loader
        if isinstance(loader, TrainingLoader):  # a subclass may have another
            loader.start(self.seed, self._images_seen_before)
        # Which launch_checked has done before, in a program.
        alone = only_training_in(self.cfg.OUTPUT_DIR) if comm.is_main_process() else nullcontext()
        in_order = deterministic_algorithms(self.cfg.SOLVER.DETERMINISTIC)
        with alone, in_order, self._stop.listening(), suppress(TrainingEnded):
            return super().train()
        return getattr(self, "_last_eval_results", None)

    def before_train(self) -> None:
        super().before_train()
        for writer in self._loggers:
            writer.write()  # that a run cannot begin is to be known before the training, not after 20 iterations

    def after_train(self) -> None:
        if self.iter < self.max_iter:
            # It was stopped, or a step failed: if that was the last one, detectron2 would evaluate as if it had not.
            self._hooks: list[HookBase] = [hook for hook in self._hooks if not isinstance(hook, EvalHook)]
        super().after_train()

    def run_step(self) -> None:
        # By the iteration, so that nothing that was drawn before, in evaluations or by other processes, matters.
        seed_generators(STEP, self.seed, self.iter, comm.get_rank())
        try:
            super().run_step()
        except FloatingPointError as error:
            raise FloatingPointError(f"Iteration {self.iter}: {error}") from error

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        model: nn.Module = super().build_model(cfg)
        recompute(model, cfg.SOLVER.RECOMPUTE)
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> Optimizer:
        freeze(model, cfg.SOLVER.FREEZE)
        return build_optimizer(cfg, model)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Iterable[list[dict[str, Any]]]:
        """The batches of ``DATASETS.TRAIN``, see :class:`TrainingLoader`."""
        return training_loader(cfg, usable_images(cfg, load_images(cfg)))

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Iterable[list[dict[str, Any]]]:
        with annotation_errors("TEST", dataset_name):
            images = get_detection_dataset_dicts(dataset_name, filter_empty=False)
        log_dataset(dataset_name, images, class_names(dataset_name) or ())
        return evaluation_loader(cfg, repr(dataset_name), images)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        return BoxEvaluator(dataset_name, os.path.join(cfg.OUTPUT_DIR, "inference"))

    @classmethod
    def test(
        cls, cfg: CfgNode, model: nn.Module, evaluators: list[DatasetEvaluator] | None = None
    ) -> dict[str, dict[str, Any]]:
        """Evaluate on ``DATASETS.TEST``, and write the metrics to ``OUTPUT_DIR/eval_metrics.json``.

        Returns:
            The evaluator's metrics in percent, such as ``{"bbox": {"AP": 42.0, ...}}``, by dataset if there are
            several. A metric for which there is nothing to measure is NaN, and ``null`` in the file; a dataset without
            annotations has no metrics. Without datasets, nothing is written.

        Raises:
            InputError: a dataset cannot be used, or the file cannot be written.
        """
        check_datasets(cfg, "TEST")
        if comm.get_world_size() > 1:
            for buffer in model.buffers():  # norms' statistics, which each process has of its own batches
                torch.distributed.broadcast(buffer, 0)
        results: dict[str, dict[str, Any]] = super().test(cfg, model, evaluators)
        if cfg.DATASETS.TEST and comm.is_main_process():
            write_metrics(cfg.OUTPUT_DIR, results)
        return results


def on_available_device(cfg: CfgNode) -> CfgNode:
    """Return ``cfg``, or if it asks for CUDA where there is none a copy that asks for the CPU, and log it.

    Raises:
        InputError: ``MODEL.DEVICE`` is no device, or not one of this machine.
    """
    name = cfg.MODEL.DEVICE
    expected = "expected cuda, cuda:1 or the like, or cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"MODEL.DEVICE is {name!r}: {expected}.") from error
    if device.type != "cuda":
        _check_usable(device, f"MODEL.DEVICE is {name!r}, on which nothing can be computed here: {expected}.")
        return cfg
    if torch.cuda.is_available():
        if device.index is not None and device.index >= torch.cuda.device_count():
            raise InputError(f"MODEL.DEVICE is {name!r}, and CUDA devices here end at {torch.cuda.device_count() - 1}.")
        return cfg
    logger.info("There is no CUDA device: MODEL.DEVICE becomes cpu instead of %s", name)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    cfg.freeze()
    return cfg


def _check_precision(cfg: CfgNode) -> None:
    amp = cfg.SOLVER.AMP
    if amp.ENABLED and amp.DTYPE == "float16" and torch.device(cfg.MODEL.DEVICE).type == "cpu":
        raise InputError(
            "SOLVER.AMP.ENABLED is True, MODEL.DEVICE is 'cpu', and SOLVER.AMP.DTYPE is 'float16', in which nothing is "
            "trained there: set SOLVER.AMP.DTYPE to 'bfloat16', or SOLVER.AMP.ENABLED to False."
        )


def _check_usable(device: torch.device, message: str) -> None:
    try:
        torch.zeros(1, device=device).item()  # the meta device has no values
    except Exception as error:  # each kind of device that torch was built without has another
        raise InputError(message) from error
