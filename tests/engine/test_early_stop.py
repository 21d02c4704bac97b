"""A training ends when evaluations do not get better; what it counts outlasts kills at any time."""

import math
from pathlib import Path
from typing import Any

import pytest
from detectron2.config import CfgNode
from detectron2.utils import comm

from lite_detr_d2.config.idle import idle_keys
from lite_detr_d2.engine import Trainer
from lite_detr_d2.engine.early_stop import EarlyStop, TrainingEnded
from lite_detr_d2.engine.retention import BestSaving

from .stops import assert_same_training, stoppable_config, train
from .test_retention import Training

# After iterations 0, 1, 2, ...
APS = [10.0, 30.0, 20.0, 30.0, 29.0, 28.0, 50.0]
PATIENCE: dict[str, Any] = {"SOLVER__MAX_ITER": 8, "TEST__EVAL_PERIOD": 1, "SOLVER__EARLY_STOP__PATIENCE": 3}
ENDS_AFTER = 4


@pytest.fixture
def cfg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CfgNode:
    cfg = stoppable_config(tmp_path)
    cfg.DATASETS.TEST = cfg.DATASETS.TRAIN
    evaluate = Trainer._evaluate

    def scored(trainer: Trainer) -> dict[str, Any]:
        monkeypatch.setattr(Trainer, "test", classmethod(lambda *_: {"bbox": {"AP": APS[trainer.iter]}}))
        return evaluate(trainer)

    monkeypatch.setattr(Trainer, "_evaluate", scored)
    return cfg


def test_it_ends_and_says_so(cfg: CfgNode, tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    """An AP that is as high is not higher. A resume, also after a kill in the last write, has nothing to do."""
    found = train(cfg, tmp_path / "run", **PATIENCE)
    assert found["iteration"] == ENDS_AFTER
    assert (tmp_path / "run" / "last_checkpoint").read_text() == "model_final.pth"
    said = [message for message in log.messages if "without a higher AP" in message]
    assert len(said) == 1
    assert "3 evaluations without a higher AP on " in said[0]
    assert "than 30.00 after iteration 1: the training ends after iteration 4 of 7" in said[0]
    (tmp_path / "run" / "model_final.pth").write_bytes(b"half")
    assert_same_training(train(cfg, tmp_path / "run", **PATIENCE), found)
    final = (tmp_path / "run" / "model_final.pth").read_bytes()
    train(cfg, tmp_path / "run", **PATIENCE)
    assert (tmp_path / "run" / "model_final.pth").read_bytes() == final
    assert (
        train(cfg, tmp_path / "run", **{**PATIENCE, "SOLVER__EARLY_STOP__PATIENCE": 4})["iteration"] == ENDS_AFTER + 1
    )


@pytest.mark.parametrize("stops", [(1,), (2, 3)])
def test_what_it_counts_survives(cfg: CfgNode, tmp_path: Path, stops: tuple[int, ...]) -> None:
    """Stops come after the evaluation, checkpoints before it."""
    expected = train(cfg, tmp_path / "whole", **PATIENCE)
    assert_same_training(train(cfg, tmp_path / "stopped", stops=stops, **PATIENCE), expected)


def test_without_an_ap_it_ends_nothing(
    cfg: CfgNode, tmp_path: Path, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    iterations = PATIENCE["SOLVER__MAX_ITER"]
    monkeypatch.setattr("tests.engine.test_early_stop.APS", [math.nan] * (iterations + 1))  # once more at the end
    assert train(cfg, tmp_path / "run", **PATIENCE)["iteration"] == iterations - 1
    said = [message for message in log.messages if "PATIENCE" in message]
    assert len(said) == 1
    assert "SOLVER.EARLY_STOP.PATIENCE has no effect: no AP on " in said[0]


def test_without_evaluations_it_is_without_effect(small_cfg: CfgNode) -> None:
    small_cfg.SOLVER.EARLY_STOP.PATIENCE, small_cfg.DATASETS.TEST, small_cfg.TEST.EVAL_PERIOD = 3, ("val",), 5
    assert idle_keys(small_cfg) == []
    small_cfg.TEST.EVAL_PERIOD = 0
    assert idle_keys(small_cfg) == ["SOLVER.EARLY_STOP.PATIENCE (TEST.EVAL_PERIOD is 0)"]
    small_cfg.TEST.EVAL_PERIOD, small_cfg.DATASETS.TEST = 5, ()
    assert idle_keys(small_cfg) == ["SOLVER.EARLY_STOP.PATIENCE (DATASETS.TEST is ())"]


@pytest.mark.parametrize(("main", "ends"), [(True, True), (False, False)])
def test_the_main_process_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, main: bool, ends: bool) -> None:
    """Others have no metrics."""
    training = Training(tmp_path)
    best = BestSaving(training.checkpointer, "val")
    hook = EarlyStop(best, period=1, patience=1, finish=lambda: None)
    hook.trainer = training
    training.iter, training.max_iter = 3, 9
    monkeypatch.setattr(comm, "all_gather", lambda value: [main, value])
    if ends:
        with pytest.raises(TrainingEnded) as ended:
            hook.after_step()
        assert ended.value.code == 0
    else:
        hook.after_step()
