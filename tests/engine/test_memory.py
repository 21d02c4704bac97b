"""Memory that runs out is one message, with what it was wanted for."""

from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode

from lite_detr_d2.engine import Trainer, one_line_errors
from lite_detr_d2.engine.memory import is_out_of_memory
from lite_detr_d2.errors import InputError
from lite_detr_d2.modeling.criterion import Criterion

from .stops import stoppable_config

TOO_MUCH = 10**15


@pytest.fixture
def cfg(tmp_path: Path) -> CfgNode:
    cfg = stoppable_config(tmp_path / "data")
    cfg.OUTPUT_DIR = str(tmp_path / "output")
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.CROP.ENABLED = (64,), False
    return cfg


def cpu() -> None:
    torch.empty(TOO_MUCH)


def python() -> None:
    bytearray(TOO_MUCH)


def cuda() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def cublas() -> None:
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


@pytest.mark.parametrize("run_out", [cpu, python, cuda, cublas])
def test_a_batch_that_is_too_large_is_described(cfg: CfgNode, monkeypatch: pytest.MonkeyPatch, run_out: Any) -> None:
    trainer = Trainer(cfg)
    monkeypatch.setattr(Criterion, "__call__", lambda *_: run_out())
    with pytest.raises(InputError) as caught:
        trainer.train()
    message = str(caught.value)
    assert message.startswith("Out of memory on cpu, with a batch of 2 images, padded to 64 x ")
    assert "see the batch in more parts (SOLVER.ACCUMULATE)" in message
    assert "SOLVER.RECOMPUTE" in message


def test_parts_that_are_too_large_are_described(cfg: CfgNode, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg.SOLVER.ACCUMULATE = 2
    trainer = Trainer(cfg)
    monkeypatch.setattr(Criterion, "__call__", lambda *_: cpu())
    with pytest.raises(InputError, match=r"seen in 2 parts, and \d+ boxes: (?!.*ACCUMULATE)"):
        trainer.train()


@pytest.mark.parametrize("run_out", [cpu, python, cuda])
def test_elsewhere_it_is_one_line(run_out: Any) -> None:
    with (
        pytest.raises(SystemExit, match="^error: Out of memory. In training, lower SOLVER.IMS_PER_BATCH"),
        one_line_errors(),
    ):
        run_out()


@pytest.mark.parametrize("error", [RuntimeError("CUDA error: an illegal memory access"), ValueError("memory"), None])
def test_other_errors_are_not_of_memory(error: BaseException | None) -> None:
    assert not is_out_of_memory(error)
