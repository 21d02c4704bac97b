"""The learning rate goes with the batch, once, whoever reads the config next."""

from pathlib import Path

import pytest
from detectron2.config import CfgNode

from lite_detr_d2.engine import Trainer
from lite_detr_d2.engine.schedule import scale_rates, scaled_to_processes

from .stops import stoppable_config


@pytest.fixture
def cfg(small_cfg: CfgNode) -> CfgNode:
    small_cfg.SOLVER.BASE_LR, small_cfg.SOLVER.BASE_LR_END = 1e-4, 1e-6
    small_cfg.SOLVER.IMS_PER_BATCH, small_cfg.SOLVER.REFERENCE_BATCH = 4, 16
    return small_cfg


def rates(cfg: CfgNode) -> tuple[float, float, int, int]:
    solver = cfg.SOLVER
    return solver.BASE_LR, solver.BASE_LR_END, solver.IMS_PER_BATCH, solver.REFERENCE_BATCH


def test_both_rates_go_with_the_batch_once(cfg: CfgNode, log: pytest.LogCaptureFixture) -> None:
    scale_rates(cfg)
    assert rates(cfg) == (pytest.approx(2.5e-5), pytest.approx(2.5e-7), 4, 4)
    once = rates(cfg)
    scale_rates(cfg)
    assert rates(cfg) == once
    assert len([message for message in log.messages if "REFERENCE_BATCH" in message]) == 1


@pytest.mark.parametrize("reference", [0, 4])
def test_without_a_difference_nothing_changes(cfg: CfgNode, log: pytest.LogCaptureFixture, reference: int) -> None:
    cfg.SOLVER.REFERENCE_BATCH = reference
    scale_rates(cfg)
    assert rates(cfg) == (1e-4, 1e-6, 4, reference)
    assert log.messages == []


def test_with_the_number_of_processes_too(cfg: CfgNode) -> None:
    """4 images in 2 processes are 8 in 4: the rate is for 8, of 1e-4 for 16, however often it is asked for."""
    cfg.SOLVER.REFERENCE_WORLD_SIZE = 2
    found = scaled_to_processes(cfg, 4)
    assert rates(found) == (pytest.approx(5e-5), pytest.approx(2.5e-7), 8, 8)  # detectron2 leaves the last one
    assert rates(scaled_to_processes(found, 4)) == rates(found)
    assert rates(cfg) == (1e-4, 1e-6, 4, 16)
    cfg.SOLVER.REFERENCE_BATCH = 0
    assert rates(scaled_to_processes(cfg, 4)) == (pytest.approx(2e-4), 1e-6, 8, 0)


def test_a_trainer_trains_with_it(tmp_path: Path) -> None:
    cfg = stoppable_config(tmp_path)
    cfg.OUTPUT_DIR, cfg.SOLVER.REFERENCE_BATCH, cfg.SOLVER.BASE_LR = str(tmp_path / "run"), 8, 4e-4
    trainer = Trainer(cfg)
    assert trainer.optimizer.defaults["lr"] == pytest.approx(1e-4)
    assert cfg.SOLVER.BASE_LR == 4e-4
    assert Trainer(trainer.cfg).optimizer.defaults["lr"] == pytest.approx(1e-4)
