"""detectron2's default trainer, with what DETR-like detectors need."""

import json
import logging
import os
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import (
    DatasetCatalog,
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
)
from detectron2.engine import DefaultTrainer, HookBase
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from torch import Tensor, nn
from torch.optim import Optimizer

from ..data import DetrDatasetMapper, validate_dataset
from ..errors import InputError
from .checkpointer import SafeCheckpointer
from .optimizer import build_optimizer

logger = logging.getLogger(__name__)

_CLASSES_SHOWN = 10


class Trainer(DefaultTrainer):
    """Train and evaluate a detector of this package as ``cfg`` says.

    To detectron2's ``DefaultTrainer`` it adds DETR's optimizer (:func:`build_optimizer`) and augmentation
    (:class:`DetrDatasetMapper`), COCO's evaluation, and :class:`SafeCheckpointer`. Every evaluation writes its metrics
    to ``OUTPUT_DIR/eval_metrics.json`` and its detections to ``OUTPUT_DIR/inference``. Without CUDA it runs on the CPU.

    Raises:
        InputError: a dataset is not there, or has another number of classes than the model; ``SOLVER.AMP.ENABLED``
            without CUDA.
        FloatingPointError: in training, when a loss is not finite.
    """

    def __init__(self, cfg: CfgNode) -> None:
        cfg = on_available_device(cfg)
        check_datasets(cfg, "TRAIN", "TEST")
        if cfg.SOLVER.AMP.ENABLED and not torch.cuda.is_available():
            raise InputError("SOLVER.AMP.ENABLED is True, and there is no CUDA device for it: set it to False.")
        super().__init__(cfg)
        # The checkpointer holds the model without its DistributedDataParallel wrapper.
        self.checkpointer.model.register_forward_hook(_check_finite_losses)

    def build_hooks(self) -> list[HookBase | None]:
        # Hooks take hold of the checkpointer: this is the last moment to exchange it.
        self.checkpointer = SafeCheckpointer(
            self.model,
            self.cfg.OUTPUT_DIR,
            class_names=class_names(self.cfg.DATASETS.TRAIN[0]),
            trainer=weakref.proxy(self),
        )
        hooks: list[HookBase | None] = super().build_hooks()
        return hooks

    def resume_or_load(self, resume: bool = True) -> None:
        """Go on with the training in ``OUTPUT_DIR`` if ``resume`` and there is one; else start a new one.

        It starts from ``MODEL.LITE_DETR.INIT`` if that is set, and from ``MODEL.WEIGHTS`` if not, or for the backbone
        if INIT has another one.
        """
        init = self.cfg.MODEL.LITE_DETR.INIT
        if init and not (resume and self.checkpointer.has_checkpoint()):
            self.checkpointer.initialize(init, backbone=self.cfg.MODEL.WEIGHTS)
        else:
            super().resume_or_load(resume)

    def run_step(self) -> None:
        try:
            super().run_step()
        except FloatingPointError as error:
            raise FloatingPointError(f"Iteration {self.iter}: {error}") from error

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> Optimizer:
        return build_optimizer(cfg, model)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Iterable[list[dict[str, Any]]]:
        mapper = DetrDatasetMapper(cfg, True)
        with _annotation_errors("TRAIN", *cfg.DATASETS.TRAIN):
            loader: Iterable[list[dict[str, Any]]] = build_detection_train_loader(cfg, mapper=mapper)
        return loader

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Iterable[list[dict[str, Any]]]:
        mapper = DetrDatasetMapper(cfg, False)
        with _annotation_errors("TEST", dataset_name):
            loader: Iterable[list[dict[str, Any]]] = build_detection_test_loader(cfg, dataset_name, mapper=mapper)
        return loader

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        return COCOEvaluator(dataset_name, tasks=("bbox",), output_dir=os.path.join(cfg.OUTPUT_DIR, "inference"))

    @classmethod
    def test(
        cls, cfg: CfgNode, model: nn.Module, evaluators: list[DatasetEvaluator] | None = None
    ) -> dict[str, dict[str, Any]]:
        """Evaluate on ``DATASETS.TEST``, and write the metrics to ``OUTPUT_DIR/eval_metrics.json``.

        Returns:
            The evaluator's metrics in percent, such as ``{"bbox": {"AP": 42.0, ...}}``, by dataset if there are
            several. A metric for which there is nothing to measure is NaN. Without datasets, nothing is written.
        """
        check_datasets(cfg, "TEST")
        results: dict[str, dict[str, Any]] = super().test(cfg, model, evaluators)
        if results and comm.is_main_process():
            PathManager.mkdirs(cfg.OUTPUT_DIR)
            with PathManager.open(os.path.join(cfg.OUTPUT_DIR, "eval_metrics.json"), "w") as file:
                json.dump(results, file, indent=2)
        return results


def on_available_device(cfg: CfgNode) -> CfgNode:
    """Return ``cfg``, or if it asks for CUDA where there is none a copy that asks for the CPU, and log it.

    Raises:
        InputError: ``MODEL.DEVICE`` is no device.
    """
    try:
        device = torch.device(cfg.MODEL.DEVICE)
    except RuntimeError as error:
        raise InputError(f"MODEL.DEVICE is {cfg.MODEL.DEVICE!r}: expected cuda, cuda:1 or the like, or cpu.") from error
    if torch.cuda.is_available() or device.type != "cuda":
        return cfg
    logger.info("There is no CUDA device: MODEL.DEVICE becomes cpu instead of %s", cfg.MODEL.DEVICE)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    cfg.freeze()
    return cfg


def check_datasets(cfg: CfgNode, *halves: str) -> None:
    """Check that the datasets of ``cfg`` are there, and have as many classes as the model.

    Args:
        cfg: the config.
        halves: keys of ``cfg.DATASETS``: "TRAIN", "TEST", or both.

    Raises:
        InputError: naming the dataset and the key.
    """
    for key in halves:
        for name in cfg.DATASETS[key]:
            if name not in DatasetCatalog:
                raise InputError(
                    f"DATASETS.{key}: no dataset {name!r} is registered. --dataset DIR registers a folder."
                )
            json_file = MetadataCatalog.get(name).get("json_file")
            if json_file is not None and not PathManager.isfile(json_file):
                raise InputError(
                    f"DATASETS.{key}: the annotation file {json_file} of {name!r} is missing. detectron2 looks for its "
                    "own datasets, such as COCO, in the folder that the environment variable DETECTRON2_DATASETS names."
                )
            if json_file is not None and os.path.getsize(PathManager.get_local_path(json_file)) == 0:
                raise InputError(f"DATASETS.{key}: the annotation file {json_file} of {name!r} is empty.")
            with _annotation_errors(key, name):
                _check_class_count(cfg.MODEL.LITE_DETR.NUM_CLASSES, name)


@contextmanager
def _annotation_errors(key: str, *names: str) -> Iterator[None]:
    """When loading datasets fails, name the annotation file and all that is wrong with it, if that is the reason.

    Looking before would read the large files of real datasets twice.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        for name in names:
            problems = _annotation_problems(name)
            if problems:
                file = MetadataCatalog.get(name).json_file
                source = f"DATASETS.{key}: the annotation file {file} of {name!r} cannot be used:"
                raise InputError("\n  ".join([source, *problems])) from error
        raise


def _annotation_problems(name: str) -> list[str]:
    metadata = MetadataCatalog.get(name)
    if metadata.get("json_file") is None:
        return []
    report = validate_dataset(PathManager.get_local_path(metadata.json_file), None)
    problems = [str(problem) for problem in report.problems if problem.fatal]
    classes = [report.categories[identifier] for identifier in sorted(report.categories)]
    if not problems and classes != metadata.get("thing_classes", classes):
        problems = [f"its categories are not the classes of {name!r}"]
    return problems


def class_names(name: str) -> list[str] | None:
    """Return the names of a dataset's classes; None if it does not tell."""
    if MetadataCatalog.get(name).get("thing_classes") is None:
        DatasetCatalog.get(name)  # some datasets get to know their classes when they are loaded
    classes: list[str] | None = MetadataCatalog.get(name).get("thing_classes")
    return classes


def _check_class_count(expected: int, name: str) -> None:
    classes = class_names(name)
    if classes is not None and len(classes) != expected:
        shown = ", ".join([*classes[:_CLASSES_SHOWN], *(["..."] if len(classes) > _CLASSES_SHOWN else [])])
        raise InputError(
            f"MODEL.LITE_DETR.NUM_CLASSES is {expected}, and dataset {name!r} has {len(classes)} classes ({shown}). "
            f"Set the key to {len(classes)}."
        )


def _check_finite_losses(_: nn.Module, inputs: tuple[list[dict[str, Any]]], losses: dict[str, Tensor]) -> None:
    """Forward hook of the model: stop before the backward pass of a loss that is not finite, and name the images."""
    if not isinstance(losses, dict):  # detections, in evaluation
        return
    if bool(torch.stack([loss.detach() for loss in losses.values()]).isfinite().all()):
        return
    wrong = ", ".join(f"{name} = {loss.item()}" for name, loss in losses.items() if not bool(loss.isfinite()))
    files = ", ".join(str(image.get("file_name", image.get("image_id"))) for image in inputs[0])
    raise FloatingPointError(
        f"{wrong}, on the images {files}. If the losses were growing, lower SOLVER.BASE_LR, warm up longer "
        "(SOLVER.WARMUP_ITERS), or turn off SOLVER.AMP.ENABLED; else look at the boxes of these images. --resume goes "
        "on from the last checkpoint."
    )
