"""Every implementation of the ops: the kernels of each instruction set, and pure PyTorch.

The choice is made when the library is loaded, or first called, so each is a process of its own.
"""

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from lite_detr_d2.ops.deform_attn import compiled_ops_status

from .cases import make_case

HERE = Path(__file__).parent
COMPILED, _ = compiled_ops_status()
SUPPORTED = {
    "default": True,
    "avx2": torch.cpu._is_avx2_supported(),
    "avx512": torch.cpu._is_avx512_supported(),
}

# Pytest's exit status is the process's. What the ops compute is left in a file, for a comparison.
SCRIPT = """
import sys
import pytest, torch
from tests.ops.cases import VARIANTS, Case
from tests.ops.test_deform_attn import gradients

inputs, results, *tests = sys.argv[1:]
computed = {
    (name, case): [tensor.detach() for tensor in gradients(variant, Case(**tensors))]
    for case, tensors in torch.load(inputs).items()
    for name, variant in VARIANTS.items()
}
capability = getattr(torch.ops.lite_detr, "cpu_capability", lambda: "pure PyTorch")()
torch.save((capability, computed), results)
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *tests]))
"""

Results = dict[Any, list[torch.Tensor]]


def make_inputs() -> dict[tuple[int, torch.dtype], dict[str, Any]]:
    """Arguments of the ops. They are made here: torch's random numbers depend on the instruction set, too."""
    inputs = {}
    for channels in (1, 5, 16, 24, 32, 64):
        for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
            located_in = torch.float64 if dtype == torch.float64 else torch.float32
            case = vars(make_case(channels=channels, points=4, queries=5, reference_size=4, dtype=located_in))
            maps = {name: case[name].to(dtype) for name in ("query", "value", "key")}
            inputs[channels, dtype] = {**case, **maps}
    return inputs


def run_tests(inputs: Path, run: str, **environment: str) -> tuple[str, Results]:
    """Run the tests of values and gradients; return the name of the kernels, and results for the inputs."""
    results = inputs.with_name(run)
    tests = [str(HERE / name) for name in ("test_deform_attn.py", "test_half.py")]
    without_choice = {k: v for k, v in os.environ.items() if k not in ("ATEN_CPU_CAPABILITY", "LITE_DETR_PURE_TORCH")}
    python_path = os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(inputs), str(results), *tests],
        env={**without_choice, "PYTHONPATH": python_path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    assert " passed" in result.stdout
    name, computed = torch.load(results)
    return name, computed


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("implementations") / "inputs"
    torch.save(make_inputs(), path)
    return path


@pytest.fixture(scope="module")
def portable(inputs: Path) -> Results:
    name, results = run_tests(inputs, "default", ATEN_CPU_CAPABILITY="default")
    assert name == "DEFAULT"
    return results


def assert_agree(actual: Results, expected: Results) -> None:
    assert actual.keys() == expected.keys() and len(actual) == 3 * 6 * 4
    # Of half types, one unit in the last place.
    tolerance = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 2**-7, torch.float16: 2**-10}
    for case, tensors in actual.items():
        for tensor, other in zip(tensors, expected[case], strict=True):
            rtol, atol = tolerance[tensor.dtype], 1e-5 * other.abs().max().item()
            assert_close(tensor, other, rtol=rtol, atol=atol, msg=lambda text, c=case: f"{c}: {text}")


@pytest.mark.skipif(not COMPILED, reason="LITE_DETR_PURE_TORCH=1")
@pytest.mark.parametrize("capability", ["avx2", "avx512"])
def test_kernels_of_an_instruction_set(capability: str, inputs: Path, portable: Results) -> None:
    if platform.machine() != "x86_64" or not SUPPORTED[capability]:
        pytest.skip(f"this processor lacks {capability}")
    name, results = run_tests(inputs, capability, ATEN_CPU_CAPABILITY=capability)
    assert name == capability.upper()
    assert_agree(results, portable)


@pytest.mark.skipif(not COMPILED, reason="LITE_DETR_PURE_TORCH=1")
def test_pure_torch(inputs: Path, portable: Results) -> None:
    name, results = run_tests(inputs, "pure_torch", LITE_DETR_PURE_TORCH="1")
    assert name == "pure PyTorch"
    assert_agree(results, portable)
