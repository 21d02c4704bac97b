import pytest
import torch
from torch import nn

from lite_detr_d2.modeling.attention import SelfAttention
from lite_detr_d2.modeling.attention_spec import AttentionSpec
from lite_detr_d2.modeling.geometry import reference_points_of_tokens
from lite_detr_d2.ops import reference

from ..helpers import random_features
from ..ops.cases import weighted_sum

SHAPES = ((6, 5), (3, 3))


def spec(**options: bool) -> AttentionSpec:
    return AttentionSpec(num_channels=32, num_heads=4, num_levels=2, num_points=3, **options)


@pytest.mark.parametrize("key_proj", [False, True])
def test_key_aware_attention_is_its_definition(key_proj: bool) -> None:
    layer = spec(key_aware=True, key_proj=key_proj).build()
    nn.init.normal_(layer.sampling_offsets.weight, std=0.3)
    features = random_features(SHAPES)
    points = reference_points_of_tokens(features.shapes, features.valid_ratios)
    query = features.tokens + features.position

    def heads(values: torch.Tensor) -> torch.Tensor:
        return values.unflatten(-1, (4, 8))

    keep = ~features.padding[..., None]
    expected = reference.key_aware_deform_attn(
        heads(layer.query_proj(query)),
        heads(layer.value_proj(features.tokens) * keep),
        SHAPES,
        points,
        layer.sampling_offsets(query).view(2, -1, 4, 2, 3, 2),
        heads((layer.key_proj if key_proj else layer.value_proj)(features.tokens) * keep),
    )
    torch.testing.assert_close(layer(query, points, features), layer.output_proj(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reference_size", [2, 4])
@pytest.mark.parametrize("options", [{}, {"key_aware": True}, {"key_aware": True, "key_proj": True}])
def test_sampling_is_what_forward_does(options: dict[str, bool], reference_size: int) -> None:
    layer = spec(**options).build().double()
    nn.init.normal_(layer.sampling_offsets.weight, std=0.3)
    for name, parameter in layer.named_parameters():
        if "attention_weights" in name:
            nn.init.normal_(parameter)
    features = random_features(SHAPES, dtype=torch.float64)
    query, points = torch.randn(2, 5, 32, dtype=torch.float64), torch.rand(2, 5, 2, reference_size, dtype=torch.float64)
    attended: list[torch.Tensor] = []
    layer.output_proj.register_forward_pre_hook(lambda module, args: attended.append(args[0]))
    layer(query, points, features)
    value = (layer.value_proj(features.tokens) * ~features.padding[..., None]).unflatten(-1, (4, 8))
    expected = weighted_sum(value, SHAPES, *layer.sampling(query, points, features))
    torch.testing.assert_close(attended[0], expected)


def test_deformable_attention_starts_by_looking_around() -> None:
    """Initial offsets: head 0 looks right, point k by k + 1 pixels, on every level; all weights are equal."""
    layer = spec().build()
    offsets = layer.sampling_offsets.bias.view(4, 2, 3, 2)
    right = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])
    torch.testing.assert_close(offsets[0], torch.stack((right, right)))
    torch.testing.assert_close(offsets[1], torch.stack((right, right)).flip(-1))
    assert not layer.attention_weights.weight.any()


@pytest.mark.parametrize("options", [{}, {"key_aware": True}, {"key_aware": True, "key_proj": True}])
def test_padded_tokens_are_not_seen(options: dict[str, bool]) -> None:
    layer = spec(**options).build()
    features = random_features(SHAPES)
    points = reference_points_of_tokens(features.shapes, features.valid_ratios)
    query = torch.randn_like(features.tokens)
    poisoned = torch.where(features.padding[..., None], torch.tensor(1e4), features.tokens)
    torch.testing.assert_close(layer(query, points, features), layer(query, points, features.with_tokens(poisoned)))


@pytest.mark.parametrize("recorded", [False, True])
def test_padding_is_masked_in_place_only_without_gradients(recorded: bool) -> None:
    layer, features = spec(key_aware=True).build(), random_features(SHAPES)
    points = reference_points_of_tokens(features.shapes, features.valid_ratios)
    values: list[torch.Tensor] = []
    layer.value_proj.register_forward_hook(lambda module, args, output: values.append(output))
    with torch.set_grad_enabled(recorded):
        layer(features.tokens, points, features)
    assert bool(values[0][features.padding].any()) == recorded
    assert bool(values[0][~features.padding].all())


def test_self_attention_is_torchs() -> None:
    ours = SelfAttention(num_channels=32, num_heads=4, dropout=0.0)
    theirs = nn.MultiheadAttention(32, 4, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat((ours.query_key_proj.weight, ours.value_proj.weight)))
        theirs.in_proj_bias.normal_()
        ours.query_key_proj.bias.copy_(theirs.in_proj_bias[:64])
        ours.value_proj.bias.copy_(theirs.in_proj_bias[64:])
        theirs.out_proj.load_state_dict(ours.output_proj.state_dict())
    tokens, position = torch.randn(2, 7, 32), torch.randn(2, 7, 32)
    mask = torch.rand(7, 7) < 0.3
    mask.fill_diagonal_(False)
    for blocked in (None, mask):
        expected, _ = theirs(tokens + position, tokens + position, tokens, attn_mask=blocked)
        torch.testing.assert_close(ours(tokens, position, blocked), expected)


def test_wrong_combinations_are_errors() -> None:
    with pytest.raises(ValueError, match="key_proj needs key_aware"):
        spec(key_proj=True)
    with pytest.raises(ValueError, match=r"num_channels \(30\) must be a multiple of num_heads \(4\)"):
        AttentionSpec(num_channels=30, num_heads=4, num_levels=1, num_points=1).build()
