import pytest
import torch
from torch import Tensor, nn

from lite_detr_d2.encoder_spec import EncoderSpec
from lite_detr_d2.modeling.attention_spec import AttentionSpec
from lite_detr_d2.modeling.encoder import DeformableEncoder
from lite_detr_d2.modeling.interleaved import InterleavedEncoder, JointEncoderLayer
from lite_detr_d2.structures import FlattenedFeatures

from ..helpers import random_features

SHAPES = ((8, 6), (4, 3), (2, 2))
LOW, HIGH, ALL = (0, 48), (48, 64), (0, 64)  # of H2L1


def interleaved(text: str, fusion: str = "joint", ratio: int = 8, key_aware: bool = True) -> InterleavedEncoder:
    attention = AttentionSpec(num_channels=32, num_heads=4, num_levels=3, num_points=2, key_aware=key_aware)
    return InterleavedEncoder(
        spec=EncoderSpec.parse(text),
        fusion=fusion,
        attention=attention,
        dim_feedforward=64,
        low_level_ffn_ratio=ratio,
        dropout=0.0,
    ).double()


def refined_ranges(encoder: nn.Module, features: FlattenedFeatures) -> list[tuple[int, int]]:
    """Which tokens each layer changed, by watching its input and output."""
    ranges, state = [], features.tokens
    keys: list[Tensor] = []
    for layer in encoder.layers:
        layer.register_forward_hook(lambda module, args, output: keys.append(args[3].tokens))
    keys.append(encoder(features).tokens)
    for after in keys[1:]:
        changed = (after != state).flatten(2).any(-1).any(0).nonzero().flatten()
        ranges.append((int(changed[0]), int(changed[-1]) + 1))
        state = after
    return ranges


def test_layers_refine_what_the_spec_says() -> None:
    features = random_features(SHAPES, dtype=torch.float64)
    assert refined_ranges(interleaved("H2L1-(2+1)x2"), features) == [HIGH, ALL, HIGH, ALL]
    assert refined_ranges(interleaved("H2L1-(2+1)x2", "sequential"), features) == [HIGH, HIGH, LOW, HIGH, HIGH, LOW]
    assert refined_ranges(interleaved("H2L1-(2+1)x2", "high_only"), features) == [HIGH, HIGH, HIGH, HIGH]
    assert refined_ranges(interleaved("H1L2-(3+1)x1"), features) == [(60, 64), (60, 64), ALL]


def test_low_level_tokens_have_their_own_narrow_network() -> None:
    joint, sequential = interleaved("H2L1-(2+1)x1"), interleaved("H2L1-(2+1)x1", "sequential")
    assert isinstance(joint.layers[-1], JointEncoderLayer)
    assert joint.layers[-1].low_feed_forward.linear1.out_features == 64 // 8
    assert joint.layers[-1].feed_forward.linear1.out_features == 64
    assert sequential.layers[-1].feed_forward.linear1.out_features == 64 // 8
    assert sequential.layers[0].feed_forward.linear1.out_features == 64


def test_one_network_for_all_tokens() -> None:
    """Ratio 0 and A = 1: every layer is one of the plain encoder's."""
    features = random_features(SHAPES, dtype=torch.float64)
    ours = interleaved("H2L1-(1+1)x2", ratio=0, key_aware=False)
    attention = AttentionSpec(num_channels=32, num_heads=4, num_levels=3, num_points=2)
    plain = DeformableEncoder(attention=attention, num_layers=2, dim_feedforward=64, dropout=0.0).double()
    plain.load_state_dict(ours.state_dict(), strict=True)
    torch.testing.assert_close(ours(features).tokens, plain(features).tokens, rtol=0, atol=0)


@pytest.mark.parametrize("fusion", ["joint", "sequential"])
def test_padded_tokens_change_no_valid_one(fusion: str) -> None:
    encoder = interleaved("H2L1-(2+1)x2", fusion)
    features = random_features(SHAPES, dtype=torch.float64)
    keep = ~features.padding
    clean = encoder(features).tokens
    poisoned = encoder(features.with_tokens(torch.where(keep[..., None], features.tokens, 1e3))).tokens
    torch.testing.assert_close(clean[keep], poisoned[keep], rtol=0, atol=0)
    assert bool((clean[~keep] != poisoned[~keep]).any())


def test_a_single_valid_token_reaches_every_level() -> None:
    """Cross-scale fusion: a change of one fine token is seen by high-level tokens, and by fine ones after a block."""
    encoder = interleaved("H2L1-(2+1)x2")
    for layer in encoder.layers:
        nn.init.normal_(layer.attention.sampling_offsets.weight, std=0.5)
    features = random_features(SHAPES, images=1, dtype=torch.float64)
    tokens = features.tokens.clone()
    tokens[0, 20] += 1.0
    changed = (encoder(features).tokens != encoder(features.with_tokens(tokens)).tokens).any(-1)[0]
    assert bool(changed[48:].any()) and bool(changed[:20].any())


def test_constructor_reports_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"H3L1-\(2\+1\)x1 needs 4 levels, the attention has 3"):
        interleaved("H3L1-(2+1)x1")
    with pytest.raises(ValueError, match="not a multiple of 7"):
        interleaved("H2L1-(2+1)x1", ratio=7)
