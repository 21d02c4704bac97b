"""Where queries come from: learned, made of the encoder's proposals, or both."""

import math

import pytest
import torch
from torch import Tensor, nn

from lite_detr_d2.modeling.heads import DetectionHead
from lite_detr_d2.modeling.query_selection import LearnedQueries, ProposalEmbedding, QuerySelection, anchor_logits
from lite_detr_d2.structures import FlattenedFeatures

from ..helpers import random_features

SHAPES = ((8, 6), (4, 3))
CHANNELS, CLASSES = 32, 7


def selection(
    num_queries: int = 5,
    *,
    class_agnostic: bool = False,
    trains_all: bool | None = None,
    content: int = 0,
    proposals: bool = False,
) -> QuerySelection:
    """A selection whose head moves the anchors; ``content`` is how many queries have a learned one.

    If nothing else is said, it trains all tokens where it tells no classes apart, as the published ones.
    """
    head = DetectionHead(CHANNELS, CLASSES)
    nn.init.normal_(head.box_embed.layers[-1].weight, std=0.3)
    return QuerySelection(
        num_queries=num_queries,
        head=head,
        class_agnostic=class_agnostic,
        trains_all=class_agnostic if trains_all is None else trains_all,
        content=nn.Embedding(content, CHANNELS) if content else None,
        proposal_embed=ProposalEmbedding(CHANNELS) if proposals else None,
    )


def memory(model: QuerySelection, features: FlattenedFeatures) -> Tensor:
    """The tokens that are proposed from, of which the unusable ones are empty."""
    _, usable = anchor_logits(features)
    result: Tensor = model.norm(model.proj(features.tokens * usable[..., None]))
    return result


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
    model, features = selection(content=5), random_features(SHAPES)
    queries, proposals = model(features)
    logits = model.head.logits(memory(model, features))
    best = logits.amax(-1).sort(dim=1, descending=True).values[:, :5]
    torch.testing.assert_close(proposals.predictions.logits.amax(-1), best)
    torch.testing.assert_close(queries.reference.sigmoid(), proposals.predictions.boxes)
    assert not queries.reference.requires_grad and proposals.predictions.boxes.requires_grad
    torch.testing.assert_close(queries.content, model.content.weight.expand(2, -1, -1))
    assert queries.position is None


def test_class_agnostic_proposals_rank_by_class_0() -> None:
    model, features = selection(class_agnostic=True, proposals=True), random_features(SHAPES)
    queries, _ = model(features)
    tokens, (anchors, _) = memory(model, features), anchor_logits(features)
    logits = model.head.logits(tokens)
    best = logits[..., 0].argsort(dim=1, descending=True)[:, :5]
    assert best.tolist() != logits.amax(-1).argsort(dim=1, descending=True)[:, :5].tolist()
    expected = (anchors + model.head.box_offsets(tokens)).gather(1, best[..., None].expand(-1, -1, 4))
    torch.testing.assert_close(queries.reference, expected)
    assert not queries.reference.requires_grad


def test_class_agnostic_proposals_are_trained_from_all_tokens() -> None:
    """Those of unusable anchors are boxes of ones, and their gradients are finite."""
    model, features = selection(class_agnostic=True, proposals=True), random_features(SHAPES)
    features.tokens.requires_grad_()
    _, proposals = model(features)
    _, usable = anchor_logits(features)
    torch.testing.assert_close(proposals.predictions.logits, model.head.logits(memory(model, features)))
    assert proposals.predictions.boxes.shape == (2, 60, 4)
    assert bool((proposals.predictions.boxes[~usable] == 1).all()) and bool(
        (proposals.predictions.boxes[usable] < 1).all()
    )
    (proposals.predictions.boxes.square().sum() + proposals.predictions.logits.square().sum()).backward()
    gradients = [features.tokens.grad, *(parameter.grad for parameter in model.head.parameters())]
    assert all(bool(gradient.isfinite().all()) and bool(gradient.any()) for gradient in gradients)
    assert not features.tokens.grad[~usable].any() and bool(features.tokens.grad[usable].any(-1).all())


def test_content_of_the_proposals() -> None:
    model = selection(class_agnostic=True, proposals=True)
    queries, _ = model(random_features(SHAPES))
    position, content = model.proposal_embed(queries.reference.sigmoid())
    torch.testing.assert_close(queries.position, position)
    torch.testing.assert_close(queries.content, content)
    assert not torch.equal(position, content)


def test_mixed_selection_learns_the_content_and_places_it_by_the_proposals() -> None:
    model = selection(class_agnostic=True, content=9, proposals=True)
    queries, _ = model(random_features(SHAPES))
    torch.testing.assert_close(queries.content, model.content.weight[:5].expand(2, -1, -1))
    torch.testing.assert_close(queries.position, model.proposal_embed(queries.reference.sigmoid())[0])


def test_queries_need_a_content() -> None:
    with pytest.raises(ValueError, match="give content, proposal_embed, or both"):
        selection()


def test_more_queries_than_are_learned() -> None:
    features = random_features(SHAPES)
    for model in (selection(content=9, proposals=True), LearnedQueries(CHANNELS, num_queries=5, num_extra=4)):
        assert len(model(features, 4)[0]) == 9
        with pytest.raises(ValueError, match="10 queries are asked for, and the content of 9 is learned"):
            model(features, 5)


@pytest.mark.parametrize("class_agnostic", [False, True])
def test_more_queries_than_tokens(class_agnostic: bool) -> None:
    model = selection(50, class_agnostic=class_agnostic, content=100, proposals=True)
    queries, proposals = model(random_features(SHAPES), 50)
    assert len(queries) == 60
    assert queries.content.shape == queries.position.shape == (2, 60, CHANNELS)
    assert queries.reference.shape == (2, 60, 4) and proposals.predictions.logits.shape == (2, 60, CLASSES)
    # The second image has unusable tokens, whose references are infinite: nothing else is.
    assert bool(queries.reference[1].isinf().any()) and bool(queries.position.isfinite().all())


@pytest.mark.parametrize("class_agnostic", [False, True])
def test_evaluation_selects_the_first_of_trainings_queries(class_agnostic: bool) -> None:
    model, features = selection(class_agnostic=class_agnostic, content=12, proposals=True), random_features(SHAPES)
    trained, proposals = model(features, 7)
    evaluated, nothing = model.eval()(features)
    assert proposals is not None and nothing is None
    for name in ("content", "reference", "position"):
        torch.testing.assert_close(getattr(evaluated, name), getattr(trained[:5], name))


def test_learned_queries_are_alike_for_every_image() -> None:
    model = LearnedQueries(CHANNELS, num_queries=3, num_extra=3)
    features = random_features(SHAPES, images=3)
    queries, proposals = model(features, 1)
    assert proposals is None and len(queries) == 4
    for image in range(3):
        torch.testing.assert_close(queries.content[image], model.content.weight[:4])
        torch.testing.assert_close(queries.position[image], model.position.weight[:4])
        torch.testing.assert_close(queries.reference[image], model.reference_points(model.position.weight[:4]))
    assert queries.reference.shape == (3, 4, 2)


def test_learned_reference_points_pass_gradients_on() -> None:
    model = LearnedQueries(CHANNELS, num_queries=3, num_extra=3)
    queries, _ = model(random_features(SHAPES), 1)
    queries.reference.sum().backward()
    assert bool(model.reference_points.weight.grad.any())
    used = model.position.weight.grad.any(-1)
    assert bool(used[:4].all()) and not used[4:].any()


def test_proposals_are_embedded_as_sines_of_x_y_w_h() -> None:
    """The first half, x and y, becomes the position where the projection keeps the order."""
    embed = ProposalEmbedding(num_channels=8)
    nn.init.eye_(embed.proj.weight)
    nn.init.zeros_(embed.proj.bias)
    embed.norm = nn.Identity()
    box = torch.tensor([0.1, 0.2, 0.3, 0.4])
    position, content = embed(box.expand(2, 3, 4))
    assert position.shape == content.shape == (2, 3, 8)
    # Four channels a coordinate, at temperature 10000: the second pair is slower by its square root.
    angles = 2 * math.pi * torch.stack((box, box / 100), dim=-1)
    expected = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)
    torch.testing.assert_close(position[1, 2], expected[:2].flatten())
    torch.testing.assert_close(content[1, 2], expected[2:].flatten())


def test_position_and_content_of_proposals_are_normalised_together() -> None:
    position, content = ProposalEmbedding(CHANNELS)(torch.rand(2, 5, 4))
    both = torch.cat((position, content), dim=-1)
    torch.testing.assert_close(both.mean(-1), torch.zeros(2, 5), atol=1e-5, rtol=0)
    torch.testing.assert_close(both.var(-1, correction=0), torch.ones(2, 5), atol=1e-3, rtol=0)
