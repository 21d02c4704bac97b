"""H-DETR's second group of queries: apart from the first, and several of it for each target."""

import torch

from lite_detr_d2.modeling.denoising import ContrastiveDenoising
from lite_detr_d2.modeling.matcher import HungarianMatcher
from lite_detr_d2.modeling.one_to_many import OneToMany
from lite_detr_d2.structures import Queries, QueryGroup, Targets, attention_mask, query_slices

MATCHER = HungarianMatcher(class_cost=2.0, l1_cost=5.0, giou_cost=2.0, focal_alpha=0.25, focal_gamma=2.0, giou_eps=0.0)
BRANCH = OneToMany(num_queries=9, repeats=3, loss_weight=0.5, assign=MATCHER)


def queries(size: int) -> Queries:
    return Queries(torch.randn(2, size, 8), torch.randn(2, size, 4))


def targets(*counts: int) -> list[Targets]:
    return [Targets(torch.randint(5, (count,)), 0.2 + 0.3 * torch.rand(count, 4), name=str(count)) for count in counts]


def test_the_group_is_made_of_the_queries_that_it_is_given() -> None:
    given = queries(4)
    group = BRANCH(given)
    assert group.queries is given and len(group) == 4
    assert (group.target_repeats, group.loss_weight, group.loss_suffix) == (3, 0.5, "{layer}_one2many")
    assert group.min_boxes == 1


def test_each_target_is_matched_to_as_many_queries_as_it_is_repeated() -> None:
    group, truth = BRANCH(queries(9)), targets(2, 0)
    logits, boxes = torch.randn(2, 9, 5), torch.rand(2, 9, 4)
    (matched, indices), (nothing, _) = group.assign(
        logits, boxes, [target.repeated(group.target_repeats) for target in truth]
    )
    assert len(set(matched.tolist())) == 6 and len(nothing) == 0
    assert sorted(index % 2 for index in indices.tolist()) == [0, 0, 0, 1, 1, 1]


def test_more_repeated_targets_than_queries() -> None:
    matches = BRANCH(queries(9)).assign(torch.randn(1, 9, 5), torch.rand(1, 9, 4), [targets(4)[0].repeated(3)])
    assert sorted(matches[0][0].tolist()) == list(range(9)) and len(set(matches[0][1].tolist())) == 9


def test_an_empty_group_matches_nothing() -> None:
    for query, target in BRANCH(queries(0)).assign(torch.randn(2, 0, 5), torch.rand(2, 0, 4), targets(2, 0)):
        assert query.numel() == target.numel() == 0


def test_neither_branch_sees_the_other() -> None:
    denoising = ContrastiveDenoising(
        num_channels=8, num_classes=5, num_queries=60, label_noise=0.5, box_noise=0.4, logit_eps=1e-3
    )
    groups = [QueryGroup("matching", queries(5), MATCHER), BRANCH(queries(9)), denoising(targets(2, 1))]
    blocked = attention_mask(groups)
    matching, one_to_many, noised = query_slices(groups)
    for group, others in ((matching, (one_to_many, noised)), (one_to_many, (matching, noised))):
        assert not blocked[group, group].any()
        assert all(bool(blocked[group, other].all()) for other in others)
    assert not blocked[noised, matching].any() and bool(blocked[noised, one_to_many].all())


def test_without_denoising_the_mask_is_two_blocks() -> None:
    groups = [QueryGroup("matching", queries(5), MATCHER), BRANCH(queries(9))]
    apart = torch.ones(14, 14, dtype=torch.bool)
    apart[:5, :5] = apart[5:, 5:] = False
    assert torch.equal(attention_mask(groups), apart)
