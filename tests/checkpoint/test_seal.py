"""Checkpoints are compared with their checksums: no flipped bit is used as if nothing had happened."""

import shutil
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lite_detr_d2.checkpoint import files, is_intact, iteration_of, read_checkpoint, seal, seal_of, write_checkpoint
from lite_detr_d2.engine import SafeCheckpointer
from lite_detr_d2.errors import InputError
from tests.projects.scripts import TOOLS, load_script

STATE = {"decoder.weight": torch.arange(600.0).view(20, 30), "decoder.bias": torch.arange(2)}


@pytest.fixture
def fuzzer() -> ModuleType:
    return load_script("fuzz_checkpoints", TOOLS)


def save(folder: Path) -> Path:
    model = torch.nn.Linear(20, 30)
    SafeCheckpointer(model, str(folder)).save("model_0000007", iteration=7)
    return folder / "model_0000007.pth"


@pytest.mark.parametrize("kind", ["ours.pth", "ours.safetensors", "torch.pth"])
def test_no_flipped_bit_is_silent(tmp_path: Path, fuzzer: ModuleType, kind: str) -> None:
    counts = fuzzer.fuzz(fuzzer.write(tmp_path, kind), 60, seed=1)
    assert counts["silent"] == 0
    assert counts["found"] == 60 if kind.startswith("ours") else counts["found"] > 40


def test_nor_is_one_in_the_checksum_itself(tmp_path: Path, fuzzer: ModuleType) -> None:
    """Where a flip hides that there is a checksum, those of the records are left."""
    path = fuzzer.write(tmp_path, "ours.pth")
    expected, size = read_checkpoint(path), path.stat().st_size
    outcomes = []
    for byte in range(size - 22 - len(str(seal_of(path))) - 20, size):
        place = 8 * byte + byte % 8
        fuzzer.flip(path, place)
        outcomes.append(fuzzer.outcome_of(path, expected))
        fuzzer.flip(path, place)
    assert len(outcomes) == 106
    assert set(outcomes) == {"found"}


def test_nor_is_one_in_the_header_of_safetensors(tmp_path: Path, fuzzer: ModuleType) -> None:
    """Which has the checksum, its name, and what says that there is one."""
    path = fuzzer.write(tmp_path, "ours.safetensors")
    expected, header = read_checkpoint(path), 8 + int.from_bytes(path.read_bytes()[:8], "little")
    outcomes = []
    for byte in range(header):
        place = 8 * byte + byte % 8
        fuzzer.flip(path, place)
        outcomes.append(fuzzer.outcome_of(path, expected))
        fuzzer.flip(path, place)
    assert set(outcomes) == {"found"}


def test_the_fuzzer_sees_what_is_not_found(tmp_path: Path, fuzzer: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fuzzer.write(tmp_path, "ours.pth")
    monkeypatch.setattr(files, "verify", lambda _: True)
    assert fuzzer.fuzz(path, 60, seed=1)["silent"] > 20


def test_a_whole_one_is_read_by_everybody(tmp_path: Path) -> None:
    path = save(tmp_path)
    expected = torch.load(path)["model"]
    for options in ({}, {"weights_only": False}, {"mmap": True}):
        found = torch.load(path, **options)["model"]
        assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert zipfile.ZipFile(path).testzip() is None
    assert is_intact(path)
    assert iteration_of(path) == 7


def test_the_checksum_goes_with_the_file(tmp_path: Path) -> None:
    path = save(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    copy = Path(shutil.copy(path, tmp_path / "elsewhere" / "renamed.pth"))
    assert read_checkpoint(copy)["iteration"] == 7
    content = bytearray(copy.read_bytes())
    content[len(content) // 2] ^= 1
    copy.write_bytes(content)
    with pytest.raises(InputError, match=r"renamed\.pth cannot be read: it is damaged: its content does not fit its"):
        read_checkpoint(copy)
    assert not is_intact(copy)


def test_the_checksum_is_of_the_file_as_torch_wrote_it(tmp_path: Path) -> None:
    path = save(tmp_path)
    digest = seal_of(path)
    again = tmp_path / "again.pth"
    content = path.read_bytes()
    again.write_bytes(content[: -len("lite_detr_d2 sha256 ") - 64 - 2] + b"\0\0")
    assert seal.hashlib.sha256(again.read_bytes()).hexdigest() == digest
    assert is_intact(again)
    assert seal_of(again) is None


@pytest.mark.parametrize("rest", [0, 1, 3, 21, 22, 100, 500, -1, -20, -80, -84, -86, -106, -200])
def test_a_cut_file_is_damaged(tmp_path: Path, rest: int) -> None:
    path = save(tmp_path)
    path.write_bytes(path.read_bytes()[:rest])
    assert not is_intact(path)
    with pytest.raises(InputError, match="cannot be read: it is damaged"):
        read_checkpoint(path)


@pytest.mark.parametrize("kind", ["ours.pth", "ours.safetensors"])
def test_a_byte_that_is_missing_anywhere_is_damage(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    write_checkpoint(path, STATE, class_names=["ant", "cat"])
    whole = path.read_bytes()
    for place in (*range(0, len(whole), 97), len(whole) - 1):
        path.write_bytes(whole[:place] + whole[place + 1 :])
        with pytest.raises(InputError, match="cannot be read: it is damaged"):
            read_checkpoint(path)


def test_a_file_that_torch_wrote_is_checked_by_its_records(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "torch.pth"
    torch.save({"model": STATE}, path)
    assert read_checkpoint(path).keys() == {"model"}
    assert not [message for message in log.messages if "checksum" in message]
    content = bytearray(path.read_bytes())
    content[content.index(STATE["decoder.weight"].numpy().tobytes()) + 9] ^= 4
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"it is damaged: its record torch/data/0 does not fit its checksum"):
        read_checkpoint(path)


def write_old(path: Path) -> None:
    torch.save(STATE, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize(
    ("name", "write"), [("old.pth", write_old), ("others.safetensors", lambda path: save_file(STATE, path))]
)
def test_what_cannot_be_checked_is_said(tmp_path: Path, log: pytest.LogCaptureFixture, name: str, write: Any) -> None:
    path = tmp_path / name
    write(path)
    found = read_checkpoint(path)["model"]
    assert all(torch.equal(found[key], value) for key, value in STATE.items())
    assert [message for message in log.messages if "checksum" in message] == [
        f"{path} has no checksum: whether it is damaged cannot be seen."
    ]
    assert not is_intact(path)


def test_our_safetensors_are_checked(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "ours.safetensors"
    write_checkpoint(path, STATE, class_names=["0" * 64])
    assert read_checkpoint(path)["class_names"] == ["0" * 64]
    assert not [message for message in log.messages if "checksum" in message]
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(InputError, match="it is damaged: its content does not fit its checksum"):
        read_checkpoint(path)
