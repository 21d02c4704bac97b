"""Each kind of detector from constructor arguments, as detectron2's LazyConfig has them, without a config's keys."""

from typing import Any

import pytest
import torch
from detectron2.config import LazyCall, LazyConfig, instantiate
from detectron2.modeling.backbone.resnet import BasicStem, ResNet
from torch import nn

from lite_detr_d2.encoder_spec import EncoderSpec
from lite_detr_d2.meta_arch import DINO, HDETR, DeformableDETR
from lite_detr_d2.modeling.attention_spec import AttentionSpec
from lite_detr_d2.modeling.criterion import Criterion
from lite_detr_d2.modeling.decoder import BoxPosition, Decoder
from lite_detr_d2.modeling.denoising import ContrastiveDenoising
from lite_detr_d2.modeling.flatten import FeatureFlattener
from lite_detr_d2.modeling.heads import DetectionHead
from lite_detr_d2.modeling.interleaved import InterleavedEncoder
from lite_detr_d2.modeling.matcher import HungarianMatcher
from lite_detr_d2.modeling.neck import ChannelMapper
from lite_detr_d2.modeling.one_to_many import OneToMany
from lite_detr_d2.modeling.position import SinePositionEncoding
from lite_detr_d2.modeling.query_selection import LearnedQueries, ProposalEmbedding, QuerySelection

from .helpers import batched_input

CHANNELS, CLASSES, QUERIES, EXTRA = 64, 10, 20, 30
FOCAL = {"focal_alpha": 0.25, "focal_gamma": 2.0, "giou_eps": 1e-6}
MATCHER = LazyCall(HungarianMatcher)(class_cost=2.0, l1_cost=5.0, giou_cost=2.0, **FOCAL)
ATTENTION = LazyCall(AttentionSpec)(num_channels=CHANNELS, num_heads=4, num_levels=4, num_points=2, key_aware=True)
FEATURES = ["res3", "res4", "res5"]


def detector(kind: type, **parts: Any) -> Any:
    """What all kinds share, and ``parts``."""
    shared = {
        "backbone": LazyCall(ResNet)(
            stem=LazyCall(BasicStem)(in_channels=3, out_channels=64, norm="BN"),
            stages=LazyCall(ResNet.make_default_stages)(depth=18, norm="BN"),
            out_features=FEATURES,
        ),
        "in_features": FEATURES,
        "neck": LazyCall(ChannelMapper)(in_channels=[128, 256, 512], out_channels=CHANNELS, num_levels=4),
        "flatten": LazyCall(FeatureFlattener)(
            num_levels=4,
            position=LazyCall(SinePositionEncoding)(num_channels=CHANNELS, temperature=20, offset=0.5),
        ),
        "encoder": LazyCall(InterleavedEncoder)(
            spec=LazyCall(EncoderSpec.parse)(text="H3L1-(2+1)x1"),
            fusion="joint",
            attention=ATTENTION,
            dim_feedforward=64,
            low_level_ffn_ratio=8,
            dropout=0.0,
        ),
        "criterion": LazyCall(Criterion)(
            class_weight=2.0, l1_weight=5.0, giou_weight=2.0, matcher=MATCHER, proposal_suffix="_enc", **FOCAL
        ),
        "denoising": None,
        "one_to_many": None,
        "pixel_stats": ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),
        "max_detections": 100,
    }
    return LazyCall(kind)(**shared | parts)


def head() -> Any:
    return LazyCall(DetectionHead)(num_channels=CHANNELS, num_classes=CLASSES)


def decoder(num_heads: int, **options: Any) -> Any:
    defaults = {"box_refinement": True, "look_forward_twice": True, "position": None, "norm": None, "logit_eps": 1e-5}
    return LazyCall(Decoder)(
        attention=ATTENTION,
        num_layers=2,
        dim_feedforward=64,
        dropout=0.0,
        heads=[head() for _ in range(num_heads)],
        **defaults | options,
    )


def selection(num_contents: int, **options: Any) -> Any:
    content = LazyCall(nn.Embedding)(num_embeddings=num_contents, embedding_dim=CHANNELS)
    return LazyCall(QuerySelection)(num_queries=QUERIES, head=head(), content=content, **options)


def dino() -> Any:
    return detector(
        DINO,
        query_selection=selection(QUERIES, class_agnostic=False, trains_all=False, proposal_embed=None),
        decoder=decoder(
            1,
            position=LazyCall(BoxPosition)(num_channels=CHANNELS),
            norm=LazyCall(nn.LayerNorm)(normalized_shape=CHANNELS),
        ),
        denoising=LazyCall(ContrastiveDenoising)(
            num_channels=CHANNELS, num_classes=CLASSES, num_queries=50, label_noise=0.5, box_noise=1.0, logit_eps=1e-3
        ),
    )


def deformable_detr() -> Any:
    return detector(
        DeformableDETR,
        query_selection=LazyCall(LearnedQueries)(num_channels=CHANNELS, num_queries=QUERIES),
        decoder=decoder(1, box_refinement=False, look_forward_twice=False),
    )


def h_detr() -> Any:
    embedding = LazyCall(ProposalEmbedding)(num_channels=CHANNELS)
    return detector(
        HDETR,
        query_selection=selection(QUERIES + EXTRA, class_agnostic=True, trains_all=True, proposal_embed=embedding),
        decoder=decoder(2),
        one_to_many=LazyCall(OneToMany)(num_queries=EXTRA, repeats=3, loss_weight=1.0, assign=MATCHER),
    )


@pytest.mark.parametrize(
    ("make", "suffixes"),
    [
        (dino, {"", "_0", "_dn", "_dn_0", "_enc"}),
        (deformable_detr, {"", "_0"}),
        (h_detr, {"", "_0", "_one2many", "_0_one2many", "_enc"}),
    ],
)
def test_a_detector_of_lazy_calls_trains_and_detects(make: Any, suffixes: set[str]) -> None:
    model = instantiate(LazyConfig.apply_overrides(make(), ["max_detections=7"])).train()
    losses = model([batched_input(96, 64, 2)])
    assert {name.removeprefix("loss_ce") for name in losses if name.startswith("loss_ce")} == suffixes
    torch.stack(list(losses.values())).sum().backward()
    assert not [name for name, value in model.named_parameters() if value.requires_grad and value.grad is None]
    with torch.no_grad():
        assert len(model.eval()([batched_input(96, 64, 0)])[0]["instances"]) == 7
