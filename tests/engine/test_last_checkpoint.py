"""Resuming finds the newest intact checkpoint, whatever became of the last one and of the file that names it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lite_detr_d2.engine import SafeCheckpointer
from lite_detr_d2.errors import InputError

NAMES = ("model_0000001.pth", "model_0000003.pth", "model_0000005.pth")


@pytest.fixture
def checkpointer(tmp_path: Path) -> SafeCheckpointer:
    """Of a folder with three checkpoints, whose times are in another order than their iterations."""
    result = new_checkpointer(tmp_path)
    for time, iteration in ((30, 1), (20, 3), (10, 5)):
        result.save(f"model_{iteration:07d}", iteration=iteration)
        os.utime(tmp_path / f"model_{iteration:07d}.pth", (time, time))
    return result


def new_checkpointer(folder: Path) -> SafeCheckpointer:
    model = nn.Linear(2, 2)
    return SafeCheckpointer(model, str(folder), optimizer=torch.optim.SGD(model.parameters(), lr=0.5))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 8
    path.write_bytes(content)


def tag(folder: Path) -> Path:
    return folder / "last_checkpoint"


def test_a_flipped_bit_is_passed_over(
    tmp_path: Path, checkpointer: SafeCheckpointer, log: pytest.LogCaptureFixture
) -> None:
    flip(tmp_path / NAMES[2])
    assert checkpointer.resume_or_load("", resume=True)["iteration"] == 3
    taken = f"taking {tmp_path / NAMES[1]}, of iteration 3, instead."
    assert [record.getMessage() for record in log.records if record.levelname == "WARNING"] == [
        f"The last checkpoint, {tmp_path / NAMES[2]}, is damaged: {taken}"
    ]
    flip(tmp_path / NAMES[1])
    assert checkpointer.get_checkpoint_file() == str(tmp_path / NAMES[0])
    assert f", is damaged, and {tmp_path / NAMES[1]} is damaged: taking {tmp_path / NAMES[0]}" in log.text


def test_nor_is_it_trained_from_or_evaluated(tmp_path: Path, checkpointer: SafeCheckpointer) -> None:
    path = tmp_path / NAMES[2]
    flip(path)
    message = rf"{path} cannot be read: it is damaged: its content does not fit its checksum"
    for checkpointables in (None, []):
        with pytest.raises(InputError, match=rf"^MODEL\.WEIGHTS: {message}"):
            checkpointer.load(str(path), checkpointables)
    with pytest.raises(InputError, match=rf"^MODEL\.LITE_DETR\.INIT: {message}"):
        checkpointer.initialize(str(path))


def test_without_an_intact_one_nothing_starts(tmp_path: Path, checkpointer: SafeCheckpointer) -> None:
    for name in NAMES:
        flip(tmp_path / name)
    for _ in range(2):
        with pytest.raises(InputError, match=r"(is|are) damaged.* has no intact one: restore one, or train anew there"):
            checkpointer.resume_or_load("", resume=True)
        tag(tmp_path).unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("spoil", "flaw"),
    [
        (lambda folder: tag(folder).unlink(), "is missing"),
        (lambda folder: tag(folder).write_bytes(b""), "names no file"),
        (lambda folder: tag(folder).write_bytes(b"\n"), "names no file"),
        (lambda folder: tag(folder).write_bytes(b"\xff\xfe\x00model"), "cannot be read"),
        (lambda folder: tag(folder).write_bytes(bytes(40)), "names no file"),
        (lambda folder: tag(folder).write_text("model_0000009.pth"), "names model_0000009.pth, which is not there"),
        (lambda folder: tag(folder).write_text("."), "names ., which is not there"),
    ],
)
def test_last_checkpoint_is_made_again(
    tmp_path: Path,
    checkpointer: SafeCheckpointer,
    log: pytest.LogCaptureFixture,
    spoil: Callable[[Path], object],
    flaw: str,
) -> None:
    spoil(tmp_path)
    assert checkpointer.has_checkpoint()
    taken = f"taking {tmp_path / NAMES[2]}, of iteration 5, instead."
    assert log.messages[-1] == f"{tag(tmp_path)} {flaw}: {taken}"
    assert tag(tmp_path).read_text() == NAMES[2]
    log.clear()
    assert checkpointer.resume_or_load("", resume=True)["iteration"] == 5
    assert not [record for record in log.records if record.levelname == "WARNING"]


def test_the_iteration_is_that_in_the_file(tmp_path: Path, checkpointer: SafeCheckpointer) -> None:
    """Whatever its name is."""
    (tmp_path / NAMES[2]).rename(tmp_path / "kept.pth")
    (tmp_path / NAMES[0]).rename(tmp_path / "model_0000099.pth")
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "kept.pth")


def test_one_that_was_chosen_by_hand_is_taken(tmp_path: Path, checkpointer: SafeCheckpointer) -> None:
    tag(tmp_path).write_text(f"{NAMES[0]}\n")
    assert checkpointer.resume_or_load("", resume=True)["iteration"] == 1


def test_weights_alone_are_nothing_to_go_on_from(tmp_path: Path) -> None:
    torch.save({"model": nn.Linear(2, 2).state_dict()}, tmp_path / "backbone.pth")
    (tmp_path / "notes.pth").write_text("no checkpoint")
    assert new_checkpointer(tmp_path).get_checkpoint_file() == ""


@pytest.mark.parametrize("tagged", [True, False])
@pytest.mark.parametrize("name", ["model_final.pth", NAMES[0]])
def test_nor_do_they_let_a_training_start_over_them(tmp_path: Path, name: str, tagged: bool) -> None:
    SafeCheckpointer(nn.Linear(2, 2), str(tmp_path)).save(name.removesuffix(".pth"), iteration=5)
    if not tagged:
        tag(tmp_path).unlink()
    with pytest.raises(InputError, match=rf"{name} holds no state of a training.* as MODEL\.WEIGHTS, without"):
        new_checkpointer(tmp_path).resume_or_load("", resume=True)
    assert SafeCheckpointer(nn.Linear(2, 2), str(tmp_path)).get_checkpoint_file() == str(tmp_path / name)


@pytest.mark.parametrize("folder", ["", "gone"])
def test_an_empty_folder_has_none(tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert SafeCheckpointer(nn.Linear(2, 2), folder).get_checkpoint_file() == ""


def test_who_does_not_write_leaves_the_folder_alone(tmp_path: Path, checkpointer: SafeCheckpointer) -> None:
    tag(tmp_path).unlink()
    reader = SafeCheckpointer(nn.Linear(2, 2), str(tmp_path), save_to_disk=False)
    assert reader.get_checkpoint_file() == str(tmp_path / NAMES[2])
    assert not tag(tmp_path).exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_saved(
    tmp_path: Path, checkpointer: SafeCheckpointer, value: float
) -> None:
    before: dict[str, Any] = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with torch.no_grad():
        checkpointer.model.bias[1] = value
    with pytest.raises(FloatingPointError) as error:
        checkpointer.save("model_0000007", iteration=7)
    message = str(error.value)
    assert message.startswith("1 of 2 tensors of the model are not finite (bias): model_0000007.pth is not written")
    assert "SOLVER.BASE_LR" in message
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_rename_that_is_lost_leaves_the_one_before(
    tmp_path: Path, checkpointer: SafeCheckpointer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a loss of power, where the file system did not keep what it was told to sync."""
    rename = os.replace

    def lose(source: str, target: str) -> None:
        if not target.endswith(".pth"):
            rename(source, target)

    monkeypatch.setattr(os, "replace", lose)
    checkpointer.save("model_0000007", iteration=7)
    assert tag(tmp_path).read_text() == "model_0000007.pth"
    assert new_checkpointer(tmp_path).resume_or_load("", resume=True)["iteration"] == 5
