"""Models of transformers, patched: what they compute and learn stays, and so does what they are otherwise."""

import copy
import io
import pickle
import re
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lite_detr_d2.errors import InputError
from lite_detr_d2.integrations import cores, patch, unpatch
from tests.documented import ROOT

from .foreign_models import MODELS, Foreign, d_fine, rt_detr_v2

PAGE = (ROOT / "docs" / "models_of_others.md").read_text()
OUTPUTS = ("logits", "pred_boxes", "masks_queries_logits", "class_queries_logits")
TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-9}


def predict(model: nn.Module, foreign: Foreign) -> dict[str, Tensor]:
    model.eval()
    with torch.no_grad():
        given = model(**foreign.inputs())
    outputs = {name: given[name] for name in OUTPUTS if name in given}
    assert len(outputs) == 2
    return outputs


def learn(model: nn.Module, foreign: Foreign) -> dict[str, Tensor]:
    """The loss of a training step and its gradients."""
    model.train().zero_grad()
    torch.manual_seed(0)  # losses of masks are taken at random points
    given = {**foreign.inputs(), **foreign.labels()}
    given = tree_map(lambda x: x.to(foreign.learns_in) if x.is_floating_point() else x, given)
    loss = model.to(foreign.learns_in)(**given).loss.sum()
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    return {"loss": loss.detach(), **{name: gradient.clone() for name, gradient in gradients.items()}}


def assert_same(
    found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = TOLERANCES[torch.float32]
) -> None:
    """To that part of each tensor's largest element, and of 1 where none is as large."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        largest = float(tensor[tensor.isfinite()].abs().max())  # logits of words that are not there are infinite
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=tolerance * max(1.0, largest))


@pytest.fixture(params=MODELS.values(), ids=MODELS.keys())
def foreign(request: pytest.FixtureRequest) -> Iterator[Foreign]:
    yield request.param


def test_outputs_and_gradients_stay(foreign: Foreign, monkeypatch: pytest.MonkeyPatch) -> None:
    model = foreign.build()
    twin = copy.deepcopy(model)
    predicted = predict(model, foreign)
    learnt = learn(model, foreign)
    acting = [name for name in learnt if name.endswith(("sampling_offsets.weight", "attention_weights.weight"))]
    assert len(acting) == 2 * foreign.modules
    assert all(float(learnt[name].abs().max()) > 10 * TOLERANCES[foreign.learns_in] for name in acting)

    op = Mock(wraps=cores.ms_deform_attn_at)
    monkeypatch.setattr(cores, "ms_deform_attn_at", op)
    assert len(patch(twin)) == foreign.modules
    assert_same(predict(twin, foreign), predicted)
    assert op.call_count == foreign.modules
    assert_same(learn(twin, foreign), learnt, TOLERANCES[foreign.learns_in])


def test_what_else_a_model_is_stays(foreign: Foreign) -> None:
    model = foreign.build()
    before = {name: (type(module), vars(module).copy()) for name, module in model.named_modules()}
    state = dict(model.state_dict(keep_vars=True))
    names = patch(model)
    assert all(isinstance(module, before[name][0]) for name, module in model.named_modules())
    assert all(vars(module) == before[name][1] for name, module in model.named_modules())
    after = dict(model.state_dict(keep_vars=True))
    assert after.keys() == state.keys()
    assert all(after[name] is tensor for name, tensor in state.items() if isinstance(tensor, nn.Parameter))
    assert unpatch(model) == names
    assert {name: type(module) for name, module in model.named_modules()} == {
        k: kind for k, (kind, _) in before.items()
    }


def first_attention(model: nn.Module, foreign: Foreign) -> tuple[nn.Module, Callable[[nn.Module], dict[str, Tensor]]]:
    """The model's first attention, and what runs such a module as the model does: its output and its gradients."""
    module = foreign.attention_of(model)[0]
    calls: list[tuple[Any, Any]] = []
    hook = module.register_forward_pre_hook(lambda _, args, kwargs: calls.append((args, kwargs)), with_kwargs=True)
    predict(model, foreign)
    hook.remove()
    args, kwargs = calls[0]

    def run(attention: nn.Module) -> dict[str, Tensor]:
        attended = attention(*args, **kwargs)[0]
        names, parameters = zip(*attention.named_parameters(), strict=True)
        gradients = torch.autograd.grad(attended.square().sum(), parameters)
        return {"attended": attended.detach(), **dict(zip(names, gradients, strict=True))}

    return module, run


def test_a_patched_module_compiles_as_a_whole(foreign: Foreign) -> None:
    model = foreign.build()
    module, run = first_attention(model, foreign)
    expected = run(module)
    patch(model)
    torch.compiler.reset()
    module.compile(backend="aot_eager", fullgraph=True)
    assert_same(run(module), expected)


def test_a_pickled_module_is_patched(foreign: Foreign) -> None:
    """Whole models of transformers cannot be pickled: they hold hooks."""
    model = foreign.build()
    module, run = first_attention(model, foreign)
    names = patch(module)
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    for other in (pickle.loads(pickle.dumps(module)), torch.load(file, weights_only=False)):
        assert_same(run(other), run(module))
        assert unpatch(other) == names
        assert_same(run(other), run(module))


def test_a_copy_is_a_patched_model_of_its_own(foreign: Foreign) -> None:
    model = foreign.build()
    names = patch(model)
    other = copy.deepcopy(model)
    expected = predict(model, foreign)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert_same(predict(other, foreign), expected)
    assert unpatch(other) == names
    with pytest.raises(InputError, match="patched already"):
        patch(model)


def test_the_page_runs_as_it_stands() -> None:
    (code,) = re.findall(r"^```python\n(import torch\nfrom transformers.*?)^```$", PAGE, flags=re.M | re.S)
    scope: dict[str, Any] = {}
    exec(code, scope)
    assert len(scope["names"]) == 12


@pytest.mark.parametrize("make", [rt_detr_v2, d_fine])
def test_a_method_that_does_not_interpolate_is_refused_by_name(make: Any) -> None:
    model = make(decoder_method="discrete")
    before = [type(module) for module in model.modules()]
    with pytest.raises(InputError, match=r"model\.decoder\.layers\.0\.encoder_attn \(\w+\) has \w*method='discrete'"):
        patch(model)
    assert [type(module) for module in model.modules()] == before
