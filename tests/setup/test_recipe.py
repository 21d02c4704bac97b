"""The Makefile's set-up, with a small lock and an index that has newer, broken releases of everything."""

import importlib.util
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import NEWEST_PIP, OLDEST_PIP, ROOT, Place
from .local_index import BROKEN

SCRIPT = ROOT / "tools" / "setup_venv.py"
LOCKED = dict.fromkeys(("alpha", "beta", "gamma", "delta", "tagged"), "1.0")


def hostile_settings(place: Place, folder: Path) -> dict[str, str]:
    """What would change an installation, in the environment and in the user's configuration of pip."""
    (folder / "constraints.txt").write_text("alpha==2.0\nsetuptools==999\n")
    (folder / "sitecustomize.py").write_text(BROKEN)
    (folder / "setuptools.py").write_text(BROKEN)
    configuration = folder / ".config" / "pip" / "pip.conf"
    configuration.parent.mkdir(parents=True)
    configuration.write_text(
        f"[global]\nconstraint = {folder}/constraints.txt\nno-binary = :all:\nrequire-virtualenv = true\n"
        f"[install]\ntarget = {folder}/elsewhere\nupgrade = true\npre = true\n"
    )
    return {
        "HOME": str(folder),
        "PIP_CONFIG_FILE": "",  # none beside the user's and the machine's
        # What the machine's may have, too.
        "PIP_EXTRA_INDEX_URL": place.index,
        "PIP_FIND_LINKS": f"{folder}/nothing",
        "PIP_NO_INDEX": "0",
        "PIP_CONSTRAINT": f"{folder}/constraints.txt",
        "PIP_BUILD_CONSTRAINT": f"{folder}/constraints.txt",
        "PIP_TARGET": f"{folder}/elsewhere",
        "PIP_PREFIX": f"{folder}/elsewhere",
        "PIP_USER": "1",
        "PIP_NO_BINARY": ":all:",
        "PIP_REQUIREMENT": f"{folder}/nothing.txt",
        "PYTHONPATH": str(folder),
        "PYTHONHOME": str(folder),
    }


@pytest.mark.parametrize("pip", ["", OLDEST_PIP, NEWEST_PIP], ids=["own", OLDEST_PIP, NEWEST_PIP])
def test_what_is_installed_is_the_lock(place: Place, tmp_path: Path, built_with: dict[str, str], pip: str) -> None:
    result = place.run(pip, **hostile_settings(place, tmp_path))
    assert result.returncode == 0, result.stdout + result.stderr
    assert place.installed() == {**LOCKED, **built_with}
    assert {place.value(f"{name}.BUILT_BY", name) for name in ("gamma", "delta")} == {built_with["setuptools"]}
    assert not (tmp_path / "elsewhere").exists()
    if pip:
        assert place.value("pip.__version__", "pip") == pip

    stamp = (place.venv / ".installed").stat().st_mtime_ns
    again = place.run(pip)
    assert "is up to date" not in again.stderr
    assert (again.returncode, "Setting up" in again.stdout) == (0, False)
    assert (place.venv / ".installed").stat().st_mtime_ns == stamp


def test_where_packages_come_from_is_the_users_choice(place: Place, tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_text(f"[global]\nindex-url = {place.index}\n[install]\nno-index = true\n")
    links = f"{(tmp_path / 'files').as_uri()} {tmp_path}"  # where the build tools are not
    failed = place.run(NEWEST_PIP, PIP_CONFIG_FILE=f"{tmp_path}/pip.conf", PIP_FIND_LINKS=links, PIP_INDEX_URL="")
    assert "No matching distribution found for packaging" in failed.stderr
    (tmp_path / "pip.conf").write_text(f"[global]\nindex-url = {place.index}\n")
    assert place.run(NEWEST_PIP, PIP_CONFIG_FILE=f"{tmp_path}/pip.conf", PIP_INDEX_URL="").returncode == 0


def test_another_lock_or_interpreter_begins_anew(place: Place) -> None:
    assert place.run(NEWEST_PIP).returncode == 0
    lines = (place.lock / "dev.txt").read_text().splitlines(keepends=True)
    (place.lock / "dev.txt").write_text("".join(line for line in lines if "delta" not in line))
    stamp = place.venv / ".installed"
    stamp.write_text(stamp.read_text().replace("interpreter: 3", "interpreter: 2"))
    again = place.run(NEWEST_PIP)
    assert again.returncode == 0
    assert again.stdout.count("made anew: it was made with another interpreter: 2") == 1
    assert "and another lock" in again.stdout
    assert {"alpha", "delta"} & place.installed().keys() == {"alpha"}


PACKAGES = "lib/python{}.{}/site-packages".format(*sys.version_info)
# What appears when the set-up has come so far.
MOMENTS = ("pyvenv.cfg", f"{PACKAGES}/pip/__init__.py", f"{PACKAGES}/wheel", f"{PACKAGES}/alpha.py")


def kill_at(moment: Path, command: list[str], place: Place) -> None:
    """Start ``command`` as a group of its own, and kill the group when ``moment`` has appeared, or appeared anew."""
    before = changed(moment)
    with subprocess.Popen(command, env=place.environment(), stdout=subprocess.DEVNULL, process_group=0) as process:
        while changed(moment) == before:
            assert process.poll() is None
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)


def changed(path: Path) -> int | None:
    try:
        return path.stat().st_ctime_ns
    except FileNotFoundError:
        return None


def test_it_goes_on_after_a_kill_at_any_moment(place: Place, built_with: dict[str, str]) -> None:
    for moment in MOMENTS:
        kill_at(place.venv / moment, place.command(), place)
        assert not (place.venv / ".installed").exists()
    result = place.run(NEWEST_PIP)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "is made anew: its set-up was not finished" in result.stdout
    assert place.installed() == {**LOCKED, **built_with}


def test_it_waits_for_what_a_killed_one_has_left_running(place: Place, built_with: dict[str, str]) -> None:
    script = [sys.executable, "-I", str(SCRIPT), str(place.venv), str(place.lock)]
    with subprocess.Popen(script, env=place.environment(), stdout=subprocess.DEVNULL) as process:
        while not (place.venv / PACKAGES / "wheel").exists():
            assert process.poll() is None
            time.sleep(0.002)
        process.kill()  # and not its pip
    result = place.run(NEWEST_PIP)
    assert "waiting for its end" in result.stdout
    assert place.installed() == {**LOCKED, **built_with}


def test_without_index_or_space_it_says_what_to_do(place: Place, tmp_path: Path) -> None:
    no_index = place.run(NEWEST_PIP, PIP_INDEX_URL=f"{tmp_path.as_uri()}/nowhere", PIP_RETRIES="0")
    assert "No matching distribution found" in no_index.stderr

    small = 200_000  # bytes that a file may have: writing fails as it does on a full disk
    no_space = subprocess.run(
        place.command(),
        env=place.environment(),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (small, small)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "File too large" in no_space.stdout + no_space.stderr
    for failed in (no_index, no_space):
        assert failed.returncode != 0
        assert failed.stderr.count("repeat the command") == 1
        assert "GB are free" in failed.stderr
        assert not (place.venv / ".installed").exists()
    assert place.run(NEWEST_PIP).returncode == 0


def test_a_missing_interpreter_is_named(place: Place) -> None:
    missing = subprocess.run(
        [*place.command(), "PYTHON=python3.99"], env=place.environment(), capture_output=True, text=True, check=False
    )
    assert missing.returncode != 0
    assert "There is no python3.99 here" in missing.stderr
    assert "make PYTHON=python3.12 setup" in missing.stderr


def test_an_unsuitable_interpreter_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("setup_venv", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    with monkeypatch.context() as patch:
        patch.setattr(script, "SUPPORTED", ((2, 7),))
        with pytest.raises(
            SystemExit, match=rf"and {re.escape(sys.executable)} is CPython 3.*: name another with `make P"
        ):
            script.check_interpreter()
    with monkeypatch.context() as patch:
        patch.setattr(script.importlib.util, "find_spec", {"venv": spec}.get)
        with pytest.raises(SystemExit, match=r"without them: .*`apt install python3\.\d+-venv`"):
            script.check_interpreter()
