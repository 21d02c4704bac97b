"""What the locks name, what is installed, and what the packages ask for."""

import sys
import sysconfig
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCK = Path(__file__).parents[2] / "requirements"
BASE = ("build.txt", "dev.txt", "detectron2.txt")  # of .venv; the others are of what lies over it
PYTHONS = ("3.11", "3.12", "3.13")
# What a locked package asks for and does not get, and why.
UNMET = {
    "sal-detectron2 numpy<2": "older than its code, which the tests run with NumPy 2",
    "sal-detectron2 black": "formats configs that detectron2's LazyConfig writes, which nothing here does",
}
# Installed, and in no lock.
UNLOCKED = {"pip": "the interpreter's own", "lite-detr-d2": "this package"}


def read_lock(name: str) -> list[Requirement]:
    text = (LOCK / name).read_text().replace("\\\n", " ")
    lines = [line.split(" --hash")[0] for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    return [Requirement(line) for line in lines]


def environment(python: str) -> dict[str, str]:
    return {**default_environment(), "python_version": python, "python_full_version": f"{python}.1"}


def locked_for(python: str, *locks: str) -> dict[str, str]:
    """Version by name, the same in all of ``locks``."""
    versions: dict[str, str] = {}
    for name in locks:
        for requirement in read_lock(name):
            if requirement.marker is None or requirement.marker.evaluate(environment(python)):
                (version,) = (specifier.version for specifier in requirement.specifier)
                assert versions.setdefault(canonicalize_name(requirement.name), version) == version
    return versions


def installed() -> list[tuple[str, str]]:
    """Name and version of what is in the virtual environment itself, and in a lock."""
    found = [
        (canonicalize_name(each.name), each.version) for each in distributions(path=[sysconfig.get_path("purelib")])
    ]
    return sorted(pair for pair in found if pair[0] not in UNLOCKED)


def added_by(lock: str) -> list[tuple[str, str]]:
    """Name and version of what a lock has that .venv has not, on this interpreter."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return sorted(locked_for(python, lock).items() - locked_for(python, *BASE).items())


def requirements_of(distribution: Distribution, extra: str, python: str) -> Iterator[Requirement]:
    for line in distribution.requires or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({**environment(python), "extra": extra}):
            yield requirement


def unmet(python: str, *locks: str) -> list[str]:
    """The requirements of locked packages, and of their extras that are asked for, that the locks do not meet."""
    locked, known = locked_for(python, *locks), {canonicalize_name(each.name): each for each in distributions()}
    wanted = [(name, "") for name in locked]
    missing = []
    for name, extra in wanted:  # grows
        for requirement in requirements_of(known[name], extra, python):
            needed = canonicalize_name(requirement.name)
            if needed not in locked or not requirement.specifier.contains(locked[needed], prereleases=True):
                missing += [f"{name} {requirement}"]
            else:
                wanted += [(needed, each) for each in requirement.extras if (needed, each) not in wanted]
    return missing
