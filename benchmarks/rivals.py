"""Who is measured: this package's ops, the baseline, and the other packages' ops that are installed.

An adapter makes one whole call "reference points + offsets -> output" of another package's op. Ops that take finished
sampling locations and weights get them by the arithmetic that their users write, within the call.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import baseline
import torch
from cases import TINY_LEVELS, Arguments, Case, Setting, SpatialShapes, make_arguments
from torch import Tensor

from lite_detr_d2 import ops
from lite_detr_d2.ops import reference

Function = Callable[..., Tensor]
BoundCall = Callable[[], Tensor]
TOLERANCES = {"float64": 1e-9, "float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
TOKENS_OF_COARSE_TINY_LEVELS = sum(height * width for height, width in TINY_LEVELS[1:])
HALF_TYPES = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Implementation:
    """A way to compute some of the cases.

    Attributes:
        name: what options, tables and JSON call it.
        bind: (case, arguments) -> the call to be timed. Imports, and what a model prepares once, happen here.
        functions: the ops that it has.
        devices: the types of device that it is measured on.
    """

    name: str
    bind: Callable[[Case, Arguments], BoundCall]
    functions: tuple[str, ...] = ("ms_deform_attn", "key_aware_deform_attn")
    devices: tuple[str, ...] = ("cpu", "cuda")

    def why_not(self, case: Case, dtype: str, device: str) -> str:
        """Try a small call, and compare its result with the reference: what is wrong with it, or an empty string."""
        if torch.device(device).type not in self.devices:
            return f"is for {' and '.join(self.devices)}"
        for queries in (12, TOKENS_OF_COARSE_TINY_LEVELS):  # 4-d reference points and 2-d ones
            arguments = make_arguments(case, Setting(queries, 2, dtype, device, levels=TINY_LEVELS))
            try:
                attended = self.bind(case, arguments)()
            except ModuleNotFoundError as error:
                return f"is not installed: {error}"
            except (AttributeError, ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
                return f"does not work: {' '.join(str(error).split())}"
            expected = _bind_module(reference)(case, arguments)()
            difference = float((attended - expected).abs().max())
            if not difference <= TOLERANCES[dtype]:
                return f"is wrong by {difference:.2g}"
        return ""


def _bind_ours(case: Case, arguments: Arguments) -> BoundCall:
    function = getattr(ops, case.function)
    return lambda: function(**arguments)


def _bind_module(module: Any) -> Callable[[Case, Arguments], BoundCall]:
    def bind(case: Case, arguments: Arguments) -> BoundCall:
        function = _in_full_precision(getattr(module, case.function))
        return lambda: function(**arguments)

    return bind


def _bind_finished_locations(load: Callable[[SpatialShapes, torch.device], Function]) -> Callable[..., BoundCall]:
    """Adapt an op (value, locations, weights)."""

    def bind(_: Case, arguments: Arguments) -> BoundCall:
        op = load(arguments["spatial_shapes"], arguments["value"].device)

        def attend(
            value: Tensor,
            spatial_shapes: SpatialShapes,
            reference_points: Tensor,
            sampling_offsets: Tensor,
            attention_logits: Tensor,
        ) -> Tensor:
            locations = baseline.sampling_locations(spatial_shapes, reference_points, sampling_offsets)
            return op(value, locations, attention_logits.softmax(-1).view(sampling_offsets.shape[:-1]))

        function = _in_full_precision(attend)
        return lambda: function(**arguments)

    return bind


def _in_full_precision(function: Function) -> Function:
    """Half types are computed in float32, as in all of these; the conversion is a part of the call."""

    def call(value: Tensor, **arguments: Any) -> Tensor:
        if value.dtype not in HALF_TYPES:
            return function(value=value, **arguments)
        exact = {name: item.float() if isinstance(item, Tensor) else item for name, item in arguments.items()}
        return function(value=value.float(), **exact).to(value.dtype)

    return call


def _shapes_and_starts(spatial_shapes: SpatialShapes, device: torch.device) -> tuple[Tensor, Tensor]:
    """(L, 2) and (L) int64: each level's size and first token. A model makes these once per image, not per call."""
    shapes = torch.tensor(spatial_shapes)
    areas = shapes.prod(1)
    return shapes.to(device), (areas.cumsum(0) - areas).to(device)


def _load_torch_ms_deform_attn(spatial_shapes: SpatialShapes, device: torch.device) -> Function:
    op = importlib.import_module("torch_ms_deform_attn").ms_deform_attn
    metadata = _shapes_and_starts(spatial_shapes, device)
    return lambda value, locations, weights: op(value, *metadata, locations, weights)


def _load_transformers(spatial_shapes: SpatialShapes, device: torch.device) -> Function:
    module = importlib.import_module("transformers.models.deformable_detr.modeling_deformable_detr")
    op = module.MultiScaleDeformableAttention()
    shapes, starts = _shapes_and_starts(spatial_shapes, device)
    return lambda value, locations, weights: op(value, shapes, spatial_shapes, starts, locations, weights, 64)


def _load_classic(spatial_shapes: SpatialShapes, device: torch.device) -> Function:
    op = importlib.import_module("classic_msda").classic_ms_deform_attn
    metadata = _shapes_and_starts(spatial_shapes, device)
    return lambda value, locations, weights: op(value, *metadata, locations, weights)


_MSDA = ("ms_deform_attn",)
IMPLEMENTATIONS = {
    implementation.name: implementation
    for implementation in (
        Implementation("ours", _bind_ours),
        Implementation("baseline", _bind_module(baseline)),
        Implementation("fallback", _bind_module(reference)),
        Implementation("torch-ms-deform-attn", _bind_finished_locations(_load_torch_ms_deform_attn), _MSDA),
        Implementation("transformers", _bind_finished_locations(_load_transformers), _MSDA),
        Implementation("classic", _bind_finished_locations(_load_classic), _MSDA, devices=("cuda",)),
    )
}
