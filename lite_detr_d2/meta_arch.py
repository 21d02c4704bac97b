"""The detectors that detectron2 finds by name: each says how its parts are made from a config."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone
from detectron2.modeling.backbone import Backbone
from torch import nn

from .config import check_in_features, class_names_of, validate_config
from .detector import DetrDetector
from .errors import InputError
from .metadata import lend_class_names
from .modeling.attention_spec import AttentionSpec
from .modeling.criterion import Criterion
from .modeling.decoder import BoxPosition, Decoder
from .modeling.denoising import ContrastiveDenoising
from .modeling.encoder import build_encoder
from .modeling.flatten import FeatureFlattener
from .modeling.heads import DetectionHead
from .modeling.matcher import HungarianMatcher
from .modeling.neck import ChannelMapper
from .modeling.one_to_many import OneToMany
from .modeling.position import SinePositionEncoding
from .modeling.query_selection import LearnedQueries, ProposalEmbedding, QuerySelection
from .modeling.sparse import SparseEncoder
from .structures import PixelStats


@dataclass(frozen=True)
class Conventions:
    """Where published implementations differ in what they compute, beyond their parts.

    Attributes:
        logit_eps: clamp of the inverse sigmoid of boxes.
        giou_eps: see ``geometry.pairwise_giou``.
        position_offset: see ``SinePositionEncoding``.
        proposal_suffix: what the names of the proposals' losses end with.
        shared_heads: whether DINO's decoder layers share one head; else each has its own.
    """

    logit_eps: float
    giou_eps: float
    position_offset: float
    proposal_suffix: str
    shared_heads: bool = True


_OF_DINO = Conventions(logit_eps=1e-3, giou_eps=1e-6, position_offset=0.0, proposal_suffix="_interm")
_OF_DEFORMABLE_DETR = Conventions(logit_eps=1e-5, giou_eps=0.0, position_offset=0.5, proposal_suffix="_enc")
_OF_DETREX = 1e-3, 0.5  # the clamp and the offset of all of its detectors: no other code has both
POINT_SIZE_OFFSET = -2.0  # boxes that start from a point are small at first: sigmoid(-2) is 0.12 of the image


@META_ARCH_REGISTRY.register()
class DINO(DetrDetector):
    """DINO, arXiv 2203.03605; with ``InterleavedEncoder``, Lite-DINO."""

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        conventions = _conventions(cfg, _OF_DINO)
        parts = _common_parts(cfg, conventions)
        model = cfg.MODEL.LITE_DETR
        channels, classes = model.HIDDEN_DIM, model.NUM_CLASSES
        content = nn.Embedding(model.NUM_QUERIES, channels)
        nn.init.xavier_uniform_(content.weight)
        selection = QuerySelection(
            num_queries=model.NUM_QUERIES,
            head=DetectionHead(channels, classes),
            class_agnostic=False,
            trains_all=False,
            content=content,
            proposal_embed=None,
        )
        decoder = _decoder(
            cfg,
            conventions,
            heads=[
                DetectionHead(channels, classes)
                for _ in range(1 if conventions.shared_heads else model.DECODER.NUM_LAYERS)
            ],
            position=BoxPosition(channels),
            norm=nn.LayerNorm(channels),
        )
        denoising = None
        if model.DENOISING.NUM_QUERIES > 0:
            denoising = ContrastiveDenoising(
                num_channels=channels,
                num_classes=classes,
                num_queries=model.DENOISING.NUM_QUERIES,
                label_noise=model.DENOISING.LABEL_NOISE,
                box_noise=model.DENOISING.BOX_NOISE,
                logit_eps=conventions.logit_eps,
            )
        return _joined(parts, selection, decoder) | {"denoising": denoising, "one_to_many": None}


@META_ARCH_REGISTRY.register()
class DeformableDETR(DetrDetector):
    """Deformable DETR, arXiv 2010.04159; with ``InterleavedEncoder``, Lite-Deformable DETR; Sparse DETR, too."""

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        parts = _common_parts(cfg, _conventions(cfg, _OF_DEFORMABLE_DETR))
        selection = _query_selection(cfg, num_extra=0)
        return _joined(parts, selection, _decoder_with_own_heads(cfg)) | {"denoising": None, "one_to_many": None}


@META_ARCH_REGISTRY.register()
class HDETR(DetrDetector):
    """H-DETR, arXiv 2207.13080, hybrid branch scheme; with ``InterleavedEncoder``, Lite-H-DETR."""

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        parts = _common_parts(cfg, _conventions(cfg, _OF_DEFORMABLE_DETR))
        model = cfg.MODEL.LITE_DETR
        num_extra, one_to_many = model.ONE_TO_MANY.NUM_QUERIES, None
        if num_extra > 0:
            one_to_many = OneToMany(
                num_queries=num_extra,
                repeats=model.ONE_TO_MANY.REPEATS,
                loss_weight=model.ONE_TO_MANY.WEIGHT,
                assign=parts["criterion"].matcher,
            )
        selection = _query_selection(cfg, num_extra=num_extra)
        return _joined(parts, selection, _decoder_with_own_heads(cfg)) | {"denoising": None, "one_to_many": one_to_many}


def _conventions(cfg: CfgNode, published: Conventions) -> Conventions:
    """Those of the code that the detector was published with; or of detrex, which are the same for all.

    Source: github.com/IDEA-Research/detrex, detrex/utils/misc.py, detrex/layers/box_ops.py and the models of projects/.
    """
    if cfg.MODEL.LITE_DETR.CONVENTIONS != "detrex":
        return published
    logit_eps, offset = _OF_DETREX
    return replace(published, logit_eps=logit_eps, giou_eps=1e-6, position_offset=offset, shared_heads=False)


def conventions_of(detector: DetrDetector) -> str:
    """By what a detector computes, the ``MODEL.LITE_DETR.CONVENTIONS`` that it was built with."""
    computed = detector.decoder.logit_eps, detector.flatten.position.offset
    return "detrex" if computed == _OF_DETREX else "published"


def _common_parts(cfg: CfgNode, conventions: Conventions) -> dict[str, Any]:
    """All that does not depend on the detector but for its conventions."""
    validate_config(cfg)
    if class_names_of(cfg):
        lend_class_names(class_names_of(cfg), [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST])
    model = cfg.MODEL.LITE_DETR
    channels = model.HIDDEN_DIM
    backbone = build_backbone(cfg)
    shared = {
        "giou_eps": conventions.giou_eps,
        "focal_alpha": model.LOSS.FOCAL_ALPHA,
        "focal_gamma": model.LOSS.FOCAL_GAMMA,
    }
    matcher = HungarianMatcher(
        class_cost=model.MATCHER.CLASS_COST,
        l1_cost=model.MATCHER.L1_COST,
        giou_cost=model.MATCHER.GIOU_COST,
        **shared,
    )
    criterion = Criterion(
        class_weight=model.LOSS.CLASS_WEIGHT,
        l1_weight=model.LOSS.L1_WEIGHT,
        giou_weight=model.LOSS.GIOU_WEIGHT,
        matcher=matcher,
        proposal_suffix=conventions.proposal_suffix,
        **shared,
    )
    position = SinePositionEncoding(channels, model.POSITION_TEMPERATURE, conventions.position_offset)
    return {
        "backbone": backbone,
        "in_features": model.IN_FEATURES,
        "neck": ChannelMapper(_channels_of(backbone, model.IN_FEATURES), channels, model.NUM_LEVELS),
        "flatten": FeatureFlattener(model.NUM_LEVELS, position),
        "encoder": build_encoder(cfg),
        "criterion": criterion,
        "pixel_stats": PixelStats(cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD, cfg.INPUT.FORMAT),
        "max_detections": cfg.TEST.DETECTIONS_PER_IMAGE,
    }


def _channels_of(backbone: Backbone, in_features: list[str]) -> list[int]:
    shapes = backbone.output_shape()
    check_in_features(in_features, list(shapes))
    strides = [shapes[name].stride for name in in_features]
    if strides != sorted(set(strides)):
        raise InputError(
            f"MODEL.LITE_DETR.IN_FEATURES is {in_features}, of strides {strides}: expected fine to coarse, each once."
        )
    return [shapes[name].channels for name in in_features]


def _query_selection(cfg: CfgNode, num_extra: int) -> QuerySelection | LearnedQueries:
    """The queries of Deformable DETR and H-DETR."""
    model = cfg.MODEL.LITE_DETR
    channels = model.HIDDEN_DIM
    if not model.TWO_STAGE:
        return LearnedQueries(channels, model.NUM_QUERIES, num_extra)
    return QuerySelection(
        num_queries=model.NUM_QUERIES,
        head=DetectionHead(channels, model.NUM_CLASSES),
        class_agnostic=not model.CLASS_SPECIFIC_PROPOSALS,
        trains_all=True,
        content=nn.Embedding(model.NUM_QUERIES + num_extra, channels) if model.MIXED_SELECTION else None,
        proposal_embed=ProposalEmbedding(channels, makes_content=not model.CONTENT_FROM_MEMORY),
    )


def _joined(parts: dict[str, Any], selection: QuerySelection | LearnedQueries, decoder: Decoder) -> dict[str, Any]:
    """Parts with query selection, by whose projection an encoder may score tokens, and decoder; all heads start alike.

    Source of the latter: fundamentalvision/Deformable-DETR, ``_get_clones`` in ``deformable_detr.py``; so in those
    that came of it.
    """
    encoder = parts["encoder"]
    if isinstance(encoder, SparseEncoder) and isinstance(selection, QuerySelection):
        encoder.candidates = selection.candidates
    modules = (module for part in (decoder, selection, encoder) for module in part.modules())
    first, *others = (module for module in modules if isinstance(module, DetectionHead))
    for head in others:
        head.start_as(first)
    return parts | {"query_selection": selection, "decoder": decoder}


def _decoder_with_own_heads(cfg: CfgNode) -> Decoder:
    """The decoder of Deformable DETR and H-DETR: each layer that hands on boxes has a head of its own."""
    model = cfg.MODEL.LITE_DETR
    # Only the first layer starts from points; the others add to its boxes.
    size_offsets = [0.0 if model.TWO_STAGE else POINT_SIZE_OFFSET]
    if model.BOX_REFINEMENT:
        size_offsets += [0.0] * (model.DECODER.NUM_LAYERS - 1)
    heads = [DetectionHead(model.HIDDEN_DIM, model.NUM_CLASSES, size_offset=offset) for offset in size_offsets]
    return _decoder(cfg, _conventions(cfg, _OF_DEFORMABLE_DETR), heads=heads, position=None, norm=None)


def _decoder(
    cfg: CfgNode,
    conventions: Conventions,
    *,
    heads: Sequence[DetectionHead],
    position: BoxPosition | None,
    norm: nn.Module | None,
) -> Decoder:
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
        heads=heads,
        box_refinement=model.BOX_REFINEMENT,
        look_forward_twice=model.LOOK_FORWARD_TWICE,
        position=position,
        norm=norm,
        logit_eps=conventions.logit_eps,
    )
