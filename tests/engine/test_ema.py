"""The average of the weights is what it says, goes with the checkpoints, and is evaluated beside the weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.engine.hooks import EvalHook
from torch import Tensor

from lite_detr_d2.checkpoint import read_checkpoint
from lite_detr_d2.engine import Trainer

from .stops import LENGTH, assert_same, assert_same_training, stoppable_config, train

DECAY = 0.75
ON: dict[str, Any] = {"SOLVER__EMA__ENABLED": True, "SOLVER__EMA__DECAY": DECAY}


@pytest.fixture
def cfg(tmp_path: Path) -> CfgNode:
    return stoppable_config(tmp_path)


class Weights(HookBase):
    """Keeps the weights before the training, and after each step."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Tensor]] = []

    def before_train(self) -> None:
        self.seen.append({name: value.clone() for name, value in self.trainer.model.state_dict().items()})

    after_step = before_train


def test_it_is_the_average(cfg: CfgNode, tmp_path: Path) -> None:
    """Parameters from those before the first step on; statistics of norms are the last ones."""
    cfg.merge_from_list(["OUTPUT_DIR", str(tmp_path / "run"), "SOLVER.EMA.ENABLED", True, "SOLVER.EMA.DECAY", DECAY])
    trainer, weights = Trainer(cfg), Weights()
    parameters = {name for name, _ in trainer.model.named_parameters()}
    trainer.register_hooks([weights])
    trainer.train()
    found = torch.load(tmp_path / "run" / "model_final.pth")
    assert found["ema"].keys() == found["model"].keys()
    moved = 0
    for name, value in found["ema"].items():
        expected = weights.seen[0][name]
        for seen in weights.seen[1:]:
            expected = DECAY * expected + (1 - DECAY) * seen[name] if name in parameters else seen[name]
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-7)
        moved += not torch.equal(value, found["model"][name])
    assert moved > 0.9 * len(parameters)


def test_the_training_itself_is_as_without(cfg: CfgNode, tmp_path: Path) -> None:
    found, expected = train(cfg, tmp_path / "with", **ON), train(cfg, tmp_path / "without")
    assert "ema" not in expected
    assert_same(found["model"], expected["model"])
    assert_same(found["trainer"]["_trainer"], expected["trainer"]["_trainer"])


def test_stops_leave_no_trace(cfg: CfgNode, tmp_path: Path) -> None:
    expected = train(cfg, tmp_path / "whole", **ON)
    assert_same_training(train(cfg, tmp_path / "stopped", stops=(0, 3), **ON), expected)


def test_turned_on_later_it_starts_from_the_weights(
    cfg: CfgNode, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    """Also where no step is left to train; and from another checkpoint than the last one, which is damaged."""
    done = train(cfg, tmp_path / "run")
    (tmp_path / "run" / "model_final.pth").write_bytes(b"damaged")
    found = train(cfg, tmp_path / "run", **ON)
    assert_same(found["ema"], done["model"])
    assert "The checkpoint has no average of the weights (SOLVER.EMA): it starts from the weights." in log.messages
    log.clear()
    found = train(cfg, tmp_path / "run", SOLVER__MAX_ITER=LENGTH + 1, **ON)
    name = "backbone.stem.conv1.weight"
    expected = DECAY * done["model"][name] + (1 - DECAY) * found["model"][name]
    torch.testing.assert_close(found["ema"][name], expected, rtol=1e-5, atol=1e-7)
    assert not [message for message in log.messages if "average" in message]


@pytest.mark.parametrize("sets", [1, 2])
def test_it_is_evaluated_beside_the_weights(
    cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sets: int
) -> None:
    evaluated: list[tuple[str, bool]] = []

    def scored(cls: type[Trainer], cfg: CfgNode, model: torch.nn.Module) -> dict[str, Any]:
        evaluated.append((Path(cfg.OUTPUT_DIR).name, model.training))
        metrics = {"bbox": {"AP": 30.0 if cfg.OUTPUT_DIR.endswith("ema") else 20.0}}
        return {name: metrics for name in cfg.DATASETS.TEST} if len(cfg.DATASETS.TEST) > 1 else metrics

    monkeypatch.setattr(Trainer, "test", classmethod(scored))
    cfg.DATASETS.TEST = cfg.DATASETS.TRAIN * sets
    if sets == 2:
        cfg.DATASETS.TEST = (cfg.DATASETS.TRAIN[0], cfg.DATASETS.TRAIN[0].replace("train", "val"))
    found = train(cfg, tmp_path / "run", SOLVER__MAX_ITER=2, SOLVER__STEPS=(), TEST__EVAL_PERIOD=1, **ON)
    metrics = json.loads((tmp_path / "run" / "eval_metrics.json").read_text())
    expected = {"bbox": {"AP": 20.0}, "bbox_ema": {"AP": 30.0}}
    assert metrics == ({name: expected for name in cfg.DATASETS.TEST} if sets == 2 else expected)
    assert [name for name, _ in evaluated] == ["run", "ema"] * 2
    line = json.loads((tmp_path / "run" / "metrics.json").read_text().splitlines()[-1])
    prefix = f"{cfg.DATASETS.TEST[0]}/" if sets == 2 else ""
    assert (line[f"{prefix}bbox/AP"], line[f"{prefix}bbox_ema/AP"]) == (20, 30)
    assert found["ema"]


def test_what_is_evaluated_is_the_average(cfg: CfgNode, tmp_path: Path) -> None:
    """For real: its metrics are those of a training that ends with its weights."""
    cfg.DATASETS.TEST = cfg.DATASETS.TRAIN
    found = train(cfg, tmp_path / "run", SOLVER__BASE_LR=0.01, **ON)
    metrics = json.loads((tmp_path / "run" / "eval_metrics.json").read_text())
    cfg.OUTPUT_DIR = str(tmp_path / "again")
    model = Trainer.build_model(cfg)
    for key, state in (("bbox", "model"), ("bbox_ema", "ema")):
        model.load_state_dict(found[state])
        assert Trainer.test(cfg, model)["bbox"]["AP"] == pytest.approx(metrics[key]["AP"])
    detections = [
        (tmp_path / "run" / folder / "coco_instances_results.json") for folder in ("inference", "ema/inference")
    ]
    assert detections[0].read_text() != detections[1].read_text()
    assert read_checkpoint(tmp_path / "run" / "model_final.pth")["ema"]


def test_the_evaluation_is_the_only_one(cfg: CfgNode, tmp_path: Path) -> None:
    cfg.OUTPUT_DIR = str(tmp_path / "run")
    assert sum(isinstance(hook, EvalHook) for hook in Trainer(cfg)._hooks) == 1
