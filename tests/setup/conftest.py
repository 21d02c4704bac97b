"""The pips and the build tools that the set-up is tried with, and an index in which all is going to break."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from .local_index import BROKEN, lock_line, make_sdist, make_wheel, write_index

ROOT = Path(__file__).parents[2]
# The oldest pip that runs on the interpreter, and the newest there was.
PIPS = {
    "22.0.4": "c6aca0f2f081363f689f041d90dab2a07a9a07fb840284db2218117a52da800b",
    "23.2.1": "7ccf472345f20d35bdc9d1841ff5f313260c2c33fe417f48c30ac46cccabf5be",
    "26.3": "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13",
}
OLDEST_PIP, NEWEST_PIP = "22.0.4" if sys.version_info < (3, 12) else "23.2.1", "26.3"


@dataclass(frozen=True)
class Place:
    """Where the set-up is tried: an index, a lock of some of it, and the virtual environment to be."""

    index: str
    lock: Path
    venv: Path
    pips: dict[str, Path]
    base: Path | None = None

    def environment(self, **settings: str) -> dict[str, str]:
        """That of the process, without this machine's settings for pip, nor what make tells its children."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PIP_", "PYTHON", "MAKE", "MFLAGS", "XDG_"))
        }
        own = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": self.index, "PIP_CACHE_DIR": str(self.lock / "cache")}
        return {**inherited, **own, **settings}

    @property
    def over(self) -> "Place":
        """That of the virtual environment over this one, whose lock is extra.txt."""
        return replace(self, venv=Path(f"{self.venv}-extra"), base=self.venv)

    def command(self, pip: str = "") -> list[str]:
        """The Makefile's own recipe, with the interpreter's own pip or another version."""
        python = f"{sys.executable} {ROOT}/tests/setup/with_pip.py {self.pips[pip]}" if pip else sys.executable
        variables = [f"VENV={self.base or self.venv}", f"LOCK={self.lock}", f"PYTHON={python}"]
        return ["make", "--no-print-directory", "-C", str(ROOT), *variables, f"{self.venv}/.installed"]

    def run(self, pip: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(pip), env=self.environment(**settings), capture_output=True, text=True, check=False
        )

    def installed(self) -> dict[str, str]:
        """Version by name, of all but pip, and of nothing that lies below."""
        show = (
            "import sysconfig; from importlib.metadata import distributions as d;"
            "print(*(f'{i.name}=={i.version}' for i in d(path=[sysconfig.get_path('purelib')])))"
        )
        output = subprocess.check_output([self.venv / "bin" / "python", "-I", "-c", show], text=True)
        pairs = [item.split("==") for item in output.split()]
        assert len(pairs) == len(dict(pairs))
        return {name: version for name, version in pairs if name != "pip"}

    def value(self, expression: str, module: str) -> str:
        command = [self.venv / "bin" / "python", "-I", "-c", f"import {module}; print({expression})"]
        return subprocess.check_output(command, text=True).strip()


def download(folder: Path, requirements: str) -> list[Path]:
    """Fetch from the index that this machine is set up with, or from pip's cache."""
    folder.mkdir()
    (folder / "wanted.txt").write_text(requirements)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    subprocess.run([*pip, "--dest", str(folder), "-r", str(folder / "wanted.txt")], check=True)
    return sorted(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def pips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pips")
    return {
        version: download(folder / version, f"pip=={version} --hash=sha256:{PIPS[version]}\n")[0]
        for version in (OLDEST_PIP, NEWEST_PIP)
    }


@pytest.fixture(scope="session")
def build_tools(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What the real lock builds with."""
    return download(tmp_path_factory.mktemp("build") / "tools", (ROOT / "requirements" / "build.txt").read_text())


@pytest.fixture
def place(tmp_path: Path, pips: dict[str, Path], build_tools: list[Path]) -> Place:
    """Every package of the lock has a newer release that is broken, or needs what is not there."""
    files, lock = tmp_path / "files", tmp_path / "lock"
    files.mkdir()
    lock.mkdir()
    shutil.copy(ROOT / "requirements" / "build.txt", lock)
    locked = [
        make_wheel(files, "alpha", "1.0", requires="beta[more]>=1.0"),
        make_wheel(files, "beta", "1.0", requires="nowhere>=3; extra == 'more'"),
        make_sdist(files, "gamma", "1.0", build_system=None),
        make_sdist(files, "delta", "1.0", build_system='[build-system]\nrequires = ["setuptools>=40", "wheel"]\n'),
    ]
    tagged = make_wheel(files, "tagged", "1.0", requires="alpha<1", tag="cp310-none-any")
    extra = [
        locked[0],  # which is there already
        make_wheel(files, "beta", "3.0", requires="nowhere", source="OWN = True\n"),
        make_sdist(files, "epsilon", "1.0", build_system='[build-system]\nrequires = ["nowhere"]\n'),
    ]
    newer = [
        make_wheel(files, "alpha", "2.0", requires="nowhere", source=BROKEN),
        make_wheel(files, "beta", "1.0.post1", requires="nowhere", source=BROKEN),
        make_sdist(files, "gamma", "2.0", build_system='[build-system]\nrequires = ["nowhere"]\n'),
        make_sdist(files, "delta", "1.1", build_system='[build-system]\nrequires = ["nowhere"]\n'),
        *(make_wheel(files, name, "999", source=BROKEN) for name in ("setuptools", "wheel", "packaging", "pip")),
    ]
    (lock / "dev.txt").write_text("".join(map(lock_line, locked)))
    (lock / "detectron2.txt").write_text(lock_line(tagged))
    (lock / "extra.txt").write_text("".join(map(lock_line, extra)))
    index = write_index(tmp_path / "index", [*locked, tagged, *extra[1:], *newer, *build_tools])
    return Place(index, lock, tmp_path / "venv", pips)


@pytest.fixture(scope="session")
def built_with(build_tools: list[Path]) -> dict[str, str]:
    """Version by name."""
    return dict(re.match(r"([^-]+)-([^-]+)-", file.name).groups() for file in build_tools)
