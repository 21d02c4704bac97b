"""The ops as torch sees them: registration, compilation and export, and the choice between the implementations."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from lite_detr_d2.ops.deform_attn import compiled_ops_status

from .cases import VARIANTS, Case, Variant, make_case

ROOT = Path(__file__).parents[2]
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


@needs_compiled_ops
@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_opcheck(name: str, dtype: torch.dtype) -> None:
    op = "ms_deform_attn" if name == "ms_deform_attn" else "key_aware_deform_attn"
    case = make_case(dtype=dtype)
    torch.library.opcheck(getattr(torch.ops.lite_detr, op), dispatcher_arguments(case)[name])
    torch.library.opcheck(getattr(torch.ops.lite_detr, op), dispatcher_arguments(case.requiring_grad())[name])
    grad_output = torch.randn(2, 3, 8, dtype=dtype)
    backward = getattr(torch.ops.lite_detr, f"{op}_backward")
    inputs = 4 if name == "ms_deform_attn" else 5
    for output_mask in ([True] * inputs, [False] * inputs, [i % 2 == 0 for i in range(inputs)]):
        torch.library.opcheck(backward, (grad_output, *dispatcher_arguments(case)[name], output_mask))


@each_variant
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_into_one_graph(variant: Variant, dynamic: bool) -> None:
    torch.compiler.reset()
    case = make_case().requiring_grad()
    inputs = case.tensors(*variant.inputs)
    compiled = torch.compile(variant.call, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    expected, attended = variant.call(case), compiled(case)
    assert_close(attended, expected)
    assert_close(torch.autograd.grad(attended.sum(), inputs), torch.autograd.grad(expected.sum(), inputs))


class _Module(torch.nn.Module):
    def __init__(self, variant: Variant, case: Case) -> None:
        super().__init__()
        self.variant, self.case = variant, case

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        case = Case(**{**vars(self.case), "value": value})
        return self.variant.call(case)


@needs_compiled_ops
@each_variant
def test_export_keeps_one_node(variant: Variant) -> None:
    case = make_case(dtype=torch.float32)
    program = torch.export.export(_Module(variant, case), (case.value,))
    calls = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert len(calls) == 1 and calls[0].startswith("lite_detr.")
    assert_close(program.module()(case.value), variant.call(case))


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
    shutil.copytree(ROOT / "lite_detr_d2" / "ops", package / "ops", ignore=shutil.ignore_patterns("__pycache__"))
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
