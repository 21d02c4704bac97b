import pytest
import torch
from torch import Tensor

from lite_detr_d2.structures import Queries, QueryGroup, Targets, attention_mask, query_slices

from .helpers import random_features


def group(name: str, size: int, **options: object) -> QueryGroup:
    zeros = torch.zeros(1, size, 4)
    return QueryGroup(name=name, queries=Queries(zeros, zeros), assign=lambda *_: [], **options)


def visible(mask: Tensor) -> list[str]:
    """Per row, which columns it sees, as text."""
    return ["".join(".x"[int(not blocked)] for blocked in row) for row in mask.tolist()]


def test_a_single_group_needs_no_mask() -> None:
    assert attention_mask([group("matching", 5)]) is None


def test_visibility_is_what_the_groups_declare() -> None:
    mask = attention_mask(
        [group("matching", 2), group("denoising", 4, sees=("matching",), blocks=torch.tensor([0, 0, 1, 1]))]
    )
    assert visible(mask) == ["xx....", "xx....", "xxxx..", "xxxx..", "xx..xx", "xx..xx"]


def test_mutually_blind_groups() -> None:
    mask = attention_mask([group("one-to-one", 1), group("one-to-many", 2)])
    assert visible(mask) == ["x..", ".xx", ".xx"]


def test_an_empty_group_changes_nothing() -> None:
    mask = attention_mask(
        [group("matching", 2), group("denoising", 0, sees=("matching",), blocks=torch.tensor([], dtype=torch.long))]
    )
    assert visible(mask) == ["xx", "xx"]


def test_slices_lie_side_by_side() -> None:
    assert query_slices([group("a", 2), group("b", 3)]) == [slice(0, 2), slice(2, 5)]


def test_groups_of_all_kinds_side_by_side() -> None:
    groups = [
        group("matching", 1),
        group("one-to-many", 2),
        group("denoising", 2, sees=("matching",), blocks=torch.tensor([0, 1])),
    ]
    assert visible(attention_mask(groups)) == ["x....", ".xx..", ".xx..", "x..x.", "x...x"]


@pytest.mark.parametrize("placed", [True, False])
def test_queries_are_taken_apart_and_put_together(placed: bool) -> None:
    queries = Queries(torch.randn(2, 5, 8), torch.randn(2, 5, 4), torch.randn(2, 5, 8) if placed else None)
    parts = [queries[:2], queries[2:2], queries[2:]]
    assert [len(part) for part in parts] == [2, 0, 3]
    torch.testing.assert_close(parts[2].reference, queries.reference[:, 2:])
    whole = Queries.concatenated(parts)
    torch.testing.assert_close(whole.content, queries.content)
    torch.testing.assert_close(whole.reference, queries.reference)
    torch.testing.assert_close(whole.position, queries.position)
    assert (whole.position is not None) == placed


def test_class_agnostic_targets_are_all_of_class_0() -> None:
    targets = Targets(labels=torch.tensor([3, 5]), boxes=torch.rand(2, 4), name="x")
    agnostic = targets.class_agnostic()
    assert agnostic.labels.tolist() == [0, 0] and targets.labels.tolist() == [3, 5]
    assert agnostic.boxes is targets.boxes and agnostic.name == "x"


def test_repeated_targets_keep_their_order() -> None:
    targets = Targets(labels=torch.tensor([3, 5]), boxes=torch.rand(2, 4), name="x")
    twice = targets.repeated(2)
    assert twice.labels.tolist() == [3, 5, 3, 5]
    assert torch.equal(twice.boxes, torch.cat((targets.boxes, targets.boxes)))
    assert len(twice) == 4


def test_level_starts() -> None:
    features = random_features(((4, 6), (2, 3)))
    assert [features.start_of(level) for level in range(3)] == [0, 24, 30]
    tokens = torch.zeros_like(features.tokens)
    assert features.with_tokens(tokens).tokens is tokens
    assert features.with_tokens(tokens).padding is features.padding
