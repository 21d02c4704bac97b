"""requirements/interop.txt, with what lies below, has all that its packages need; and what it adds is installed."""

import pytest

from tests.setup.locks import BASE, PYTHONS, UNMET, added_by, installed, unmet


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_is_closed(python: str) -> None:
    assert sorted(unmet(python, *BASE, "interop.txt")) == sorted(UNMET)


def test_what_is_installed_is_what_the_lock_adds() -> None:
    assert installed() == added_by("interop.txt")
