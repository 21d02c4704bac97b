"""Keys that have no effect in the combination that a config is of.

What INPUT.CROP.ENABLED and SOLVER.CLIP_GRADIENTS.ENABLED turn off, and 0 denoising or one-to-many queries, is left out:
recipes keep its settings for when it is on.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from detectron2.config import CfgNode, get_cfg

from .defaults import add_lite_detr_config
from .schema import leaves

logger = logging.getLogger(__name__)

# What only other models of detectron2 read, or nothing.
NOT_READ = (
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST",
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN",
    "DATASETS.PROPOSAL_FILES_TEST",
    "DATASETS.PROPOSAL_FILES_TRAIN",
    "INPUT.MASK_FORMAT",
    "MODEL.ANCHOR_GENERATOR.",
    "MODEL.FPN.",
    "MODEL.PANOPTIC_FPN.",
    "MODEL.PROPOSAL_GENERATOR.",
    "MODEL.RETINANET.",
    "MODEL.ROI_BOX_CASCADE_HEAD.",
    "MODEL.ROI_BOX_HEAD.",
    "MODEL.ROI_HEADS.",
    "MODEL.ROI_KEYPOINT_HEAD.",
    "MODEL.ROI_MASK_HEAD.",
    "MODEL.RPN.",
    "MODEL.SEM_SEG_HEAD.",
    "SOLVER.NUM_DECAYS",
    "TEST.AUG.FLIP",
    "TEST.AUG.MAX_SIZE",
    "TEST.AUG.MIN_SIZES",
    "TEST.KEYPOINT_OKS_SIGMAS",
    "VIS_PERIOD",
)
# For whatever a user's own code makes of it.
FOR_USERS = ("GLOBAL.",)

_RESNETS = ("build_resnet_backbone", "build_narrow_resnet_backbone")


@dataclass(frozen=True)
class _Rule:
    """Keys that have no effect where another has some values.

    Attributes:
        keys: their names, or what these start with.
        other: the key that decides.
        applies: whether it is so in a config.
        of_training: whether the keys are of training alone, and so is what they would do.
    """

    keys: tuple[str, ...]
    other: str
    applies: Callable[[CfgNode], bool]
    of_training: bool = False


def _below(prefix: str, names: str) -> tuple[str, ...]:
    return tuple(f"{prefix}.{name}" for name in names.split())


_RULES = (
    _Rule(
        ("MODEL.SWIN.",),
        "MODEL.BACKBONE.NAME",
        lambda cfg: cfg.MODEL.BACKBONE.NAME in (*_RESNETS, "build_timm_backbone"),
    ),
    _Rule(
        ("MODEL.TIMM.",),
        "MODEL.BACKBONE.NAME",
        lambda cfg: cfg.MODEL.BACKBONE.NAME in (*_RESNETS, "build_swin_backbone"),
    ),
    _Rule(
        ("MODEL.TIMM.PRETRAINED",),
        "MODEL.WEIGHTS",
        lambda cfg: cfg.MODEL.BACKBONE.NAME == "build_timm_backbone" and cfg.MODEL.WEIGHTS != "",
        of_training=True,
    ),
    _Rule(
        ("MODEL.RESNETS.",),
        "MODEL.BACKBONE.NAME",
        lambda cfg: cfg.MODEL.BACKBONE.NAME in ("build_swin_backbone", "build_timm_backbone"),
    ),
    _Rule(
        ("MODEL.BACKBONE.FREEZE_AT",),
        "MODEL.BACKBONE.NAME",
        lambda cfg: cfg.MODEL.BACKBONE.NAME == "build_swin_backbone",
    ),
    _Rule(
        (
            *_below("MODEL.RESNETS", "DEPTH NUM_GROUPS WIDTH_PER_GROUP STRIDE_IN_1X1 RES5_DILATION"),
            "MODEL.RESNETS.DEFORM_",
        ),
        "MODEL.BACKBONE.NAME",
        lambda cfg: cfg.MODEL.BACKBONE.NAME == "build_narrow_resnet_backbone",
    ),
    _Rule(
        _below("MODEL.RESNETS", "WIDTH_PER_GROUP STRIDE_IN_1X1"),
        "MODEL.RESNETS.DEPTH",
        lambda cfg: cfg.MODEL.BACKBONE.NAME == "build_resnet_backbone" and cfg.MODEL.RESNETS.DEPTH < 50,
    ),
    _Rule(
        _below("MODEL.RESNETS", "DEFORM_MODULATED DEFORM_NUM_GROUPS"),
        "MODEL.RESNETS.DEFORM_ON_PER_STAGE",
        lambda cfg: cfg.MODEL.BACKBONE.NAME in _RESNETS and not any(cfg.MODEL.RESNETS.DEFORM_ON_PER_STAGE),
    ),
    _Rule(
        _below("MODEL.LITE_DETR.ENCODER", "SPEC FUSION LOW_LEVEL_FFN_RATIO"),
        "MODEL.LITE_DETR.ENCODER.NAME",
        lambda cfg: cfg.MODEL.LITE_DETR.ENCODER.NAME in ("DeformableEncoder", "SparseEncoder"),
    ),
    _Rule(
        _below("MODEL.LITE_DETR.ENCODER", "RHO AUXILIARY_LOSS"),
        "MODEL.LITE_DETR.ENCODER.NAME",
        lambda cfg: cfg.MODEL.LITE_DETR.ENCODER.NAME in ("DeformableEncoder", "InterleavedEncoder"),
    ),
    _Rule(
        ("MODEL.LITE_DETR.ENCODER.AUXILIARY_LOSS",),
        "MODEL.LITE_DETR.ENCODER.NUM_LAYERS",
        lambda cfg: cfg.MODEL.LITE_DETR.ENCODER.NAME == "SparseEncoder" and cfg.MODEL.LITE_DETR.ENCODER.NUM_LAYERS == 1,
    ),
    _Rule(
        ("MODEL.LITE_DETR.CLASS_SPECIFIC_PROPOSALS",),
        "MODEL.META_ARCHITECTURE",
        lambda cfg: cfg.MODEL.META_ARCHITECTURE == "DINO",
    ),
    _Rule(
        ("MODEL.LITE_DETR.ENCODER.NUM_LAYERS",),
        "MODEL.LITE_DETR.ENCODER.NAME",
        lambda cfg: cfg.MODEL.LITE_DETR.ENCODER.NAME == "InterleavedEncoder",
    ),
    _Rule(
        ("MODEL.LITE_DETR.ENCODER.LOW_LEVEL_FFN_RATIO",),
        "MODEL.LITE_DETR.ENCODER.FUSION",
        lambda cfg: cfg.MODEL.LITE_DETR.ENCODER.FUSION == "high_only",
    ),
    _Rule(
        ("MODEL.LITE_DETR.DENOISING.",),
        "MODEL.META_ARCHITECTURE",
        lambda cfg: cfg.MODEL.META_ARCHITECTURE in ("DeformableDETR", "HDETR"),
    ),
    _Rule(
        ("MODEL.LITE_DETR.ONE_TO_MANY.",),
        "MODEL.META_ARCHITECTURE",
        lambda cfg: cfg.MODEL.META_ARCHITECTURE in ("DINO", "DeformableDETR"),
    ),
    _Rule(_below("SOLVER", "MOMENTUM NESTEROV"), "SOLVER.OPTIMIZER", lambda cfg: cfg.SOLVER.OPTIMIZER == "ADAMW"),
    _Rule(
        ("SOLVER.BASE_LR_END",),
        "SOLVER.LR_SCHEDULER_NAME",
        lambda cfg: cfg.SOLVER.LR_SCHEDULER_NAME == "WarmupMultiStepLR",
    ),
    _Rule(
        _below("SOLVER", "STEPS GAMMA"),
        "SOLVER.LR_SCHEDULER_NAME",
        lambda cfg: cfg.SOLVER.LR_SCHEDULER_NAME == "WarmupCosineLR",
    ),
    _Rule(
        _below("SOLVER", "WARMUP_FACTOR WARMUP_METHOD RESCALE_INTERVAL"),
        "SOLVER.WARMUP_ITERS",
        lambda cfg: cfg.SOLVER.WARMUP_ITERS == 0,
    ),
    _Rule(
        ("SOLVER.CLIP_GRADIENTS.NORM_TYPE",),
        "SOLVER.CLIP_GRADIENTS.CLIP_TYPE",
        lambda cfg: cfg.SOLVER.CLIP_GRADIENTS.ENABLED and cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE == "value",
    ),
    _Rule(("SOLVER.EMA.DECAY",), "SOLVER.EMA.ENABLED", lambda cfg: not cfg.SOLVER.EMA.ENABLED),
    _Rule(("TEST.PRECISE_BN.NUM_ITER",), "TEST.PRECISE_BN.ENABLED", lambda cfg: not cfg.TEST.PRECISE_BN.ENABLED),
    _Rule(("SOLVER.AMP.DTYPE",), "SOLVER.AMP.ENABLED", lambda cfg: not cfg.SOLVER.AMP.ENABLED),
    _Rule(("SOLVER.EARLY_STOP.PATIENCE",), "TEST.EVAL_PERIOD", lambda cfg: cfg.TEST.EVAL_PERIOD == 0),
    _Rule(("SOLVER.EARLY_STOP.PATIENCE",), "DATASETS.TEST", lambda cfg: not cfg.DATASETS.TEST),
    _Rule(
        ("DATALOADER.RANDOM_SUBSET_RATIO",),
        "DATALOADER.SAMPLER_TRAIN",
        lambda cfg: cfg.DATALOADER.SAMPLER_TRAIN != "RandomSubsetTrainingSampler",
    ),
    _Rule(
        ("DATASETS.TRAIN_REPEAT_FACTOR",),
        "DATALOADER.SAMPLER_TRAIN",
        lambda cfg: not cfg.DATALOADER.SAMPLER_TRAIN.startswith("Weighted"),
    ),
    _Rule(
        _below("DATALOADER", "REPEAT_THRESHOLD REPEAT_SQRT"),
        "DATALOADER.SAMPLER_TRAIN",
        lambda cfg: (
            cfg.DATALOADER.SAMPLER_TRAIN not in ("RepeatFactorTrainingSampler", "WeightedCategoryTrainingSampler")
        ),
    ),
)


def warn_of_idle_keys(cfg: CfgNode, trains: bool = True) -> None:
    """Log the keys that were set and have no effect in ``cfg``, a valid config; of the same, once.

    Args:
        cfg: what was set.
        trains: False if the model is evaluated only, with the config that it was trained with.
    """
    idle = idle_keys(cfg, trains)
    if idle:
        _warn_once(f"The config sets what has no effect here: {'; '.join(idle)}.")


@cache
def _warn_once(message: str) -> None:
    logger.warning("%s", message)


def idle_keys(cfg: CfgNode, trains: bool = True) -> list[str]:
    """The keys that are not at their defaults and have no effect in ``cfg``, each group of them with the reason."""
    at_default, values = _defaults(), dict(leaves(cfg))
    rules = [rule for rule in _RULES if rule.applies(cfg) and (trains or not rule.of_training)]
    given = [key for key, value in values.items() if key in at_default and _plain(value) != at_default[key]]
    found: dict[str, list[str]] = {}
    for key in given:
        if key.startswith(NOT_READ):
            found.setdefault("these detectors do not read that", []).append(key)
            continue
        rule = next((rule for rule in rules if key.startswith(rule.keys)), None)
        if rule is not None:
            found.setdefault(f"{rule.other} is {values[rule.other]!r}", []).append(key)
    return [f"{', '.join(keys)} ({reason})" for reason, keys in found.items()]


@cache
def _defaults() -> dict[str, object]:
    cfg = get_cfg()
    add_lite_detr_config(cfg)
    return {key: _plain(value) for key, value in leaves(cfg)}


def _plain(value: object) -> object:
    """A value as files have it, where there are no tuples."""
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
