"""A virtual environment over another one, by the Makefile's recipe: what it adds, and when it is made anew."""

import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import NEWEST_PIP, OLDEST_PIP, Place
from .test_recipe import LOCKED, PACKAGES, SCRIPT, hostile_settings, kill_at

ADDED = {"beta": "3.0", "epsilon": "1.0"}
MOMENTS = ("pyvenv.cfg", f"{PACKAGES}/base.pth", f"{PACKAGES}/epsilon.py")


def set_up_base(place: Place, pip: str = "") -> None:
    """Make the one below, with something editable in it."""
    assert place.run(pip).returncode == 0
    (place.venv / ".built").touch()  # nothing of this tree is to be compiled
    sources = place.venv.with_name("sources")
    sources.mkdir()
    (sources / "edited.py").touch()
    (place.venv / PACKAGES / "edited.pth").write_text(f"{sources}\n")


@pytest.mark.parametrize("pip", [OLDEST_PIP, NEWEST_PIP])
def test_it_holds_what_its_lock_adds_and_sees_the_rest(
    place: Place, tmp_path: Path, built_with: dict[str, str], pip: str
) -> None:
    set_up_base(place, pip)
    over, before = place.over, (place.venv / ".installed").stat().st_mtime_ns
    result = over.run(pip, **hostile_settings(place, tmp_path))
    assert result.returncode == 0, result.stdout + result.stderr
    assert over.installed() == ADDED
    assert over.value("beta.OWN", "beta") == "True"
    assert over.value("epsilon.BUILT_BY", "epsilon") == built_with["setuptools"]
    assert over.value("alpha.__file__", "alpha") == str(place.venv / PACKAGES / "alpha.py")
    assert over.value("edited.__file__", "edited") == str(tmp_path / "sources" / "edited.py")
    assert not (tmp_path / "elsewhere").exists()
    assert place.installed() == {**LOCKED, **built_with}
    assert (place.venv / ".installed").stat().st_mtime_ns == before

    stamp = (over.venv / ".installed").stat().st_mtime_ns
    again = over.run(pip)
    assert (again.returncode, "Setting up" in again.stdout) == (0, False)
    assert (over.venv / ".installed").stat().st_mtime_ns == stamp


def test_another_one_below_begins_anew_and_another_lock_leaves_that_alone(place: Place) -> None:
    set_up_base(place)
    over = place.over
    assert over.run().returncode == 0
    extra = place.lock / "extra.txt"
    extra.write_text("".join(line for line in extra.read_text().splitlines(keepends=True) if "beta" not in line))
    again = over.run()
    assert f"{over.venv} is made anew: it was made with another lock" in again.stdout
    assert again.stdout.count("made anew") == 1
    assert over.installed().keys() == {"epsilon"}

    lines = (place.lock / "dev.txt").read_text().splitlines(keepends=True)
    (place.lock / "dev.txt").write_text("".join(line for line in lines if "alpha" not in line))
    script = [sys.executable, "-I", str(SCRIPT)]
    subprocess.run([*script, str(place.venv), str(place.lock)], env=place.environment(), check=True)
    (place.venv / ".built").touch()
    again = over.run()
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"{over.venv} is made anew: it was made with another base" in again.stdout
    assert over.installed().keys() == {"alpha", "epsilon"}  # alpha is not below any more


def test_it_wants_a_whole_one_below_and_goes_on_after_a_kill_at_any_moment(place: Place) -> None:
    set_up_base(place)
    over, stamp = place.over, place.venv / ".installed"
    whole = stamp.read_text()
    script = [sys.executable, "-I", str(SCRIPT), str(over.venv), str(place.lock / "extra.txt"), str(place.venv)]
    for other in (whole.replace("interpreter: 3", "interpreter: 2"), ""):
        stamp.write_text(other)
        refused = subprocess.run(script, env=over.environment(), capture_output=True, text=True, check=False)
        assert (refused.returncode, over.venv.exists()) == (1, False)
        assert f"lies over {place.venv}, which this interpreter has not made whole: run `make setup`" in refused.stderr
    stamp.write_text(whole)
    (place.venv / ".built").touch()

    for moment in MOMENTS:
        kill_at(over.venv / moment, over.command(), over)
        assert not (over.venv / ".installed").exists()
    result = over.run()
    assert result.returncode == 0, result.stdout + result.stderr
    assert "is made anew: its set-up was not finished" in result.stdout
    assert over.installed() == ADDED
