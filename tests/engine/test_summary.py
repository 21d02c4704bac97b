"""What a training says before it begins, in the words of a person."""

import os
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from torch import nn

from lite_detr_d2.engine import log_start, model_in_words

BUSY = "with OMP_NUM_THREADS=1 before the command it can be several times as fast"


@pytest.mark.parametrize(
    ("load", "threads", "is_said"), [(0.5, 2, False), (1.01, 2, True), (1.01, 1, False)], ids=["idle", "busy", "alone"]
)
def test_a_busy_machine_is_said_where_threads_would_wait(
    small_cfg: CfgNode,
    monkeypatch: pytest.MonkeyPatch,
    log: pytest.LogCaptureFixture,
    load: float,
    threads: int,
    is_said: bool,
) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (load * (os.cpu_count() or 1), 0.0, 0.0))
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    small_cfg.MODEL.DEVICE = "cpu"
    trainer: Any = SimpleNamespace(
        cfg=small_cfg,
        checkpointer=SimpleNamespace(model=nn.Linear(1, 1)),
        start_iter=0,
        max_iter=small_cfg.SOLVER.MAX_ITER,
    )
    log_start(trainer)
    assert log.text.count(BUSY) == is_said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("InterleavedEncoder", "DINO, encoder H3L1-(2+1)x3 with {} attention, backbone build_resnet_backbone"),
        ("DeformableEncoder", "DINO, DeformableEncoder, backbone build_resnet_backbone"),
        ("SparseEncoder", "DINO, SparseEncoder of rho 0.3, backbone build_resnet_backbone"),
    ],
)
@pytest.mark.parametrize("is_key_aware", [True, False])
def test_a_model_is_named_by_what_tells_it_from_others(
    small_cfg: CfgNode, name: str, said: str, is_key_aware: bool
) -> None:
    small_cfg.MODEL.META_ARCHITECTURE, small_cfg.MODEL.BACKBONE.NAME = "DINO", "build_resnet_backbone"
    encoder = small_cfg.MODEL.LITE_DETR.ENCODER
    encoder.NAME, encoder.SPEC, encoder.RHO, encoder.KEY_AWARE = name, "H3L1-(2+1)x3", 0.3, is_key_aware
    assert model_in_words(small_cfg) == said.format("key-aware" if is_key_aware else "plain")
