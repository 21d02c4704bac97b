"""What padding costs is said."""

from pathlib import Path

import numpy as np
import pytest
from detectron2.config import CfgNode

from lite_detr_d2.deploy.bounds import Bounds, Range, fixed
from lite_detr_d2.deploy.fitting import report_fitting
from lite_detr_d2.deploy.run import TrainedModel

from .exports import load, write_run

IMAGES = [np.random.default_rng(seed).integers(0, 256, (96, 96, 3), dtype=np.uint8) for seed in range(2)]


@pytest.fixture
def trained(small_cfg: CfgNode, tmp_path: Path) -> TrainedModel:
    small_cfg.INPUT.MIN_SIZE_TEST = small_cfg.INPUT.MAX_SIZE_TEST = 96
    return load(write_run(small_cfg, tmp_path / "run"))


@pytest.mark.parametrize("bounds", [fixed(1, 96, 96), Bounds(Range(1, 2), Range(64, 128), Range(64, 128))])
def test_images_that_fit_lose_nothing(trained: TrainedModel, bounds: Bounds, said: list[str]) -> None:
    assert report_fitting(trained, bounds, IMAGES) == 1.0
    assert said == []


@pytest.mark.parametrize("side", [320, 33])
def test_what_is_lost_is_said(trained: TrainedModel, side: int, said: list[str]) -> None:
    """Of a detector that was not trained, nearly all."""
    remaining = report_fitting(trained, fixed(1, side, side), IMAGES)
    assert remaining < 0.95
    assert f"finds {100 * remaining:.0f} % of what it finds in 2 images" in said[-1]
