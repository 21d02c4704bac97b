"""Sparse DETR's encoder: which tokens it refines, what its scores learn, and what stands in padding."""

import math

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor, nn

from lite_detr_d2.detector import DetrDetector
from lite_detr_d2.modeling.attention_map import attention_map, spread
from lite_detr_d2.modeling.attention_spec import AttentionSpec
from lite_detr_d2.modeling.criterion import _score_loss
from lite_detr_d2.modeling.encoder import DeformableEncoder
from lite_detr_d2.modeling.heads import DetectionHead
from lite_detr_d2.modeling.query_selection import ProposalEmbedding, QuerySelection
from lite_detr_d2.modeling.sparse import SparseEncoder
from lite_detr_d2.structures import FlattenedFeatures, TokenScores

from ..helpers import batched_input, choose_detector, random_features, randomised

SHAPES = ((8, 6), (4, 3), (2, 2))  # 64 tokens; of the second image 12 + 4 + 1 are valid
CHANNELS, CLASSES, LAYERS = 32, 7, 3


def sparse(rho: float, *, auxiliary: bool = True, key_aware: bool = False) -> SparseEncoder:
    selection = QuerySelection(
        num_queries=5,
        head=DetectionHead(CHANNELS, CLASSES),
        class_agnostic=False,
        trains_all=True,
        content=None,
        proposal_embed=ProposalEmbedding(CHANNELS, makes_content=False),
    ).double()
    return SparseEncoder(
        attention=AttentionSpec(CHANNELS, num_heads=4, num_levels=3, num_points=2, key_aware=key_aware),
        num_layers=LAYERS,
        dim_feedforward=64,
        dropout=0.0,
        rho=rho,
        auxiliary_heads=[DetectionHead(CHANNELS, CLASSES) for _ in range(LAYERS - 1)] if auxiliary else [],
        candidates=selection.candidates,
    ).double()


def chosen_of(encoder: SparseEncoder, features: FlattenedFeatures) -> Tensor:
    """(N, S) bool: the tokens that are to be refined, found without the encoder."""
    scores = encoder(features).token_scores
    ranks = scores.logits.masked_fill(features.padding, -math.inf).argsort(dim=1, descending=True).argsort(dim=1)
    return ranks < scores.chosen[:, None]


@pytest.mark.parametrize(("rho", "chosen"), [(0.1, [7, 2]), (0.2, [13, 4]), (0.3, [20, 6]), (0.5, [33, 9])])
@pytest.mark.parametrize("key_aware", [False, True])
def test_the_tokens_of_the_highest_scores_are_refined_and_no_others(
    rho: float, chosen: list[int], key_aware: bool
) -> None:
    """Of each image the share of its own tokens, and one more."""
    encoder, features = sparse(rho, key_aware=key_aware), random_features(SHAPES, dtype=torch.float64)
    result = encoder(features)
    assert result.token_scores.chosen.tolist() == chosen
    changed = (result.tokens != features.tokens).any(-1)
    assert torch.equal(changed, chosen_of(encoder, features))
    assert not (changed & features.padding).any()


def test_all_tokens_are_those_of_the_plain_encoder() -> None:
    encoder, features = sparse(1.0), random_features(SHAPES, images=1, dtype=torch.float64)
    features = FlattenedFeatures(
        features.tokens, features.position, torch.zeros_like(features.padding), SHAPES, torch.ones(1, 3, 2).double()
    )
    attention = AttentionSpec(CHANNELS, num_heads=4, num_levels=3, num_points=2)
    plain = DeformableEncoder(attention=attention, num_layers=LAYERS, dim_feedforward=64, dropout=0.0).double()
    plain.load_state_dict({name: tensor for name, tensor in encoder.state_dict().items() if name.startswith("layers")})
    torch.testing.assert_close(encoder(features).tokens, plain(features).tokens)


@pytest.mark.parametrize("shapes", [((1, 1), (1, 1), (1, 1)), ((2, 1), (1, 1), (1, 1))])
@pytest.mark.parametrize("rho", [0.01, 0.3, 1.0])
def test_as_few_tokens_as_there_are(shapes: tuple[tuple[int, int], ...], rho: float) -> None:
    features = random_features(shapes, dtype=torch.float64)
    encoder = sparse(rho)
    result = encoder(features)
    assert result.tokens.shape == features.tokens.shape and bool(result.tokens.isfinite().all())
    changed = (result.tokens != features.tokens).any(-1)
    assert torch.equal(changed.sum(1), result.token_scores.chosen.clamp(max=features.tokens.shape[1]))


def test_padded_tokens_change_no_valid_one_and_no_score() -> None:
    encoder, features = sparse(0.3), random_features(SHAPES, dtype=torch.float64)
    keep = ~features.padding
    poisoned = features.with_tokens(torch.where(keep[..., None], features.tokens, 1e3))
    clean, other = encoder(features), encoder(poisoned)
    torch.testing.assert_close(clean.tokens[keep], other.tokens[keep], rtol=0, atol=0)
    torch.testing.assert_close(clean.token_scores.logits, other.token_scores.logits, rtol=0, atol=0)


def test_tokens_that_an_image_has_not_chosen_are_seen_by_nobody() -> None:
    """An image carries on as many as the other one has chosen: what becomes of them is not in its map."""
    encoder, features = sparse(0.3), random_features(SHAPES, dtype=torch.float64)
    both = encoder(features).tokens[1]
    alone = FlattenedFeatures(
        features.tokens[1:], features.position[1:], features.padding[1:], SHAPES, features.valid_ratios[1:]
    )
    torch.testing.assert_close(encoder(alone).tokens[0], both)


def test_padded_tokens_have_the_lowest_score_of_the_batch_with_its_gradient() -> None:
    encoder, features = sparse(0.3), random_features(SHAPES, dtype=torch.float64)
    logits = encoder(features).token_scores.logits
    assert bool((logits[features.padding] == logits.min()).all())
    encoder.zero_grad()
    logits[features.padding].sum().backward()
    assert bool(encoder.scorer.embed[1].weight.grad.any())


@pytest.mark.parametrize("auxiliary", [False, True])
def test_inner_layers_predict_in_training_only(auxiliary: bool) -> None:
    encoder, features = sparse(0.3, auxiliary=auxiliary), random_features(SHAPES, dtype=torch.float64)
    predictions = encoder(features).auxiliary
    assert [tuple(each.logits.shape) for each in predictions] == [(2, 21, CLASSES)] * (LAYERS - 1) * auxiliary
    assert encoder.eval()(features).auxiliary == ()
    trained = {name for name, _ in encoder.named_parameters()}
    assert any(name.startswith("auxiliary_heads.1") for name in trained) == auxiliary
    assert not [name for name in trained if "candidates" in name or "proj." in name.split("attention")[0]]


def test_the_projection_is_the_second_stages() -> None:
    encoder, features = sparse(0.3), random_features(SHAPES, dtype=torch.float64)
    before = encoder(features).token_scores.logits
    nn.init.normal_(encoder.candidates.__self__.proj.weight)  # type: ignore[union-attr]
    assert not torch.equal(encoder(features).token_scores.logits, before)


def test_what_does_not_fit_is_reported() -> None:
    for rho in (0.0, -0.1, 1.01):
        with pytest.raises(ValueError, match=f"rho is {rho}: expected a share of the tokens"):
            sparse(rho)
    spec = AttentionSpec(CHANNELS, num_heads=4, num_levels=3, num_points=2)
    sizes = {"attention": spec, "num_layers": LAYERS, "dim_feedforward": 64, "dropout": 0.0, "rho": 0.3}
    with pytest.raises(ValueError, match="1 auxiliary heads for 3 layers"):
        SparseEncoder(**sizes, auxiliary_heads=[DetectionHead(CHANNELS, CLASSES)])
    with pytest.raises(ValueError, match="needs the candidates of a query selection"):
        SparseEncoder(**sizes, auxiliary_heads=[])(random_features(SHAPES))


def test_weights_spread_over_four_tokens() -> None:
    """A token's place is its corner: 1.25 of 4 columns and 0.5 of 2 rows is a quarter of the way to column 2."""
    locations = torch.tensor([[[[[[1.25 / 4, 0.5 / 2]]], [[[0.0, 0.0]]]]]]).view(1, 1, 2, 1, 1, 2)
    weights = torch.tensor([2.0, 1.0]).view(1, 1, 2, 1, 1)
    expected = torch.zeros(2, 4)
    expected[0, 1], expected[0, 2], expected[1, 1], expected[1, 2] = 0.75, 0.25, 0.75, 0.25
    expected[0, 0] = 1.0
    torch.testing.assert_close(spread(locations, weights, ((2, 4),)).view(2, 4), expected)


@pytest.mark.parametrize("place", [(-3.0, 0.5), (5.0, 0.5), (0.5, 1e30), (math.nan, 0.5), (math.inf, -math.inf)])
def test_weights_outside_of_the_map_are_lost(place: tuple[float, float]) -> None:
    locations = torch.tensor(place).view(1, 1, 1, 1, 1, 2)
    total = spread(locations, torch.ones(1, 1, 1, 1, 1), ((2, 4),))
    assert total.shape == (1, 8) and not total.any()


def test_levels_lie_one_after_the_other() -> None:
    locations = torch.zeros(1, 1, 1, 3, 1, 2)
    weights = torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 1, 3, 1)
    total = spread(locations, weights, SHAPES)[0]
    assert {index: float(total[index]) for index in total.nonzero().flatten().tolist()} == {0: 1.0, 48: 2.0, 60: 3.0}


def test_scores_learn_which_tokens_are_looked_at_most() -> None:
    logits = torch.tensor([[3.0, -3.0, 3.0, -3.0], [-3.0, -3.0, -3.0, 3.0]])
    attention = torch.tensor([[9.0, 1.0, 8.0, 2.0], [0.0, 0.5, -1.0, 4.0]])
    chosen = torch.tensor([2, 1])
    right = _score_loss(TokenScores(logits, chosen), attention)
    wrong = _score_loss(TokenScores(-logits, chosen), attention)
    torch.testing.assert_close(right, torch.tensor(math.log1p(math.exp(-3))))
    torch.testing.assert_close(wrong, torch.tensor(math.log1p(math.exp(3))))


def detector(cfg: CfgNode, *options: object) -> DetrDetector:
    choose_detector(cfg, "sparse_detr")
    cfg.merge_from_list(
        [f"MODEL.LITE_DETR.{value}" if index % 2 == 0 else value for index, value in enumerate(options)]
    )
    return build_model(cfg)


@pytest.mark.parametrize("key_aware", [False, True])
def test_the_map_is_of_the_matching_queries_and_without_gradient(small_cfg: CfgNode, key_aware: bool) -> None:
    model = randomised(detector(small_cfg, "ENCODER.KEY_AWARE", key_aware)).train()
    seen = []
    model.decoder.register_forward_hook(lambda module, args, output: seen.append((args[1], output)))
    model([batched_input(64, 96, 2), batched_input(96, 64, 1)])
    features, decoded = seen[0]
    found = attention_map(model.decoder, decoded, features, 20)
    assert found.shape == features.padding.shape and not found.requires_grad
    assert bool((found[features.padding] == -1).all())
    # Each of 20 queries, 4 heads and every layer has a weight of 1, of which some lies outside and on padding.
    whole = 20 * model.decoder.layers[0].cross_attention.num_heads * len(model.decoder.layers)
    on_tokens = found.clamp(min=0).sum(1)
    assert bool((on_tokens > 0.3 * whole).all()) and bool((on_tokens < 1.001 * whole).all())
    assert bool((attention_map(model.decoder, decoded, features, 5) <= found + 1e-4).all())


@pytest.mark.parametrize("options", [("ENCODER.RHO", 0.2), ("ENCODER.AUXILIARY_LOSS", False), ("ENCODER.RHO", 1.0)])
def test_variants_train_and_detect(small_cfg: CfgNode, options: tuple[object, ...]) -> None:
    model = detector(small_cfg, *options)
    batch = [batched_input(64, 96, 2), batched_input(32, 32, 0)]
    losses = model(batch)
    assert ("loss_ce_enc_0" in losses) == (options[0] != "ENCODER.AUXILIARY_LOSS")
    torch.stack(list(losses.values())).sum().backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not [name for name in without if not name.startswith("backbone")]
    with torch.no_grad():
        assert all(len(result["instances"]) > 0 for result in model.eval()(batch))


@pytest.mark.parametrize("name", ["dino", "h_detr"])
def test_other_two_stage_detectors_take_the_encoder(small_cfg: CfgNode, name: str) -> None:
    choose_detector(small_cfg, name)
    small_cfg.MODEL.LITE_DETR.ENCODER.NAME = "SparseEncoder"
    losses = build_model(small_cfg)([batched_input(64, 96, 2)])
    suffix = "interm" if name == "dino" else "enc"
    assert {"loss_mask_prediction", f"loss_ce_{suffix}_0"} <= set(losses)
    assert all(bool(loss.isfinite()) for loss in losses.values())


def test_an_image_of_fewer_tokens_than_queries(small_cfg: CfgNode) -> None:
    model = detector(small_cfg, "NUM_QUERIES", 500)
    batch = [batched_input(16, 16, 1), batched_input(48, 16, 1)]
    assert all(bool(loss.isfinite()) for loss in model(batch).values())
    with torch.no_grad():
        assert all(bool(result["instances"].scores.isfinite().all()) for result in model.eval()(batch))
