"""The decoder: how references and gradients go from layer to layer, and the heads."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lite_detr_d2.modeling.attention_spec import AttentionSpec
from lite_detr_d2.modeling.decoder import BoxPosition, Decoder
from lite_detr_d2.modeling.geometry import inverse_sigmoid
from lite_detr_d2.modeling.heads import DetectionHead
from lite_detr_d2.modeling.position import box_sines
from lite_detr_d2.structures import Queries

from ..helpers import random_features

SHAPES = ((8, 6), (4, 3))


def decoder(num_heads: int = 1, box_refinement: bool = True, **options: Any) -> Decoder:
    """Three layers, whose heads move boxes."""
    heads = [DetectionHead(32, 5) for _ in range(num_heads)]
    for head in heads:
        nn.init.normal_(head.box_embed.layers[-1].weight, std=0.3)
    defaults = {"look_forward_twice": False, "position": None, "norm": None, "logit_eps": 1e-5}
    return Decoder(
        attention=AttentionSpec(num_channels=32, num_heads=4, num_levels=2, num_points=2, key_aware=True),
        num_layers=3,
        dim_feedforward=64,
        dropout=0.0,
        heads=heads,
        box_refinement=box_refinement,
        **defaults | options,
    )


def like_dino(num_heads: int = 1) -> Decoder:
    norm = nn.LayerNorm(32)
    nn.init.normal_(norm.weight)
    return decoder(num_heads, look_forward_twice=True, position=BoxPosition(32), norm=norm, logit_eps=1e-3)


def queries(coordinates: int = 4, **options: bool) -> Queries:
    """Six queries that start from boxes, or from points."""
    return Queries(torch.randn(2, 6, 32), torch.randn(2, 6, coordinates, **options), torch.randn(2, 6, 32))


def steered_by(model: Decoder) -> list[Tensor]:
    """A list that fills with the reference points of every layer, as ``model`` runs."""
    seen: list[Tensor] = []
    for layer in model.layers:
        layer.register_forward_hook(lambda module, args, output: seen.append(args[2]))
    return seen


def gradient(of: Tensor, with_respect_to: Tensor) -> Tensor | None:
    found: Tensor | None = torch.autograd.grad(of.sum(), with_respect_to, retain_graph=True, allow_unused=True)[0]
    return found


@pytest.mark.parametrize("coordinates", [2, 4])
@pytest.mark.parametrize("num_heads", [1, 3])
def test_without_refinement_every_layer_starts_from_the_first_reference(num_heads: int, coordinates: int) -> None:
    model, features, initial = decoder(num_heads, box_refinement=False), random_features(SHAPES), queries(coordinates)
    steering = steered_by(model)
    decoded = model(initial, features, None)
    first = initial.reference.sigmoid()
    on_levels = first[:, :, None] * features.valid_ratios.repeat(1, 1, coordinates // 2)[:, None]
    assert len(decoded) == len(steering) == 3
    for index in range(3):
        torch.testing.assert_close(decoded[index].reference, first)
        torch.testing.assert_close(steering[index], on_levels)
        offsets = model.heads[index % num_heads].box_offsets(decoded[index].queries)
        offsets[..., :coordinates] += initial.reference
        torch.testing.assert_close(model.predict(decoded, index).boxes, offsets.sigmoid())


def test_with_refinement_every_layer_starts_from_the_boxes_before() -> None:
    model, features, initial = decoder(num_heads=3), random_features(SHAPES), queries()
    steering = steered_by(model)
    decoded = model(initial, features, None)
    torch.testing.assert_close(decoded[0].reference, initial.reference.sigmoid())
    for index in (1, 2):
        before = model.predict(decoded, index - 1).boxes
        torch.testing.assert_close(decoded[index].reference, before)
        assert before.requires_grad and not decoded[index].reference.requires_grad
        on_levels = before[:, :, None] * features.valid_ratios.repeat(1, 1, 2)[:, None]
        torch.testing.assert_close(steering[index], on_levels)
        expected = (inverse_sigmoid(before, 1e-5) + model.heads[index].box_offsets(decoded[index].queries)).sigmoid()
        torch.testing.assert_close(model.predict(decoded, index).boxes, expected)


def test_refinement_turns_points_into_boxes() -> None:
    model, features, initial = decoder(num_heads=3), random_features(SHAPES), queries(coordinates=2)
    steering = steered_by(model)
    decoded = model(initial, features, None)
    assert [layer.reference.shape[-1] for layer in decoded] == [2, 4, 4]
    assert [tuple(points.shape) for points in steering] == [(2, 6, 2, 2), (2, 6, 2, 4), (2, 6, 2, 4)]
    offsets = model.heads[0].box_offsets(decoded[0].queries)
    expected = torch.cat((initial.reference + offsets[..., :2], offsets[..., 2:]), dim=-1).sigmoid()
    torch.testing.assert_close(model.predict(decoded, 0).boxes, expected)
    torch.testing.assert_close(decoded[1].reference, expected)


def test_gradients_look_forward_twice() -> None:
    model, features = like_dino(num_heads=3), random_features(SHAPES)
    decoded = model(queries(), features, None)
    assert len(decoded) == 3
    prediction = model.predict(decoded, 2)
    assert prediction.logits.shape == (2, 6, 5) and prediction.boxes.shape == (2, 6, 4)
    assert torch.equal(prediction.boxes, model.predict(decoded, -1).boxes)

    # A layer's boxes stand on the reference that the layer before handed on, through which the gradient flows ...
    handed_on = decoded[2].reference
    assert bool(gradient(prediction.boxes, handed_on).any())
    assert bool(gradient(handed_on, model.heads[1].box_embed.layers[-1].weight).any())
    # ... and which itself stands on a detached one.
    assert gradient(handed_on, model.heads[0].box_embed.layers[-1].weight) is None


def test_looking_forward_twice_changes_gradients_only() -> None:
    features, initial = random_features(SHAPES), queries()
    once, twice = decoder(num_heads=3), decoder(num_heads=3, look_forward_twice=True)
    twice.load_state_dict(once.state_dict())
    for layer in range(3):
        ours, theirs = (model.predict(model(initial, features, None), layer) for model in (once, twice))
        torch.testing.assert_close(ours.boxes, theirs.boxes, rtol=0, atol=0)
        torch.testing.assert_close(ours.logits, theirs.logits, rtol=0, atol=0)


def test_boxes_are_handed_on_before_the_normalisation() -> None:
    model, features = like_dino(), random_features(SHAPES)
    initial = queries()
    decoded = model(initial, features, None)
    offsets = model.heads[0].box_offsets(decoded[0].queries)
    expected = (inverse_sigmoid(initial.reference.sigmoid(), 1e-3) + offsets).sigmoid()
    torch.testing.assert_close(decoded[1].reference, expected)
    predicted = model.predict(decoded, 0).boxes
    assert not torch.allclose(predicted, expected, atol=1e-3)


def test_first_references_steer_with_their_gradient_and_refined_ones_without() -> None:
    features = random_features(SHAPES)
    expected = {"unrefined": [True, True, True], "refined": [True, False, False], "twice": [True, False, False]}
    found = {}
    for name, model in {
        "unrefined": decoder(box_refinement=False),
        "refined": decoder(),
        "twice": decoder(look_forward_twice=True),
    }.items():
        steering = steered_by(model)
        model(queries(2, requires_grad=True), features, None)
        found[name] = [points.requires_grad for points in steering]
    assert found == expected


def test_learned_references_are_trained_by_every_layer_that_starts_from_them() -> None:
    """Read off the boxes' references alone: what attention passes on is not looked at."""
    features, initial = random_features(SHAPES), queries(2, requires_grad=True)
    unrefined = decoder(box_refinement=False)(initial, features, None)
    assert all(bool(gradient(layer.reference, initial.reference).all()) for layer in unrefined)
    refined = decoder()(initial, features, None)
    assert [layer.reference.requires_grad for layer in refined] == [True, False, False]
    assert bool(gradient(refined[0].reference, initial.reference).all())


def test_box_position_is_made_of_y_x_w_h() -> None:
    position, boxes = BoxPosition(32), torch.rand(2, 6, 4)
    torch.testing.assert_close(position(boxes), position.mlp(box_sines(boxes[..., [1, 0, 2, 3]], 16)))


def test_position_is_made_of_the_boxes_or_brought_along() -> None:
    features, initial = random_features(SHAPES), queries()
    for model, expected in ((decoder(), initial.position), (like_dino(), None)):
        seen: list[tuple[Tensor, Tensor]] = []
        for layer in model.layers:
            layer.register_forward_hook(lambda module, args, output, seen=seen: seen.append((args[1], args[2])))
        model(initial, features, None)
        assert len(seen) == 3
        for position, points in seen:
            made = expected if model.position is None else model.position(points[:, :, 0])
            torch.testing.assert_close(position, made)


def test_a_missing_position_is_an_error() -> None:
    initial = queries()
    with pytest.raises(ValueError, match="without a position need a decoder that makes it"):
        decoder()(Queries(initial.content, initial.reference), random_features(SHAPES), None)


def test_looking_forward_twice_needs_refinement() -> None:
    with pytest.raises(ValueError, match="look_forward_twice needs box_refinement"):
        decoder(box_refinement=False, look_forward_twice=True)


@pytest.mark.parametrize("num_heads", [0, 2, 4])
def test_a_head_per_layer_or_one_for_all(num_heads: int) -> None:
    with pytest.raises(ValueError, match=f"{num_heads} heads for 3 decoder layers: expected 1 or 3"):
        decoder(num_heads)


@pytest.mark.parametrize("num_heads", [1, 3])
def test_each_layer_is_read_by_its_head(num_heads: int) -> None:
    model = like_dino(num_heads)
    decoded = model(queries(), random_features(SHAPES), None)
    for layer in range(3):
        expected = model.heads[layer % num_heads].logits(model.norm(decoded[layer].queries))
        torch.testing.assert_close(model.predict(decoded, layer).logits, expected)
        assert torch.equal(model.predict(decoded, layer - 3).logits, model.predict(decoded, layer).logits)
    assert model.num_classes == 5


@pytest.mark.parametrize("make", [decoder, like_dino])
def test_masked_queries_do_not_influence_others(make: Callable[[], Decoder]) -> None:
    model, features, initial = make(), random_features(SHAPES), queries()
    mask = torch.zeros(6, 6, dtype=torch.bool)
    mask[:4, 4:] = True
    both = model.predict(model(initial, features, mask), -1)
    alone = model.predict(model(initial[:4], features, None), -1)
    torch.testing.assert_close(both.boxes[:, :4], alone.boxes)
    torch.testing.assert_close(both.logits[:, :4], alone.logits)


def test_classes_start_rare() -> None:
    head = DetectionHead(32, 5)
    torch.testing.assert_close(head.class_embed.bias, torch.full((5,), math.log(0.01 / 0.99)))
    assert not head.box_offsets(torch.randn(3, 32)).any()


def test_a_head_for_points_starts_with_a_size() -> None:
    offsets = DetectionHead(32, 5, size_offset=-2.0).box_offsets(torch.randn(3, 32))
    torch.testing.assert_close(offsets, torch.tensor([0.0, 0.0, -2.0, -2.0]).expand(3, -1))
