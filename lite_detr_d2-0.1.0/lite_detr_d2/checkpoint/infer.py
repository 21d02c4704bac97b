"""What a converted state dict says of the model that it belongs to."""

import re
from collections.abc import Mapping

from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from torch import Tensor

from ..config import add_lite_detr_config
from .classes import count_classes, makes_content

_RESNET_OUTPUTS = ["res2", "res3", "res4", "res5"]
# (blocks of res4, whether blocks are bottlenecks) -> depth
_RESNET_DEPTHS = {(2, False): 18, (6, False): 34, (6, True): 50, (23, True): 101, (36, True): 152}
_FEED_FORWARD = r"encoder\.layers\.\d+\.feed_forward\.linear1\.weight"


def expected_shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Every tensor, with its shape, of the detector that ``state`` describes, whether or not ``state`` has it.

    Which levels the encoder calls high, which share of the tokens a sparse one refines, what proposals learn, and how
    many of H-DETR's queries are of its one-to-many branch, cannot be told from weights, and changes no name or shape.
    """
    return {name: tuple(tensor.shape) for name, tensor in build_model(_inferred_config(state)).state_dict().items()}


def differences(state: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> list[str]:
    """What config a checkpoint is of, and what a model's is, where they differ, as far as the tensors of both tell.

    Args:
        state: the checkpoint's tensors.
        model: the model's.

    Returns:
        A text for each key of the config: "KEY is VALUE in the file, VALUE in the config"; without the latter where the
        model has nothing of the kind. Empty if either is no whole detector.
    """
    found, expected = _told(state), _told(model)
    if not (found and expected):
        return []
    differing = {key: value for key, value in found.items() if value != expected.get(key)}
    return [
        f"{key} is {value} in the file" + (f", {expected[key]} in the config" if key in expected else "")
        for key, value in differing.items()
    ]


def _told(state: Mapping[str, Tensor]) -> dict[str, str]:
    """The config keys that a detector's ``state`` tells, with their values; nothing of anything else."""
    if "flatten.level_embed" not in state:
        return {}
    try:
        cfg = _inferred_config(state)
    except (KeyError, IndexError, ValueError, ZeroDivisionError):  # of a part, or of something that contradicts itself
        return {}
    model = cfg.MODEL.LITE_DETR
    content = state.get("query_selection.content.weight")
    is_both = cfg.MODEL.META_ARCHITECTURE == "HDETR"  # one tensor has the queries of both branches
    told = {
        "NUM_CLASSES": count_classes(state),
        f"NUM_QUERIES{' + ONE_TO_MANY.NUM_QUERIES' if is_both else ''}": None if content is None else len(content),
        "NUM_LEVELS": model.NUM_LEVELS,
        "HIDDEN_DIM": model.HIDDEN_DIM,
        "TWO_STAGE": model.TWO_STAGE,
        "BOX_REFINEMENT": model.BOX_REFINEMENT,
        "CONTENT_FROM_MEMORY": model.CONTENT_FROM_MEMORY,
        **_told_of_encoder(model.ENCODER, state),
        "NUM_HEADS x ENCODER.NUM_POINTS": model.ENCODER.NUM_POINTS,
        "ENCODER.DIM_FEEDFORWARD": model.ENCODER.DIM_FEEDFORWARD,
        "DECODER.NUM_LAYERS": model.DECODER.NUM_LAYERS,
        "NUM_HEADS x DECODER.NUM_POINTS": model.DECODER.NUM_POINTS,
        "DECODER.DIM_FEEDFORWARD": model.DECODER.DIM_FEEDFORWARD,
    }
    whole = {
        "MODEL.META_ARCHITECTURE": cfg.MODEL.META_ARCHITECTURE,
        **_told_of_backbone(cfg, state),
        **{f"MODEL.LITE_DETR.{key}": value for key, value in told.items()},
    }
    return {key: str(value) for key, value in whole.items() if value is not None}


def _told_of_encoder(encoder: CfgNode, state: Mapping[str, Tensor]) -> dict[str, object]:
    if "encoder.layers.0.attention.value_proj.weight" not in state:  # somebody's own
        return {}
    told = {"ENCODER.KEY_AWARE": encoder.KEY_AWARE, "ENCODER.KEY_PROJ": encoder.KEY_PROJ if encoder.KEY_AWARE else None}
    if encoder.NAME == "SparseEncoder":
        told |= {"ENCODER.AUXILIARY_LOSS": encoder.AUXILIARY_LOSS}
        return {"ENCODER.NAME": encoder.NAME, "ENCODER.NUM_LAYERS": encoder.NUM_LAYERS, **told}
    if encoder.NAME != "InterleavedEncoder":
        name = f"{encoder.NAME} (or one of LOW_LEVEL_FFN_RATIO 0)"
        return {"ENCODER.NAME": name, "ENCODER.NUM_LAYERS": encoder.NUM_LAYERS, **told}
    return {
        "ENCODER.NAME": encoder.NAME,
        "ENCODER.SPEC": re.sub(r"H\d+L\d+", "HxLy", encoder.SPEC),  # x and y cannot be told
        "ENCODER.FUSION": encoder.FUSION,
        "ENCODER.LOW_LEVEL_FFN_RATIO": encoder.LOW_LEVEL_FFN_RATIO,
        **told,
    }


def _told_of_backbone(cfg: CfgNode, state: Mapping[str, Tensor]) -> dict[str, object]:
    swin, resnet, stem = cfg.MODEL.SWIN, cfg.MODEL.RESNETS, state.get("backbone.stem.conv1.weight")
    if "backbone.patch_embed.proj.weight" in state:
        return {
            "MODEL.BACKBONE": "a Swin Transformer",
            "MODEL.SWIN.EMBED_DIM": swin.EMBED_DIM,
            "MODEL.SWIN.DEPTHS": list(swin.DEPTHS),
            "MODEL.SWIN.WINDOW_SIZE": swin.WINDOW_SIZE,
        }
    if stem is None:
        return {}
    return {
        "MODEL.BACKBONE": "a ResNet",
        "MODEL.RESNETS.DEPTH": resnet.DEPTH if _resnet_depth(state) else None,
        "MODEL.RESNETS.STEM_OUT_CHANNELS": len(stem),
    }


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
        resnet.DEPTH = _resnet_depth(state) or 50
        if "backbone.res4.0.conv3.weight" not in state:
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
    embeds = "query_selection.proposal_embed.proj.weight" in state
    model.CONTENT_FROM_MEMORY = model.CLASS_SPECIFIC_PROPOSALS = embeds and not makes_content(state)
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
    if any(name.startswith("encoder.scorer.") for name in state):
        encoder.NAME = "SparseEncoder"
        encoder.AUXILIARY_LOSS = any(name.startswith("encoder.auxiliary_heads.") for name in state)
        return
    joint = [len(tensor) for name, tensor in state.items() if name.endswith("low_feed_forward.linear1.weight")]
    hidden = [len(tensor) for name, tensor in state.items() if re.fullmatch(_FEED_FORWARD, name)]
    sequential = [size for size in hidden if size < encoder.DIM_FEEDFORWARD]
    if joint or sequential:
        low = joint or sequential
        refinements = encoder.NUM_LAYERS // len(low) - (0 if joint else 1)
        encoder.NAME = "InterleavedEncoder"
        encoder.FUSION = "joint" if joint else "sequential"
        encoder.SPEC = f"H{model.NUM_LEVELS - 1}L1-({refinements}+1)x{len(low)}"
        encoder.LOW_LEVEL_FFN_RATIO = encoder.DIM_FEEDFORWARD // low[0]


def _resnet_depth(state: Mapping[str, Tensor]) -> int | None:
    is_bottleneck = "backbone.res4.0.conv3.weight" in state
    return _RESNET_DEPTHS.get((_count(state, r"backbone\.res4\.(\d+)\."), is_bottleneck))


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """How many different indices the first group of ``pattern`` takes at the start of names."""
    return len({match[1] for name in state if (match := re.match(pattern, name))})
