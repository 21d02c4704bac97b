"""The wheel: `python -m build --wheel --no-isolation` in a copy of the tree, installed and tested outside of it."""

import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTS = ("test_deform_attn.py", "test_dispatch.py")

# The checkout may be installed for development: what is tested must be the wheel's.
SCRIPT = """
import sys
import lite_detr_d2, pytest

site, *arguments = sys.argv[1:]
assert lite_detr_d2.__file__.startswith(site), lite_detr_d2.__file__
sys.exit(pytest.main(arguments))
"""


def run(*command: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    return result


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("tree")
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    not_sources = shutil.ignore_patterns("_C.*", "__pycache__")
    shutil.copytree(ROOT / "lite_detr_d2", tree / "lite_detr_d2", ignore=not_sources)
    run("-m", "build", "--wheel", "--no-isolation", cwd=tree, FORCE_CUDA="0")
    (wheel,) = (tree / "dist").iterdir()
    return wheel


def test_one_wheel_serves_every_python(wheel: Path) -> None:
    name, _version, *tags = wheel.stem.split("-")
    assert name == "lite_detr_d2"
    assert tags[:2] == ["cp310", "abi3"]
    assert tags[2].endswith(platform.machine())


def test_wheel_has_the_package_and_its_library(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = (path.relative_to(ROOT).as_posix() for path in (ROOT / "lite_detr_d2").rglob("*.py"))
    expected = {"lite_detr_d2/_C.abi3.so", *modules}
    metadata = {name for name in names if ".dist-info/" in name}
    assert names - metadata == expected
    assert any(name.endswith("/LICENSE") for name in metadata)


@pytest.mark.skipif(not shutil.which("nm"), reason="needs nm")
def test_library_needs_no_function_of_python(wheel: Path, tmp_path: Path) -> None:
    library = zipfile.ZipFile(wheel).extract("lite_detr_d2/_C.abi3.so", tmp_path)
    command = ["nm", "-D", "--undefined-only", library]
    symbols = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert "torch_call_dispatcher" in symbols, "expected the functions of torch that it uses"
    assert not [symbol for symbol in symbols if symbol.startswith(("Py", "_Py"))]


def test_installed_wheel_passes_the_tests_of_the_ops(wheel: Path, tmp_path: Path) -> None:
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    run("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", site, wheel, cwd=tmp_path)
    (elsewhere / "tests" / "ops").mkdir(parents=True)
    for name in ("__init__.py", "conftest.py", "ops/__init__.py", "ops/cases.py", *(f"ops/{test}" for test in TESTS)):
        shutil.copy(ROOT / "tests" / name, elsewhere / "tests" / name)
    tests = [f"tests/ops/{test}" for test in TESTS]
    arguments = (site, "-q", "-p", "no:cacheprovider", f"--rootdir={elsewhere}", *tests)
    result = run("-c", SCRIPT, *arguments, cwd=elsewhere, PYTHONPATH=str(site), LITE_DETR_PURE_TORCH="")
    assert " passed" in result.stdout and "skipped" not in result.stdout
