"""Matcher, criterion and post-processing."""

import itertools
from typing import Any

import pytest
import torch
from detectron2.structures import Boxes
from torch.nn import functional as F
from torchvision.ops import generalized_box_iou_loss

from lite_detr_d2.modeling.criterion import Criterion
from lite_detr_d2.modeling.geometry import box_xyxy
from lite_detr_d2.modeling.matcher import HungarianMatcher
from lite_detr_d2.modeling.postprocess import top_detections
from lite_detr_d2.structures import LayerPredictions, Predictions, Proposals, Queries, QueryGroup, Targets

MATCHER = HungarianMatcher(class_cost=2.0, l1_cost=5.0, giou_cost=2.0, focal_alpha=0.25, focal_gamma=2.0, giou_eps=1e-6)


def predictions(
    images: int = 2, queries: int = 6, classes: int = 4, dtype: torch.dtype = torch.float32
) -> LayerPredictions:
    centres = 0.3 + 0.4 * torch.rand(images, queries, 2)
    boxes = torch.cat((centres, 0.05 + 0.3 * torch.rand(images, queries, 2)), dim=-1)
    return LayerPredictions(torch.randn(images, queries, classes, dtype=dtype), boxes.to(dtype))


def targets(*counts: int) -> list[Targets]:
    one = predictions(1, max(*counts, 1))
    return [
        Targets(labels=torch.randint(4, (count,)), boxes=one.boxes[0, :count].clone(), name=f"image {index}")
        for index, count in enumerate(counts)
    ]


def pair_cost(logit: torch.Tensor, box: torch.Tensor, target: torch.Tensor) -> float:
    """The published cost of one pair, written out."""
    p = logit.sigmoid()
    positive = -0.25 * (1 - p) ** 2 * (p + 1e-8).log()
    negative = -0.75 * p**2 * (1 - p + 1e-8).log()
    giou = 1 - generalized_box_iou_loss(box_xyxy(box), box_xyxy(target))
    return float(2 * (positive - negative) + 5 * (box - target).abs().sum() - 2 * giou)


def test_matches_are_the_cheapest() -> None:
    predicted, truth = predictions(), targets(3, 2)
    for index, (queries, indices) in enumerate(MATCHER(predicted.logits, predicted.boxes, truth)):
        target = truth[index]

        def cost(query: int, number: int, index: int = index, target: Targets = target) -> float:
            logit = predicted.logits[index, query, target.labels[number]]
            return pair_cost(logit, predicted.boxes[index, query], target.boxes[number])

        ours = sum(cost(int(q), int(t)) for q, t in zip(queries, indices, strict=True))
        choices = itertools.permutations(range(6), len(target))
        best = min(sum(cost(q, t) for t, q in enumerate(choice)) for choice in choices)
        assert sorted(indices.tolist()) == list(range(len(target)))
        assert ours == pytest.approx(best, abs=1e-4)


def test_the_costs_are_their_definition() -> None:
    """Of every pair, from hopeless logits to sure ones, whichever pairs are the cheapest."""
    predicted, (truth,) = predictions(images=1, queries=9), targets(3)
    predicted.logits[0] *= torch.linspace(0.1, 8, 9)[:, None]
    costs = MATCHER._costs(predicted.logits[0], predicted.boxes[0], truth)
    expected = [
        [pair_cost(logits[label], box, target) for label, target in zip(truth.labels, truth.boxes, strict=True)]
        for logits, box in zip(predicted.logits[0], predicted.boxes[0], strict=True)
    ]
    torch.testing.assert_close(costs, torch.tensor(expected), rtol=1e-4, atol=1e-4)


def test_a_cost_by_hand() -> None:
    """A probability of a half costs 2 * (0.25 - 0.75) * 0.25 * ln 2; a shift by the box's width of 0.2 moves two sides.

    Side by side, the boxes share nothing, and fill the box around them: 0.2 of L1, and a generalised IoU of 0.
    """
    truth = Targets(labels=torch.tensor([1]), boxes=torch.tensor([[0.4, 0.5, 0.2, 0.2]]), name="")
    (cost,) = MATCHER._costs(torch.zeros(1, 2), torch.tensor([[0.6, 0.5, 0.2, 0.2]]), truth)
    assert float(cost) == pytest.approx(-0.25 * 0.693147 + 5 * 0.2, abs=1e-4)


def test_images_without_targets_and_more_targets_than_queries() -> None:
    predicted = predictions(images=2, queries=2)
    empty, crowded = MATCHER(predicted.logits, predicted.boxes, targets(0, 5))
    assert empty[0].numel() == empty[1].numel() == 0
    assert sorted(crowded[0].tolist()) == [0, 1] and len(set(crowded[1].tolist())) == 2


def test_half_precision_is_matched_in_float32() -> None:
    predicted, truth = predictions(dtype=torch.bfloat16), targets(3, 2)
    for half, full in zip(
        MATCHER(predicted.logits, predicted.boxes, truth),
        MATCHER(predicted.logits.float(), predicted.boxes.float(), truth),
        strict=True,
    ):
        assert half[0].tolist() == full[0].tolist()


@pytest.mark.parametrize("term", ["class logits", "predicted boxes", "target boxes"])
def test_non_finite_costs_name_the_image_and_the_term(term: str) -> None:
    predicted, truth = predictions(), targets(2, 2)
    {"class logits": predicted.logits[1], "predicted boxes": predicted.boxes[1], "target boxes": truth[1].boxes}[
        term
    ].fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=rf"image 1.*\({term}\).*SOLVER.BASE_LR"):
        MATCHER(predicted.logits, predicted.boxes, truth)


def criterion(**options: Any) -> Criterion:
    weights = {"class_weight": 1.0, "l1_weight": 5.0, "giou_weight": 2.0}
    conventions = {"giou_eps": 1e-6, "proposal_suffix": "_interm"}
    return Criterion(**weights, focal_alpha=0.25, focal_gamma=2.0, matcher=MATCHER, **conventions | options)


def group(queries: int, **options: Any) -> QueryGroup:
    zeros = torch.zeros(2, queries, 4)
    return QueryGroup(name="matching", queries=Queries(zeros, zeros), **{"assign": MATCHER, **options})


def both(first: LayerPredictions, second: LayerPredictions) -> LayerPredictions:
    """The predictions of two groups side by side."""
    return LayerPredictions(
        torch.cat((first.logits, second.logits), dim=1), torch.cat((first.boxes, second.boxes), dim=1)
    )


def test_losses_are_their_definition() -> None:
    layer, truth = predictions(), targets(3, 2)
    losses = criterion()(Predictions((layer,)), [group(6)], truth)
    matches = MATCHER(layer.logits, layer.boxes, truth)
    one_hot = torch.zeros_like(layer.logits)
    l1 = giou = 0.0
    for index, (queries, indices) in enumerate(matches):
        one_hot[index, queries, truth[index].labels[indices]] = 1.0
        ours, theirs = layer.boxes[index, queries], truth[index].boxes[indices]
        l1 += float((ours - theirs).abs().sum())
        giou += float(generalized_box_iou_loss(box_xyxy(ours), box_xyxy(theirs)).sum())
    p = layer.logits.sigmoid()
    bce = F.binary_cross_entropy_with_logits(layer.logits, one_hot, reduction="none")
    right = p * one_hot + (1 - p) * (1 - one_hot)
    alpha = 0.25 * one_hot + 0.75 * (1 - one_hot)
    assert float(losses["loss_ce"]) == pytest.approx(float((alpha * (1 - right) ** 2 * bce).sum()) / 5, rel=1e-5)
    assert float(losses["loss_bbox"]) == pytest.approx(5 * l1 / 5, rel=1e-5)
    assert float(losses["loss_giou"]) == pytest.approx(2 * giou / 5, rel=1e-4)


def test_names_of_groups_and_layers() -> None:
    layer = predictions(queries=6)
    groups = [group(2), group(2, loss_suffix="_dn{layer}"), group(2, loss_suffix="{layer}_one2many")]
    found = criterion(proposal_suffix="_enc")(
        Predictions((layer,) * 3, Proposals(layer, class_agnostic=False)), groups, targets(2, 1)
    )
    suffixes = ("_0", "_1", "", "_dn_0", "_dn_1", "_dn", "_0_one2many", "_1_one2many", "_one2many", "_enc")
    assert set(found) == {f"loss_{kind}{suffix}" for kind in ("ce", "bbox", "giou") for suffix in suffixes}


def test_a_suffix_names_the_layer() -> None:
    """Each layer's losses are those of its own predictions."""
    layers = tuple(predictions() for _ in range(3))
    truth, suffixed = targets(3, 2), [group(6, loss_suffix="{layer}_one2many")]
    found = criterion()(Predictions(layers), suffixed, truth)
    for suffix, layer in zip(("_0_one2many", "_1_one2many", "_one2many"), layers, strict=True):
        alone = criterion()(Predictions((layer,)), [group(6)], truth)
        for kind in ("loss_ce", "loss_bbox", "loss_giou"):
            torch.testing.assert_close(found[kind + suffix], alone[kind])


def test_a_group_is_weighted_and_its_targets_are_repeated() -> None:
    """Each target is matched to two queries, of which there are twice as many: with twice the boxes, the same loss."""
    layer, truth = predictions(queries=4), targets(2, 1)
    once = criterion()(Predictions((layer,)), [group(4)], truth)
    groups = [group(4), group(8, loss_suffix="_dn{layer}", target_repeats=2, loss_weight=0.5)]
    found = criterion()(Predictions((both(layer, both(layer, layer)),)), groups, truth)
    for name, value in once.items():
        torch.testing.assert_close(found[name], value)
        torch.testing.assert_close(found[f"{name}_dn"], 0.5 * value)


def test_class_agnostic_proposals_learn_class_0() -> None:
    layer, truth = predictions(), targets(3, 2)
    truth = [Targets(torch.randint(1, 4, (len(target),)), target.boxes, target.name) for target in truth]
    found = criterion()(Predictions((layer,), Proposals(layer, class_agnostic=True)), [group(6)], truth)
    as_class_0 = [Targets(torch.zeros(len(target), dtype=torch.long), target.boxes, target.name) for target in truth]
    for kind in ("loss_ce", "loss_bbox", "loss_giou"):
        expected = criterion()(Predictions((layer,)), [group(6)], as_class_0)[kind]
        torch.testing.assert_close(found[f"{kind}_interm"], expected)
        torch.testing.assert_close(found[kind], criterion()(Predictions((layer,)), [group(6)], truth)[kind])
    assert float(found["loss_ce_interm"]) != float(found["loss_ce"])


@pytest.mark.parametrize("counts", [(0, 0), (0, 3)])
def test_images_without_boxes_train_the_classes(counts: tuple[int, int]) -> None:
    layer = predictions()
    layer.logits.requires_grad_()
    layer.boxes.requires_grad_()
    groups = [group(2), group(4, loss_suffix="{layer}_one2many", target_repeats=2)]
    found = criterion()(Predictions((layer,), Proposals(layer, class_agnostic=True)), groups, targets(*counts))
    sum(found.values()).backward()
    assert all(bool(value.isfinite()) for value in found.values())
    assert bool(layer.logits.grad[0].all()) and not layer.boxes.grad[0].any()
    boxes = [bool(value > 0) for name, value in found.items() if "loss_ce" not in name]
    assert all(boxes) == any(boxes) == any(counts) and bool(layer.boxes.grad[1].any()) == any(counts)


def test_a_group_without_queries_costs_nothing() -> None:
    """Even where there are targets: no query is there to find them."""
    layer, truth = predictions(), targets(3, 2)
    found = criterion()(Predictions((layer,)), [group(6), group(0, loss_suffix="{layer}_one2many")], truth)
    assert float(found["loss_ce"]) > 0
    assert [float(found[f"loss_{kind}_one2many"]) for kind in ("ce", "bbox", "giou")] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(("repeats", "min_boxes", "divisor"), [(1, 1.0, 1), (4, 1.0, 4), (4, 4.0, 4), (4, 9.0, 9)])
def test_one_box_in_two_processes(
    monkeypatch: pytest.MonkeyPatch, repeats: int, min_boxes: float, divisor: float
) -> None:
    """Divided by the boxes of both: the mean of both gradients is to be that of one process."""
    layer, truth = predictions(), targets(1, 0)
    none = torch.tensor([], dtype=torch.long)
    options = {"assign": lambda *_: [(torch.tensor([2]), torch.tensor([0])), (none, none)]}
    expected = criterion()(Predictions((layer,)), [group(6, **options)], truth)
    monkeypatch.setattr("lite_detr_d2.modeling.criterion.sum_over_processes", lambda *_: torch.tensor(1.0))
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    repeated = group(6, target_repeats=repeats, min_boxes=min_boxes, **options)
    for name, value in criterion()(Predictions((layer,)), [repeated], truth).items():
        torch.testing.assert_close(value, 2 * expected[name] / divisor)


def test_few_boxes_are_counted_as_one() -> None:
    """As published, no loss is divided by less than one."""
    layer = predictions()
    none = criterion()(Predictions((layer,)), [group(6)], targets(0, 0))
    p = layer.logits.sigmoid()
    background = 0.75 * p**2 * F.softplus(layer.logits)
    torch.testing.assert_close(none["loss_ce"], background.sum())


def test_best_pairs_of_query_and_class_are_kept() -> None:
    layer = predictions(images=1, queries=3, classes=2)
    (result,) = top_detections(layer, [(100, 200)], max_detections=4)
    pairs = sorted(
        (
            (float(score), query, label)
            for query, row in enumerate(layer.logits[0].sigmoid())
            for label, score in enumerate(row)
        ),
        reverse=True,
    )[:4]
    torch.testing.assert_close(result.scores, torch.tensor([score for score, _, _ in pairs]))
    assert result.pred_classes.tolist() == [label for _, _, label in pairs]
    expected = box_xyxy(layer.boxes[0, [query for _, query, _ in pairs]]) * torch.tensor([200, 100, 200, 100])
    torch.testing.assert_close(result.pred_boxes.tensor, expected)
    assert isinstance(result.pred_boxes, Boxes) and result.image_size == (100, 200)


def test_fewer_pairs_than_wanted() -> None:
    (result,) = top_detections(predictions(images=1, queries=3, classes=2), [(10, 10)], max_detections=100)
    assert len(result) == 6
