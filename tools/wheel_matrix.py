"""Install the wheel beside PyTorch, pytest and hypothesis alone, run the tests of the ops, and print a table.

    make test-wheel
    python tools/wheel_matrix.py [--pythons 3.10 3.13] [--torch 2.10.* newest] [--tests test_deform_attn.py]

For each interpreter and each PyTorch: a fresh virtual environment, by uv, which is removed again. The wheel comes with
--no-deps: detectron2 is not there, nor is NumPy. The tests lie outside of the checkout, and may not fall back to the
ops in PyTorch. uv's own settings hold, such as UV_CACHE_DIR; UV_TORCH_BACKEND=cpu takes PyTorch's builds for the CPU
from PyTorch's index, while those of the package index have CUDA, 3 GB each. An interpreter is a version, or a path.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
TORCH = ("2.10.*", "newest")
# Tests of the ops that are not of an installed wheel: what they need.
LEFT_OUT = {
    "test_cuda_emulation.py": "the sources",
    "test_flops.py": "detectron2",
    "test_kernel_isolation.py": "the sources",
}
COUNTED = ("passed", "failed", "error", "skipped")  # as pytest has them; an error is a fixture's
COLUMNS = ("Python", "PyTorch", *COUNTED, "s")
# What is tested must be the wheel's, and its library must be there.
LOADED = """
import platform, sys
import torch
import lite_detr_d2.ops.deform_attn as deform_attn
built, why_not = deform_attn.compiled_ops_status()
assert built, why_not
assert deform_attn.__file__.startswith(sys.prefix), deform_attn.__file__
print(platform.python_version(), torch.__version__)
"""


@dataclass(frozen=True)
class Outcome:
    """A row of the table; ``error`` is empty if all tests passed."""

    python: str
    torch: str
    counts: dict[str, int]
    seconds: float
    error: str

    @property
    def row(self) -> str:
        counts = [str(self.counts.get(name, 0)) for name in COUNTED]
        return line([self.python, self.torch, *counts, f"{self.seconds:.0f}"])


def line(words: Sequence[str]) -> str:
    return f"| {' | '.join(words)} |"


def run(*command: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=cwd, env=environ | environment, capture_output=True, text=True, check=False)


def copy_tests(folder: Path) -> None:
    """Those of the ops, in ``folder/tests/ops``."""
    ignored = shutil.ignore_patterns(*LEFT_OUT, "cuda_emulation", "__pycache__")
    shutil.copytree(ROOT / "tests" / "ops", folder / "tests" / "ops", ignore=ignored)
    for name in ("__init__.py", "conftest.py"):
        shutil.copy(ROOT / "tests" / name, folder / "tests" / name)


def try_wheel(wheel: Path, python: str, torch: str, names: Sequence[str], folder: Path) -> Outcome:
    """Install ``wheel`` with one interpreter and one PyTorch in ``folder``, and run the tests of these names there."""
    uv, start = Path(sys.executable).with_name("uv"), time.monotonic()
    interpreter = folder / "env" / "bin" / "python"
    wanted = "torch" if torch == "newest" else f"torch=={torch}"
    install = (uv, "pip", "install", "--quiet", "--python", interpreter)
    copy_tests(folder)
    environment = {"LITE_DETR_OPS_ONLY": "1", "LITE_DETR_PURE_TORCH": "0"}
    found = (python, torch)
    for command in (
        (uv, "venv", "--quiet", "--python", python, folder / "env"),
        (*install, wanted, "pytest", "hypothesis"),
        (*install, "--no-deps", wheel),
        (interpreter, "-W", "ignore", "-c", LOADED),
    ):
        done = run(*command, cwd=folder, **environment)
        if done.returncode:
            return Outcome(*found, {}, time.monotonic() - start, done.stderr[-2000:])
    found = tuple(done.stdout.split())
    pytest = (interpreter, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow")
    del environment["LITE_DETR_PURE_TORCH"]  # tests of the choice set it
    start = time.monotonic()
    done = run(*pytest, *(f"tests/ops/{name}" for name in names), cwd=folder, OMP_NUM_THREADS="1", **environment)
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""
    counts = {name: int(count) for count, name in re.findall(r"(\d+) (passed|failed|error|skipped)", last)}
    error = done.stdout[-4000:] + done.stderr[-2000:] if done.returncode else ""
    return Outcome(*found, counts, time.monotonic() - start, error)


def main() -> int:
    """Fill the table; 0 if all tests passed everywhere."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pythons", nargs="+", default=PYTHONS, metavar="P", help=f"(default: {' '.join(PYTHONS)})")
    parser.add_argument("--torch", nargs="+", default=TORCH, metavar="V", help=f"(default: {' '.join(TORCH)})")
    parser.add_argument("--tests", nargs="+", default=[""], metavar="FILE", help="of tests/ops; all, if not given")
    parser.add_argument("--wheel", type=Path, metavar="FILE", help="the one in dist/, if not given")
    args = parser.parse_args()
    wheels = [args.wheel] if args.wheel else sorted((ROOT / "dist").glob("lite_detr_d2-*.whl"))
    if len(wheels) != 1 or not wheels[0].is_file():
        parser.error("there is not one wheel in dist/: `make wheel` makes it, or name one with --wheel")
    outcomes = []
    for python in args.pythons:
        for torch in args.torch:
            with tempfile.TemporaryDirectory() as folder:
                outcome = try_wheel(wheels[0].resolve(), python, torch, args.tests, Path(folder))
            outcomes.append(outcome)
            print(outcome.row, outcome.error, sep="\n" if outcome.error else "", file=sys.stderr, flush=True)
    print("\n".join([line(COLUMNS), "|---" * len(COLUMNS) + "|", *(outcome.row for outcome in outcomes)]))
    return int(any(outcome.error for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
