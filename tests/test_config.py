"""Validation of configs, and every config that comes with the project."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model

from lite_detr_d2 import add_lite_detr_config
from lite_detr_d2.config import validate_config
from lite_detr_d2.encoder_spec import EncoderSpec
from lite_detr_d2.errors import InputError

from .conftest import CONFIGS
from .helpers import batched_input

LEAVES = sorted(path for path in CONFIGS.rglob("*.yaml") if "_base_" not in path.parts)
NAMED = [path for path in LEAVES if path.parent.name == "dino"]
BACKBONES = {
    "r50": ("build_resnet_backbone", 50),
    "r18": ("build_resnet_backbone", 18),
    "swint": ("build_swin_backbone", None),
}
SCHEDULES = {"12ep": (90000, (82500,)), "36ep": (270000, (225000,))}


def read(path: Path) -> CfgNode:
    cfg = get_cfg()
    add_lite_detr_config(cfg)
    cfg.merge_from_file(str(path))
    cfg.MODEL.DEVICE = "cpu"
    return cfg


def test_the_leaves_are_found() -> None:
    assert len(NAMED) >= 25


@pytest.mark.parametrize("path", NAMED, ids=lambda path: path.stem)
def test_name_says_the_content(path: Path) -> None:
    cfg = read(path)
    validate_config(cfg)
    match = re.fullmatch(r"(lite_)?dino(?:_h(\d)l(\d)_a(\d)b(\d)(_nokda)?)?_(r50|r18|swint)_(12ep|36ep)", path.stem)
    assert match is not None
    lite, high, low, refinements, blocks, nokda, backbone, schedule = match.groups()
    encoder = cfg.MODEL.LITE_DETR.ENCODER
    assert cfg.MODEL.META_ARCHITECTURE == "DINO"
    assert ("InterleavedEncoder" if lite else "DeformableEncoder") == encoder.NAME
    assert bool(lite) == bool(high)
    if lite:
        assert EncoderSpec.parse(encoder.SPEC) == EncoderSpec(int(high), int(low), int(refinements), int(blocks))
    assert (bool(lite) and not nokda) == encoder.KEY_AWARE
    name, depth = BACKBONES[backbone]
    assert name == cfg.MODEL.BACKBONE.NAME
    assert depth is None or depth == cfg.MODEL.RESNETS.DEPTH
    assert SCHEDULES[schedule] == (cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS)


@pytest.mark.parametrize("path", [path for path in LEAVES if "36ep" not in path.stem], ids=lambda path: path.stem)
def test_leaf_trains_a_step(path: Path) -> None:
    """The 36-epoch configs build the same models as the 12-epoch ones; the schedule is all that differs."""
    twin = path.with_name(path.name.replace("12ep", "36ep"))
    cfg = read(path)
    if twin != path and twin.exists():
        assert read(twin).MODEL == cfg.MODEL
    model = build_model(cfg).train()
    losses = model([batched_input(96, 64, num_boxes=2)])
    sum(losses.values()).backward()
    assert all(bool(loss.isfinite()) for loss in losses.values())
    encoder = [parameter.grad for name, parameter in model.named_parameters() if name.startswith("encoder.")]
    assert all(gradient is not None and bool(gradient.isfinite().all()) for gradient in encoder)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("ENCODER.NAME", "Encoder", "ENCODER.NAME is 'Encoder': expected one of DeformableEncoder, InterleavedEncoder"),
        ("ENCODER.SPEC", "H3L1", "MODEL.LITE_DETR.ENCODER.SPEC: 'H3L1' is not an encoder spec"),
        ("ENCODER.SPEC", "H3L1-(2+1)x3", r"ENCODER.SPEC is 'H3L1-\(2\+1\)x3': expected HxLy with x \+ y"),
        ("ENCODER.FUSION", "both", "ENCODER.FUSION is 'both': expected one of joint, sequential"),
        ("ENCODER.LOW_LEVEL_FFN_RATIO", 7, "LOW_LEVEL_FFN_RATIO is 7"),
        ("ENCODER.NUM_POINTS", 0, "ENCODER.NUM_POINTS is 0: expected at least 1"),
        ("ENCODER.KEY_AWARE", False, "KEY_PROJ is True, and KEY_AWARE is False"),
        ("NUM_CLASSES", 0, "MODEL.LITE_DETR.NUM_CLASSES is 0"),
        ("HIDDEN_DIM", 90, "HIDDEN_DIM is 90: expected a multiple of MODEL.LITE_DETR.NUM_HEADS"),
        ("HIDDEN_DIM", 72, "HIDDEN_DIM is 72: expected a multiple of 32 above 32"),
        ("HIDDEN_DIM", 32, "HIDDEN_DIM is 32: expected a multiple of 32 above 32"),
        ("NUM_LEVELS", 2, "NUM_LEVELS is 2: expected at least the number of MODEL.LITE_DETR.IN_FEATURES"),
        ("IN_FEATURES", [], "IN_FEATURES"),
        ("DROPOUT", 1.5, "DROPOUT is 1.5"),
        ("POSITION_TEMPERATURE", 0, "POSITION_TEMPERATURE is 0: expected at least 1"),
        ("MATCHER.GIOU_COST", -2.0, "MATCHER.GIOU_COST is -2.0: expected at least 0"),
        ("LOSS.FOCAL_GAMMA", -1.0, "LOSS.FOCAL_GAMMA is -1.0: expected at least 0"),
        ("IN_FEATURES", ["res5", "res4", "res3"], "expected fine to coarse, each once"),
        ("DENOISING.NUM_QUERIES", -1, "DENOISING.NUM_QUERIES is -1"),
        ("DENOISING.LABEL_NOISE", -0.1, "DENOISING.LABEL_NOISE is -0.1"),
        ("DENOISING.BOX_NOISE", -0.1, "DENOISING.BOX_NOISE is -0.1"),
    ],
)
def test_bad_values_are_reported(small_cfg: CfgNode, key: str, value: Any, message: str) -> None:
    small_cfg.MODEL.LITE_DETR.ENCODER.KEY_PROJ = True
    small_cfg.merge_from_list([f"MODEL.LITE_DETR.{key}", value])
    with pytest.raises(InputError, match=message):
        build_model(small_cfg)


def test_missing_backbone_output_is_reported(small_cfg: CfgNode) -> None:
    small_cfg.MODEL.LITE_DETR.IN_FEATURES = ["res3", "res4", "p7"]
    with pytest.raises(InputError, match=r"IN_FEATURES names \['p7'\]"):
        build_model(small_cfg)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("SOLVER.OPTIMIZER", "LION", "SOLVER.OPTIMIZER is 'LION': expected one of ADAMW, SGD"),
        ("SOLVER.IMS_PER_BATCH", 0, "SOLVER.IMS_PER_BATCH is 0: expected at least 1"),
        ("SOLVER.MAX_ITER", 0, "SOLVER.MAX_ITER is 0: expected at least 1"),
        ("TEST.DETECTIONS_PER_IMAGE", -1, "TEST.DETECTIONS_PER_IMAGE is -1: expected at least 1"),
        ("MODEL.META_ARCHITECTURE", "GeneralizedRCNN", "MODEL.META_ARCHITECTURE is 'GeneralizedRCNN': .*--config-file"),
        ("MODEL.BACKBONE.NAME", "nope", "MODEL.BACKBONE.NAME is 'nope': expected one of .*build_swin_backbone"),
    ],
)
def test_bad_values_of_detectron2s_keys_are_reported(small_cfg: CfgNode, key: str, value: Any, message: str) -> None:
    small_cfg.merge_from_list([key, value])
    with pytest.raises(InputError, match=message):
        validate_config(small_cfg)


def test_few_denoising_queries_are_a_warning(small_cfg: CfgNode, caplog: pytest.LogCaptureFixture) -> None:
    small_cfg.MODEL.LITE_DETR.DENOISING.NUM_QUERIES = 50
    validate_config(small_cfg)
    assert not caplog.records
    small_cfg.MODEL.LITE_DETR.DENOISING.NUM_QUERIES = 49
    validate_config(small_cfg)
    assert "DENOISING.NUM_QUERIES is 49: below 50" in caplog.text


@pytest.mark.parametrize("fusion", ["joint", "sequential"])
@pytest.mark.parametrize("key_aware", [True, False])
@pytest.mark.parametrize("spec", ["H1L3-(2+1)x1", "H2L2-(1+1)x2", "H4L1-(2+1)x1"])
def test_any_encoder_that_the_levels_allow(small_cfg: CfgNode, spec: str, fusion: str, key_aware: bool) -> None:
    node = small_cfg.MODEL.LITE_DETR
    node.ENCODER.SPEC, node.ENCODER.FUSION = spec, fusion
    node.ENCODER.KEY_AWARE = node.ENCODER.KEY_PROJ = key_aware
    node.NUM_LEVELS = EncoderSpec.parse(spec).num_levels
    model = build_model(small_cfg)
    losses = model([batched_input(96, 64, num_boxes=3)])
    assert bool(torch.stack(list(losses.values())).isfinite().all())
    assert (
        len(model.encoder.layers)
        == len(EncoderSpec.parse(spec).block_schedule(fusion)) * EncoderSpec.parse(spec).blocks
    )
