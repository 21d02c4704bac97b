"""A training that was stopped, however often, ends with the bits of one that was not."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase, hooks
from detectron2.engine.hooks import PeriodicWriter

from lite_detr_d2.data import register_coco_folder
from lite_detr_d2.data.sampling import SAMPLERS
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


@pytest.fixture
def cfg(tmp_path: Path) -> CfgNode:
    options = ["SOLVER.MAX_ITER", LENGTH, "SOLVER.CHECKPOINT_PERIOD", 2, "DATASETS.TEST", ()]
    cfg = read_config(argparse.Namespace(config_file=str(TINY), opts=list(map(str, options))))
    folder = register_coco_folder(write_coco_folder(tmp_path, coco_content(images=9)))
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (folder.train,), ()
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
    configs = [checkpoint["trainer"].pop("config") for checkpoint in (found, expected)]
    assert all(configs)
    assert_same(found, expected)


@pytest.mark.parametrize("stops", [(1,), (0, 2, 3), (4,)])
def test_stops_leave_no_trace(cfg: CfgNode, tmp_path: Path, stops: tuple[int, ...]) -> None:
    """Also between checkpoints, and before the first one."""
    expected = train(cfg, tmp_path / "whole")
    assert_same_training(train(cfg, tmp_path / "stopped", stops=stops), expected)


def test_the_number_of_data_loading_processes_does_not_matter(cfg: CfgNode, tmp_path: Path) -> None:
    expected = train(cfg, tmp_path / "none")
    found = train(cfg, tmp_path / "two", DATALOADER__NUM_WORKERS=2)
    stopped = train(cfg, tmp_path / "stopped", stops=(3,), DATALOADER__NUM_WORKERS=3)
    assert_same_training(found, {**expected, "trainer": dict(expected["trainer"])})
    assert_same_training(stopped, expected)


def test_a_drawn_seed_is_kept(cfg: CfgNode, tmp_path: Path) -> None:
    seeds = {train(cfg, tmp_path / f"run {run}", SEED=-1, SOLVER__MAX_ITER=1)["trainer"]["seed"] for run in range(3)}
    assert len(seeds) > 1
    folder = tmp_path / "stopped"
    stopped = train(cfg, folder, stops=(3,), SEED=-1)
    cfg.SEED = stopped["trainer"]["seed"]
    assert_same_training(stopped, train(cfg, tmp_path / "whole"))


def test_another_seed_acts_from_where_it_is_given(cfg: CfgNode, tmp_path: Path) -> None:
    whole = train(cfg, tmp_path / "whole")
    train(cfg, tmp_path / "changed", SOLVER__MAX_ITER=2)
    changed = train(cfg, tmp_path / "changed", SEED=8)
    assert changed["trainer"]["seed"] == 8
    name = "backbone.stem.conv1.weight"
    assert not torch.equal(changed["model"][name], whole["model"][name])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_goes_on_where_it_was(cfg: CfgNode, tmp_path: Path, sampler: str) -> None:
    options: dict[str, object] = {"DATALOADER__SAMPLER_TRAIN": sampler, "DATALOADER__RANDOM_SUBSET_RATIO": 0.5}
    options["DATALOADER__REPEAT_THRESHOLD"] = 0.9
    expected = train(cfg, tmp_path / "whole", **options)
    assert_same_training(train(cfg, tmp_path / "stopped", stops=(2,), **options), expected)


def test_metrics_have_each_iteration_once(cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "PeriodicWriter", lambda writers, period: PeriodicWriter(writers, 1))
    train(cfg, tmp_path / "whole", stops=(2, 4))
    with (tmp_path / "whole" / "metrics.json").open("a") as file:
        file.write('{"iteration": 5, "tot')
    train(cfg, tmp_path / "whole", SOLVER__MAX_ITER=LENGTH + 2)
    lines = (tmp_path / "whole" / "metrics.json").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == list(range(LENGTH + 2))
