"""The ops as torch sees them: registration, compilation and export, and the choice between the implementations."""

import itertools
import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

import lite_detr_d2
from lite_detr_d2.ops import compiled, deform_attn, reference
from lite_detr_d2.ops.deform_attn import compiled_ops_status

from .cases import VARIANTS, Case, Variant, deterministic_algorithms, make_case

OPS = Path(lite_detr_d2.__file__).parent / "ops"
COMPILED, _ = compiled_ops_status()
needs_compiled_ops = pytest.mark.skipif(not COMPILED, reason="LITE_DETR_PURE_TORCH=1")
each_variant = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())


def test_compiled_ops_are_in_use_unless_refused() -> None:
    refused = os.environ.get("LITE_DETR_PURE_TORCH") == "1"
    assert COMPILED is not refused, compiled_ops_status()


def dispatcher_arguments(case: Case) -> dict[str, tuple[object, ...]]:
    shapes = [side for shape in case.spatial_shapes for side in shape]
    where = (shapes, case.reference_points, case.sampling_offsets)
    return {
        "ms_deform_attn": (case.value, *where, case.attention_logits),
        "key_aware_shared": (case.query, case.value, *where, None),
        "key_aware_separate": (case.query, case.value, *where, case.key),
    }


def in_dtype(case: Case, dtype: torch.dtype) -> Case:
    """With maps of a type, and locations of the type that it goes with."""
    located_in = torch.float64 if dtype == torch.float64 else torch.float32
    types = {name: dtype if name in ("query", "value", "key") else located_in for name in vars(case)}
    tensors = {n: t.to(types[n]) for n, t in vars(case).items() if isinstance(t, torch.Tensor)}
    return replace(case, **tensors)


def op_of(name: str) -> str:
    return "ms_deform_attn" if name == "ms_deform_attn" else "key_aware_deform_attn"


@needs_compiled_ops
@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_opcheck(name: str, dtype: torch.dtype) -> None:
    op = getattr(torch.ops.lite_detr, op_of(name))
    case = in_dtype(make_case(), dtype)
    torch.library.opcheck(op, dispatcher_arguments(case)[name])
    torch.library.opcheck(op, dispatcher_arguments(case.requiring_grad())[name])
    grad_output = torch.randn(2, 3, 8).to(dtype)
    backward = getattr(torch.ops.lite_detr, f"{op_of(name)}_backward")
    inputs = 4 if name == "ms_deform_attn" else 5
    for output_mask in ([True] * inputs, [False] * inputs, [i % 2 == 0 for i in range(inputs)]):
        torch.library.opcheck(backward, (grad_output, *dispatcher_arguments(case)[name], output_mask))


# --- Gradients that are wanted, and those that are not.


@needs_compiled_ops
@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("queries", [3, 40], ids=["in place", "copied"])  # maps, of 26 tokens, are
def test_backward_gives_the_gradients_of_its_mask(name: str, dtype: torch.dtype, queries: int) -> None:
    case = in_dtype(make_case(queries=queries, channels=17), dtype)
    grad_output = torch.randn(2, queries, 34).to(dtype)
    backward = getattr(torch.ops.lite_detr, f"{op_of(name)}_backward")
    arguments = (grad_output, *dispatcher_arguments(case)[name])
    inputs = 4 if name == "ms_deform_attn" else 5
    everything = backward(*arguments, [True] * inputs)
    has_gradient = [True] * inputs if name != "key_aware_shared" else [True] * 4 + [False]
    for output_mask in itertools.product([False, True], repeat=inputs):
        gradients = backward(*arguments, list(output_mask))
        for gradient, wanted, there, expected in zip(gradients, output_mask, has_gradient, everything, strict=True):
            if wanted and there:
                assert torch.equal(gradient, expected)
            else:
                assert gradient.shape == (0,)


class _Recorder(TorchDispatchMode):
    """Keeps the output masks that backward is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.masks: list[list[bool]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "lite_detr" and func.__name__.endswith("_backward.default"):
            self.masks.append(list(args[-1]))
        return func(*args, **(kwargs or {}))


@needs_compiled_ops
@pytest.mark.parametrize("name", VARIANTS)
def test_autograd_asks_for_what_requires_grad(name: str) -> None:
    variant = VARIANTS[name]
    for wanted in variant.inputs:
        case = make_case()
        getattr(case, wanted).requires_grad_()
        attended = variant.call(case)
        with _Recorder() as recorder:
            attended.sum().backward()
        assert [sum(mask) for mask in recorder.masks] == [1]
        given = [name for name in variant.inputs if getattr(case, name).grad is not None]
        assert given == [wanted]


@needs_compiled_ops
@each_variant
def test_second_derivatives_are_refused(variant: Variant) -> None:
    case = make_case().requiring_grad()
    inputs = case.tensors(*variant.inputs)
    gradients = torch.autograd.grad(variant.call(case).sum(), inputs, create_graph=True)
    assert_close(gradients, torch.autograd.grad(variant.call(case).sum(), inputs))
    with pytest.raises(NotImplementedError, match="are differentiable once"):
        sum(gradient.square().sum() for gradient in gradients).backward()  # type: ignore[union-attr]


# --- Determinism: the kernels for the CPU have it, those for CUDA do not. A fake tensor has a device, but no numbers.


class _Context:
    """Backward's context. Autograd itself would ask CUDA for a device."""

    needs_input_grad = (True,) * 6

    def save_for_backward(self, *tensors: torch.Tensor | None) -> None:
        self.saved_tensors = tensors


def backward_on_cuda(name: str) -> list[torch.Tensor]:
    save = getattr(compiled, f"_save_{op_of(name)}")
    backward = getattr(compiled, f"_{op_of(name)}_backward")
    with FakeTensorMode():
        case = make_case(dtype=torch.float32)
        case = replace(case, **{n: t.to("cuda") for n, t in vars(case).items() if isinstance(t, torch.Tensor)})
        attended, context = case.value.new_empty(2, 3, 8), _Context()
        save(context, dispatcher_arguments(case)[name], attended)
        return [gradient for gradient in backward(context, attended) if gradient is not None]


@needs_compiled_ops
@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_on_cuda_are_refused_where_they_must_be_deterministic(name: str) -> None:
    message = f"^{op_of(name)}: the gradient on CUDA is not deterministic, .* warn_only=True$"
    with deterministic_algorithms(warn_only=False), pytest.raises(RuntimeError, match=message):
        backward_on_cuda(name)
    with deterministic_algorithms(warn_only=True), pytest.warns(UserWarning, match=message) as caught:
        gradients = backward_on_cuda(name)
    assert len(caught) == 1
    assert len(gradients) >= 4 and all(gradient.is_cuda for gradient in gradients)


@needs_compiled_ops
def test_gradients_on_cuda_are_of_gathers_where_they_must_be_deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deform_attn, "_BUILT_FOR_CUDA", True)

    def chosen(device: str) -> tuple[Any, reference.Sampler]:
        return deform_attn._ops_for(device), deform_attn._sampler(device)

    usual = torch.ops.lite_detr, reference.sample_grid
    with deterministic_algorithms(warn_only=False):
        assert chosen("cuda") == (torch.ops.lite_detr_pure_torch, reference.sample_by_gathers)
        assert chosen("cpu") == usual
        with torch.no_grad():
            assert chosen("cuda") == usual
    with deterministic_algorithms(warn_only=True):
        assert chosen("cuda") == usual
    assert chosen("cuda") == usual


@pytest.mark.parametrize("name", VARIANTS)
def test_gathers_have_the_gradients_of_the_grid(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deform_attn, "_ops_for", lambda _: torch.ops.lite_detr_pure_torch)
    variant, case = VARIANTS[name], make_case().requiring_grad()
    inputs = case.tensors(*variant.inputs)
    expected = torch.autograd.grad(variant.call(case).sum(), inputs)
    monkeypatch.setattr(deform_attn, "_sampler", lambda _: reference.sample_by_gathers)
    for found, wanted in zip(torch.autograd.grad(variant.call(case).sum(), inputs), expected, strict=True):
        assert_close(found, wanted)


@needs_compiled_ops
@pytest.mark.parametrize("name", VARIANTS)
def test_determinism_is_no_matter_elsewhere(name: str) -> None:
    variant, case = VARIANTS[name], make_case().requiring_grad()
    inputs = case.tensors(*variant.inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert backward_on_cuda(name)
        expected = torch.autograd.grad(variant.call(case).sum(), inputs)
        with deterministic_algorithms(warn_only=False):
            gradients = torch.autograd.grad(variant.call(case).sum(), inputs)
    assert all(map(torch.equal, gradients, expected))


# --- Compilation, export, and mapping.


@each_variant
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_into_one_graph(variant: Variant, dynamic: bool, dtype: torch.dtype) -> None:
    torch.compiler.reset()
    compiled = torch.compile(variant.call, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    # Of sizes that are equal torch.compile would make one, and the coordinates are always 2.
    case = in_dtype(make_case(images=3, queries=7, heads=5, channels=8, points=6), dtype).requiring_grad()
    check_compiled(compiled, variant, case)
    if dynamic:  # one graph serves other sizes
        larger = make_case(images=4, queries=9, heads=6, channels=10, points=7)
        larger = in_dtype(larger, dtype).requiring_grad()
        with torch.compiler.set_stance("fail_on_recompile"):
            check_compiled(compiled, variant, larger)


def check_compiled(compiled: Any, variant: Variant, case: Case) -> None:
    inputs = case.tensors(*variant.inputs)
    expected, attended = variant.call(case), compiled(case)
    assert attended.dtype == expected.dtype
    assert_close(attended, expected)
    gradients = torch.autograd.grad(attended.sum(), inputs)
    assert_close(gradients, torch.autograd.grad(expected.sum(), inputs))


@each_variant
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_compiles_under_autocast(variant: Variant, dtype: torch.dtype) -> None:
    torch.compiler.reset()
    compiled = torch.compile(variant.call, fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", dtype=dtype):
        case = in_dtype(make_case(), torch.float32).requiring_grad()
        check_compiled(compiled, variant, case)
        assert compiled(case).dtype == dtype


class _Module(torch.nn.Module):
    def __init__(self, variant: Variant, case: Case) -> None:
        super().__init__()
        self.variant, self.case = variant, case

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return self.variant.call(replace(self.case, value=value))


def exported_calls(program: torch.export.ExportedProgram) -> list[str]:
    return [str(node.target) for node in program.graph.nodes if node.op == "call_function"]


@needs_compiled_ops
@each_variant
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_export_keeps_one_node(variant: Variant, dtype: torch.dtype) -> None:
    case = in_dtype(make_case(), dtype)
    program = torch.export.export(_Module(variant, case), (case.value,))
    calls = exported_calls(program)
    assert len(calls) == 1 and calls[0].startswith("lite_detr.")
    assert_close(program.module()(case.value), variant.call(case))


@needs_compiled_ops
@each_variant
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_export_under_autocast_adds_only_casts(variant: Variant, dtype: torch.dtype) -> None:
    case = make_case(dtype=torch.float32)
    with torch.autocast("cpu", dtype=dtype):
        program = torch.export.export(_Module(variant, case), (case.value,))
        expected = variant.call(case)
    calls = exported_calls(program)
    assert sum(call.startswith("lite_detr.") for call in calls) == 1
    casts = ("aten.to.", "aten._to_copy.", "aten._assert_tensor_metadata.")
    assert all(call.startswith(("lite_detr.", *casts)) for call in calls), calls
    assert_close(program.module()(case.value), expected)


@each_variant
def test_vmap_is_a_loop(variant: Variant) -> None:
    """There is no batching rule: torch calls the op for each element."""
    case = make_case().requiring_grad()
    values = torch.randn(4, *case.value.shape, dtype=torch.float64)
    mapped = torch.func.vmap(lambda value: variant.call(replace(case, value=value)))(values)
    expected = torch.stack([variant.call(replace(case, value=value)) for value in values])
    assert_close(mapped, expected)
    (gradient,) = torch.autograd.grad(mapped.sum(), [case.sampling_offsets])
    assert_close(gradient, torch.autograd.grad(expected.sum(), [case.sampling_offsets])[0])


@each_variant
def test_meta_tensors_have_shapes(variant: Variant) -> None:
    case = make_case()
    meta = Case(**{k: v.to("meta") if isinstance(v, torch.Tensor) else v for k, v in vars(case).items()})
    assert variant.call(meta).shape == (2, 3, 8)


# --- The fallback. The choice is made on import, so each case is a process of its own.

USE = """
import torch
from lite_detr_d2.ops import ms_deform_attn
print("imported")
value, logits = torch.rand(1, 4, 1, 8), torch.rand(1, 1, 1, 1)
reference_points, offsets = torch.rand(1, 1, 1, 2), torch.rand(1, 1, 1, 1, 1, 2)
for _ in range(3):
    ms_deform_attn(value, ((2, 2),), reference_points, offsets, logits)
print("attended")
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package of the ops alone, not compiled."""
    package = tmp_path / "lite_detr_d2"
    shutil.copytree(OPS, package / "ops", ignore=shutil.ignore_patterns("__pycache__"))
    (package / "__init__.py").touch()
    return package


COMPILE = 'compiled = torch.compile(ms_deform_attn, fullgraph=True, backend="eager")\nprint('


def use(package: Path, mode: str = "", code: str = USE) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(package.parent), "LITE_DETR_PURE_TORCH": mode}
    command = [sys.executable, "-W", "always::RuntimeWarning", "-c", code]
    return subprocess.run(command, cwd=package.parent, env=environment, capture_output=True, text=True, check=False)


def test_without_library_one_warning_says_so(package: Path) -> None:
    result = use(package)
    assert result.stdout.split() == ["imported", "attended"]
    assert result.stderr.count("RuntimeWarning") == 1
    assert "they have not been built" in result.stderr


def test_fallback_compiles_into_one_graph(package: Path) -> None:
    result = use(package, code=USE.replace("ms_deform_attn(value", "compiled(value").replace("print(", COMPILE, 1))
    assert result.stdout.split() == ["imported", "attended"], result.stderr
    assert result.stderr.count("RuntimeWarning") == 1


def test_failed_build_is_named(package: Path) -> None:
    (package / "_C.build_error.txt").write_text("CompileError: no compiler here\n")
    result = use(package)
    assert result.stderr.count("RuntimeWarning") == 1
    assert "they could not be built: CompileError: no compiler here" in result.stderr


def test_library_without_kernels_for_a_device_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_error = tmp_path / "_C.build_error.txt"
    monkeypatch.setattr(deform_attn, "_BUILD_ERROR", build_error)
    monkeypatch.setattr(deform_attn, "_WHY_NOT_COMPILED", "")
    monkeypatch.setattr(deform_attn, "_BUILT_FOR_CUDA", False)
    cure = "; with a CUDA toolkit, `FORCE_CUDA=1` before `pip install --no-build-isolation -e .` builds them"
    assert deform_attn._why_not_compiled("cuda") == f"they were built without kernels for cuda{cure}"
    build_error.write_text("no CUDA toolkit in /opt; set CUDA_HOME to one\n")
    reason = ": no CUDA toolkit in /opt; set CUDA_HOME to one"
    assert deform_attn._why_not_compiled("cuda") == f"they were built without kernels for cuda{reason}{cure}"
    assert deform_attn._why_not_compiled("xpu") == "they were built without kernels for xpu"
    assert deform_attn._why_not_compiled("cpu") == ""


def test_library_that_does_not_load_is_named(package: Path) -> None:
    (package / "_C.abi3.so").write_bytes(b"not a library")
    result = use(package)
    assert "attended" in result.stdout
    assert result.stderr.count("RuntimeWarning") == 1
    assert "_C.abi3.so does not load" in result.stderr


def test_mode_0_refuses_the_fallback_at_first_use(package: Path) -> None:
    result = use(package, mode="0")
    assert result.returncode != 0
    assert result.stdout.split() == ["imported"]
    assert "RuntimeError: LITE_DETR_PURE_TORCH=0 asks for the compiled ops" in result.stderr
    assert "they have not been built" in result.stderr


def test_mode_1_is_silent(package: Path) -> None:
    result = use(package, mode="1")
    assert result.stdout.split() == ["imported", "attended"]
    assert "RuntimeWarning" not in result.stderr


def test_other_modes_are_refused(package: Path) -> None:
    result = use(package, mode="yes")
    assert result.returncode != 0
    assert "LITE_DETR_PURE_TORCH: expected 0, 1 or nothing, got 'yes'" in result.stderr
