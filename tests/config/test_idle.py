"""Keys that were set and have no effect are named, all in one warning; what comes with the project is silent."""

from pathlib import Path
from typing import Any

import pytest
from detectron2.config import CfgNode, get_cfg

from lite_detr_d2 import add_lite_detr_config
from lite_detr_d2.config import idle, merge_file, validate_config, warn_of_idle_keys
from lite_detr_d2.config.idle import idle_keys

from ..shipped_configs import LEAVES


@pytest.fixture(autouse=True)
def _nothing_was_said() -> None:
    idle._warn_once.cache_clear()


@pytest.mark.parametrize("path", LEAVES, ids=lambda path: path.stem)
def test_what_comes_with_the_project_is_silent(path: Path, tmp_path: Path, said: list[str]) -> None:
    cfg = get_cfg()
    add_lite_detr_config(cfg)
    merge_file(cfg, str(path))
    warn_of_idle_keys(cfg)
    (tmp_path / "config.yaml").write_text(cfg.dump())
    again = get_cfg()
    add_lite_detr_config(again)
    merge_file(again, str(tmp_path / "config.yaml"))
    warn_of_idle_keys(again)
    assert said == []


SWIN = {"MODEL.BACKBONE.NAME": "build_swin_backbone", "MODEL.LITE_DETR.IN_FEATURES": ["p1", "p2", "p3"]}
TIMM = {"MODEL.BACKBONE.NAME": "build_timm_backbone", "MODEL.TIMM.NAME": "resnet18", "MODEL.BACKBONE.FREEZE_AT": 1}
R18 = {"MODEL.BACKBONE.NAME": "build_resnet_backbone", "MODEL.RESNETS.DEPTH": 18, "MODEL.RESNETS.RES2_OUT_CHANNELS": 64}
SPARSE = {"MODEL.LITE_DETR.ENCODER.NAME": "SparseEncoder"}
PLAIN = {"MODEL.LITE_DETR.ENCODER.NAME": "DeformableEncoder"}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"MODEL.SWIN.EMBED_DIM": 48},
            ["MODEL.SWIN.EMBED_DIM (MODEL.BACKBONE.NAME is 'build_narrow_resnet_backbone')"],
        ),
        ({**SWIN, "MODEL.SWIN.EMBED_DIM": 48}, []),
        ({"MODEL.TIMM.NORM": "BN"}, ["MODEL.TIMM.NORM (MODEL.BACKBONE.NAME is 'build_narrow_resnet_backbone')"]),
        ({**SWIN, "MODEL.TIMM.NORM": "BN"}, ["MODEL.TIMM.NORM (MODEL.BACKBONE.NAME is 'build_swin_backbone')"]),
        (
            {**TIMM, "MODEL.TIMM.NORM": "BN", "MODEL.SWIN.EMBED_DIM": 48},
            ["MODEL.SWIN.EMBED_DIM (MODEL.BACKBONE.NAME is 'build_timm_backbone')"],
        ),
        ({**TIMM, "MODEL.TIMM.PRETRAINED": True}, []),
        (
            {**TIMM, "MODEL.TIMM.PRETRAINED": True, "MODEL.WEIGHTS": "model_final.pth"},
            ["MODEL.TIMM.PRETRAINED (MODEL.WEIGHTS is 'model_final.pth')"],
        ),
        (
            {**SWIN, "MODEL.TIMM.PRETRAINED": True, "MODEL.WEIGHTS": "model_final.pth"},
            ["MODEL.TIMM.PRETRAINED (MODEL.BACKBONE.NAME is 'build_swin_backbone')"],
        ),
        ({"MODEL.RESNETS.DEPTH": 101}, ["MODEL.RESNETS.DEPTH (MODEL.BACKBONE.NAME is 'build_narrow_resnet_backbone')"]),
        (R18, []),
        ({**R18, "MODEL.RESNETS.STRIDE_IN_1X1": False}, ["MODEL.RESNETS.STRIDE_IN_1X1 (MODEL.RESNETS.DEPTH is 18)"]),
        (
            {"MODEL.RPN.NMS_THRESH": 0.5, "VIS_PERIOD": 5},
            ["MODEL.RPN.NMS_THRESH, VIS_PERIOD (these detectors do not read that)"],
        ),
        ({"TEST.AUG.MAX_SIZE": 5}, ["TEST.AUG.MAX_SIZE (these detectors do not read that)"]),
        (
            {"MODEL.LITE_DETR.ENCODER.NUM_LAYERS": 3},
            ["MODEL.LITE_DETR.ENCODER.NUM_LAYERS (MODEL.LITE_DETR.ENCODER.NAME is 'InterleavedEncoder')"],
        ),
        (
            {"MODEL.LITE_DETR.ENCODER.RHO": 0.1, "MODEL.LITE_DETR.ENCODER.AUXILIARY_LOSS": False},
            [
                "MODEL.LITE_DETR.ENCODER.RHO, MODEL.LITE_DETR.ENCODER.AUXILIARY_LOSS "
                "(MODEL.LITE_DETR.ENCODER.NAME is 'InterleavedEncoder')"
            ],
        ),
        (
            {**SPARSE, "MODEL.LITE_DETR.ENCODER.RHO": 0.1, "MODEL.LITE_DETR.ENCODER.FUSION": "high_only"},
            [
                "MODEL.LITE_DETR.ENCODER.SPEC, MODEL.LITE_DETR.ENCODER.FUSION "
                "(MODEL.LITE_DETR.ENCODER.NAME is 'SparseEncoder')"
            ],
        ),
        (
            {**SPARSE, "MODEL.LITE_DETR.ENCODER.NUM_LAYERS": 1, "MODEL.LITE_DETR.ENCODER.AUXILIARY_LOSS": False},
            [
                "MODEL.LITE_DETR.ENCODER.AUXILIARY_LOSS (MODEL.LITE_DETR.ENCODER.NUM_LAYERS is 1)",
                "MODEL.LITE_DETR.ENCODER.SPEC (MODEL.LITE_DETR.ENCODER.NAME is 'SparseEncoder')",
            ],
        ),
        (
            {"MODEL.LITE_DETR.CLASS_SPECIFIC_PROPOSALS": True},
            ["MODEL.LITE_DETR.CLASS_SPECIFIC_PROPOSALS (MODEL.META_ARCHITECTURE is 'DINO')"],
        ),
        ({**PLAIN, "MODEL.LITE_DETR.ENCODER.SPEC": "H3L1-(2+1)x3", "MODEL.LITE_DETR.ENCODER.NUM_LAYERS": 3}, []),
        (
            {**PLAIN, "MODEL.LITE_DETR.ENCODER.FUSION": "high_only"},
            [
                "MODEL.LITE_DETR.ENCODER.SPEC, MODEL.LITE_DETR.ENCODER.FUSION "
                "(MODEL.LITE_DETR.ENCODER.NAME is 'DeformableEncoder')"
            ],
        ),
        (
            {"MODEL.LITE_DETR.ENCODER.FUSION": "high_only", "MODEL.LITE_DETR.ENCODER.LOW_LEVEL_FFN_RATIO": 4},
            ["MODEL.LITE_DETR.ENCODER.LOW_LEVEL_FFN_RATIO (MODEL.LITE_DETR.ENCODER.FUSION is 'high_only')"],
        ),
        (
            {"MODEL.LITE_DETR.ONE_TO_MANY.REPEATS": 3},
            ["MODEL.LITE_DETR.ONE_TO_MANY.REPEATS (MODEL.META_ARCHITECTURE is 'DINO')"],
        ),
        (
            {"MODEL.META_ARCHITECTURE": "HDETR", "MODEL.LITE_DETR.ONE_TO_MANY.REPEATS": 3},
            [
                "MODEL.LITE_DETR.DENOISING.NUM_QUERIES, MODEL.LITE_DETR.DENOISING.BOX_NOISE "
                "(MODEL.META_ARCHITECTURE is 'HDETR')"
            ],
        ),
        (
            {"SOLVER.MOMENTUM": 0.5, "SOLVER.NESTEROV": True},
            ["SOLVER.MOMENTUM, SOLVER.NESTEROV (SOLVER.OPTIMIZER is 'ADAMW')"],
        ),
        ({"SOLVER.MOMENTUM": 0.5, "SOLVER.OPTIMIZER": "SGD"}, []),
        ({"SOLVER.BASE_LR_END": 1e-5}, ["SOLVER.BASE_LR_END (SOLVER.LR_SCHEDULER_NAME is 'WarmupMultiStepLR')"]),
        (
            {"SOLVER.LR_SCHEDULER_NAME": "WarmupCosineLR", "SOLVER.BASE_LR_END": 1e-5},
            ["SOLVER.STEPS (SOLVER.LR_SCHEDULER_NAME is 'WarmupCosineLR')"],
        ),
        (
            {"SOLVER.WARMUP_ITERS": 0, "SOLVER.WARMUP_METHOD": "constant"},
            ["SOLVER.WARMUP_METHOD (SOLVER.WARMUP_ITERS is 0)"],
        ),
        (
            {"DATALOADER.REPEAT_THRESHOLD": 0.1},
            ["DATALOADER.REPEAT_THRESHOLD (DATALOADER.SAMPLER_TRAIN is 'TrainingSampler')"],
        ),
        (
            {"DATALOADER.REPEAT_THRESHOLD": 0.1, "DATALOADER.SAMPLER_TRAIN": "RepeatFactorTrainingSampler"},
            [],
        ),
        ({"SOLVER.EMA.DECAY": 0.9}, ["SOLVER.EMA.DECAY (SOLVER.EMA.ENABLED is False)"]),
        ({"SOLVER.EMA.DECAY": 0.9, "SOLVER.EMA.ENABLED": True}, []),
        ({"TEST.PRECISE_BN.NUM_ITER": 9}, ["TEST.PRECISE_BN.NUM_ITER (TEST.PRECISE_BN.ENABLED is False)"]),
        ({"TEST.PRECISE_BN.NUM_ITER": 9, "TEST.PRECISE_BN.ENABLED": True}, []),
        ({f"GLOBAL.{next(iter(get_cfg().GLOBAL))}": 2.0}, []),  # for users, as detectron2 says
        # A switch of its own turns these off.
        ({"SOLVER.CLIP_GRADIENTS.ENABLED": False, "INPUT.CROP.ENABLED": False}, []),
    ],
)
def test_keys_without_effect(small_cfg: CfgNode, settings: dict[str, Any], expected: list[str]) -> None:
    if settings.get("MODEL.BACKBONE.NAME"):  # those of the narrow ResNet are set in the config that it is made of
        for key in ("NORM", "OUT_FEATURES", "RES2_OUT_CHANNELS", "STEM_OUT_CHANNELS"):
            small_cfg.MODEL.RESNETS[key] = get_cfg().MODEL.RESNETS[key]
        small_cfg.MODEL.BACKBONE.FREEZE_AT = 2
        small_cfg.MODEL.RESNETS.OUT_FEATURES = ["res3", "res4", "res5"] if "RESNETS" in str(settings) else ["res4"]
    small_cfg.merge_from_list([word for pair in settings.items() for word in pair])
    assert idle_keys(small_cfg) == expected
    validate_config(small_cfg)


def test_what_training_starts_from_does_not_concern_evaluation(small_cfg: CfgNode) -> None:
    small_cfg.MODEL.BACKBONE.NAME, small_cfg.MODEL.TIMM.PRETRAINED = "build_timm_backbone", True
    small_cfg.MODEL.WEIGHTS = "model_final.pth"
    reason = "MODEL.TIMM.PRETRAINED (MODEL.WEIGHTS is 'model_final.pth')"
    assert reason in idle_keys(small_cfg) and reason not in idle_keys(small_cfg, trains=False)


def test_they_are_said_once(small_cfg: CfgNode, said: list[str]) -> None:
    small_cfg.MODEL.LITE_DETR.DENOISING.NUM_QUERIES = 50
    small_cfg.SOLVER.MOMENTUM, small_cfg.VIS_PERIOD = 0.5, 3
    warn_of_idle_keys(small_cfg)
    warn_of_idle_keys(small_cfg.clone())
    assert len(said) == 1
    assert said[0].startswith("The config sets what has no effect here: ")
    assert "SOLVER.MOMENTUM (SOLVER.OPTIMIZER is 'ADAMW')" in said[0] and "VIS_PERIOD" in said[0]
    small_cfg.SOLVER.NESTEROV = True
    warn_of_idle_keys(small_cfg)
    assert len(said) == 2
