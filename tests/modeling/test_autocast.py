"""Layers under autocast: products are half, what is passed from layer to layer is not."""

from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch.testing import assert_close

from lite_detr_d2.modeling.attention_spec import AttentionSpec
from lite_detr_d2.modeling.encoder import EncoderLayer
from lite_detr_d2.modeling.geometry import reference_points_of_tokens
from lite_detr_d2.modeling.layers import FeedForward

from ..helpers import DETECTORS, batched_input, choose_detector, random_features

SHAPES = ((8, 6), (4, 3), (2, 2))


def test_residual_of_a_feed_forward_network_is_not_rounded() -> None:
    layer, tokens = FeedForward(32, 64, dropout=0.0), torch.randn(2, 5, 32)
    torch.nn.init.zeros_(layer.linear2.weight)
    torch.nn.init.zeros_(layer.linear2.bias)
    with torch.autocast("cpu", torch.bfloat16):
        refined = layer(tokens)
    assert refined.dtype == torch.float32
    assert_close(refined, layer.norm(tokens), rtol=1e-6, atol=1e-6)


def test_residual_of_an_attention_is_not_rounded() -> None:
    attention = AttentionSpec(num_channels=32, num_heads=4, num_levels=3, num_points=2, key_aware=True)
    layer, features = EncoderLayer(attention, 64, dropout=0.0), random_features(SHAPES)
    torch.nn.init.zeros_(layer.attention.output_proj.weight)
    torch.nn.init.zeros_(layer.attention.output_proj.bias)
    reference_points = reference_points_of_tokens(features.shapes, features.valid_ratios)
    with torch.autocast("cpu", torch.bfloat16):
        attended = layer.attend(features.tokens, features.position, reference_points, features)
    assert attended.dtype == torch.float32
    assert_close(attended, layer.norm(features.tokens), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", DETECTORS)
def test_queries_and_boxes_are_full_from_layer_to_layer(small_cfg: CfgNode, name: str) -> None:
    choose_detector(small_cfg, name)
    model, seen = build_model(small_cfg), []

    def note(module: Any, args: Any, output: Any) -> None:
        for index, layer in enumerate(output):
            seen.extend((layer.queries.dtype, layer.reference.dtype, module.predict(output, index).boxes.dtype))

    model.decoder.register_forward_hook(note)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        losses = model([batched_input(64, 96, 3)])
        model.eval()([batched_input(64, 96, 0)])
    assert set(seen) == {torch.float32} and len(seen) == 2 * 2 * 3
    assert all(bool(loss.isfinite()) for loss in losses.values())
