"""A Lite-X is X with another encoder, and key-aware attention in the decoder's cross-attention; and nothing else."""

from types import FunctionType
from typing import Any

import pytest
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from torch import Tensor, nn

from lite_detr_d2 import add_lite_detr_config

from .conftest import CONFIGS
from .helpers import DETECTORS, choose_detector

NUM_LAYERS = 3


def narrow_config(name: str, *encoder: str) -> CfgNode:
    """One of ``DETECTORS`` with the fragments of ``configs/_base_`` for its encoder, four levels, of reduced width."""
    cfg = get_cfg()
    add_lite_detr_config(cfg)
    for part in ("runtime", "detector/dino", "backbone/narrow_resnet"):
        cfg.merge_from_file(str(CONFIGS / "_base_" / f"{part}.yaml"))
    choose_detector(cfg, name)
    for part in encoder:
        cfg.merge_from_file(str(CONFIGS / "_base_" / f"{part}.yaml"))
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 8
    node = cfg.MODEL.LITE_DETR
    node.HIDDEN_DIM, node.NUM_HEADS, node.NUM_QUERIES = 64, 4, 20
    node.ENCODER.DIM_FEEDFORWARD = node.DECODER.DIM_FEEDFORWARD = 64
    node.DECODER.NUM_LAYERS = NUM_LAYERS
    return cfg


def described(value: Any) -> Any:
    """What is compared: of tensors the shape, of objects their class and what they hold, of modules the class alone."""
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype, value.requires_grad
    if isinstance(value, nn.Module):
        return type(value)
    if isinstance(value, dict):
        return {key: described(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [described(item) for item in value]
    if hasattr(value, "__dict__") and not isinstance(value, (type, FunctionType)):
        return type(value), described(vars(value))
    return value


def tree(cfg: CfgNode) -> dict[str, Any]:
    """Every module by name: its class, its own parameters and buffers, its plain attributes."""
    return {
        name: (
            type(module),
            described(dict(module.named_parameters(recurse=False))),
            described(dict(module.named_buffers(recurse=False))),
            {key: described(value) for key, value in vars(module).items() if not key.startswith("_")},
        )
        for name, module in build_model(cfg).named_modules()
    }


def differences(first: dict[str, Any], second: dict[str, Any]) -> set[str]:
    return {name for name in first.keys() | second.keys() if first.get(name) != second.get(name)}


@pytest.fixture(params=DETECTORS)
def plain(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return request.param, tree(narrow_config(request.param, "encoder/deformable"))


def test_without_key_aware_attention_only_the_encoder_differs(plain: tuple[str, dict[str, Any]]) -> None:
    name, modules = plain
    lite = tree(narrow_config(name, "encoder/h3l1_a2b3", "overlay/nokda"))
    differing = differences(modules, lite)
    assert "encoder" in differing
    assert {module.split(".")[0] for module in differing} == {"encoder"}


def test_with_key_aware_attention_cross_attention_differs_too(plain: tuple[str, dict[str, Any]]) -> None:
    name, modules = plain
    lite = tree(narrow_config(name, "encoder/h3l1_a2b3"))
    outside = {module for module in differences(modules, lite) if not module.startswith("encoder")}
    attentions = {f"decoder.layers.{layer}.cross_attention" for layer in range(NUM_LAYERS)}
    # Key-aware attention compares projected queries with values, instead of predicting weights.
    parts = {f"{attention}.{part}" for attention in attentions for part in ("attention_weights", "query_proj")}
    assert outside == attentions | parts


@pytest.mark.parametrize(("key", "value"), [("MATCHER.GIOU_COST", 3.0), ("LOSS.L1_WEIGHT", 4.0)])
def test_the_comparison_sees_parts_that_are_no_modules(key: str, value: float) -> None:
    cfg = narrow_config("h_detr", "encoder/deformable")
    before = tree(cfg)
    cfg.merge_from_list([f"MODEL.LITE_DETR.{key}", value])
    assert "" in differences(before, tree(cfg))


def test_h_detr_adds_nothing_but_queries() -> None:
    """To Deformable DETR: no module, and no parameter but the further queries' content."""
    h_detr = tree(narrow_config("h_detr", "encoder/deformable"))
    deformable_detr = tree(narrow_config("deformable_detr_all_stages", "encoder/deformable"))
    assert differences(h_detr, deformable_detr) == {"", "query_selection.content"}
