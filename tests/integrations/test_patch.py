"""Attention of other packages, by its signature: patched, taken back, and what cannot be patched."""

import copy
import functools
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from lite_detr_d2.errors import InputError
from lite_detr_d2.integrations import cores, patch, unpatch
from lite_detr_d2.ops import deform_attn
from lite_detr_d2.ops.deform_attn import compiled_ops_status
from tests.documented import ROOT

from .foreign_modules import MSDeformAttn, MultiScaleDeformableAttention

COMPILED, WHY_NOT = compiled_ops_status()
pytestmark = pytest.mark.skipif(not COMPILED, reason=WHY_NOT)

PAGE = (ROOT / "docs" / "models_of_others.md").read_text()
SHAPES = torch.tensor([[6, 8], [3, 4]])
TOKENS, QUERIES, CHANNELS = 60, 7, 16


def tensors(reference_size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    query, tokens = torch.randn(2, QUERIES, CHANNELS), torch.randn(2, TOKENS, CHANNELS)
    padding = torch.zeros(2, TOKENS, dtype=torch.bool)
    padding[1, 40:48] = padding[1, 57:] = True
    return query, tokens, torch.rand(2, QUERIES, 2, reference_size), padding


def call_repository(module: nn.Module, reference_size: int) -> Tensor:
    query, tokens, reference, padding = tensors(reference_size)
    return module(query, reference, tokens, SHAPES, torch.tensor([0, 48]), padding)


def call_mmcv(module: nn.Module, reference_size: int, batch_first: bool) -> Tensor:
    query, tokens, reference, padding = tensors(reference_size)
    if not batch_first:
        query, tokens = query.transpose(0, 1), tokens.transpose(0, 1)
    return module(
        query,
        value=tokens,
        residual=2 * query,
        query_pos=torch.ones_like(query),
        key_padding_mask=padding,
        reference_points=reference,
        spatial_shapes=SHAPES,
        level_start_index=torch.tensor([0, 48]),
    )


Call = Callable[[nn.Module, int], Tensor]
KINDS: dict[str, tuple[nn.Module, Call]] = {
    "Deformable-DETR's repository": (MSDeformAttn(CHANNELS, 4, 2, 3), call_repository),
    "mmcv": (MultiScaleDeformableAttention(CHANNELS, 4, 2, 3), functools.partial(call_mmcv, batch_first=False)),
    "detrex, batch first": (
        MultiScaleDeformableAttention(CHANNELS, 4, 2, 3, batch_first=True),
        functools.partial(call_mmcv, batch_first=True),
    ),
}
every_kind = pytest.mark.parametrize(("module", "call"), KINDS.values(), ids=KINDS.keys())


@pytest.fixture
def op(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Our op, whose calls are counted."""
    op = Mock(wraps=cores.ms_deform_attn_at)
    monkeypatch.setattr(cores, "ms_deform_attn_at", op)
    return op


def results(module: nn.Module, call: Call, reference_size: int = 2) -> list[Tensor]:
    """The output, and the gradients of all parameters."""
    torch.manual_seed(0)
    attended = call(module, reference_size)
    return [attended, *torch.autograd.grad(attended.square().sum(), tuple(module.parameters()))]


@every_kind
@pytest.mark.parametrize("reference_size", [2, 4])
@pytest.mark.parametrize("training", [False, True])
def test_outputs_and_gradients_stay(
    module: nn.Module, call: Call, reference_size: int, training: bool, op: Mock
) -> None:
    model = nn.Sequential(copy.deepcopy(module)).train(training)
    expected = results(model[0], call, reference_size)
    assert patch(model) == ["0"]
    assert not op.called
    assert_close(results(model[0], call, reference_size), expected, rtol=1e-4, atol=1e-4)
    assert op.call_count == 1
    assert unpatch(model) == ["0"]
    assert type(model[0]) is type(module)
    assert_close(results(model[0], call, reference_size), expected, rtol=0, atol=0)
    assert op.call_count == 1


@every_kind
def test_only_the_class_of_a_module_changes(module: nn.Module, call: Call) -> None:
    model = copy.deepcopy(module)
    hook = model.register_forward_hook(lambda *_: None)
    before, state = vars(model).copy(), model.state_dict(keep_vars=True)
    assert patch(model) == [""]
    assert vars(model) == before
    assert hook.id in model._forward_hooks
    assert type(model) is not type(module)
    assert isinstance(model, type(module))
    assert repr(model) == repr(module)
    after = model.state_dict(keep_vars=True)
    assert all(after[name] is tensor for name, tensor in state.items())
    assert after.keys() == state.keys()


@every_kind
def test_copies_and_pickles_stay_patched(module: nn.Module, call: Call, op: Mock) -> None:
    model = copy.deepcopy(module).eval()
    expected = results(model, call)
    patch(model)
    for number, other in enumerate((copy.deepcopy(model), pickle.loads(pickle.dumps(model))), start=1):
        assert_close(results(other, call), expected, rtol=1e-4, atol=1e-4)
        assert op.call_count == number
        unpatch(other)
        assert type(other) is type(module)
    with pytest.raises(InputError):
        patch(model)


def test_modules_that_are_patched_are_left_alone_and_new_ones_are_not() -> None:
    model = nn.ModuleList([MSDeformAttn(CHANNELS, 4, 2, 3)])
    assert patch(model) == ["0"]
    with pytest.raises(InputError, match=r"patch: 1 module of this ModuleList are patched already.*: 0$"):
        patch(model)
    model.append(MSDeformAttn(CHANNELS, 4, 2, 3))
    assert patch(model) == ["1"]
    assert unpatch(model) == ["0", "1"]


def test_a_module_that_stands_in_two_places_is_named_once() -> None:
    shared = MSDeformAttn(CHANNELS, 4, 2, 3)
    assert patch(nn.ModuleList([shared, shared])) == ["0"]


def test_a_core_under_another_decorator_is_left_alone() -> None:
    """One that keeps what it decorates where it cannot be replaced."""

    class Hidden(MSDeformAttn):
        forward = functools.partialmethod(MSDeformAttn.forward)

    with pytest.raises(InputError, match="nothing in this Hidden"):
        patch(Hidden(CHANNELS, 4, 2, 3))


def test_nothing_that_matches() -> None:
    with pytest.raises(InputError, match="nothing in this Linear is .* RT-DETR, .*MSDeformAttn.* mmcv .*detrex"):
        patch(nn.Linear(1, 1))
    with pytest.raises(InputError, match="unpatch: nothing in this Linear is patched"):
        unpatch(nn.Linear(1, 1))


@pytest.mark.parametrize("function", [patch, unpatch])
def test_what_is_no_module(function: Any) -> None:
    with pytest.raises(InputError, match=rf"{function.__name__}: expected a torch\.nn\.Module, got str"):
        function("facebook/deformable")


def test_a_forward_that_others_have_replaced() -> None:
    model = nn.ModuleList([MSDeformAttn(CHANNELS, 4, 2, 3), MSDeformAttn(CHANNELS, 4, 2, 3)])
    model[1].forward = functools.partial(model[1].forward)
    with pytest.raises(InputError, match=r"patch: 1 \(MSDeformAttn\) has had its forward replaced"):
        patch(model)
    assert type(model[0]) is MSDeformAttn


def test_where_the_compiled_ops_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deform_attn, "_WHY_NOT_COMPILED", "LITE_DETR_PURE_TORCH=1 asks for the pure-PyTorch ops")
    model = MSDeformAttn(CHANNELS, 4, 2, 3)
    with pytest.raises(InputError, match="nothing would be gained.*LITE_DETR_PURE_TORCH=1 asks"):
        patch(model)
    assert type(model) is MSDeformAttn


def test_a_device_without_compiled_ops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the model, as a core has no parameters that would tell."""
    monkeypatch.setattr(deform_attn, "_why_not_compiled", lambda device: f"none for {device}" * (device == "meta"))
    model = nn.ModuleDict({"attention": MSDeformAttn(CHANNELS, 4, 2, 3), "rest": nn.Linear(1, 1, device="meta")})
    with pytest.raises(InputError, match="nothing would be gained.*none for meta"):
        patch(model)
    assert type(model["attention"]) is MSDeformAttn


def test_points_by_level() -> None:
    """Those that a level lacks count nothing, though its corner holds what is not finite."""
    value = torch.randn(1, TOKENS, 2, 4, dtype=torch.float64)
    locations = torch.rand(1, QUERIES, 2, 5, 2, dtype=torch.float64) * 0.5 + 0.25
    weights = torch.rand(1, QUERIES, 2, 5, dtype=torch.float64)
    shapes = [(6, 8), (3, 4)]
    levels = value.split([48, 12], dim=1), locations.split([2, 3], dim=3), weights.split([2, 3], dim=3)
    expected = torch.zeros(1, QUERIES, 8, dtype=torch.float64)
    for shape, tokens, points, shares in zip(shapes, *levels, strict=True):
        expected += cores.attend(tokens, [shape], points[:, :, :, None], shares[:, :, :, None])
    value[:, 0] = torch.inf
    assert_close(cores.attend_by_level(value, shapes, locations, weights, [2, 3]), expected)
    with pytest.raises(InputError, match="'discrete'"):
        cores.attend_by_level(value, shapes, locations, weights, [2, 3], "discrete")


def test_the_page_runs_as_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code that needs no other package; tests/interop runs the rest."""
    monkeypatch.setattr(sys, "modules", sys.modules.copy())
    for code in re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.M | re.S):
        if "transformers" not in code:
            exec(code, {})
    assert "MultiScaleDeformableAttention" in sys.modules


def test_the_page_has_the_names_that_modules_are_known_by() -> None:
    assert not [name for name in cores.CORES if name not in PAGE]


def test_it_needs_neither_detectron2_nor_transformers() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('detectron2', 'fvcore', 'transformers', 'mmcv')));"
        "from importlib import util; find = util.find_spec;"
        "util.find_spec = lambda name, *_: None if name == 'detectron2' else find(name, *_);"
        "from lite_detr_d2.integrations import patch; print(patch.__module__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "LITE_DETR_OPS_ONLY": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "lite_detr_d2.integrations.patching\n", done.stderr
