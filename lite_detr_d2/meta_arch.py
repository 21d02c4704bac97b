"""The detectors that detectron2 finds by name: each says how its parts are made from a config."""

from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone
from detectron2.modeling.backbone import Backbone

from .config import validate_config
from .detector import DetrDetector
from .errors import InputError
from .modeling.attention_spec import AttentionSpec
from .modeling.criterion import Criterion
from .modeling.decoder import Decoder
from .modeling.denoising import ContrastiveDenoising
from .modeling.encoder import build_encoder
from .modeling.flatten import FeatureFlattener
from .modeling.heads import DetectionHead
from .modeling.matcher import HungarianMatcher
from .modeling.neck import ChannelMapper
from .modeling.query_selection import QuerySelection

DINO_LOGIT_EPS = 1e-3  # clamp of the inverse sigmoid of boxes
DINO_GIOU_EPS = 1e-6


@META_ARCH_REGISTRY.register()
class DINO(DetrDetector):
    """DINO, arXiv 2203.03605; with ``InterleavedEncoder``, Lite-DINO."""

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        validate_config(cfg)
        model = cfg.MODEL.LITE_DETR
        channels, classes = model.HIDDEN_DIM, model.NUM_CLASSES
        backbone = build_backbone(cfg)
        focal = {"focal_alpha": model.LOSS.FOCAL_ALPHA, "focal_gamma": model.LOSS.FOCAL_GAMMA}
        matcher = HungarianMatcher(
            class_cost=model.MATCHER.CLASS_COST,
            l1_cost=model.MATCHER.L1_COST,
            giou_cost=model.MATCHER.GIOU_COST,
            giou_eps=DINO_GIOU_EPS,
            **focal,
        )
        criterion = Criterion(
            class_weight=model.LOSS.CLASS_WEIGHT,
            l1_weight=model.LOSS.L1_WEIGHT,
            giou_weight=model.LOSS.GIOU_WEIGHT,
            giou_eps=DINO_GIOU_EPS,
            proposal_assigner=matcher,
            **focal,
        )
        return {
            "backbone": backbone,
            "in_features": model.IN_FEATURES,
            "neck": ChannelMapper(_channels_of(backbone, model.IN_FEATURES), channels, model.NUM_LEVELS),
            "flatten": FeatureFlattener(model.NUM_LEVELS, channels, model.POSITION_TEMPERATURE),
            "encoder": build_encoder(cfg),
            "query_selection": QuerySelection(channels, model.NUM_QUERIES, DetectionHead(channels, classes)),
            "denoising": _denoising(cfg),
            "decoder": _decoder(cfg),
            "matcher": matcher,
            "criterion": criterion,
            "pixel_stats": (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD),
            "max_detections": cfg.TEST.DETECTIONS_PER_IMAGE,
        }


def _channels_of(backbone: Backbone, in_features: list[str]) -> list[int]:
    shapes = backbone.output_shape()
    missing = [name for name in in_features if name not in shapes]
    if missing:
        raise InputError(
            f"MODEL.LITE_DETR.IN_FEATURES names {missing}, which the backbone does not put out. It puts out: "
            f"{', '.join(shapes)} (MODEL.RESNETS.OUT_FEATURES, MODEL.SWIN.OUT_INDICES)."
        )
    strides = [shapes[name].stride for name in in_features]
    if strides != sorted(set(strides)):
        raise InputError(
            f"MODEL.LITE_DETR.IN_FEATURES is {in_features}, of strides {strides}: expected fine to coarse, each once."
        )
    return [shapes[name].channels for name in in_features]


def _denoising(cfg: CfgNode) -> ContrastiveDenoising | None:
    model = cfg.MODEL.LITE_DETR
    if model.DENOISING.NUM_QUERIES == 0:
        return None
    return ContrastiveDenoising(
        num_channels=model.HIDDEN_DIM,
        num_classes=model.NUM_CLASSES,
        num_queries=model.DENOISING.NUM_QUERIES,
        label_noise=model.DENOISING.LABEL_NOISE,
        box_noise=model.DENOISING.BOX_NOISE,
        logit_eps=DINO_LOGIT_EPS,
    )


def _decoder(cfg: CfgNode) -> Decoder:
    model = cfg.MODEL.LITE_DETR
    attention = AttentionSpec(
        num_channels=model.HIDDEN_DIM,
        num_heads=model.NUM_HEADS,
        num_levels=model.NUM_LEVELS,
        num_points=model.DECODER.NUM_POINTS,
        key_aware=model.ENCODER.KEY_AWARE,
    )
    return Decoder(
        attention=attention,
        num_layers=model.DECODER.NUM_LAYERS,
        dim_feedforward=model.DECODER.DIM_FEEDFORWARD,
        dropout=model.DROPOUT,
        heads=[DetectionHead(model.HIDDEN_DIM, model.NUM_CLASSES)],
        logit_eps=DINO_LOGIT_EPS,
    )
