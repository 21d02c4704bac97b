"""Query selection, denoising and the decoder."""

import math

import pytest
import torch

from lite_detr_d2.modeling.attention_spec import AttentionSpec
from lite_detr_d2.modeling.decoder import Decoder
from lite_detr_d2.modeling.denoising import ContrastiveDenoising
from lite_detr_d2.modeling.heads import DetectionHead
from lite_detr_d2.modeling.query_selection import QuerySelection, anchor_logits
from lite_detr_d2.structures import Targets

from ..helpers import random_features

SHAPES = ((8, 6), (4, 3))


def targets(*counts: int) -> list[Targets]:
    return [
        Targets(
            labels=torch.randint(5, (count,)),
            boxes=torch.cat((0.3 + 0.4 * torch.rand(count, 2), 0.1 + 0.2 * torch.rand(count, 2)), dim=1),
            name=str(count),
        )
        for count in counts
    ]


def denoising(num_queries: int = 60, label_noise: float = 0.0, box_noise: float = 0.0) -> ContrastiveDenoising:
    sizes = {"num_channels": 32, "num_classes": 5, "num_queries": num_queries}
    return ContrastiveDenoising(**sizes, label_noise=label_noise, box_noise=box_noise, logit_eps=1e-3)


def test_anchors() -> None:
    logits, usable = anchor_logits(random_features(SHAPES))
    boxes = logits.sigmoid()
    torch.testing.assert_close(boxes[0, 0], torch.tensor([0.5 / 6, 0.5 / 8, 0.05, 0.05]))
    torch.testing.assert_close(boxes[0, 48], torch.tensor([0.5 / 3, 0.5 / 4, 0.1, 0.1]))
    assert bool(usable[0].all())
    assert bool(logits[~usable].isinf().all()) and bool(logits[usable].isfinite().all())
    assert int(usable[1].sum()) == 4 * 3 + 2 * 2


def test_tokens_at_the_very_edge_are_unusable() -> None:
    _, usable = anchor_logits(random_features(((2, 200),)))
    width = usable[0].view(2, 200)[0]
    assert not bool(width[0]) and not bool(width[1]) and bool(width[2])  # centres 0.0025, 0.0075, 0.0125 of the image


def test_best_proposals_are_selected() -> None:
    selection = QuerySelection(32, num_queries=5, head=DetectionHead(32, 7))
    features = random_features(SHAPES)
    content, reference, proposals = selection(features)
    _, usable = anchor_logits(features)
    tokens = selection.norm(selection.proj(features.tokens * usable[..., None]))
    best = selection.head.logits(tokens).amax(-1).sort(dim=1, descending=True).values[:, :5]
    torch.testing.assert_close(proposals.logits.amax(-1), best)
    torch.testing.assert_close(reference.sigmoid(), proposals.boxes)
    assert not reference.requires_grad and proposals.boxes.requires_grad
    torch.testing.assert_close(content, selection.content.weight.expand(2, -1, -1))


def test_more_queries_than_tokens() -> None:
    content, reference, proposals = QuerySelection(32, 100, DetectionHead(32, 7))(random_features(SHAPES))
    assert content.shape == (2, 60, 32) and reference.shape == (2, 60, 4) and proposals.logits.shape == (2, 60, 7)


@pytest.mark.parametrize(
    ("num_queries", "most", "groups"), [(100, 3, 33), (100, 150, 1), (50, 7, 7), (49, 7, 98), (100, 0, 1)]
)
def test_number_of_denoising_groups(num_queries: int, most: int, groups: int) -> None:
    group = denoising(num_queries)(targets(most, min(most, 2)))
    assert group.target_repeats == groups
    assert len(group) == groups * 2 * most


def test_denoising_without_noise_is_the_ground_truth() -> None:
    truth = targets(3, 1)
    layer = denoising()
    group = layer(truth)
    content, reference = group.content.view(2, -1, 2, 3, 32), group.reference.view(2, -1, 2, 3, 4)
    assert content.shape[1] == group.target_repeats == 20
    for index, target in enumerate(truth):
        expected = layer.label_embed(target.labels).expand(20, 2, -1, -1)
        torch.testing.assert_close(content[index, :, :, : len(target)], expected)
        boxes = reference[index, :, :, : len(target)].sigmoid()
        torch.testing.assert_close(boxes, target.boxes.expand_as(boxes))
    assert not content[1, :, :, 1:].any() and not reference[1, :, :, 1:].any()


def test_denoising_noise_stays_in_its_range() -> None:
    truth = [
        Targets(
            labels=torch.zeros(200, dtype=torch.long),
            boxes=torch.tensor([[0.5, 0.5, 0.2, 0.1]]).repeat(200, 1),
            name="",
        )
    ]
    group = denoising(label_noise=0.5, box_noise=1.0)(truth)
    boxes = group.reference.sigmoid().view(2, 200, 4)
    corners = torch.cat((boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2), dim=-1)
    moved = (corners - torch.tensor([0.4, 0.45, 0.6, 0.55])).abs() / torch.tensor([0.1, 0.05, 0.1, 0.05])
    # Boxes whose corners crossed have a negative size, which the inverse sigmoid clamps: look at the others.
    proper = (boxes[..., 2:] > 0.002).all(-1)
    positive, negative = moved[0][proper[0]], moved[1][proper[1]]
    assert float(positive.max()) < 1.0 + 1e-2 and float(positive.mean()) == pytest.approx(0.5, abs=0.1)
    assert float(negative.min()) > 1.0 - 1e-2 and float(negative.max()) < 2.0 + 1e-2


def test_a_quarter_of_the_labels_flips() -> None:
    layer = denoising(label_noise=0.5)
    noised = layer._noised_labels(torch.full((20000,), 2))
    # One in five random labels is the label itself.
    assert float((noised != 2).float().mean()) == pytest.approx(0.25 * 0.8, abs=0.02)
    assert set(noised.tolist()) == set(range(5))


def test_denoising_assigns_positives_only() -> None:
    truth = targets(3, 0, 1)
    group = denoising(60)(truth)
    groups = group.target_repeats
    assert groups == 20
    matches = group.assign(group.content, group.reference, [target.repeated(groups) for target in truth])
    for target, (queries, indices) in zip(truth, matches, strict=True):
        assert indices.tolist() == list(range(len(target) * groups))
        assert queries.tolist() == [start * 6 + slot for start in range(groups) for slot in range(len(target))]


def test_denoising_without_any_box_is_empty_and_differentiable() -> None:
    layer = denoising()
    group = layer(targets(0, 0))
    assert len(group) == 0
    group.content.sum().backward()
    assert layer.label_embed.weight.grad is not None


def decoder(num_heads: int = 1, num_layers: int = 3) -> Decoder:
    attention = AttentionSpec(num_channels=32, num_heads=4, num_levels=2, num_points=2, key_aware=True)
    heads = [DetectionHead(32, 5) for _ in range(num_heads)]
    for head in heads:
        torch.nn.init.normal_(head.box_embed.layers[-1].weight, std=0.3)
    sizes = {"num_layers": num_layers, "dim_feedforward": 64, "dropout": 0.0}
    return Decoder(attention=attention, **sizes, heads=heads, logit_eps=1e-3)


def test_boxes_are_refined_and_gradients_look_forward_twice() -> None:
    model, features = decoder(num_heads=3), random_features(SHAPES)
    decoded = model(torch.randn(2, 6, 32), torch.randn(2, 6, 4), features, None)
    assert len(decoded) == 3
    prediction = model.predict(decoded, 2)
    assert prediction.logits.shape == (2, 6, 5) and prediction.boxes.shape == (2, 6, 4)
    assert torch.equal(prediction.boxes, model.predict(decoded, -1).boxes)

    # A layer's boxes stand on the reference that the layer before handed on, through which the gradient flows ...
    assert bool(torch.autograd.grad(prediction.boxes.sum(), decoded[2].boxes, retain_graph=True)[0].any())
    handed_on = decoded[2].boxes.sum()
    head, first_head = model.heads[1].box_embed.layers[-1].weight, model.heads[0].box_embed.layers[-1].weight
    assert bool(torch.autograd.grad(handed_on, head, retain_graph=True)[0].any())
    # ... and which itself stands on a detached one.
    assert torch.autograd.grad(handed_on, first_head, retain_graph=True, allow_unused=True)[0] is None


def test_references_that_steer_attention_are_detached() -> None:
    model, features = decoder(), random_features(SHAPES)
    seen = []
    model.position.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    model(torch.randn(2, 6, 32), torch.randn(2, 6, 4, requires_grad=True), features, None)
    assert len(seen) == 3 and not any(boxes.requires_grad for boxes in seen)


def test_masked_queries_do_not_influence_others() -> None:
    model, features = decoder(), random_features(SHAPES)
    content, reference = torch.randn(2, 6, 32), torch.randn(2, 6, 4)
    mask = torch.zeros(6, 6, dtype=torch.bool)
    mask[:4, 4:] = True
    both = model.predict(model(content, reference, features, mask), -1)
    alone = model.predict(model(content[:, :4], reference[:, :4], features, None), -1)
    torch.testing.assert_close(both.boxes[:, :4], alone.boxes)
    torch.testing.assert_close(both.logits[:, :4], alone.logits)


def test_a_head_per_layer_or_one_for_all() -> None:
    features = random_features(SHAPES)
    assert len(decoder(num_heads=3)(torch.randn(2, 6, 32), torch.randn(2, 6, 4), features, None)) == 3
    with pytest.raises(ValueError, match="2 heads for 3 decoder layers"):
        decoder(num_heads=2)


def test_classes_start_rare() -> None:
    head = DetectionHead(32, 5)
    torch.testing.assert_close(head.class_embed.bias, torch.full((5,), math.log(0.01 / 0.99)))
    assert not head.box_offsets(torch.randn(3, 32)).any()
