"""Building the extension with CUDA kernels, on machines with a CUDA toolkit; a GPU is not needed."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
OPS = ("ms_deform_attn", "ms_deform_attn_backward", "key_aware_deform_attn", "key_aware_deform_attn_backward")


SETUP = runpy.run_path(str(ROOT / "setup.py"))  # its names; it builds nothing unless it is the main program
CUDA_ROOT, WHY_NOT = SETUP["find_cuda_root"]()
needs_toolkit = pytest.mark.skipif(
    CUDA_ROOT is None or torch.version.cuda is None, reason=WHY_NOT or "torch was built without CUDA"
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "README.md").touch()
    shutil.copytree(ROOT / "lite_detr_d2" / "csrc", tmp_path / "lite_detr_d2" / "csrc")
    shutil.copy(ROOT / "lite_detr_d2" / "__init__.py", tmp_path / "lite_detr_d2")
    return tmp_path


def build(tree: Path, **environment: str) -> str:
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    result = subprocess.run(
        command, cwd=tree, env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return result.stdout + result.stderr


@pytest.mark.slow
@needs_toolkit
def test_the_library_has_kernels_for_cuda_and_needs_only_the_stable_abi(tree: Path) -> None:
    output = build(tree, FORCE_CUDA="1", TORCH_CUDA_ARCH_LIST="7.5;9.0+PTX")
    reason, library = tree / "lite_detr_d2" / "_C.build_error.txt", tree / "lite_detr_d2" / "_C.abi3.so"
    assert library.exists(), output
    assert not reason.exists(), output
    assert not [line for line in output.splitlines() if "csrc/cuda" in line and "warning" in line]

    load = (
        "import json, torch; "
        f"torch.ops.load_library({str(library)!r}); "
        "has = torch._C._dispatch_has_kernel_for_dispatch_key; "
        f"print(json.dumps([has('lite_detr::' + op, key) for op in {OPS} for key in ('CPU', 'CUDA')]))"
    )
    result = subprocess.run([sys.executable, "-c", load], capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == [True] * 8

    symbols = subprocess.run(["nm", "-DC", str(library)], capture_output=True, text=True, check=True).stdout
    assert "aoti_torch_get_current_cuda_stream" in symbols
    assert not [symbol for symbol in symbols.splitlines() if "c10::" in symbol or "at::" in symbol]


def test_the_toolkit_is_one_that_holds_its_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrapper of the compiler may lie in a folder without them."""
    compiler_only, whole = tmp_path / "compiler_only", tmp_path / "whole"
    for root in (compiler_only, whole):
        (root / "bin").mkdir(parents=True)
        (root / "bin" / "nvcc").touch(mode=0o755)
    (whole / "lib64").mkdir()
    (whole / "lib64" / "libcudart.so.13").touch()
    monkeypatch.setenv("CUDA_HOME", str(compiler_only))
    monkeypatch.setenv("CUDA_PATH", str(whole))
    assert SETUP["find_cuda_root"]() == (whole, "")


def test_forced_without_a_toolkit_is_a_recorded_failure(tree: Path) -> None:
    # The candidates are made unusable in the copy of setup.py; CUDA_HOME and the path are the environment's.
    setup = tree / "setup.py"
    setup.write_text(setup.read_text().replace("libcudart.so*", "no-such-library*"))
    build(tree, FORCE_CUDA="1")
    reason = (tree / "lite_detr_d2" / "_C.build_error.txt").read_text()
    assert "FORCE_CUDA=1, but " in reason
    assert "no CUDA toolkit" in reason or "torch was built without CUDA" in reason
    assert not (tree / "lite_detr_d2" / "_C.abi3.so").exists()


@needs_toolkit
def test_architectures_are_those_the_compiler_knows() -> None:
    architectures = SETUP["default_architectures"](CUDA_ROOT / "bin" / "nvcc")
    assert "9.0" in architectures
    assert architectures.endswith("+PTX")


def make_compiler(folder: Path, *architectures: str) -> Path:
    """A stand-in for nvcc, which lists these and compiles nothing."""
    nvcc = folder / "nvcc"
    nvcc.write_text("\n".join(["#!/bin/sh", *(f"echo {name}" for name in architectures), ""]))
    nvcc.chmod(0o755)
    return nvcc


def test_architectures_are_the_usual_ones_of_those(tmp_path: Path) -> None:
    nvcc = make_compiler(tmp_path, "sm_75", "sm_87", "sm_90", "sm_90a", "sm_120a")
    assert SETUP["default_architectures"](nvcc) == "7.5;9.0+PTX"


def test_a_compiler_of_other_architectures_is_named(tmp_path: Path) -> None:
    nvcc = make_compiler(tmp_path, "sm_50", "sm_60")
    with pytest.raises(RuntimeError, match=r"nvcc compiles for none of .* 7\.5, .*set TORCH_CUDA_ARCH_LIST"):
        SETUP["default_architectures"](nvcc)


# --- The script that builds, tests and measures on a machine with a GPU.


@pytest.mark.parametrize("limit", ["0", "-5", "nine minutes"])
def test_the_script_refuses_a_limit_that_is_none(tmp_path: Path, limit: str) -> None:
    results = tmp_path / "results"
    command = [str(ROOT / "tools" / "gpu" / "run.sh"), str(results)]
    result = subprocess.run(command, env={**os.environ, "LIMIT": limit}, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr == f"LIMIT: expected seconds, a whole number above 0, got '{limit}'\n"
    assert not results.exists()
