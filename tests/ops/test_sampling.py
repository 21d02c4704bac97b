"""Where the ops sample, and how much each sample counts: weighted and summed up, it is what the ops compute."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lite_detr_d2.ops import sampling_locations_and_weights

from .cases import UNUSUAL_SIZES, VARIANTS, Case, Variant, make_case, weighted_sum

every_variant = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())


def sampling(variant: Variant, case: Case) -> tuple[Tensor, Tensor]:
    where = case.spatial_shapes, case.reference_points, case.sampling_offsets
    if variant.key_aware:
        key = case.key if variant.separate_key else case.value
        return sampling_locations_and_weights(*where, query=case.query, key=key)
    return sampling_locations_and_weights(*where, case.attention_logits)


@every_variant
@pytest.mark.parametrize("reference_size", [2, 4])
def test_the_weighted_samples_are_what_the_op_computes(variant: Variant, reference_size: int) -> None:
    case = make_case(reference_size=reference_size)
    locations, weights = sampling(variant, case)
    assert locations.shape == case.sampling_offsets.shape
    assert weights.shape == case.sampling_offsets.shape[:-1]
    outside = ((locations < 0) | (locations > 1)).any(-1)
    assert 0.1 < float(outside.double().mean()) < 0.9
    assert_close(weights.sum((-2, -1)), torch.ones_like(weights[..., 0, 0]))
    assert_close(weighted_sum(case.value, case.spatial_shapes, locations, weights), variant.call(case))


@every_variant
@pytest.mark.parametrize("sizes", UNUSUAL_SIZES.values(), ids=UNUSUAL_SIZES.keys())
def test_unusual_sizes(variant: Variant, sizes: dict[str, Any]) -> None:
    case = make_case(**sizes)  # type: ignore[arg-type]
    assert_close(weighted_sum(case.value, case.spatial_shapes, *sampling(variant, case)), variant.call(case))


@every_variant
def test_padding(variant: Variant) -> None:
    """Tokens that are zero, as those of padding are: of key-aware attention, their logits are zero, too."""
    case = make_case()
    value, key = case.value.clone(), case.key.clone()
    value[1, 10:20] = key[1, 10:20] = 0
    case = replace(case, value=value, key=key)
    assert_close(weighted_sum(case.value, case.spatial_shapes, *sampling(variant, case)), variant.call(case))


def test_a_location_by_hand() -> None:
    case = make_case(images=1, queries=1, heads=1, points=2, spatial_shapes=((4, 8), (2, 4)))
    offsets = torch.tensor([[[2.0, 1.0], [0.0, 0.0]], [[-1.0, 0.5], [4.0, 0.0]]], dtype=torch.float64)[None, None, None]
    reference = torch.tensor([0.5, 0.25], dtype=torch.float64).expand(1, 1, 2, 2)
    where = case.spatial_shapes, reference, offsets
    locations, weights = sampling_locations_and_weights(*where, torch.tensor([[[[3.0, 0, 0, 0]]]]).double().log())
    assert locations[0, 0, 0].tolist() == [[[0.75, 0.5], [0.5, 0.25]], [[0.25, 0.5], [1.5, 0.25]]]
    assert weights[0, 0, 0].tolist() == [[1.0, 0.0], [0.0, 0.0]]
    boxes = torch.tensor([0.5, 0.25, 0.2, 0.4], dtype=torch.float64).expand(1, 1, 2, 4)
    locations, _ = sampling_locations_and_weights(case.spatial_shapes, boxes, offsets, case.attention_logits)
    expected = torch.tensor([[[0.6, 0.35], [0.5, 0.25]], [[0.45, 0.3], [0.7, 0.25]]], dtype=torch.float64)
    assert_close(locations[0, 0, 0], expected)


@pytest.mark.parametrize(
    "given",
    [(), ("query",), ("key",), ("attention_logits", "key"), ("attention_logits", "query", "key")],
    ids=lambda names: " and ".join(names) or "nothing",
)
def test_weights_are_of_one_kind(given: tuple[str, ...]) -> None:
    case = make_case()
    where = case.spatial_shapes, case.reference_points, case.sampling_offsets
    with pytest.raises(ValueError, match="attention_logits alone, or query and key together"):
        sampling_locations_and_weights(*where, **{name: getattr(case, name) for name in given})
