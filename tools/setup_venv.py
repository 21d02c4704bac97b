"""Make a virtual environment that holds what the lock files name, exactly; do nothing where it is whole.

    python tools/setup_venv.py .venv requirements
    python tools/setup_venv.py .venv-export requirements/export.txt .venv

The folder has build.txt, what builds; dev.txt; and, where it is wanted, detectron2.txt. The pip that the interpreter
brings installs them, and decides nothing: no requirement is resolved, nothing is built with other tools than the locked
ones, and of the user's settings for pip only those count that say where packages come from.

With a third argument, a whole virtual environment, the new one lies over it: it sees that one's packages behind its
own, and gets only those of its lock that are not there in the same version.

The stamp of a whole virtual environment says with which interpreter, where, of which lock and over which other one it
was made. Where it says anything else, or is not there, all is made anew: an interrupted set-up is simply repeated.
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
LOCKS = ("build.txt", "dev.txt", "detectron2.txt")  # of a folder, in the order of installation
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
WHAT_FOLLOWS_OVER = (
    "Setting up {folder} with Python {version}: what {lock} adds to {base} (some 100 MB to download, 300 MB on disk), "
    "and nothing outside {folder}."
)
CURE = (
    "The set-up of {folder} is not finished. Once the cause is mended, repeat the command: it begins anew, and "
    "downloads what pip's cache does not have. It needs the package index, or pip's setting of another one, and "
    "{needed} GB on the disk, where {free:.1f} GB are free."
)


def main(folder: Path, lock: Path, base: Path | None = None) -> None:
    check_interpreter()
    stamp, wanted = folder / STAMP, description(folder, lock, base)
    if read(stamp) == wanted:
        return
    with open(f"{folder}.lock", "w") as turn:
        take(turn.fileno())
        made = read(stamp)
        if made == wanted:  # by another set-up, just now
            return
        if folder.exists():
            print(f"{folder} is made anew: {why(made, wanted)}.", flush=True)
        what = WHAT_FOLLOWS_OVER if base else WHAT_FOLLOWS
        print(what.format(folder=folder, version=platform.python_version(), lock=lock, base=base), flush=True)
        try:
            stamp.unlink(missing_ok=True)
            install(folder, lock, base, turn.fileno())
            unfinished = stamp.with_suffix(".new")
            unfinished.write_text(wanted)
            unfinished.replace(stamp)
        except (subprocess.CalledProcessError, OSError, KeyboardInterrupt) as error:
            cause = f"{error}\n" if isinstance(error, OSError) else ""  # of the others, what was run has told
            free = shutil.disk_usage(folder.absolute().parent).free / 1e9
            raise SystemExit(f"\n{cause}{CURE.format(folder=folder, needed=1 if base else 10, free=free)}") from None


def check_interpreter() -> None:
    name = f"{sys.executable} is {platform.python_implementation()} {platform.python_version()}"
    if platform.python_implementation() != "CPython" or sys.version_info[:2] not in SUPPORTED:
        cure = "name another with `make PYTHON=python3.12 setup`"
        raise SystemExit(f"The set-up needs CPython 3.11, 3.12 or 3.13, and {name}: {cure}.")
    if not all(map(importlib.util.find_spec, ("venv", "ensurepip"))):
        cure = "install its package (on Debian and Ubuntu `apt install python{}.{}-venv`)".format(*sys.version_info)
        raise SystemExit(f"The set-up needs Python's modules venv and ensurepip, and {name} without them: {cure}.")


def description(folder: Path, lock: Path, base: Path | None) -> str:
    """The content of the stamp."""
    content = b"".join(file.read_bytes() for file in sorted(files_of(lock)))
    interpreter = f"interpreter: {platform.python_version()} in {sys.base_prefix}\n"
    lines = (
        interpreter,
        f"place: {folder.absolute()}\n",  # scripts name it in their first lines
        f"lock: {hashlib.sha256(content).hexdigest()}\n",
    )
    if base is None:
        return "".join(lines)
    below = read(base / STAMP)
    if not below.startswith(interpreter):
        raise SystemExit(
            f"{folder} lies over {base}, which this interpreter has not made whole: run `make setup` first."
        )
    return "".join((*lines, f"base: {hashlib.sha256(below.encode()).hexdigest()}\n"))


def files_of(lock: Path) -> list[Path]:
    return [lock] if lock.is_file() else [lock / name for name in LOCKS if (lock / name).exists()]


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


def install(folder: Path, lock: Path, base: Path | None, turn: int) -> None:
    """Begin from nothing. The children hold ``turn`` as long as they live."""
    python = str(folder / "bin" / "python")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}

    def run(*command: str) -> None:
        subprocess.run([*command], env=environment, check=True, pass_fds=(turn,))

    run(sys._base_executable, "-I", "-m", "venv", "--clear", "--without-pip", str(folder))
    if base is None:
        run(python, "-I", *ENSURE_PIP)
    else:  # pip is among what comes from there; and so, by their .pth files, is what is installed as editable
        line = f"import site; site.addsitedir({str(packages_of(base.absolute()))!r})\n"
        (packages_of(folder) / "base.pth").write_text(line)
    environment |= pip_settings(python, environment) | OWN_SETTINGS
    for file in files_of(lock):
        as_on_3_10 = (*AS_ON_3_10, "--target", str(packages_of(folder))) if file.name == "detectron2.txt" else ()
        run(python, "-I", *INSTALL, "-r", str(file), *as_on_3_10)


def packages_of(folder: Path) -> Path:
    return folder / "lib" / "python{}.{}".format(*sys.version_info) / "site-packages"


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
