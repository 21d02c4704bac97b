"""What fvcore's and torch's counters say of the ops."""

import math

import pytest
import torch
from detectron2.utils.analysis import FlopCountAnalysis
from fvcore.nn.flop_count import _DEFAULT_SUPPORTED_OPS
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from lite_detr_d2.ops.deform_attn import compiled_ops_status
from lite_detr_d2.ops.flops import key_aware_deform_attn_flops, ms_deform_attn_flops, register_flop_handlers

from .cases import VARIANTS, Case, make_case

COMPILED, _ = compiled_ops_status()
CASE = make_case(images=2, queries=7, heads=2, channels=4, points=3, dtype=torch.float32)
X = 2 * 7 * 2 * (2 * 3) * 4
MULTIPLY_ADDS = {"ms_deform_attn": 4 * X, "key_aware_shared": 6 * X, "key_aware_separate": 10 * X}


class Attend(torch.nn.Module):
    """Shapes come from tensors, as in a detector that is traced: there they are tensors themselves."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        shapes = tuple((plane.shape[-2], plane.shape[-1]) for plane in maps)
        value = torch.cat([plane.flatten(3).permute(0, 3, 1, 2) for plane in maps], dim=1) * self.scale
        return VARIANTS[self.name].call(Case(**{**vars(CASE), "value": value, "spatial_shapes": shapes}))


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("grad", [True, False])
def test_detectron2_counts_the_ops(name: str, grad: bool) -> None:
    maps = [torch.rand(2, 2, 4, height, width) for height, width in CASE.spatial_shapes]
    with torch.set_grad_enabled(grad):
        analysis = FlopCountAnalysis(Attend(name), (maps,))
        assert analysis.total() == MULTIPLY_ADDS[name]
        unsupported = set(analysis.unsupported_ops())
    assert not {op for op in unsupported if "lite_detr" in op or "attention" in op or "grid_sampler" in op}
    assert "prim::PythonOp" not in unsupported


class Attention(torch.nn.Module):
    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(query, key, value)


@pytest.mark.parametrize("grad", [True, False])
def test_detectron2_counts_dense_attention(grad: bool) -> None:
    query, key, value = torch.rand(2, 3, 5, 8), torch.rand(2, 3, 7, 8), torch.rand(2, 3, 7, 4)
    with torch.set_grad_enabled(grad):
        analysis = FlopCountAnalysis(Attention(), (query, key, value))
        # Products of 5 queries with 7 keys of 8 channels, and weighted sums of 7 values of 4.
        assert analysis.total() == 2 * 3 * (5 * 7 * 8 + 5 * 7 * 4)
        assert not analysis.unsupported_ops()


@pytest.mark.skipif(not COMPILED, reason="torch decomposes the pure-PyTorch ops")
@pytest.mark.parametrize("name", VARIANTS)
def test_torch_counts_two_per_multiply_add(name: str) -> None:
    case = CASE.requiring_grad()
    with FlopCounterMode(display=False) as counter:
        attended = VARIANTS[name].call(case)
    assert counter.get_total_flops() == 2 * MULTIPLY_ADDS[name]
    with FlopCounterMode(display=False) as counter:
        attended.sum().backward()
    assert counter.get_total_flops() == 4 * MULTIPLY_ADDS[name]


def test_handlers_may_be_registered_again() -> None:
    before = dict(_DEFAULT_SUPPORTED_OPS)
    register_flop_handlers()
    assert before == _DEFAULT_SUPPORTED_OPS
    assert "lite_detr::key_aware_deform_attn" in before


def test_counts_are_exact_integers_at_full_size() -> None:
    offsets, value = (1, 17821, 8, 4, 4, 2), (1, 17821, 8, 32)
    per_map = math.prod((17821, 8, 16, 32))
    assert ms_deform_attn_flops(value, offsets) == 4 * per_map
    assert key_aware_deform_attn_flops(value, offsets, shared_map=True) == 6 * per_map
