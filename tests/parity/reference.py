"""A parity fixture: what a published implementation computed, and our model of the same configuration and weights."""

import json
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn
from torchvision.ops import box_convert

from lite_detr_d2 import add_lite_detr_config
from lite_detr_d2.checkpoint import ConversionReport, convert_lite_detr
from tests import reference_weights

DEFAULT_FOLDER = Path(__file__).parent.parent / "data" / "parity"

# Options of the Lite-DETR repository that change the model, and the only value that it was published with.
_FIXED_OPTIONS: dict[str, Any] = {
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


def fixture_paths() -> list[Path]:
    """The JSON file of every fixture in ``LITE_DETR_PARITY_DIR``, or in the folder that comes with the tests."""
    return sorted(Path(os.environ.get("LITE_DETR_PARITY_DIR", DEFAULT_FOLDER)).glob("*.json"))


@dataclass(frozen=True)
class Reference:
    """One fixture."""

    path: Path

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The JSON part."""
        return json.loads(self.path.read_text())

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """The NPZ part."""
        with np.load(self.path.with_suffix(".npz")) as arrays:
            return dict(arrays)

    @cached_property
    def converted(self) -> tuple[dict[str, Tensor], ConversionReport]:
        """The reference weights through our converter."""
        arrays = reference_weights.state_dict(self.shapes, self.facts["aliases"])
        return convert_lite_detr({name: torch.from_numpy(array) for name, array in arrays.items()})

    @property
    def shapes(self) -> dict[str, list[int]]:
        """Of every reference tensor that the reference's run used."""
        options = self.facts["config"]
        no_low_levels = options["enc_scale"] == options["num_feature_levels"]
        # The network of the low-level tokens is there with ``small_expand`` even when no level is low.
        unused = re.compile(r"transformer\.encoder\..*\.(linear[12]2|norm22)\..*" if no_low_levels else r"(?!)")
        return {name: shape for name, shape in self.facts["shapes"].items() if not unused.fullmatch(name)}

    def model(self) -> nn.Module:
        """Our model with the reference weights, strictly loaded."""
        model = build_model(self.config())
        model.load_state_dict(self.converted[0], strict=True)
        return model

    def config(self) -> CfgNode:
        """Our configuration of the reference's run."""
        if not self.facts["source"].startswith("IDEA-Research/Lite-DETR"):
            raise NotImplementedError(f"{self.path.name}: source {self.facts['source']!r} is not supported.")
        return _lite_detr_config(self.facts["config"], self.path.name)

    def inputs(self) -> list[dict[str, Any]]:
        """The reference's images and targets as detectron2's batched inputs."""
        batch = []
        sizes, seeds = self.facts["image_sizes"], self.facts["image_seeds"]
        for index, (seed, (height, width)) in enumerate(zip(seeds, sizes, strict=True)):
            image = reference_weights.image(seed, height, width)
            instances = Instances((height, width))
            boxes = torch.from_numpy(self.arrays[f"target{index}_boxes"])
            scale = torch.tensor([width, height, width, height], dtype=torch.float32)
            instances.gt_boxes = Boxes(box_convert(boxes, "cxcywh", "xyxy") * scale)
            instances.gt_classes = torch.from_numpy(self.arrays[f"target{index}_labels"]).long()
            chw = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
            batch.append({"image": chw, "instances": instances, "height": height, "width": width, "image_id": index})
        return batch


def _lite_detr_config(options: dict[str, Any], name: str) -> CfgNode:
    unsupported = {key: options[key] for key, value in _FIXED_OPTIONS.items() if options.get(key, value) != value}
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
    if unsupported:
        raise NotImplementedError(f"{name}: options {unsupported} are not supported.")
    cfg = get_cfg()
    add_lite_detr_config(cfg)
    cfg.MODEL.META_ARCHITECTURE = "DINO"
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    cfg.TEST.DETECTIONS_PER_IMAGE = options["num_select"]
    _set_backbone(cfg, options["backbone"], name)
    _set_sizes(cfg.MODEL.LITE_DETR, options)
    _set_encoder(cfg.MODEL.LITE_DETR, options)
    return cfg


def _set_backbone(cfg: CfgNode, backbone: str, name: str) -> None:
    if backbone == "swin_T_224_1k":
        cfg.MODEL.BACKBONE.NAME = "build_swin_backbone"
        cfg.MODEL.SWIN.DROP_PATH_RATE = 0.0
        cfg.MODEL.LITE_DETR.IN_FEATURES = ["p1", "p2", "p3"]
    elif backbone in ("resnet50", "resnet101"):
        cfg.MODEL.RESNETS.DEPTH = int(backbone.removeprefix("resnet"))
        cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
        cfg.MODEL.RESNETS.OUT_FEATURES = ["res3", "res4", "res5"]
    else:
        raise NotImplementedError(f"{name}: backbone {backbone!r} is not supported.")


def _set_sizes(node: CfgNode, options: dict[str, Any]) -> None:
    node.NUM_CLASSES = options["num_classes"]
    node.NUM_QUERIES = options["num_queries"]
    node.NUM_LEVELS = options["num_feature_levels"]
    node.HIDDEN_DIM = options["hidden_dim"]
    node.NUM_HEADS = options["nheads"]
    node.DROPOUT = options["dropout"]
    node.POSITION_TEMPERATURE = options["pe_temperatureH"]
    node.DECODER.NUM_LAYERS = options["dec_layers"]
    node.DECODER.DIM_FEEDFORWARD = options["dim_feedforward_dec"]
    node.DECODER.NUM_POINTS = options["dec_n_points"]
    node.DENOISING.NUM_QUERIES = options["dn_number"]
    node.DENOISING.LABEL_NOISE = options["dn_label_noise_ratio"]
    node.DENOISING.BOX_NOISE = options["dn_box_noise_scale"]
    node.MATCHER.CLASS_COST = options["set_cost_class"]
    node.MATCHER.L1_COST = options["set_cost_bbox"]
    node.MATCHER.GIOU_COST = options["set_cost_giou"]
    node.LOSS.CLASS_WEIGHT = options["cls_loss_coef"]
    node.LOSS.L1_WEIGHT = options["bbox_loss_coef"]
    node.LOSS.GIOU_WEIGHT = options["giou_loss_coef"]
    node.LOSS.FOCAL_ALPHA = options["focal_alpha"]


def _set_encoder(node: CfgNode, options: dict[str, Any]) -> None:
    levels, high, blocks = options["num_feature_levels"], options["enc_scale"], options["num_expansion"]
    encoder = node.ENCODER
    encoder.NUM_LAYERS = options["enc_layers"]
    encoder.DIM_FEEDFORWARD = options["dim_feedforward_enc"]
    encoder.NUM_POINTS = options["enc_n_points"]
    encoder.KEY_AWARE = options["key_aware"]
    encoder.KEY_PROJ = options["key_aware"] and options["proj_key"]
    if high < levels:
        encoder.NAME = "InterleavedEncoder"
        encoder.SPEC = f"H{high}L{levels - high}-({options['enc_layers'] // blocks}+1)x{blocks}"
        # The published low-level network is as wide as the tokens, whatever the other's width.
        encoder.LOW_LEVEL_FFN_RATIO = encoder.DIM_FEEDFORWARD // options["hidden_dim"] if options["small_expand"] else 0
