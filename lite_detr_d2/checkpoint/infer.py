"""What a converted state dict says of the model that it belongs to."""

import re
from collections.abc import Mapping

from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from torch import Tensor

from ..config import add_lite_detr_config
from .classes import count_classes

_RESNET_OUTPUTS = ["res2", "res3", "res4", "res5"]
# (blocks of res4, whether blocks are bottlenecks) -> depth
_RESNET_DEPTHS = {(2, False): 18, (6, False): 34, (6, True): 50, (23, True): 101, (36, True): 152}


def expected_shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Every tensor, with its shape, of the detector that ``state`` describes, whether or not ``state`` has it.

    Which levels the encoder calls high, and how many of H-DETR's queries are of its one-to-many branch, cannot be told
    from weights, and changes no name or shape.
    """
    return {name: tuple(tensor.shape) for name, tensor in build_model(_inferred_config(state)).state_dict().items()}


def describe(state: Mapping[str, Tensor]) -> str:
    """The config keys that a detector's ``state`` tells, with their values; "" if it tells nothing."""
    if "flatten.level_embed" not in state:
        return ""
    try:
        cfg = _inferred_config(state)
    except (KeyError, IndexError, ValueError, ZeroDivisionError):  # of a part, or of something that contradicts itself
        return ""
    model, encoder = cfg.MODEL.LITE_DETR, cfg.MODEL.LITE_DETR.ENCODER
    told = {
        "MODEL.META_ARCHITECTURE": cfg.MODEL.META_ARCHITECTURE,
        "MODEL.BACKBONE.NAME": cfg.MODEL.BACKBONE.NAME if _has_backbone(state) else None,
        "MODEL.LITE_DETR.NUM_CLASSES": count_classes(state),
        "NUM_LEVELS": model.NUM_LEVELS,
        "HIDDEN_DIM": model.HIDDEN_DIM,
        "TWO_STAGE": model.TWO_STAGE,
        "BOX_REFINEMENT": model.BOX_REFINEMENT,
        "ENCODER.NAME": encoder.NAME,
        "ENCODER.KEY_AWARE": encoder.KEY_AWARE,
    }
    return ", ".join(f"{key} {value}" for key, value in told.items() if value is not None)


def _has_backbone(state: Mapping[str, Tensor]) -> bool:
    return any(name.startswith("backbone.") for name in state)


def _inferred_config(state: Mapping[str, Tensor]) -> CfgNode:
    cfg = get_cfg()
    add_lite_detr_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    _infer_backbone(cfg, state)
    _infer_sizes(cfg, state)
    _infer_detector(cfg, state)
    _infer_encoder(cfg, state)
    return cfg


def _infer_backbone(cfg: CfgNode, state: Mapping[str, Tensor]) -> None:
    model, swin, resnet = cfg.MODEL.LITE_DETR, cfg.MODEL.SWIN, cfg.MODEL.RESNETS
    num_inputs = max(_count(state, r"neck\.inputs\.(\d+)\."), 1)
    if "backbone.patch_embed.proj.weight" not in state:
        is_bottleneck = "backbone.res4.0.conv3.weight" in state
        resnet.DEPTH = _RESNET_DEPTHS.get((_count(state, r"backbone\.res4\.(\d+)\."), is_bottleneck), 50)
        if not is_bottleneck:
            resnet.RES2_OUT_CHANNELS = 64
        resnet.OUT_FEATURES = model.IN_FEATURES = _RESNET_OUTPUTS[-num_inputs:]
        return
    cfg.MODEL.BACKBONE.NAME = "build_swin_backbone"
    tables = [name for name in state if name.endswith("relative_position_bias_table")]
    blocks = [re.findall(r"\d+", name)[:2] for name in tables]
    stages = sorted({int(stage) for stage, _ in blocks})
    swin.EMBED_DIM = state["backbone.patch_embed.proj.weight"].shape[0]
    swin.DEPTHS = [sum(int(stage) == wanted for stage, _ in blocks) for wanted in stages]
    swin.NUM_HEADS = [state[f"backbone.layers.{i}.blocks.0.attn.relative_position_bias_table"].shape[1] for i in stages]
    swin.WINDOW_SIZE = (int(state[tables[0]].shape[0] ** 0.5) + 1) // 2
    inputs = stages[-num_inputs:]
    swin.OUT_INDICES = [stage for stage in stages if stage in inputs or f"backbone.norm{stage}.weight" in state]
    model.IN_FEATURES = [f"p{index}" for index in inputs]


def _infer_sizes(cfg: CfgNode, state: Mapping[str, Tensor]) -> None:
    model = cfg.MODEL.LITE_DETR
    model.NUM_LEVELS, model.HIDDEN_DIM = state["flatten.level_embed"].shape
    model.NUM_CLASSES = count_classes(state) or model.NUM_CLASSES
    content = state.get("query_selection.content.weight")
    if content is not None:
        model.NUM_QUERIES = content.shape[0]
    # Heads and points cannot be told apart: shapes depend on their product.
    model.NUM_HEADS = 1
    for node, prefix, attention in (
        (model.ENCODER, "encoder", "attention"),
        (model.DECODER, "decoder", "cross_attention"),
    ):
        node.NUM_LAYERS = max(_count(state, rf"{prefix}\.layers\.(\d+)\."), 1)
        offsets = state.get(f"{prefix}.layers.0.{attention}.sampling_offsets.weight")
        if offsets is not None:
            node.NUM_POINTS = offsets.shape[0] // (model.NUM_LEVELS * 2)
        hidden = state.get(f"{prefix}.layers.0.feed_forward.linear1.weight")
        if hidden is not None:
            node.DIM_FEEDFORWARD = hidden.shape[0]


def _infer_detector(cfg: CfgNode, state: Mapping[str, Tensor]) -> None:
    model = cfg.MODEL.LITE_DETR
    if "decoder.norm.weight" in state:
        cfg.MODEL.META_ARCHITECTURE = "DINO"
        return
    model.TWO_STAGE = "query_selection.proj.weight" in state
    model.MIXED_SELECTION = model.TWO_STAGE and "query_selection.content.weight" in state
    model.BOX_REFINEMENT = model.TWO_STAGE or "decoder.heads.1.class_embed.weight" in state
    model.LOOK_FORWARD_TWICE = model.BOX_REFINEMENT
    if model.MIXED_SELECTION:
        cfg.MODEL.META_ARCHITECTURE = "HDETR"
        model.NUM_QUERIES -= 1
        model.ONE_TO_MANY.NUM_QUERIES = 1
    else:
        cfg.MODEL.META_ARCHITECTURE = "DeformableDETR"


def _infer_encoder(cfg: CfgNode, state: Mapping[str, Tensor]) -> None:
    model = cfg.MODEL.LITE_DETR
    encoder = model.ENCODER
    encoder.KEY_AWARE = "encoder.layers.0.attention.attention_weights.weight" not in state
    encoder.KEY_PROJ = "encoder.layers.0.attention.key_proj.weight" in state
    narrow = [name for name in state if name.endswith("low_feed_forward.linear1.weight")]
    if narrow:
        blocks = len(narrow)
        encoder.NAME = "InterleavedEncoder"
        encoder.SPEC = f"H{model.NUM_LEVELS - 1}L1-({encoder.NUM_LAYERS // blocks}+1)x{blocks}"
        encoder.LOW_LEVEL_FFN_RATIO = encoder.DIM_FEEDFORWARD // state[narrow[0]].shape[0]


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """How many different indices the first group of ``pattern`` takes at the start of names."""
    return len({match[1] for name in state if (match := re.match(pattern, name))})
