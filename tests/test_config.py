"""Validation of configs, and every config that comes with the project."""

from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from lite_detr_d2.config import validate_config
from lite_detr_d2.encoder_spec import EncoderSpec
from lite_detr_d2.errors import InputError

from .conftest import CONFIGS
from .helpers import batched_input, choose_detector
from .shipped_configs import (
    FOLDERS,
    FOR_COCO,
    LEAVES,
    NAMED,
    assert_training_of_the_whole_model,
    assert_trains_a_step_and_evaluates,
    detector_of,
    distinct_models,
    name_of,
    needs_timm,
    one_of_each_kind,
    read,
)

# Outputs of stride 8, 16 and 32.
LEVELS = {
    "build_resnet_backbone": ["res3", "res4", "res5"],
    "build_swin_backbone": ["p1", "p2", "p3"],
    "convnext_tiny.fb_in1k": ["stage1", "stage2", "stage3"],
    "tf_efficientnet_lite0": ["stage2", "stage3", "stage4"],
}
# Backbones without a config of plain DINO, Deformable DETR or H-DETR.
ONLY_LITE = ("r18", "swinl", "convnextt", "efflite0")


def test_the_leaves_are_found() -> None:
    assert {path.parent.name for path in NAMED} == set(FOLDERS)
    assert len(NAMED) >= 50


@pytest.mark.parametrize("path", NAMED, ids=lambda path: path.stem)
def test_name_says_the_content(path: Path) -> None:
    cfg = read(path)
    validate_config(cfg)
    assert path.stem == name_of(cfg)
    assert path.parent.name == detector_of(cfg)


@pytest.mark.parametrize("path", FOR_COCO, ids=lambda path: path.stem)
def test_one_level_is_added_to_the_backbones(path: Path) -> None:
    cfg = read(path)
    levels = LEVELS[cfg.MODEL.TIMM.NAME or cfg.MODEL.BACKBONE.NAME]
    assert levels[1 - cfg.MODEL.LITE_DETR.NUM_LEVELS :] == cfg.MODEL.LITE_DETR.IN_FEATURES


@pytest.mark.parametrize("path", FOR_COCO, ids=lambda path: path.stem)
def test_leaf_is_nothing_but_fragments(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= 8
    assert lines[0] == "_BASE_:" and all(line.startswith("  - ../_base_/") for line in lines[1:])


@pytest.mark.parametrize(
    "path", [path for path in FOR_COCO if path.stem.startswith("lite_")], ids=lambda path: path.stem
)
def test_a_lite_config_differs_from_the_plain_one_in_the_encoder_alone(path: Path) -> None:
    plain = path.with_name(f"{path.parent.name}_{'_'.join(path.stem.split('_')[-2:])}.yaml")
    if not plain.exists():
        assert path.stem.split("_")[-2] in ONLY_LITE, f"{path.stem} has nothing to be compared with"
        return
    ours, theirs = read(path), read(plain)
    ours.MODEL.LITE_DETR.ENCODER = theirs.MODEL.LITE_DETR.ENCODER
    assert ours == theirs


def test_tiny_is_the_demos_model_but_for_the_task() -> None:
    """What the demo shows of the model, in minutes on a CPU, holds for the recipe; only queries and classes differ."""
    tiny, demo = (read(CONFIGS / name) for name in ("dino/lite_dino_tiny.yaml", "demo/lite_dino_digits.yaml"))
    for key in ("NUM_QUERIES", "NUM_CLASSES"):
        assert tiny.MODEL.LITE_DETR[key] > demo.MODEL.LITE_DETR[key]
        demo.MODEL.LITE_DETR[key] = tiny.MODEL.LITE_DETR[key]
    assert tiny.MODEL == demo.MODEL
    assert tiny.TEST.DETECTIONS_PER_IMAGE <= tiny.MODEL.LITE_DETR.NUM_QUERIES


def test_every_fragment_is_used() -> None:
    leaves = "".join(path.read_text() for path in LEAVES)
    fragments = [path.relative_to(CONFIGS) for path in (CONFIGS / "_base_").rglob("*.yaml")]
    assert not [fragment for fragment in fragments if f"../{fragment.as_posix()}\n" not in leaves]


WITHOUT_TIMM = [path for path in distinct_models(LEAVES) if not needs_timm(read(path))]


@pytest.mark.parametrize("path", WITHOUT_TIMM, ids=lambda path: path.stem)
def test_leaf_trains_a_step_and_evaluates(path: Path) -> None:
    """Narrow versions; full width is built, and counted, in test_gflops.py."""
    assert_trains_a_step_and_evaluates(read(path))


@pytest.mark.slow
@pytest.mark.parametrize("path", one_of_each_kind(WITHOUT_TIMM), ids=lambda path: path.stem)
def test_the_whole_model_trains_a_step_and_evaluates(path: Path, tmp_path: Path) -> None:
    assert_training_of_the_whole_model(path, tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "ENCODER.NAME",
            "Encoder",
            "ENCODER.NAME is 'Encoder': expected one of DeformableEncoder, InterleavedEncoder, Sp",
        ),
        ("ENCODER.SPEC", "H3L1", "MODEL.LITE_DETR.ENCODER.SPEC: 'H3L1' is not an encoder spec"),
        ("ENCODER.SPEC", "H3L1-(2+1)x3", r"ENCODER.SPEC is 'H3L1-\(2\+1\)x3': expected HxLy with x \+ y"),
        ("ENCODER.FUSION", "both", "ENCODER.FUSION is 'both': expected one of joint, sequential, high_only"),
        ("ENCODER.LOW_LEVEL_FFN_RATIO", 7, "LOW_LEVEL_FFN_RATIO is 7"),
        ("ENCODER.LOW_LEVEL_FFN_RATIO", -8, "LOW_LEVEL_FFN_RATIO is -8: expected an integer from 0 to"),
        ("ENCODER.RHO", 0.0, "ENCODER.RHO is 0.0: expected a number above 0 and at most 1"),
        ("ENCODER.RHO", 1.5, "ENCODER.RHO is 1.5: expected a number above 0 and at most 1"),
        ("ENCODER.RHO", float("nan"), "ENCODER.RHO is nan: expected a number above 0 and at most 1"),
        ("CONTENT_FROM_MEMORY", True, "CONTENT_FROM_MEMORY and MIXED_SELECTION are True, and queries have one content"),
        ("ENCODER.NUM_POINTS", 0, "ENCODER.NUM_POINTS is 0: expected an integer from 1 to"),
        ("ENCODER.KEY_AWARE", False, "KEY_PROJ is True, and KEY_AWARE is False"),
        ("NUM_CLASSES", 0, "MODEL.LITE_DETR.NUM_CLASSES is 0"),
        ("CLASS_ROWS", "id", "MODEL.LITE_DETR.CLASS_ROWS is 'id': expected one of names, ids"),
        ("CLASS_NAMES", ["ant"], r"CLASS_NAMES has 1 names \(ant\): expected one for each of .*NUM_CLASSES \(10\)"),
        ("CLASS_NAMES", [*"abcdefghi", 1], r"CLASS_NAMES\[9\] is 1: expected a text, in quotes"),
        ("HIDDEN_DIM", 90, "HIDDEN_DIM is 90: expected a multiple of MODEL.LITE_DETR.NUM_HEADS"),
        ("HIDDEN_DIM", 72, "HIDDEN_DIM is 72: expected a multiple of 32 above 32"),
        ("HIDDEN_DIM", 32, "HIDDEN_DIM is 32: expected a multiple of 32 above 32"),
        ("NUM_LEVELS", 2, "NUM_LEVELS is 2: expected at least the number of MODEL.LITE_DETR.IN_FEATURES"),
        ("IN_FEATURES", [], "IN_FEATURES"),
        ("DROPOUT", 1.5, "DROPOUT is 1.5"),
        ("POSITION_TEMPERATURE", 0, "POSITION_TEMPERATURE is 0: expected an integer from 1 to"),
        ("MATCHER.GIOU_COST", -2.0, "MATCHER.GIOU_COST is -2.0: expected a number from 0 to"),
        ("LOSS.FOCAL_GAMMA", -1.0, "LOSS.FOCAL_GAMMA is -1.0: expected a number from 0 to"),
        ("IN_FEATURES", ["res5", "res4", "res3"], "expected fine to coarse, each once"),
        (
            "BOX_REFINEMENT",
            False,
            "TWO_STAGE is True, and BOX_REFINEMENT is False: set BOX_REFINEMENT to True or TWO_ST",
        ),
        ("TWO_STAGE", False, "MIXED_SELECTION is True, and TWO_STAGE is False"),
        ("MIXED_SELECTION", False, "'DINO', of which MODEL.LITE_DETR.MIXED_SELECTION and LOOK_FORWARD_TWICE are parts"),
        ("LOOK_FORWARD_TWICE", False, "'DINO', of which MODEL.LITE_DETR.MIXED_SELECTION and LOOK_FORWARD_TWICE are"),
        ("CONVENTIONS", "mmdet", "CONVENTIONS is 'mmdet': expected one of published, detrex"),
        ("CONVENTIONS", "detrex", r"CONVENTIONS is 'detrex', .*\.POSITION_TEMPERATURE 20, which .*: set that to 10000"),
        ("ONE_TO_MANY.REPEATS", 0, "ONE_TO_MANY.REPEATS is 0: expected an integer from 1 to"),
        ("ONE_TO_MANY.NUM_QUERIES", -1, "ONE_TO_MANY.NUM_QUERIES is -1: expected an integer from 0 to"),
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
        ("INPUT.MAX_VALUE", -1.0, "INPUT.MAX_VALUE is -1.0: expected a number of at least 0"),
        ("SOLVER.KEEP_LAST", -1, "SOLVER.KEEP_LAST is -1: expected an integer from 0 to"),
        ("DATALOADER.NUM_WORKERS", -1, "DATALOADER.NUM_WORKERS is -1: expected an integer from 0 to"),
        ("SOLVER.IMS_PER_BATCH", 0, "SOLVER.IMS_PER_BATCH is 0: expected an integer from 1 to"),
        ("SOLVER.MAX_ITER", 0, "SOLVER.MAX_ITER is 0: expected an integer from 1 to"),
        ("TEST.DETECTIONS_PER_IMAGE", -1, "TEST.DETECTIONS_PER_IMAGE is -1: expected an integer from 1 to"),
        ("INPUT.MIN_SIZE_TEST", -1, "INPUT.MIN_SIZE_TEST is -1: expected"),
        ("INPUT.MIN_SIZE_TRAIN", (480, -1), r"INPUT.MIN_SIZE_TRAIN\[1\] is -1: expected"),
        ("INPUT.MAX_SIZE_TEST", 0, "INPUT.MAX_SIZE_TEST is 0: expected at least 1, as INPUT.MIN_SIZE_TEST"),
        ("INPUT.MAX_SIZE_TEST", -1, "INPUT.MAX_SIZE_TEST is -1: expected"),
        ("INPUT.MAX_SIZE_TRAIN", 0, "INPUT.MAX_SIZE_TRAIN is 0: expected at least 1, as INPUT.MIN_SIZE_TRAIN"),
        ("MODEL.META_ARCHITECTURE", "GeneralizedRCNN", "MODEL.META_ARCHITECTURE is 'GeneralizedRCNN': .*--config-file"),
        ("MODEL.BACKBONE.NAME", "nope", "MODEL.BACKBONE.NAME is 'nope': expected one of .*build_swin_backbone"),
    ],
)
def test_bad_values_of_detectron2s_keys_are_reported(small_cfg: CfgNode, key: str, value: Any, message: str) -> None:
    small_cfg.merge_from_list([key, value])
    with pytest.raises(InputError, match=message):
        validate_config(small_cfg)


def test_what_is_not_resized_has_no_longest_side(small_cfg: CfgNode) -> None:
    small_cfg.INPUT.MIN_SIZE_TEST = small_cfg.INPUT.MAX_SIZE_TEST = 0
    validate_config(small_cfg)
    small_cfg.INPUT.MIN_SIZE_TEST = 1
    with pytest.raises(InputError, match="MAX_SIZE_TEST is 0"):
        validate_config(small_cfg)


def test_looking_forward_twice_needs_refinement(small_cfg: CfgNode) -> None:
    small_cfg.MODEL.META_ARCHITECTURE = "DeformableDETR"
    node = small_cfg.MODEL.LITE_DETR
    node.TWO_STAGE = node.MIXED_SELECTION = node.BOX_REFINEMENT = False
    with pytest.raises(InputError, match="LOOK_FORWARD_TWICE is True, and BOX_REFINEMENT is False"):
        validate_config(small_cfg)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("CLASS_SPECIFIC_PROPOSALS", "CLASS_SPECIFIC_PROPOSALS is True, and TWO_STAGE is False"),
        ("CONTENT_FROM_MEMORY", "CONTENT_FROM_MEMORY is True, and TWO_STAGE is False"),
    ],
)
def test_proposals_need_a_second_stage(small_cfg: CfgNode, key: str, message: str) -> None:
    choose_detector(small_cfg, "deformable_detr_refined")
    small_cfg.MODEL.LITE_DETR[key] = True
    with pytest.raises(InputError, match=message):
        validate_config(small_cfg)


def test_scored_tokens_need_a_second_stage(small_cfg: CfgNode) -> None:
    choose_detector(small_cfg, "deformable_detr_refined")
    small_cfg.MODEL.LITE_DETR.ENCODER.NAME = "SparseEncoder"
    with pytest.raises(InputError, match="'SparseEncoder', which scores tokens .*TWO_STAGE is False: set it to True"):
        build_model(small_cfg)


def test_few_denoising_queries_are_a_warning(small_cfg: CfgNode, log: pytest.LogCaptureFixture) -> None:
    small_cfg.MODEL.LITE_DETR.DENOISING.NUM_QUERIES = 50
    validate_config(small_cfg)
    assert not log.records
    small_cfg.MODEL.LITE_DETR.DENOISING.NUM_QUERIES = 49
    validate_config(small_cfg)
    assert "DENOISING.NUM_QUERIES is 49: below 50" in log.text


@pytest.mark.parametrize("fusion", ["joint", "sequential", "high_only"])
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
