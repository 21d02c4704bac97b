"""Reading and writing checkpoint files."""

import argparse
import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lite_detr_d2.checkpoint import read_checkpoint, write_checkpoint
from lite_detr_d2.errors import InputError

STATE = {"decoder.weight": torch.arange(6.0).view(2, 3), "decoder.bias": torch.arange(2)}


class Payload:
    """Something that must not be unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (Path("/nonexistent/ran").touch, ())


def assert_is_state(read: object) -> None:
    assert isinstance(read, dict)
    assert read.keys() == STATE.keys()
    assert all(torch.equal(read[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_what_is_written_is_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"checkpoint.{suffix}"
    write_checkpoint(path, STATE, class_names=["cat", None], matching_heuristics=False)
    checkpoint = read_checkpoint(path)
    assert_is_state(checkpoint["model"])
    assert checkpoint["class_names"] == ["cat", None]
    assert checkpoint["matching_heuristics"] is False
    assert [path.name for path in tmp_path.iterdir()] == [path.name]


def test_tensors_that_share_memory_are_written(tmp_path: Path) -> None:
    whole = torch.arange(12.0).view(3, 4)
    write_checkpoint(tmp_path / "shared.safetensors", {"whole": whole, "column": whole[:, 1]})
    assert read_checkpoint(tmp_path / "shared.safetensors")["model"]["column"].tolist() == [1, 5, 9]


@pytest.mark.parametrize("content", [STATE, {"model": STATE, "args": argparse.Namespace(enc_scale=3), "epoch": 3}])
def test_published_files(tmp_path: Path, content: object) -> None:
    """As a rule, weights are beside an argparse.Namespace and a training state."""
    torch.save(content, tmp_path / "published.pth")
    assert_is_state(read_checkpoint(tmp_path / "published.pth")["model"])


def test_safetensors_of_others(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "others.safetensors", metadata={"format": "pt"})
    checkpoint = read_checkpoint(tmp_path / "others.safetensors")
    assert checkpoint.keys() == {"model"}
    assert_is_state(checkpoint["model"])


def test_the_prefix_of_parallel_training_goes(tmp_path: Path) -> None:
    torch.save({f"module.{name}": tensor for name, tensor in STATE.items()}, tmp_path / "parallel.pth")
    assert_is_state(read_checkpoint(tmp_path / "parallel.pth")["model"])


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    bad = tmp_path / "bad.pth"
    with pytest.raises(InputError, match=r"bad\.pth: no such checkpoint"):
        read_checkpoint(bad)
    bad.write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match=r"bad\.pth cannot be read: it is damaged"):
        read_checkpoint(bad)
    for content in ({"model": STATE, "extra": Payload()}, {"args": Payload()}):
        torch.save(content, bad)
        with pytest.raises(InputError, match=r"bad\.pth cannot be read: it holds \S+, not tensors and plain values"):
            read_checkpoint(bad)
    for content in ([1, 2], {"model": [torch.zeros(2)]}, {"a": 3}, {1: torch.zeros(2)}, {}, 5):
        torch.save(content, bad)
        with pytest.raises(InputError, match="bad.pth holds neither a state dict"):
            read_checkpoint(bad)


def test_weights_under_another_key_are_named(tmp_path: Path) -> None:
    torch.save({"model_ema": STATE, "epoch": 3}, tmp_path / "ema.pth")
    with pytest.raises(InputError, match=r"but model_ema, epoch\. If one of them is the state dict to use, save it as"):
        read_checkpoint(tmp_path / "ema.pth")


def test_damaged_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    save_file(STATE, path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InputError, match=r"bad\.safetensors cannot be read: it is damaged"):
        read_checkpoint(path)
    save_file(STATE, path, metadata={"class_names": json.dumps(["cat"])[:-1]})
    with pytest.raises(InputError, match=r"bad\.safetensors cannot be read: it is damaged"):
        read_checkpoint(path)


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    save_file(STATE, path)
    for name in ("safetensors", "safetensors.torch"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"model\.safetensors: .* pip install safetensors"):
        read_checkpoint(path)
    with pytest.raises(InputError, match=r"other\.safetensors: .* pip install safetensors"):
        write_checkpoint(tmp_path / "other.safetensors", STATE)
