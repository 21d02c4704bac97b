"""The folder that a file is made in: of one process at a time, and gone with it."""

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lite_detr_d2.deploy.working import unfinished
from lite_detr_d2.errors import InputError

HOLD = """
import sys
from pathlib import Path
from lite_detr_d2.deploy.working import unfinished
with unfinished(Path(sys.argv[1])) as folder:
    (folder / "half").write_bytes(b"half")
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("killed", [True, False])
def test_another_process_is_waited_for(tmp_path: Path, killed: bool) -> None:
    output = tmp_path / "model.bin"
    command = [sys.executable, "-c", HOLD, str(output)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(InputError, match=r"model\.bin is being exported by another process"),
            unfinished(output),
        ):
            pass
        assert (tmp_path / ".model.bin.unfinished" / "half").is_file()
        with unfinished(tmp_path / "other.bin"):
            pass
        if killed:
            other.send_signal(signal.SIGKILL)
        other.communicate()
    assert (tmp_path / ".model.bin.unfinished").exists() == killed
    with unfinished(output) as folder:
        assert not (folder / "half").exists()
        (folder / "deeper").mkdir()
    assert list(tmp_path.iterdir()) == []


def test_one_that_ends_leaves_the_next_one_alone(tmp_path: Path) -> None:
    """Threads exclude each other as processes do."""
    output, names = tmp_path / "model.bin", [f"part {number}" for number in range(5)]

    def use(_: int) -> str:
        try:
            with unfinished(output) as folder:
                for name in names:
                    (folder / name).touch()
                return "whole" if all((folder / name).is_file() for name in names) else "parts are gone"
        except InputError as error:
            return "refused" if "by another process" in str(error) else str(error)

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(use, range(4_000))) == {"whole", "refused"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", [None, "nowhere", "elsewhere"])
def test_what_is_in_the_way_is_named(tmp_path: Path, target: str | None) -> None:
    """A file, or a link: what it leads to is not for us to empty."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").touch()
    hidden = tmp_path / ".model.bin.unfinished"
    if target is None:
        hidden.touch()
    else:
        hidden.symlink_to(target)
    with (
        pytest.raises(InputError, match=r"\.model\.bin\.unfinished is in the way .*: remove it"),
        unfinished(tmp_path / "model.bin"),
    ):
        pass
    assert (tmp_path / "elsewhere" / "kept").is_file()
