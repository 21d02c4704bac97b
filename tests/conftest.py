"""Fixtures that all tests share. Only those that need detectron2 import it: the tests of the ops do without."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from tests.compiled import CompileCounter

CONFIGS = Path(__file__).parent.parent / "configs"


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What the package warns of during the test."""
    from tests.helpers import warnings_of_the_package  # noqa: PLC0415

    with warnings_of_the_package() as messages:
        yield messages


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What the package says from INFO on, whether or not its logger passes it on: once set up, it does not."""
    logger = logging.getLogger("lite_detr_d2")
    propagate, logger.propagate = logger.propagate, False  # else everything comes twice
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.INFO, logger="lite_detr_d2"):
        yield caplog
    logger.removeHandler(caplog.handler)
    logger.propagate = propagate


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Iterator[CompileCounter]:
    """How many graphs ``torch.compile`` makes, without machine code."""
    from tests.compiled import CompileCounter  # noqa: PLC0415

    with CompileCounter("aot_eager").in_place(monkeypatch) as counter:
        yield counter


@pytest.fixture
def small_cfg() -> CfgNode:
    """The config that ``make_small_cfg`` makes."""
    return make_small_cfg()


def make_small_cfg() -> CfgNode:
    """The demo's Lite-DINO, narrower: three levels, a fraction of a second per step."""
    from detectron2.config import get_cfg  # noqa: PLC0415

    from lite_detr_d2 import add_lite_detr_config  # noqa: PLC0415

    cfg = get_cfg()
    add_lite_detr_config(cfg)
    cfg.merge_from_file(str(CONFIGS / "demo" / "lite_dino_digits.yaml"))
    cfg.MODEL.DEVICE = "cpu"
    node = cfg.MODEL.LITE_DETR
    node.HIDDEN_DIM, node.NUM_HEADS, node.NUM_QUERIES = 64, 4, 20
    node.ENCODER.DIM_FEEDFORWARD = node.DECODER.DIM_FEEDFORWARD = 64
    node.DECODER.NUM_LAYERS = 2
    node.DENOISING.NUM_QUERIES = 10
    return cfg
