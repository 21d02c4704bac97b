"""Make a virtual environment that holds what the lock files name, exactly; do nothing where it is whole.

    python tools/setup_venv.py .venv requirements

The folder has build.txt, what builds; dev.txt; and, where it is wanted, detectron2.txt. The pip that the interpreter
brings installs them, and decides nothing: no requirement is resolved, nothing is built with other tools than the locked
ones, and of the user's settings for pip only those count that say where packages come from.

The stamp of a whole virtual environment says with which interpreter, where and of which lock it was made. Where it says
anything else, or is not there, all is made anew: an interrupted set-up is simply repeated.
"""

import ast
import fcntl
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

SUPPORTED = ((3, 11), (3, 12), (3, 13))  # that the lock was resolved for
STAMP = ".installed"
ENSURE_PIP = ("-m", "ensurepip", "--default-pip")
INSTALL = ("-m", "pip", "install", "--no-deps", "--require-hashes", "--no-build-isolation")
# detectron2's wheel is tagged for CPython 3.10, and its Python code runs on later versions: pip puts it there when it
# is told that it installs for 3.10.
AS_ON_3_10 = ("--python-version", "3.10", "--implementation", "cp", "--abi", "none", "--only-binary=:all:")
# pip's settings that say where packages come from and how they are reached: nobody else can know them.
KEPT_SETTINGS = {
    *("index-url", "extra-index-url", "find-links", "no-index", "trusted-host", "cert", "client-cert", "proxy"),
    *("keyring-provider", "timeout", "default-timeout", "retries", "cache-dir", "no-cache-dir"),
    *("no-input", "progress-bar", "quiet"),
}
# And what keeps it quiet about itself.
OWN_SETTINGS = {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}

WHAT_FOLLOWS = (
    "Setting up {folder} with Python {version}: the locked packages, mostly PyTorch with CUDA (3 GB to download, 6 GB "
    "on disk), and nothing outside {folder}. With the compiled ops it takes 3 to 5 minutes where the network is fast."
)
CURE = (
    "The set-up of {folder} is not finished. Once the cause is mended, repeat `make setup`: it begins anew, and "
    "downloads what pip's cache does not have. It needs the package index, or pip's setting of another one, and 10 GB "
    "on the disk, where {free:.1f} GB are free."
)


def main(folder: Path, lock: Path) -> None:
    check_interpreter()
    stamp, wanted = folder / STAMP, description(folder, lock)
    if read(stamp) == wanted:
        return
    with open(f"{folder}.lock", "w") as turn:
        take(turn.fileno())
        made = read(stamp)
        if made == wanted:  # by another set-up, just now
            return
        if folder.exists():
            print(f"{folder} is made anew: {why(made, wanted)}.", flush=True)
        print(WHAT_FOLLOWS.format(folder=folder, version=platform.python_version()), flush=True)
        try:
            stamp.unlink(missing_ok=True)
            install(folder, lock, turn.fileno())
            unfinished = stamp.with_suffix(".new")
            unfinished.write_text(wanted)
            unfinished.replace(stamp)
        except (subprocess.CalledProcessError, OSError, KeyboardInterrupt) as error:
            cause = f"{error}\n" if isinstance(error, OSError) else ""  # of the others, what was run has told
            free = shutil.disk_usage(folder.absolute().parent).free / 1e9
            raise SystemExit(f"\n{cause}{CURE.format(folder=folder, free=free)}") from None


def check_interpreter() -> None:
    name = f"{sys.executable} is {platform.python_implementation()} {platform.python_version()}"
    if platform.python_implementation() != "CPython" or sys.version_info[:2] not in SUPPORTED:
        cure = "name another with `make PYTHON=python3.12 setup`"
        raise SystemExit(f"The set-up needs CPython 3.11, 3.12 or 3.13, and {name}: {cure}.")
    if not all(map(importlib.util.find_spec, ("venv", "ensurepip"))):
        cure = "install its package (on Debian and Ubuntu `apt install python{}.{}-venv`)".format(*sys.version_info)
        raise SystemExit(f"The set-up needs Python's modules venv and ensurepip, and {name} without them: {cure}.")


def description(folder: Path, lock: Path) -> str:
    """The content of the stamp."""
    content = b"".join(file.read_bytes() for file in sorted(lock.glob("*.txt")))
    return (
        f"interpreter: {platform.python_version()} in {sys.base_prefix}\n"
        f"place: {folder.absolute()}\n"  # scripts name it in their first lines
        f"lock: {hashlib.sha256(content).hexdigest()}\n"
    )


def read(stamp: Path) -> str:
    return stamp.read_text(errors="replace") if stamp.exists() else ""


def why(made: str, wanted: str) -> str:
    """How two descriptions differ, in words."""
    differing = [line for line in made.splitlines() if line not in wanted.splitlines()]
    return f"it was made with another {' and another '.join(differing)}" if differing else "its set-up was not finished"


def take(turn: int) -> None:
    """Wait until no other set-up works on the same folder, nor anything that one has started and that outlived it."""
    try:
        fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("Another set-up is at work here: waiting for its end.", flush=True)
        fcntl.flock(turn, fcntl.LOCK_EX)


def install(folder: Path, lock: Path, turn: int) -> None:
    """Begin from nothing. The children hold ``turn`` as long as they live."""
    python = str(folder / "bin" / "python")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}

    def run(*command: str) -> None:
        subprocess.run([*command], env=environment, check=True, pass_fds=(turn,))

    run(sys._base_executable, "-I", "-m", "venv", "--clear", "--without-pip", str(folder))
    run(python, "-I", *ENSURE_PIP)
    environment |= pip_settings(python, environment) | OWN_SETTINGS
    run(python, "-I", *INSTALL, "-r", str(lock / "build.txt"))
    run(python, "-I", *INSTALL, "-r", str(lock / "dev.txt"))
    if (lock / "detectron2.txt").exists():
        packages = folder / "lib" / "python{}.{}".format(*sys.version_info) / "site-packages"
        run(python, "-I", *INSTALL, "-r", str(lock / "detectron2.txt"), *AS_ON_3_10, "--target", str(packages))


def pip_settings(python: str, environment: dict[str, str]) -> dict[str, str]:
    """Those of the user's settings for pip that are kept, of files and environment, as environment variables."""
    files = {name: os.environ[name] for name in ("PIP_CONFIG_FILE",) if name in os.environ}
    command = [python, "-I", "-m", "pip", "config", "list"]
    listed = subprocess.run(command, env=environment | files, check=True, stdout=subprocess.PIPE, text=True).stdout
    settings = {}
    for section in ("global", "install"):
        for line in listed.splitlines():
            name, _, value = line.partition("=")
            if name.startswith(f"{section}."):
                settings[name.removeprefix(f"{section}.")] = ast.literal_eval(value)
    settings |= {
        name.removeprefix("PIP_").replace("_", "-").lower(): value
        for name, value in os.environ.items()
        if name.startswith("PIP_") and value
    }
    return {f"PIP_{name.replace('-', '_').upper()}": settings[name] for name in KEPT_SETTINGS & settings.keys()}


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
