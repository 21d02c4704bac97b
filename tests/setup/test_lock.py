"""The lock has all that its packages need, on each interpreter that it is for; and what is installed is the lock."""

import re
import sys
from pathlib import Path

import pytest
import tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .locks import BASE, LOCK, PYTHONS, UNMET, installed, locked_for, read_lock, unmet

ROOT = Path(__file__).parents[2]
ALL = sorted(path.name for path in LOCK.glob("*.txt"))


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_is_closed(python: str) -> None:
    assert sorted(unmet(python, *BASE)) == sorted(UNMET)


def test_what_is_installed_is_the_lock() -> None:
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert installed() == sorted(locked_for(python, *BASE).items())


def test_all_interpreters_have_the_same_versions() -> None:
    assert len({tuple(sorted(locked_for(python, *ALL).items())) for python in PYTHONS}) == 1


@pytest.mark.parametrize("name", ALL)
def test_a_lock_names_versions_and_hashes_only(name: str) -> None:
    text = (LOCK / name).read_text()
    assert not re.search(r"://|(?<!requirements)(?<![\w.])/\w|--(?!hash=sha256:[0-9a-f]{64}\b)", text)
    for requirement in read_lock(name):
        assert re.search(rf"^{re.escape(requirement.name)}==[^\n]*\\\n +--hash=sha256:", text, re.MULTILINE)


def test_the_package_declares_ranges_that_hold_the_locks() -> None:
    locked = locked_for(PYTHONS[0], *ALL)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = [line for extra in project["optional-dependencies"].values() for line in extra]
    for line in (*project["dependencies"], *optional):
        requirement = Requirement(line)
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), line
