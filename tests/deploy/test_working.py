"""The folder that a file is made in: of one process at a time, and gone with it."""

import signal
import subprocess
import sys
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
