"""Building the extension, with and without a compiler, in a copy of the tree."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What setup.py needs, with a library that an earlier build left."""
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "README.md").touch()
    package = tmp_path / "lite_detr_d2"
    shutil.copytree(ROOT / "lite_detr_d2" / "csrc", package / "csrc")
    shutil.copy(ROOT / "lite_detr_d2" / "__init__.py", package)
    (package / "_C.abi3.so").write_bytes(b"stale")
    return tmp_path


def build(tree: Path, **environment: str) -> str:
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    result = subprocess.run(
        command, cwd=tree, env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return result.stdout + result.stderr


def test_without_a_compiler_the_reason_stays_and_the_stale_library_goes(tree: Path) -> None:
    output = build(tree, CXX="/bin/false")
    assert "could not be built" in output
    assert "/bin/false" in (tree / "lite_detr_d2" / "_C.build_error.txt").read_text()
    assert not (tree / "lite_detr_d2" / "_C.abi3.so").exists()


def test_a_build_that_works_replaces_the_library_and_the_reason(tree: Path) -> None:
    reason = tree / "lite_detr_d2" / "_C.build_error.txt"
    reason.write_text("CompileError: the last time")
    build(tree)
    assert not reason.exists()
    library = tree / "lite_detr_d2" / "_C.abi3.so"
    assert library.read_bytes().startswith(b"\x7fELF")
    load = f"import torch; torch.ops.load_library({str(library)!r}); print(torch.ops.lite_detr.ms_deform_attn.default)"
    result = subprocess.run([sys.executable, "-c", load], capture_output=True, text=True, check=True)
    assert "lite_detr.ms_deform_attn.default" in result.stdout


def test_code_that_does_not_compile_is_reported(tree: Path) -> None:
    (tree / "lite_detr_d2" / "csrc" / "library.cpp").write_text("#error no such luck\n")
    output = build(tree)
    assert "no such luck" in output
    assert (tree / "lite_detr_d2" / "_C.build_error.txt").read_text().strip()
    assert not (tree / "lite_detr_d2" / "_C.abi3.so").exists()
