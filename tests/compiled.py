"""torch.compile by another backend, which makes a graph without machine code, and a count of the graphs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch._dynamo import lookup_backend


class CompileCounter:
    """A backend of ``torch.compile``.

    Attributes:
        graphs: how many it was given.
    """

    def __init__(self, backend: str) -> None:
        self._backend: Callable[..., Any] = lookup_backend(backend)
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, example_inputs: Any) -> Any:
        self.graphs += 1
        return self._backend(graph, example_inputs)

    @contextmanager
    def in_place(self, patch: pytest.MonkeyPatch) -> Iterator["CompileCounter"]:
        """Let ``torch.compile`` take it, without the options that are the other's."""
        compile = torch.compile
        torch.compiler.reset()
        patch.setattr(torch, "compile", lambda function, *, options, **named: compile(function, backend=self, **named))
        yield self
        torch.compiler.reset()
