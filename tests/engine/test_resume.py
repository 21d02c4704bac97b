"""A training goes on as if it had not stopped; and what is changed in between acts from then on."""

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode

from lite_detr_d2.data import register_coco_folder
from lite_detr_d2.engine import Trainer, read_config
from lite_detr_d2.errors import InputError
from tests.data.folders import write_coco_folder
from tests.projects.scripts import TINY

STOP = 2
BASE_LR = 2e-4


@pytest.fixture
def cfg(tmp_path: Path) -> CfgNode:
    options = ["OUTPUT_DIR", str(tmp_path / "output"), "SOLVER.STEPS", "()", "SOLVER.CHECKPOINT_PERIOD", "100"]
    cfg = read_config(argparse.Namespace(config_file=str(TINY), opts=options))
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (register_coco_folder(write_coco_folder(tmp_path)).train,), ()
    cfg.MODEL.LITE_DETR.NUM_CLASSES = 3
    return cfg


def changed(cfg: CfgNode, *options: object) -> CfgNode:
    cfg = cfg.clone()
    cfg.merge_from_list(list(options))
    return cfg


def stop_early(cfg: CfgNode) -> dict[str, Any]:
    """Train for two iterations; return the checkpoint, as of an optimizer that has seen all parameters."""
    Trainer(changed(cfg, "SOLVER.MAX_ITER", STOP)).train()
    checkpoint: dict[str, Any] = torch.load(Path(cfg.OUTPUT_DIR) / "model_final.pth")
    return checkpoint


def resumed(cfg: CfgNode) -> Trainer:
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == STOP
    return trainer


def rates(trainer: Trainer) -> dict[str, float]:
    names = {parameter: name for name, parameter in trainer.model.named_parameters()}
    return {names[one]: group["lr"] for group in trainer.optimizer.param_groups for one in group["params"]}


def states(trainer: Trainer) -> dict[str, dict[str, torch.Tensor]]:
    names = {parameter: name for name, parameter in trainer.model.named_parameters()}
    return {names[parameter]: state for parameter, state in trainer.optimizer.state.items()}


def saved_states(checkpoint: dict[str, Any]) -> dict[str, dict[str, torch.Tensor]]:
    names = checkpoint["trainer"]["parameter_names"]
    state = checkpoint["trainer"]["_trainer"]["optimizer"]["state"]
    return {names[number]: values for number, values in state.items()}


def assert_same_states(found: dict[str, dict[str, torch.Tensor]], expected: dict[str, dict[str, torch.Tensor]]) -> None:
    assert found.keys() == expected.keys()
    for name, state in expected.items():
        assert state.keys() == found[name].keys()
        assert all(torch.equal(found[name][key], value) for key, value in state.items()), name


def test_without_changes_everything_is_as_it_was(cfg: CfgNode, log: pytest.LogCaptureFixture) -> None:
    stop_early(cfg)
    cfg = changed(cfg, "SOLVER.MAX_ITER", STOP)
    before = torch.load(Path(cfg.OUTPUT_DIR) / "model_final.pth")
    log.clear()
    trainer = resumed(cfg)
    optimizer = trainer.state_dict()["_trainer"]["optimizer"]
    assert optimizer["param_groups"] == before["trainer"]["_trainer"]["optimizer"]["param_groups"]
    assert_same_states(states(trainer), saved_states(before))
    assert trainer.scheduler.state_dict() == before["trainer"]["hooks"]["LRScheduler"]
    assert not any("config" in message or "anew" in message for message in log.messages)


@pytest.mark.parametrize(
    ("key", "value", "backbone", "offsets", "bias", "rest"),
    [
        ("BASE_LR", 1e-5, 1e-6, 1e-5, 1e-5, 1e-5),
        ("BACKBONE_MULTIPLIER", 1.0, 2e-4, 2e-4, 2e-4, 2e-4),
        ("BACKBONE_MULTIPLIER", 0.5, 1e-4, 2e-4, 2e-4, 2e-4),
        ("OFFSET_MULTIPLIER", 0.1, 2e-5, 2e-5, 2e-4, 2e-4),
        ("BIAS_LR_FACTOR", 2.0, 2e-5, 2e-4, 4e-4, 2e-4),
        ("STEPS", (1,), 2e-6, 2e-5, 2e-5, 2e-5),
        ("WARMUP_ITERS", 4, 1e-5, 1e-4, 1e-4, 1e-4),
        ("LR_SCHEDULER_NAME", "WarmupCosineLR", 1e-5, 1e-4, 1e-4, 1e-4),
    ],
)
def test_another_rate_acts_and_is_said(
    cfg: CfgNode,
    log: pytest.LogCaptureFixture,
    key: str,
    value: object,
    backbone: float,
    offsets: float,
    bias: float,
    rest: float,
) -> None:
    checkpoint = stop_early(cfg)
    trainer = resumed(changed(cfg, f"SOLVER.{key}", value, "SOLVER.WARMUP_FACTOR", 0.0))
    expected = {
        "backbone.stem.conv1.weight": backbone,
        "encoder.layers.0.attention.sampling_offsets.weight": offsets,
        "decoder.layers.0.feed_forward.linear1.bias": bias,
        "decoder.layers.0.feed_forward.linear1.weight": rest,
    }
    assert {name: rates(trainer)[name] for name in expected} == pytest.approx(expected)
    assert_same_states(states(trainer), saved_states(checkpoint))
    said = [message for message in log.messages if f"SOLVER.{key} " in message and "->" in message]
    assert len(said) == 1
    assert said[0].startswith("From iteration 2 on, the config is another: ")
    assert "SOLVER.MAX_ITER 2 -> 4" in said[0]
    trainer.train()
    assert trainer.scheduler.last_epoch == 4


def test_the_line_names_old_and_new_values(cfg: CfgNode, log: pytest.LogCaptureFixture) -> None:
    stop_early(cfg)
    resumed(changed(cfg, "SOLVER.BASE_LR", 1e-5, "SOLVER.IMS_PER_BATCH", 1, "SOLVER.STEPS", (3,)))
    said = next(message for message in log.messages if "the config is another" in message)
    for text in ("SOLVER.BASE_LR 0.0002 -> 1e-05", "SOLVER.IMS_PER_BATCH 2 -> 1", "SOLVER.STEPS [] -> [3]"):
        assert text in said
    assert "OUTPUT_DIR" not in said


@pytest.mark.parametrize("key", ["WEIGHT_DECAY", "WEIGHT_DECAY_NORM", "WEIGHT_DECAY_BIAS"])
def test_another_decay_acts(cfg: CfgNode, key: str) -> None:
    checkpoint = stop_early(cfg)
    trainer = resumed(changed(cfg, f"SOLVER.{key}", 0.5))
    assert any(group["weight_decay"] == 0.5 for group in trainer.optimizer.param_groups)
    assert_same_states(states(trainer), saved_states(checkpoint))
    trainer.train()


def test_freezing_more_drops_states(cfg: CfgNode) -> None:
    checkpoint = stop_early(cfg)
    trainer = resumed(changed(cfg, "MODEL.BACKBONE.FREEZE_AT", 2))
    expected = saved_states(checkpoint)
    frozen = {name for name in expected if name.startswith(("backbone.stem.", "backbone.res2."))}
    assert frozen
    assert_same_states(states(trainer), {name: state for name, state in expected.items() if name not in frozen})
    trainer.train()


def test_what_is_trained_anew_starts_without_state(cfg: CfgNode, log: pytest.LogCaptureFixture) -> None:
    checkpoint = stop_early(changed(cfg, "MODEL.BACKBONE.FREEZE_AT", 2))
    trainer = resumed(cfg)
    assert_same_states(states(trainer), saved_states(checkpoint))
    assert "parameters were not trained before, backbone.stem.conv1.weight the first" in log.text
    trainer.train()
    assert float(states(trainer)["backbone.stem.conv1.weight"]["step"]) == 2
    assert float(states(trainer)["decoder.layers.0.feed_forward.linear1.weight"]["step"]) == 4


@pytest.mark.parametrize("optimizers", [("ADAMW", "SGD"), ("SGD", "ADAMW")])
def test_another_optimizer_starts_anew(
    cfg: CfgNode, log: pytest.LogCaptureFixture, optimizers: tuple[str, str]
) -> None:
    first, second = optimizers
    stop_early(changed(cfg, "SOLVER.OPTIMIZER", first))
    trainer = resumed(changed(cfg, "SOLVER.OPTIMIZER", second))
    assert not trainer.optimizer.state
    assert any(message.startswith("The checkpoint's optimizer is not the SOLVER.OPTIMIZER") for message in log.messages)
    assert any(f"SOLVER.OPTIMIZER {first} -> {second}" in message for message in log.messages)
    assert rates(trainer)["decoder.layers.0.feed_forward.linear1.weight"] == BASE_LR
    trainer.train()


def forget(cfg: CfgNode, *keys: str) -> None:
    path = Path(cfg.OUTPUT_DIR) / "model_final.pth"
    checkpoint = torch.load(path)
    for key in keys:
        del checkpoint["trainer"][key]
    torch.save(checkpoint, path)


def test_older_checkpoints_resume_with_the_same_groups(cfg: CfgNode) -> None:
    checkpoint = stop_early(cfg)
    forget(cfg, "parameter_names", "config")
    trainer = resumed(changed(cfg, "SOLVER.BASE_LR", 1e-5))
    assert_same_states(states(trainer), saved_states(checkpoint))
    assert rates(trainer)["decoder.layers.0.feed_forward.linear1.weight"] == pytest.approx(1e-5)


@pytest.mark.parametrize("change", [("SOLVER.BACKBONE_MULTIPLIER", 1.0), ("MODEL.BACKBONE.FREEZE_AT", 2)])
def test_older_checkpoints_do_not_resume_with_other_groups(cfg: CfgNode, change: tuple[str, object]) -> None:
    stop_early(cfg)
    forget(cfg, "parameter_names", "config")
    with pytest.raises(InputError, match=rf"Cannot resume: .*{change[0].rpartition('.')[2]}.*MODEL\.WEIGHTS"):
        resumed(changed(cfg, *change))


def test_a_state_without_a_scaler_resumes(cfg: CfgNode) -> None:
    """As of a training without mixed precision that goes on with it."""
    stop_early(cfg)
    trainer = Trainer(cfg)
    plain = trainer._trainer.state_dict

    class Scaled:
        """A trainer of detectron2 that has more state."""

        loaded: dict[str, Any]
        model, optimizer = trainer.model, trainer.optimizer

        def state_dict(self) -> dict[str, Any]:
            return {**plain(), "grad_scaler": {"scale": 3.0}}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.loaded = state

    trainer._trainer = Scaled()
    trainer.resume_or_load(resume=True)
    assert trainer._trainer.loaded["grad_scaler"] == {"scale": 3.0}


@pytest.mark.parametrize("max_iter", [STOP, 1])
def test_nothing_left_to_train_is_said(cfg: CfgNode, log: pytest.LogCaptureFixture, max_iter: int) -> None:
    stop_early(cfg)
    trainer = resumed(changed(cfg, "SOLVER.MAX_ITER", max_iter))
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
    said = f"SOLVER.MAX_ITER is {max_iter}, and the training in {cfg.OUTPUT_DIR} has done 2 iterations"
    assert any(message.startswith(said) for message in log.messages)


def test_a_new_training_says_nothing_of_it(cfg: CfgNode, log: pytest.LogCaptureFixture) -> None:
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=True)
    assert not any("MAX_ITER" in message or "config" in message for message in log.messages)
