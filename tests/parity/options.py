"""The published implementations' options as our configuration."""

import math
from collections.abc import Callable
from typing import Any

from detectron2.config import CfgNode, get_cfg

from lite_detr_d2 import add_lite_detr_config

Options = dict[str, Any]

# Options that a recording may lack.
DEFAULTS: dict[str, Any] = {"num_feature_levels": 4, "enc_n_points": 4, "dec_n_points": 4}
# Options of the Lite-DETR repository that change the model, and the only value that it was published with.
_FIXED_IN_LITE_DETR: dict[str, Any] = {
    "add_channel_attention": False,
    "aux_loss": True,
    "dec_layer_number": None,
    "dec_pred_bbox_embed_share": True,
    "dec_pred_class_embed_share": True,
    "decoder_layer_noise": False,
    "decoder_module_seq": ["sa", "ca", "ffn"],
    "decoder_sa_type": "sa",
    "dilation": False,
    "embed_init_tgt": True,
    "fix_refpoints_hw": -1,
    "interm_loss_coef": 1.0,
    "masks": False,
    "matcher_type": "HungarianMatcher",
    "modelname": "dino",
    "nms_iou_threshold": -1,
    "no_interm_box_loss": False,
    # The reference slices levels by ``4 - enc_scale``, whatever their number.
    "num_feature_levels": 4,
    "num_patterns": 0,
    "position_embedding": "sine",
    "pre_norm": False,
    "query_dim": 4,
    "return_interm_indices": [1, 2, 3],
    "same_loc": False,
    "transformer_activation": "relu",
    "two_stage_add_query_num": 0,
    "two_stage_bbox_embed_share": False,
    "two_stage_class_embed_share": False,
    "two_stage_keep_all_tokens": False,
    "two_stage_learn_wh": False,
    "two_stage_pat_embed": 0,
    "two_stage_type": "standard",
    "unic_layers": 0,
    "use_deformable_box_attn": False,
    "use_detached_boxes_dec_out": False,
    "use_dn": True,
    "value_proj_after": False,
}
# Likewise of Deformable-DETR, H-Deformable-DETR and Sparse DETR.
_FIXED_IN_DEFORMABLE_DETR: dict[str, Any] = {
    "aux_loss": True,
    "dilation": False,
    "masks": False,
    "position_embedding": "sine",
    "position_embedding_scale": 2 * math.pi,
}


def config_of(source: str, options: Options, name: str) -> CfgNode:
    """Our configuration of a run of ``source`` (a repository) with ``options``; ``name`` is for errors.

    Raises:
        NotImplementedError: naming the source, or the options, that we have no counterpart of.
    """
    repository = source.split(" ", maxsplit=1)[0]
    if repository not in _CONFIGS:
        raise NotImplementedError(f"{name}: source {source!r} is not supported.")
    options = DEFAULTS | options
    cfg = get_cfg()
    add_lite_detr_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    _set_shared(cfg, options, name)
    _CONFIGS[repository](cfg, options, name)
    return cfg


def _lite_detr(cfg: CfgNode, options: Options, name: str) -> None:
    unsupported = _differing(options, _FIXED_IN_LITE_DETR)
    if (
        options["dn_labelbook_size"] != options["num_classes"]
        or options["pe_temperatureH"] != options["pe_temperatureW"]
    ):
        unsupported |= {key: options[key] for key in ("dn_labelbook_size", "pe_temperatureW")}
    is_plain = options["enc_scale"] == options["num_feature_levels"]
    if not is_plain and options["enc_layers"] % options["num_expansion"]:
        unsupported["num_expansion"] = options["num_expansion"]
    if not is_plain and options["small_expand"] and options["dim_feedforward_enc"] % options["hidden_dim"]:
        unsupported["dim_feedforward_enc"] = options["dim_feedforward_enc"]
    _refuse(unsupported, name)
    cfg.MODEL.META_ARCHITECTURE = "DINO"
    cfg.TEST.DETECTIONS_PER_IMAGE = options["num_select"]
    node = cfg.MODEL.LITE_DETR
    node.NUM_CLASSES = options["num_classes"]
    node.NUM_QUERIES = options["num_queries"]
    node.POSITION_TEMPERATURE = options["pe_temperatureH"]
    node.ENCODER.DIM_FEEDFORWARD = options["dim_feedforward_enc"]
    node.DECODER.DIM_FEEDFORWARD = options["dim_feedforward_dec"]
    node.DENOISING.NUM_QUERIES = options["dn_number"]
    node.DENOISING.LABEL_NOISE = options["dn_label_noise_ratio"]
    node.DENOISING.BOX_NOISE = options["dn_box_noise_scale"]
    _set_interleaved_encoder(node, options)


def _set_interleaved_encoder(node: CfgNode, options: Options) -> None:
    levels, high, blocks = options["num_feature_levels"], options["enc_scale"], options["num_expansion"]
    encoder = node.ENCODER
    encoder.KEY_AWARE = options["key_aware"]
    encoder.KEY_PROJ = options["key_aware"] and options["proj_key"]
    if high < levels:
        encoder.NAME = "InterleavedEncoder"
        encoder.SPEC = f"H{high}L{levels - high}-({options['enc_layers'] // blocks}+1)x{blocks}"
        # The published low-level network is as wide as the tokens, whatever the other's width.
        encoder.LOW_LEVEL_FFN_RATIO = encoder.DIM_FEEDFORWARD // options["hidden_dim"] if options["small_expand"] else 0


def _deformable_detr(cfg: CfgNode, options: Options, name: str) -> None:
    _refuse(_differing(options, _FIXED_IN_DEFORMABLE_DETR), name)
    cfg.MODEL.META_ARCHITECTURE = "DeformableDETR"
    cfg.TEST.DETECTIONS_PER_IMAGE = 100
    node = cfg.MODEL.LITE_DETR
    node.NUM_CLASSES = 91  # not an option there: COCO's largest category id, plus one
    node.POSITION_TEMPERATURE = 10000
    node.ENCODER.DIM_FEEDFORWARD = node.DECODER.DIM_FEEDFORWARD = options["dim_feedforward"]
    node.BOX_REFINEMENT = options["with_box_refine"]
    node.TWO_STAGE = options["two_stage"]
    node.MIXED_SELECTION = options["two_stage"] and options.get("mixed_selection", False)
    node.LOOK_FORWARD_TWICE = options.get("look_forward_twice", False)
    if node.NUM_LEVELS == 1:  # then it takes the last map alone
        node.IN_FEATURES = node.IN_FEATURES[-1:]
    if "num_queries" in options:
        node.NUM_QUERIES = options["num_queries"]


def _h_detr(cfg: CfgNode, options: Options, name: str) -> None:
    _deformable_detr(cfg, options, name)
    cfg.MODEL.META_ARCHITECTURE = "HDETR"
    cfg.TEST.DETECTIONS_PER_IMAGE = options["topk"]
    node = cfg.MODEL.LITE_DETR
    node.NUM_QUERIES = options["num_queries_one2one"]
    node.ONE_TO_MANY.NUM_QUERIES = options["num_queries_one2many"]
    node.ONE_TO_MANY.REPEATS = options["k_one2many"]
    node.ONE_TO_MANY.WEIGHT = options["lambda_one2many"]


def _sparse_detr(cfg: CfgNode, options: Options, name: str) -> None:
    _deformable_detr(cfg, options, name)
    node, auxiliary = cfg.MODEL.LITE_DETR, options["use_enc_aux_loss"]
    if auxiliary and not options["rho"]:
        _refuse({key: options[key] for key in ("use_enc_aux_loss", "rho")}, name)
    _refuse(_differing(options, {"mask_prediction_coef": 1}), name)
    node.CLASS_SPECIFIC_PROPOSALS = options["eff_specific_head"]
    node.CONTENT_FROM_MEMORY = options["eff_query_init"]
    if options["rho"]:
        node.ENCODER.NAME, node.ENCODER.RHO, node.ENCODER.AUXILIARY_LOSS = "SparseEncoder", options["rho"], auxiliary


_CONFIGS: dict[str, Callable[[CfgNode, Options, str], None]] = {
    "IDEA-Research/Lite-DETR": _lite_detr,
    "fundamentalvision/Deformable-DETR": _deformable_detr,
    "HDETR/H-Deformable-DETR": _h_detr,
    "kakaobrain/sparse-detr": _sparse_detr,
}


def _set_shared(cfg: CfgNode, options: Options, name: str) -> None:
    """What all of them call the same."""
    node, backbone = cfg.MODEL.LITE_DETR, options["backbone"]
    if backbone in ("swin_T_224_1k", "swin_tiny"):
        cfg.MODEL.BACKBONE.NAME = "build_swin_backbone"
        cfg.MODEL.SWIN.DROP_PATH_RATE = 0.0
        node.IN_FEATURES = ["p1", "p2", "p3"]
    elif backbone in ("resnet50", "resnet101"):
        cfg.MODEL.RESNETS.DEPTH = int(backbone.removeprefix("resnet"))
        cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
        cfg.MODEL.RESNETS.OUT_FEATURES = ["res3", "res4", "res5"]
    else:
        raise NotImplementedError(f"{name}: backbone {backbone!r} is not supported.")
    node.NUM_LEVELS = options["num_feature_levels"]
    node.HIDDEN_DIM = options["hidden_dim"]
    node.NUM_HEADS = options["nheads"]
    node.DROPOUT = options["dropout"]
    node.ENCODER.NUM_LAYERS = options["enc_layers"]
    node.ENCODER.NUM_POINTS = options["enc_n_points"]
    node.DECODER.NUM_LAYERS = options["dec_layers"]
    node.DECODER.NUM_POINTS = options["dec_n_points"]
    node.MATCHER.CLASS_COST = options["set_cost_class"]
    node.MATCHER.L1_COST = options["set_cost_bbox"]
    node.MATCHER.GIOU_COST = options["set_cost_giou"]
    node.LOSS.CLASS_WEIGHT = options["cls_loss_coef"]
    node.LOSS.L1_WEIGHT = options["bbox_loss_coef"]
    node.LOSS.GIOU_WEIGHT = options["giou_loss_coef"]
    node.LOSS.FOCAL_ALPHA = options["focal_alpha"]


def _differing(options: Options, fixed: Options) -> dict[str, Any]:
    return {key: options[key] for key, value in fixed.items() if options.get(key, value) != value}


def _refuse(unsupported: Options, name: str) -> None:
    if unsupported:
        raise NotImplementedError(f"{name}: options {unsupported} are not supported.")
