"""What `python -m build --no-isolation` makes in a copy of the tree: the source distribution, and from it the wheel.

The wheel is installed and tested outside of the tree. `make test-wheel` does so in environments without detectron2.
"""

import ast
import filecmp
import os
import platform
import runpy
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTS = ("test_deform_attn.py", "test_dispatch.py")
# The newest versions that the systems of manylinux_2_28 have (PEP 600; those of AlmaLinux 8), as auditwheel knows them.
NEWEST = {"GLIBC": (2, 28), "GLIBCXX": (3, 4, 24), "CXXABI": (1, 3, 11), "GCC": (7, 0, 0)}

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
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with both."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    not_sources = shutil.ignore_patterns("_C.*", "__pycache__")
    shutil.copytree(ROOT / "lite_detr_d2", tree / "lite_detr_d2", ignore=not_sources)
    run("-m", "build", "--no-isolation", cwd=tree, FORCE_CUDA="0")
    return tree / "dist"


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (wheel,) = built.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def library(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("library")
    return Path(zipfile.ZipFile(wheel).extract("lite_detr_d2/_C.abi3.so", folder))


def taken_from_elsewhere(library: Path) -> Iterator[tuple[str, str]]:
    """Name and version of each function and variable that a library does not define; weak ones may be missing."""
    command = ["nm", "-D", "--undefined-only", str(library)]
    for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        kind, symbol = line.split()
        name, _, version = symbol.partition("@")
        if kind != "w":
            yield name, version


def test_sources_hold_all_that_is_built(built: Path, tmp_path: Path) -> None:
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
    kept = {path.relative_to(tree) for path in (tree / "lite_detr_d2").rglob("*") if path.is_file()}
    code = (path for ending in ("py", "h", "cpp", "cu", "cuh") for path in (ROOT / "lite_detr_d2").rglob(f"*.{ending}"))
    assert kept == {path.relative_to(ROOT) for path in code}
    files = [*map(str, kept), "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"]
    assert filecmp.cmpfiles(ROOT, tree, files, shallow=False) == (files, [], [])


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


needs_nm = pytest.mark.skipif(not shutil.which("nm"), reason="needs nm")


@needs_nm
def test_library_needs_no_function_of_python(library: Path) -> None:
    names = {name for name, _version in taken_from_elsewhere(library)}
    assert "torch_call_dispatcher" in names, "expected the functions of torch that it uses"
    assert not [name for name in names if name.startswith(("Py", "_Py"))]


@needs_nm
def test_library_takes_only_the_stable_functions_of_torch(library: Path) -> None:
    # Such as the linker finds in no system's library. A C++ function among them would be one that the PyTorch that it
    # was linked with happens to have.
    unversioned = {name for name, version in taken_from_elsewhere(library) if not version}
    assert unversioned and not [name for name in unversioned if not name.startswith(("aoti_torch_", "torch_"))]


@needs_nm
@pytest.mark.skipif(platform.machine() != "x86_64", reason="old_systems.h knows x86-64's glibc only")
def test_library_is_for_systems_with_glibc_2_28(library: Path) -> None:
    for name, version in taken_from_elsewhere(library):
        of, _, number = version.lstrip("@").partition("_")
        if of:
            assert tuple(map(int, number.split("."))) <= NEWEST[of], f"{name} is of {of} {number}"


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


def imported_by(file: Path) -> Iterator[str]:
    """The modules that a file of tests/ops imports: those beside it begin with a dot."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield "." * node.level + node.module
        elif isinstance(node, ast.ImportFrom):
            yield from ("." * node.level + alias.name for alias in node.names)


def test_of_the_ops_what_is_run_beside_pytorch_alone_needs_nothing_else() -> None:
    left_out = runpy.run_path(str(ROOT / "tools" / "wheel_matrix.py"))["LEFT_OUT"]
    files = {path.name: path for path in (ROOT / "tests" / "ops").glob("*.py")}
    assert left_out.keys() < files.keys()
    copied = files.keys() - left_out
    packages = {"torch", "pytest", "hypothesis", *sys.stdlib_module_names}
    for name in copied:
        for module in imported_by(files[name]):
            ours = module == "lite_detr_d2" or module.startswith("lite_detr_d2.ops")
            beside = f"{module.removeprefix('.')}.py" in copied
            assert ours or beside or module.split(".")[0] in packages, f"{name} imports {module}"
