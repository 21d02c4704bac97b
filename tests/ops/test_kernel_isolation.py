"""Kernels for one instruction set must not leak into code that every processor runs.

Where two object files hold the same inline function, the linker keeps one of them: it could be the one compiled for
AVX-512. So the object files of the kernels may define no such function outside of their own namespace.
"""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[2] / "lite_detr_d2" / "csrc" / "cpu"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors have one set of kernels")
@pytest.mark.skipif(not (shutil.which("g++") and shutil.which("nm")), reason="needs g++ and nm")
@pytest.mark.parametrize("isa", ["avx2", "avx512"])
def test_kernels_share_no_inline_function(isa: str, tmp_path: Path) -> None:
    compiled = tmp_path / f"{isa}.o"
    # The less is inlined, the more is left for the linker to merge.
    command = ["g++", "-std=c++20", "-O0", "-Wno-psabi", "-c", str(CSRC / f"kernels_{isa}.cpp"), "-o", str(compiled)]
    subprocess.run(command, check=True)
    listed = subprocess.run(["nm", "-C", str(compiled)], check=True, capture_output=True, text=True).stdout
    merged = [line for line in listed.splitlines() if line.split(" ", 2)[1] in ("W", "V", "u")]
    assert merged, "expected the kernels themselves"
    foreign = [line for line in merged if f"lite_detr::cpu::{isa}::" not in line and "__gxx_personality_v0" not in line]
    assert not foreign
