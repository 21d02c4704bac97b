"""A method that is compiled: what is constant in its graph, and what is said where there can be none."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lite_detr_d2.errors import InputError
from lite_detr_d2.torch_compile import CompiledMethod, with_open_sizes


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def logits(self, images: Tensor) -> Tensor:
        result: Tensor = self.linear(self.conv(images).mean((2, 3)))
        return result

    def scaled(self, images: Tensor, by: int = 2, *, too: int = 3) -> Tensor:
        return by * too * images

    def broken(self, images: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return images

    def of_one_size(self, images: Tensor) -> Tensor:
        return images.reshape(1, 3, 32, 32) + 1


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The kinds of nodes of each graph that is made, without machine code."""
    made: list[list[str]] = []
    compile = torch.compile

    def backend(graph: torch.fx.GraphModule, example_inputs: Any) -> Callable[..., Any]:
        made.append([node.op for node in graph.graph.nodes])
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda method, *, options, **named: compile(method, backend=backend, **named))
    torch.compiler.reset()
    return made


def compiled(model: Model, name: str, **options: Any) -> CompiledMethod:
    return CompiledMethod(model, name, cure="Leave it out.", **options)


@torch.no_grad()
def test_fixed_weights_are_constants_until_others_are_loaded(graphs: list[list[str]]) -> None:
    model, images = Model(), torch.rand(2, 3, 8, 8)
    method = compiled(model, "logits", has_fixed_weights=True)
    model.logits = method  # type: ignore[assignment]
    torch.testing.assert_close(method(images), method.uncompiled(images))
    whole = nn.Sequential(model)
    whole.load_state_dict({name: value + 1 for name, value in whole.state_dict().items()})
    torch.testing.assert_close(method(images), method.uncompiled(images))
    model.linear.load_state_dict({name: value + 1 for name, value in model.linear.state_dict().items()})
    torch.testing.assert_close(method(images), method.uncompiled(images))
    method(images)
    assert [ops.count("placeholder") for ops in graphs] == [1, 1, 1]  # the images


def test_defaults_are_kept(graphs: list[list[str]]) -> None:
    images = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(compiled(Model(), "scaled")(images), 6 * images)


def test_other_weights_are_inputs(graphs: list[list[str]]) -> None:
    model, images = Model(), torch.rand(2, 3, 8, 8)
    method = compiled(model, "logits")
    torch.testing.assert_close(method(images), method.uncompiled(images))
    assert [ops.count("placeholder") for ops in graphs] == [5]


def test_an_error_says_what_it_is_why_and_where(graphs: list[list[str]]) -> None:
    with pytest.raises(InputError) as error:
        compiled(Model(), "broken")(torch.rand(1, 3, 8, 8))
    message = str(error.value)
    assert message.startswith("torch.compile cannot compile Model.broken: Unsupported: ")
    assert "Explanation: " in message and f'File "{__file__}"' in message and "\n" not in message
    assert message.endswith(", in broken. Leave it out.")


def test_a_size_that_cannot_be_open_is_an_error(graphs: list[list[str]]) -> None:
    images, _ = with_open_sizes(torch.rand(1, 3, 32, 32), torch.zeros(1, 32, 32, dtype=torch.bool))
    with pytest.raises(InputError, match="^torch.compile cannot compile Model.of_one_size: ConstraintViolationError: "):
        compiled(Model(), "of_one_size")(images)


def test_what_the_backend_says_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a compiler that is there and cannot compile."""

    def backend(graph: torch.fx.GraphModule, example_inputs: Any) -> Callable[..., Any]:
        raise RuntimeError(
            "C++ compile error\n\nCommand:\ng++ a.cpp\n\nOutput:\na.cpp:1: fatal error: Python.h: No such file"
        )

    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda method, *, options, **named: compile(method, backend=backend, **named))
    with pytest.raises(InputError) as error:
        compiled(Model(), "logits")(torch.rand(1, 3, 8, 8))
    reason = "RuntimeError: C++ compile error; a.cpp:1: fatal error: Python.h: No such file. Leave it out."
    assert str(error.value) == f"torch.compile cannot compile Model.logits: {reason}"
