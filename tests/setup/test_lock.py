"""The lock has all that its packages need, on each interpreter that it is for; and what is installed is the lock."""

import re
import sys
import sysconfig
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

import pytest
import tomllib
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements"
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


def locked_for(python: str) -> dict[str, str]:
    """Version by name."""
    versions: dict[str, str] = {}
    for name in ("build.txt", "dev.txt", "detectron2.txt"):
        for requirement in read_lock(name):
            if requirement.marker is None or requirement.marker.evaluate(environment(python)):
                (version,) = (specifier.version for specifier in requirement.specifier)
                assert versions.setdefault(canonicalize_name(requirement.name), version) == version
    return versions


def installed() -> list[Distribution]:
    return list(distributions(path=[sysconfig.get_path("purelib")]))


def requirements_of(distribution: Distribution, extra: str, python: str) -> Iterator[Requirement]:
    for line in distribution.requires or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({**environment(python), "extra": extra}):
            yield requirement


def unmet(python: str) -> list[str]:
    """The requirements of locked packages, and of their extras that are asked for, that the lock does not meet."""
    locked, known = locked_for(python), {canonicalize_name(each.name): each for each in installed()}
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


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_is_closed(python: str) -> None:
    assert sorted(unmet(python)) == sorted(UNMET)


def test_what_is_installed_is_the_lock() -> None:
    found = sorted((canonicalize_name(each.name), each.version) for each in installed())
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert [pair for pair in found if pair[0] not in UNLOCKED] == sorted(locked_for(python).items())


def test_all_interpreters_have_the_same_versions() -> None:
    assert len({tuple(sorted(locked_for(python).items())) for python in PYTHONS}) == 1


@pytest.mark.parametrize("name", sorted(path.name for path in LOCK.glob("*.txt")))
def test_a_lock_names_versions_and_hashes_only(name: str) -> None:
    text = (LOCK / name).read_text()
    assert not re.search(r"://|(?<!requirements)(?<![\w.])/\w|--(?!hash=sha256:[0-9a-f]{64}\b)", text)
    for requirement in read_lock(name):
        assert re.search(rf"^{re.escape(requirement.name)}==[^\n]*\\\n +--hash=sha256:", text, re.MULTILINE)


def test_the_package_declares_ranges_that_hold_the_lock() -> None:
    locked = locked_for(PYTHONS[0])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = [line for extra in project["optional-dependencies"].values() for line in extra]
    for line in (*project["dependencies"], *optional):
        requirement = Requirement(line)
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), line
