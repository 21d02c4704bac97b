"""Backbones of timm where timm is not installed; tests/interop has it."""

import importlib.util

import pytest
from detectron2.config import CfgNode
from detectron2.modeling import build_backbone

from lite_detr_d2.config import validate_config
from lite_detr_d2.errors import InputError


@pytest.mark.skipif(importlib.util.find_spec("timm") is not None, reason="timm is installed")
def test_timm_is_needed(small_cfg: CfgNode) -> None:
    small_cfg.MODEL.BACKBONE.NAME, small_cfg.MODEL.TIMM.NAME = "build_timm_backbone", "convnext_tiny"
    with pytest.raises(InputError, match=r"^timm is needed, but is not installed\. pip install 'lite_detr_d2\[timm\]'"):
        build_backbone(small_cfg)


def test_a_model_has_to_be_named(small_cfg: CfgNode) -> None:
    small_cfg.MODEL.BACKBONE.NAME = "build_timm_backbone"
    with pytest.raises(InputError, match=r"^MODEL\.TIMM\.NAME is '': expected the name of a model of timm"):
        validate_config(small_cfg)


def test_trained_norms_are_not_recomputed(small_cfg: CfgNode) -> None:
    small_cfg.MODEL.BACKBONE.NAME, small_cfg.MODEL.TIMM.NAME = "build_timm_backbone", "convnext_tiny"
    small_cfg.SOLVER.RECOMPUTE = ["backbone"]
    validate_config(small_cfg)
    small_cfg.MODEL.TIMM.NORM = "BN"
    with pytest.raises(InputError, match=r"MODEL\.TIMM\.NORM is 'BN', whose statistics .* or choose 'FrozenBN'\.$"):
        validate_config(small_cfg)
