"""Trainings that are stopped, and comparisons of how they end."""

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase

from lite_detr_d2.data import register_coco_folder
from lite_detr_d2.engine import Trainer, read_config
from tests.data.folders import coco_content, write_coco_folder
from tests.projects.scripts import TINY

LENGTH = 6


class Stopped(Exception):
    """What ends a training early."""


class StopAfter(HookBase):
    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def after_step(self) -> None:
        if self.trainer.iter == self.iteration:
            raise Stopped


def stoppable_config(folder: Path) -> CfgNode:
    """A config of a training of a few steps, on nine images in ``folder``."""
    options = ["SOLVER.MAX_ITER", LENGTH, "SOLVER.CHECKPOINT_PERIOD", 2]
    cfg = read_config(argparse.Namespace(config_file=str(TINY), opts=list(map(str, options))))
    halves = register_coco_folder(write_coco_folder(folder, coco_content(images=9)))
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (halves.train,), ()
    cfg.MODEL.LITE_DETR.NUM_CLASSES = 3
    return cfg


def train(cfg: CfgNode, output: Path, *, stops: tuple[int, ...] = (), **options: object) -> dict[str, Any]:
    """Train, stopped after these iterations; return the last checkpoint."""
    cfg = cfg.clone()
    cfg.OUTPUT_DIR = str(output)
    cfg.merge_from_list([word for key, value in options.items() for word in (key.replace("__", "."), value)])
    for stop in (*stops, None):
        torch.manual_seed(int((output / "last_checkpoint").exists()))  # of the initial weights
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=True)
        if stop is None:
            trainer.train()
            continue
        trainer.register_hooks([StopAfter(stop)])
        with pytest.raises(Stopped):
            trainer.train()
    checkpoint: dict[str, Any] = torch.load(output / "model_final.pth")
    return checkpoint


def assert_same(found: Any, expected: Any, path: str = "") -> None:
    """Bit by bit."""
    assert type(found) is type(expected), path
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), path
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys(), path
        for key, value in expected.items():
            assert_same(found[key], value, f"{path}/{key}")
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), path
        for number, pair in enumerate(zip(found, expected, strict=True)):
            assert_same(*pair, f"{path}/{number}")
    else:
        assert found == expected, path


def assert_same_training(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """But for what tells of the folder, and of the checkpoints in it."""
    assert_same(*map(_without_folder, (found, expected)))


def _without_folder(checkpoint: dict[str, Any]) -> dict[str, Any]:
    trainer = checkpoint["trainer"]
    hooks = {name: state for name, state in trainer["hooks"].items() if name != "PeriodicSaving"}
    return {**checkpoint, "trainer": {**trainer, "config": "", "hooks": hooks}}


def processes_naming(word: str) -> list[str]:
    """The processes, by their number, with a word in their command line or environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            content = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if word.encode() in content:
            found.append(process.name)
    return found
