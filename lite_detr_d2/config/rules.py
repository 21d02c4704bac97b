"""What makes a config valid: each value on its own, by the schema, and what keys are to each other."""

import logging
from collections.abc import Sequence

from detectron2.config import CfgNode

from ..encoder_spec import EncoderSpec
from ..errors import InputError
from ..modeling.denoising import SMALLEST_SHARED_DENOISING
from ..modeling.neck import GROUPS
from ..wording import in_short, quoted, shortened
from .schema import CHANNELS, check_values

# detectron2's group norm has so many groups.
_NORM_GROUPS = 32
# How the names of norms end that, beside "BN", keep statistics of the batches.
_BATCH_NORMS = ("SyncBN", "SyncBN_N")
# Layers of an encoder, beyond which a number of its spec is a slip.
_MOST_LAYERS = 1000
# Of the positions of all of detrex's detectors. No tensor of their checkpoints tells it.
DETREX_TEMPERATURE = 10000
logger = logging.getLogger(__name__)


def validate_config(cfg: CfgNode) -> None:
    """Check that all keys that have an effect are usable, alone and together.

    Raises:
        InputError: naming the key, its value and what is allowed.
    """
    check_values(cfg)
    for check in _CHECKS:
        check(cfg)
    model = cfg.MODEL.LITE_DETR
    if cfg.MODEL.META_ARCHITECTURE == "DINO" and 0 < model.DENOISING.NUM_QUERIES < SMALLEST_SHARED_DENOISING:
        logger.warning(
            "MODEL.LITE_DETR.DENOISING.NUM_QUERIES is %d: below %d it is half the number of groups, each of two "
            "queries per box, and takes more memory than above.",
            *(model.DENOISING.NUM_QUERIES, SMALLEST_SHARED_DENOISING),
        )


def class_names_of(cfg: CfgNode) -> list[str]:
    """Return ``MODEL.LITE_DETR.CLASS_NAMES``; none of a config of an earlier version that is read as it is."""
    names: list[str] = cfg.MODEL.LITE_DETR.get("CLASS_NAMES", [])
    return names


def check_in_features(features: Sequence[str], outputs: Sequence[str]) -> None:
    """Check ``MODEL.LITE_DETR.IN_FEATURES`` against what the backbone puts out."""
    missing = [name for name in features if name not in outputs]
    if missing:
        raise InputError(
            f"MODEL.LITE_DETR.IN_FEATURES names {quoted(missing)}, which the backbone does not put out. It puts out: "
            f"{', '.join(outputs)} (MODEL.RESNETS.OUT_FEATURES, MODEL.SWIN.OUT_INDICES, MODEL.TIMM.OUT_INDICES)."
        )


def _check_images(cfg: CfgNode) -> None:
    channels, form = CHANNELS[cfg.INPUT.FORMAT], cfg.INPUT.FORMAT
    for key in ("PIXEL_MEAN", "PIXEL_STD"):
        values = cfg.MODEL[key]
        _require(f"MODEL.{key}", values, len(values) == channels, f"a number for each channel of {form} ({channels})")
    sizes = cfg.INPUT.MIN_SIZE_TRAIN
    if cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING == "range":
        is_range = len(sizes) == 2 and 0 < sizes[0] <= sizes[1]
        expected = "the smallest and the largest, as INPUT.MIN_SIZE_TRAIN_SAMPLING is 'range'"
        _require("INPUT.MIN_SIZE_TRAIN", sizes, is_range, expected)
    for half, shortest in (("TRAIN", max(sizes)), ("TEST", cfg.INPUT.MIN_SIZE_TEST)):
        longest = cfg.INPUT[f"MAX_SIZE_{half}"]
        given = cfg.INPUT[f"MIN_SIZE_{half}"]
        expected = f"at least 1, as INPUT.MIN_SIZE_{half} is {given} (where that is 0, images are not resized)"
        _require(f"INPUT.MAX_SIZE_{half}", longest, longest >= min(shortest, 1), expected)


def _check_crop(cfg: CfgNode) -> None:
    crop = cfg.INPUT.CROP
    if not crop.ENABLED:
        return
    first, second = crop.SIZE
    expected = f"with INPUT.CROP.TYPE {crop.TYPE!r}, "
    if crop.TYPE.startswith("relative"):
        _require("INPUT.CROP.SIZE", crop.SIZE, max(first, second) <= 1, f"{expected}numbers above 0, to 1")
        return
    in_pixels = isinstance(first, int) and isinstance(second, int)
    _require("INPUT.CROP.SIZE", crop.SIZE, in_pixels, f"{expected}integers, in pixels")
    if crop.TYPE == "absolute_range":
        _require("INPUT.CROP.SIZE", crop.SIZE, first <= second, f"{expected}the smallest and the largest")


def _check_resnet(cfg: CfgNode) -> None:
    resnet, name = cfg.MODEL.RESNETS, cfg.MODEL.BACKBONE.NAME
    if name not in ("build_resnet_backbone", "build_narrow_resnet_backbone"):
        return
    widths = {"RES2_OUT_CHANNELS": resnet.RES2_OUT_CHANNELS, "STEM_OUT_CHANNELS": resnet.STEM_OUT_CHANNELS}
    if name == "build_resnet_backbone":
        if resnet.DEPTH < 50:
            needed = {"RES2_OUT_CHANNELS": 64, "RES5_DILATION": 1, "NUM_GROUPS": 1, "DEFORM_ON_PER_STAGE": [False] * 4}
            for key, value in needed.items():
                found = list(resnet[key]) if isinstance(value, list) else resnet[key]
                _require(f"MODEL.RESNETS.{key}", found, found == value, f"{value}, as DEPTH is {resnet.DEPTH}")
        else:
            widths["NUM_GROUPS * WIDTH_PER_GROUP"] = resnet.NUM_GROUPS * resnet.WIDTH_PER_GROUP
        _check_deformable(cfg)
    if resnet.NORM == "GN":
        for key, width in widths.items():
            _require(f"MODEL.RESNETS.{key}", width, width % _NORM_GROUPS == 0, "a multiple of 32, as NORM is 'GN'")
    check_in_features(cfg.MODEL.LITE_DETR.IN_FEATURES, resnet.OUT_FEATURES)


def _check_deformable(cfg: CfgNode) -> None:
    resnet = cfg.MODEL.RESNETS
    if not any(resnet.DEFORM_ON_PER_STAGE):
        return
    try:
        from detectron2 import _C  # noqa: F401, PLC0415
    except ImportError:
        raise InputError(
            "MODEL.RESNETS.DEFORM_ON_PER_STAGE has True, and detectron2's compiled ops are not there: set it to "
            "[False, False, False, False]."
        ) from None
    groups, width = resnet.DEFORM_NUM_GROUPS, resnet.NUM_GROUPS * resnet.WIDTH_PER_GROUP
    fits = width % groups == 0
    _require("MODEL.RESNETS.DEFORM_NUM_GROUPS", groups, fits, f"a divisor of NUM_GROUPS * WIDTH_PER_GROUP ({width})")


def _check_swin(cfg: CfgNode) -> None:
    if cfg.MODEL.BACKBONE.NAME != "build_swin_backbone":
        return
    swin = cfg.MODEL.SWIN
    stages, channels = len(swin.DEPTHS), CHANNELS[cfg.INPUT.FORMAT]
    _require("INPUT.FORMAT", cfg.INPUT.FORMAT, channels == 3, "one of three channels, as the backbone is a Swin")
    heads = swin.NUM_HEADS
    _require("MODEL.SWIN.NUM_HEADS", heads, len(heads) == stages, f"as many as MODEL.SWIN.DEPTHS ({stages})")
    for stage, count in enumerate(heads):
        width = swin.EMBED_DIM * 2**stage
        _require(
            f"MODEL.SWIN.NUM_HEADS[{stage}]", count, width % count == 0, f"a divisor of the stage's width ({width})"
        )
    indices = swin.OUT_INDICES
    _require("MODEL.SWIN.OUT_INDICES", indices, max(indices) < stages, f"stages from 0 to {stages - 1}")
    check_in_features(cfg.MODEL.LITE_DETR.IN_FEATURES, [f"p{index}" for index in indices])


def _check_timm(cfg: CfgNode) -> None:
    if cfg.MODEL.BACKBONE.NAME == "build_timm_backbone":
        name = cfg.MODEL.TIMM.NAME
        _require("MODEL.TIMM.NAME", name, bool(name), "the name of a model of timm, such as 'convnext_tiny'")


def _check_class_names(cfg: CfgNode) -> None:
    names, num_classes = class_names_of(cfg), cfg.MODEL.LITE_DETR.NUM_CLASSES
    if len(names) not in (0, num_classes):
        raise InputError(
            f"MODEL.LITE_DETR.CLASS_NAMES has {len(names)} names ({in_short(names)}): expected one for each of "
            f"MODEL.LITE_DETR.NUM_CLASSES ({num_classes}), or [] where they are not known."
        )


def _check_channels(cfg: CfgNode) -> None:
    model = cfg.MODEL.LITE_DETR
    channels, heads = model.HIDDEN_DIM, model.NUM_HEADS
    _require(
        "MODEL.LITE_DETR.HIDDEN_DIM",
        channels,
        channels % heads == 0,
        f"a multiple of MODEL.LITE_DETR.NUM_HEADS ({heads})",
    )
    # The neck normalises in groups. One channel per group would fail on a map of one pixel, as small images have.
    fits_groups = channels % GROUPS == 0 and channels > GROUPS
    _require("MODEL.LITE_DETR.HIDDEN_DIM", channels, fits_groups, f"a multiple of {GROUPS} above {GROUPS}")
    _require(
        "MODEL.LITE_DETR.NUM_LEVELS",
        model.NUM_LEVELS,
        len(model.IN_FEATURES) <= model.NUM_LEVELS,
        f"at least the number of MODEL.LITE_DETR.IN_FEATURES ({len(model.IN_FEATURES)})",
    )


def _check_encoder(cfg: CfgNode) -> None:
    model, encoder = cfg.MODEL.LITE_DETR, cfg.MODEL.LITE_DETR.ENCODER
    if encoder.KEY_PROJ and not encoder.KEY_AWARE:
        raise InputError(
            "MODEL.LITE_DETR.ENCODER.KEY_PROJ is True, and KEY_AWARE is False: plain deformable attention has no keys. "
            "Set KEY_AWARE to True or KEY_PROJ to False."
        )
    if encoder.NAME == "SparseEncoder" and not model.TWO_STAGE:
        raise InputError(
            "MODEL.LITE_DETR.ENCODER.NAME is 'SparseEncoder', which scores tokens by the projection of the second "
            "stage, and MODEL.LITE_DETR.TWO_STAGE is False: set it to True or choose another encoder."
        )
    if encoder.NAME != "InterleavedEncoder":
        return
    try:
        spec = EncoderSpec.parse(shortened(encoder.SPEC))
    except ValueError as error:
        raise InputError(f"MODEL.LITE_DETR.ENCODER.SPEC: {error}") from None
    _require(
        "MODEL.LITE_DETR.ENCODER.SPEC",
        encoder.SPEC,
        spec.num_levels == model.NUM_LEVELS,
        f"HxLy with x + y = MODEL.LITE_DETR.NUM_LEVELS ({model.NUM_LEVELS})",
    )
    layers = (spec.refinements + 1) * spec.blocks
    _require("MODEL.LITE_DETR.ENCODER.SPEC", encoder.SPEC, layers <= _MOST_LAYERS, f"at most {_MOST_LAYERS} layers")
    ratio, width = encoder.LOW_LEVEL_FFN_RATIO, encoder.DIM_FEEDFORWARD
    _require(
        "MODEL.LITE_DETR.ENCODER.LOW_LEVEL_FFN_RATIO",
        ratio,
        ratio == 0 or width % ratio == 0,
        f"0 (one network for all tokens) or a divisor of MODEL.LITE_DETR.ENCODER.DIM_FEEDFORWARD ({width})",
    )


def _check_stages(cfg: CfgNode) -> None:
    model, architecture = cfg.MODEL.LITE_DETR, cfg.MODEL.META_ARCHITECTURE
    needs = {
        "TWO_STAGE": "BOX_REFINEMENT",
        "MIXED_SELECTION": "TWO_STAGE",
        "CLASS_SPECIFIC_PROPOSALS": "TWO_STAGE",
        "CONTENT_FROM_MEMORY": "TWO_STAGE",
        "LOOK_FORWARD_TWICE": "BOX_REFINEMENT",
    }
    for key, needed in needs.items():
        if model[key] and not model[needed]:
            raise InputError(
                f"MODEL.LITE_DETR.{key} is True, and {needed} is False: set {needed} to True or {key} to False."
            )
    if model.CONTENT_FROM_MEMORY and model.MIXED_SELECTION:
        raise InputError(
            "MODEL.LITE_DETR.CONTENT_FROM_MEMORY and MIXED_SELECTION are True, and queries have one content: the token "
            "that they start from, or a learned one. Set one of them to False."
        )
    if architecture == "DINO" and not (model.MIXED_SELECTION and model.LOOK_FORWARD_TWICE):
        raise InputError(
            "MODEL.META_ARCHITECTURE is 'DINO', of which MODEL.LITE_DETR.MIXED_SELECTION and LOOK_FORWARD_TWICE are "
            "parts: set them to True, or choose 'DeformableDETR' or 'HDETR'."
        )
    if model.CONVENTIONS == "detrex" and model.POSITION_TEMPERATURE != DETREX_TEMPERATURE:
        raise InputError(
            "MODEL.LITE_DETR.CONVENTIONS is 'detrex', and MODEL.LITE_DETR.POSITION_TEMPERATURE "
            f"{model.POSITION_TEMPERATURE}, which none of its detectors has: set that to {DETREX_TEMPERATURE}."
        )


def _check_schedule(cfg: CfgNode) -> None:
    solver, name = cfg.SOLVER, cfg.SOLVER.LR_SCHEDULER_NAME
    if name == "WarmupMultiStepLR":
        steps = list(solver.STEPS)
        _require("SOLVER.STEPS", solver.STEPS, steps == sorted(set(steps)), "iterations in their order, each once")
        # detectron2 leaves out those that come later.
        at_end = solver.MAX_ITER in steps
        _require("SOLVER.STEPS", solver.STEPS, not at_end, f"iterations before SOLVER.MAX_ITER ({solver.MAX_ITER})")
    else:
        _require("SOLVER.BASE_LR", solver.BASE_LR, solver.BASE_LR > 0, f"more than 0 with {name}")
        low_enough = solver.BASE_LR_END <= solver.BASE_LR
        _require("SOLVER.BASE_LR_END", solver.BASE_LR_END, low_enough, f"at most SOLVER.BASE_LR ({solver.BASE_LR})")


def _check_optimizer(cfg: CfgNode) -> None:
    solver, clip = cfg.SOLVER, cfg.SOLVER.CLIP_GRADIENTS
    if solver.OPTIMIZER == "SGD" and solver.NESTEROV:
        _require("SOLVER.MOMENTUM", solver.MOMENTUM, solver.MOMENTUM > 0, "more than 0, as SOLVER.NESTEROV is True")
    if clip.ENABLED and clip.FULL_MODEL and clip.CLIP_TYPE != "norm":
        raise InputError(
            f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE is {clip.CLIP_TYPE!r}: with FULL_MODEL it must be 'norm', the norm of "
            "all gradients together."
        )
    reference, batch = solver.REFERENCE_WORLD_SIZE, solver.IMS_PER_BATCH
    divides = reference == 0 or batch % reference == 0
    _require("SOLVER.REFERENCE_WORLD_SIZE", reference, divides, f"0, or a divisor of SOLVER.IMS_PER_BATCH ({batch})")


def _check_recompute(cfg: CfgNode) -> None:
    name = cfg.MODEL.BACKBONE.NAME
    key, others = ("TIMM", "'FrozenBN'") if name == "build_timm_backbone" else ("RESNETS", "'FrozenBN', 'GN' or 'LN'")
    norm = cfg.MODEL[key].NORM
    is_trained = (
        name != "build_swin_backbone" and isinstance(norm, str) and (norm == "BN" or norm.endswith(_BATCH_NORMS))
    )
    if "backbone" in cfg.SOLVER.RECOMPUTE and is_trained:
        raise InputError(
            f"SOLVER.RECOMPUTE has 'backbone', and MODEL.{key}.NORM is {norm!r}, whose statistics would count each "
            f"batch twice: leave 'backbone' out, or choose {others}."
        )


def _check_compile(cfg: CfgNode) -> None:
    if cfg.SOLVER.COMPILE and cfg.MODEL.BACKBONE.NAME == "build_swin_backbone":  # timm's is known when it is built
        raise InputError(
            "SOLVER.COMPILE is True, and MODEL.BACKBONE.NAME is 'build_swin_backbone', which takes another graph for "
            "each size of images: set SOLVER.COMPILE to False, or choose another backbone."
        )
    if cfg.SOLVER.COMPILE and cfg.SOLVER.DETERMINISTIC:
        raise InputError(
            "SOLVER.COMPILE and SOLVER.DETERMINISTIC are True, and what torch.compile writes depends on the first "
            "batch that it sees: set one of them to False."
        )


def _check_deterministic(cfg: CfgNode) -> None:
    if cfg.SOLVER.DETERMINISTIC and cfg.CUDNN_BENCHMARK:
        raise InputError(
            "SOLVER.DETERMINISTIC and CUDNN_BENCHMARK are True, of which the latter chooses algorithms by how fast "
            "they happen to be: set one of them to False."
        )


_CHECKS = (
    _check_images,
    _check_crop,
    _check_class_names,
    _check_channels,
    _check_resnet,
    _check_swin,
    _check_timm,
    _check_encoder,
    _check_stages,
    _check_schedule,
    _check_optimizer,
    _check_recompute,
    _check_compile,
    _check_deterministic,
)


def _require(key: str, value: object, satisfied: bool, expected: str) -> None:
    if not satisfied:
        raise InputError(f"{key} is {quoted(value)}: expected {expected}.")
