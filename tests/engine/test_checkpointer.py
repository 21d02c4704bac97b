"""Checkpoints are written whole, and those of another model are refused."""

import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lite_detr_d2.engine import SafeCheckpointer
from lite_detr_d2.errors import InputError


def detector(width: int = 2, backbone: int = 2) -> nn.Module:
    model = nn.Module()
    model.backbone = nn.ModuleDict({name: nn.Linear(backbone, backbone) for name in ("stem", "res2")})
    model.decoder = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, width))
    return model


def save(path: Path, state: dict[str, Any]) -> str:
    torch.save(state, path)
    return str(path)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    saved, loaded = detector(), detector()
    optimizer = torch.optim.SGD(saved.parameters(), lr=0.5)
    SafeCheckpointer(saved, str(tmp_path), optimizer=optimizer).save("model_0000001", iteration=1)
    resumed = torch.optim.SGD(loaded.parameters(), lr=0.1)
    checkpointer = SafeCheckpointer(loaded, str(tmp_path), optimizer=resumed)
    assert checkpointer.resume_or_load("", resume=True)["iteration"] == 1
    assert resumed.param_groups[0]["lr"] == 0.5
    for key, value in saved.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[key])
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_0000001.pth"]


def test_a_crash_while_saving_leaves_the_previous_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpointer = SafeCheckpointer(detector(), str(tmp_path))
    checkpointer.save("model")
    before = (tmp_path / "model.pth").read_bytes()

    def crash(state: object, file: Any) -> None:
        file.write(b"half a checkpoint")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", crash)
    for name in ("model", "model_0000009"):
        with pytest.raises(OSError, match="no space"):
            checkpointer.save(name)
    assert (tmp_path / "model.pth").read_bytes() == before
    assert not (tmp_path / "model_0000009.pth").exists()
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "model.pth")


def test_resuming_passes_over_a_damaged_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpointer = SafeCheckpointer(detector(), str(tmp_path))
    for iteration in (1, 2, 3):
        checkpointer.save(f"model_{iteration}", iteration=iteration)
        os.utime(tmp_path / f"model_{iteration}.pth", (iteration, iteration))
    last = tmp_path / "model_3.pth"
    last.write_bytes(last.read_bytes()[:-100])
    logger = logging.getLogger("lite_detr_d2")
    logger.addHandler(caplog.handler)
    try:
        assert checkpointer.resume_or_load("", resume=True)["iteration"] == 2
    finally:
        logger.removeHandler(caplog.handler)
    assert "model_3.pth, is damaged or missing; going back to" in caplog.text
    for iteration in (1, 2):
        (tmp_path / f"model_{iteration}.pth").write_bytes(b"")
    with pytest.raises(InputError, match=r"Cannot resume: .*model_3\.pth is damaged"):
        checkpointer.resume_or_load("", resume=True)


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    other = {f"roi_heads.{number}": torch.zeros(2) for number in range(8)}
    path = save(tmp_path / "other.pth", {"model": {**other, "backbone.stem.bias": torch.zeros(2)}})
    checkpointer = SafeCheckpointer(detector())
    with pytest.raises(InputError) as error:
        checkpointer.resume_or_load(path, resume=False)
    message = str(error.value)
    assert f"{path} is a checkpoint of another model: 7 of the 8 tensors are not in it" in message
    assert "backbone.stem.weight is missing" in message
    assert "Give MODEL.WEIGHTS that fit the config" in message


def test_weights_of_another_width_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "wide.pth", {"model": detector(backbone=5).state_dict()})
    with pytest.raises(InputError, match=r"backbone\.res2\.bias is \(5,\), not \(2,\)"):
        SafeCheckpointer(detector()).resume_or_load(path, resume=False)


def test_a_full_backbone_does_not_make_up_for_the_rest(tmp_path: Path) -> None:
    weights = {key: value for key, value in detector().state_dict().items() if key.startswith("backbone.")}
    path = save(tmp_path / "backbone.pth", {"model": weights})
    with pytest.raises(InputError, match=r"decoder\.0\.bias is missing.*matching_heuristics=True"):
        SafeCheckpointer(detector()).resume_or_load(path, resume=False)


def test_a_backbone_is_loaded_by_matching_names(tmp_path: Path) -> None:
    weights = detector().backbone.state_dict()
    path = save(tmp_path / "imagenet.pth", weights)
    model = detector()
    SafeCheckpointer(model).resume_or_load(f"{path}?matching_heuristics=True", resume=False)
    assert torch.equal(model.backbone["res2"].weight, weights["res2.weight"])
    with pytest.raises(InputError, match="is a checkpoint of another model"):
        SafeCheckpointer(detector(backbone=3)).resume_or_load(f"{path}?matching_heuristics=True", resume=False)


def test_training_may_start_from_other_classes_and_evaluation_may_not(tmp_path: Path) -> None:
    path = save(tmp_path / "classes.pth", {"model": detector(width=3).state_dict()})
    model = detector()
    SafeCheckpointer(model).resume_or_load(path, resume=False)
    assert torch.equal(model.decoder[0].weight, torch.load(path)["model"]["decoder.0.weight"])
    with pytest.raises(InputError, match=r"2 of the 8 .*decoder\.1\.bias is \(3,\), not \(2,\).*NUM_CLASSES"):
        SafeCheckpointer(detector()).load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"MODEL\.WEIGHTS: there is no file .*gone\.pth"):
        SafeCheckpointer(detector()).load(str(tmp_path / "gone.pth"))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "model.pth", detector().state_dict())
    (tmp_path / "model.pth").write_bytes((tmp_path / "model.pth").read_bytes()[:300])
    with pytest.raises(InputError, match=r"model\.pth cannot be read .*damaged"):
        SafeCheckpointer(detector()).load(path)


class Harmful:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (os.environ["LITE_DETR_TEST_CANARY"],)


def test_a_file_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITE_DETR_TEST_CANARY", str(tmp_path / "canary"))
    path = save(tmp_path / "model.pth", {"model": detector().state_dict(), "args": Harmful()})
    with pytest.raises(InputError, match=r"convert_checkpoint\.py"):
        SafeCheckpointer(detector()).load(path)
    assert not (tmp_path / "canary").exists()
