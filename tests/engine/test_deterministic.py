"""PyTorch's deterministic algorithms, in training alone."""

from pathlib import Path

import pytest
import torch
from detectron2.engine import HookBase

from lite_detr_d2.config import validate_config
from lite_detr_d2.engine import Trainer
from lite_detr_d2.errors import InputError
from lite_detr_d2.randomness import deterministic_algorithms

from .stops import assert_same, stoppable_config, train


class Look(HookBase):
    def __init__(self) -> None:
        self.seen: set[bool] = set()

    def after_step(self) -> None:
        self.seen.add(torch.are_deterministic_algorithms_enabled())


@pytest.mark.parametrize("on", [False, True])
def test_they_are_used_while_it_trains(tmp_path: Path, on: bool) -> None:
    cfg = stoppable_config(tmp_path / "data")
    cfg.OUTPUT_DIR, cfg.SOLVER.DETERMINISTIC, cfg.SOLVER.MAX_ITER = str(tmp_path / "output"), on, 2
    trainer, look = Trainer(cfg), Look()
    trainer.register_hooks([look])
    trainer.train()
    assert look.seen == {on}
    assert not torch.are_deterministic_algorithms_enabled()


def test_on_the_cpu_the_bits_are_the_same_without(tmp_path: Path) -> None:
    cfg = stoppable_config(tmp_path / "data")
    expected = train(cfg, tmp_path / "without")
    assert_same(train(cfg, tmp_path / "with", SOLVER__DETERMINISTIC=True)["model"], expected["model"])


def test_what_was_set_before_is_set_after() -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with deterministic_algorithms(True):
            assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_algorithms_are_not_chosen_by_their_speed(tmp_path: Path) -> None:
    cfg = stoppable_config(tmp_path)
    cfg.SOLVER.DETERMINISTIC = cfg.CUDNN_BENCHMARK = True
    with pytest.raises(InputError, match="SOLVER.DETERMINISTIC and CUDNN_BENCHMARK are True"):
        validate_config(cfg)
