"""Rows of class heads, by name."""

import pytest
import torch
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from torch import Tensor

from lite_detr_d2.checkpoint import (
    convert_published,
    count_classes,
    keep_coco_classes,
    published_class_names,
    rows_by_name,
    select_rows,
)

from .published import published

IDS = [category["id"] for category in COCO_CATEGORIES if category["isthing"]]


def heads(classes: int, offset: int = 0) -> dict[str, Tensor]:
    """Class tensors whose rows are ``offset``, ``offset + 1``, ..."""
    rows = torch.arange(offset, offset + classes + 1, dtype=torch.float32)
    return {
        "decoder.heads.0.class_embed.weight": rows[:-1, None].expand(-1, 2).clone(),
        "decoder.heads.0.class_embed.bias": rows[:-1].clone(),
        "query_selection.head.class_embed.bias": rows[:-1].clone(),
        "denoising.label_embed.weight": rows[:, None].expand(-1, 2).clone(),
        "decoder.heads.0.box_embed.layers.0.bias": torch.zeros(2),
    }


def test_rows_follow_names() -> None:
    assert rows_by_name(["cat", None, "dog"], ["dog", "cat", "owl"]) == [2, 0, None]
    assert rows_by_name([None, "dog"], [None, "dog"]) == [None, 1]


def test_selected_rows_and_fresh_ones() -> None:
    given, fresh = heads(3), heads(2, offset=100)
    selected = select_rows(given, [2, None], fresh)
    assert selected["decoder.heads.0.class_embed.bias"].tolist() == [2, 101]
    assert selected["decoder.heads.0.class_embed.weight"].tolist() == [[2, 2], [101, 101]]
    assert selected["query_selection.head.class_embed.bias"].tolist() == [2, 101]
    assert selected["denoising.label_embed.weight"].tolist() == [[2, 2], [101, 101], [3, 3]]  # the last is no class
    assert selected["decoder.heads.0.box_embed.layers.0.bias"] is given["decoder.heads.0.box_embed.layers.0.bias"]
    assert fresh["decoder.heads.0.class_embed.bias"].tolist() == [100, 101]
    assert given["decoder.heads.0.class_embed.bias"].tolist() == [0, 1, 2]


def test_the_first_row_of_a_class_agnostic_head_stays_first() -> None:
    agnostic = {"query_selection.proposal_embed.proj.weight": torch.zeros(4, 4)}
    selected = select_rows(heads(3) | agnostic, [2, None], heads(2, offset=100) | agnostic)
    assert selected["query_selection.head.class_embed.bias"].tolist() == [0, 101]
    assert selected["decoder.heads.0.class_embed.bias"].tolist() == [2, 101]


def test_a_model_says_whether_its_head_is_class_agnostic() -> None:
    for agnostic, first in ((True, 0), (False, 2)):
        for shape in ((4, 4), (2, 4)):
            proposals = {"query_selection.proposal_embed.proj.weight": torch.zeros(*shape)}
            selected = select_rows(heads(3) | proposals, [2, 1], heads(2) | proposals, class_agnostic=agnostic)
            assert selected["query_selection.head.class_embed.bias"].tolist() == [first, 1]


def test_the_rows_of_a_head_that_tells_classes_apart_move() -> None:
    """As Sparse DETR's, whose queries are made of tokens: proposals make their position alone."""
    specific = {"query_selection.proposal_embed.proj.weight": torch.zeros(2, 4)}
    auxiliary = {"encoder.auxiliary_heads.0.class_embed.bias": torch.arange(3.0)}
    fresh = heads(2, offset=100) | specific | {"encoder.auxiliary_heads.0.class_embed.bias": torch.zeros(2)}
    selected = select_rows(heads(3) | specific | auxiliary, [2, None], fresh)
    assert selected["query_selection.head.class_embed.bias"].tolist() == [2, 101]
    assert selected["encoder.auxiliary_heads.0.class_embed.bias"].tolist() == [2, 0]


def test_what_does_not_fit_is_left_alone() -> None:
    fresh = heads(2) | {"decoder.heads.0.class_embed.weight": torch.zeros(2, 5)}
    del fresh["denoising.label_embed.weight"]
    given = heads(3)
    selected = select_rows(given, [2, None], fresh)
    for name in ("decoder.heads.0.class_embed.weight", "denoising.label_embed.weight"):
        assert selected[name] is given[name]


def test_tensors_with_other_rows_than_the_heads_are_left_alone() -> None:
    """DINO's label book has a size of its own; so may a head have, of something else."""
    given = heads(3) | {"denoising.label_embed.weight": torch.rand(7, 2), "other.class_embed.bias": torch.rand(5)}
    selected = select_rows(given, [2, 0], heads(2))
    for name in ("denoising.label_embed.weight", "other.class_embed.bias"):
        assert selected[name] is given[name]
    assert selected["decoder.heads.0.class_embed.bias"].tolist() == [2, 0]


def test_coco_classes_of_published_heads() -> None:
    state = published("lite_dino_h3l1_a2b3_r50")
    converted, names = keep_coco_classes(convert_published(state)[0])
    assert names == [category["name"] for category in COCO_CATEGORIES if category["isthing"]]
    assert len(IDS) == 80 and IDS[0] == 1 and IDS[-1] == 90
    for ours, theirs in (
        ("decoder.heads.0.class_embed.weight", "class_embed.0.weight"),
        ("decoder.heads.0.class_embed.bias", "class_embed.0.bias"),
        ("query_selection.head.class_embed.weight", "transformer.enc_out_class_embed.weight"),
    ):
        assert torch.equal(converted[ours], state[theirs][IDS])
    labels = converted["denoising.label_embed.weight"]
    assert labels.shape == (81, 256)
    assert torch.equal(labels[:80], state["label_enc.weight"][IDS])
    assert torch.equal(labels[80], state["label_enc.weight"][91])


def test_coco_classes_of_a_class_agnostic_head() -> None:
    """Row 0, which no category id of COCO uses, is what the head of the encoder has learnt."""
    state = published("h_detr_r50")
    converted, _ = keep_coco_classes(convert_published(state)[0])
    assert torch.equal(converted["decoder.heads.2.class_embed.bias"], state["class_embed.2.bias"][IDS])
    proposals = converted["query_selection.head.class_embed.bias"]
    assert proposals.shape == (80,)
    assert proposals[0] == state["class_embed.6.bias"][0]


def test_other_heads_are_not_cocos() -> None:
    with pytest.raises(ValueError, match=r"coco80 needs heads of 91 classes: decoder.* has 20 rows"):
        keep_coco_classes(heads(20))


def test_published_names() -> None:
    names = published_class_names(heads(91))
    assert names is not None
    assert (names[0], names[1], names[12], names[90]) == (None, "person", None, "toothbrush")
    assert sum(name is not None for name in names) == 80
    assert published_class_names(heads(80)) is None
    assert count_classes({}) is None
