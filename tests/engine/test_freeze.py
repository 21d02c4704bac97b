"""What SOLVER.FREEZE names is not trained and keeps its bits; a pattern that fits nothing is a misspelling."""

from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode

from lite_detr_d2.engine import Trainer
from lite_detr_d2.errors import InputError

from .stops import LENGTH, assert_same_training, stoppable_config, train

PATTERNS = ["backbone.*", "*.sampling_offsets.*"]


@pytest.fixture
def cfg(tmp_path: Path) -> CfgNode:
    cfg = stoppable_config(tmp_path)
    cfg.OUTPUT_DIR = str(tmp_path / "run")
    return cfg


def is_named(name: str) -> bool:
    return name.startswith("backbone.") or ".sampling_offsets." in name


def test_what_is_named_keeps_its_bits(cfg: CfgNode, tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    """The running statistics of the backbone's batch norms, too; the rest is trained."""
    torch.manual_seed(0)
    before = {name: value.clone() for name, value in Trainer(cfg).model.state_dict().items()}
    log.clear()
    found = train(cfg, tmp_path / "run", SOLVER__FREEZE=PATTERNS, SOLVER__BASE_LR=0.01)
    assert any(name.endswith("running_var") for name in found["model"])
    for name, value in found["model"].items():
        if is_named(name):
            assert torch.equal(value, before[name]), name
    moved = [name for name, value in found["model"].items() if not torch.equal(value, before[name])]
    rest = [name for name in before if not is_named(name)]
    assert len(moved) > 0.9 * len(rest)
    optimized = found["trainer"]["parameter_names"]
    assert optimized and not any(map(is_named, optimized))
    said = [message for message in log.messages if message.startswith("SOLVER.FREEZE: ")]
    assert len(said) == 1
    numbers = [name for name in before if is_named(name) and "running" not in name and "num_batches" not in name]
    count = sum(before[name].numel() for name in numbers)
    assert f"{len(numbers)} tensors of " in said[0]
    assert f" with {count} of " in said[0]


def test_stops_leave_no_trace(cfg: CfgNode, tmp_path: Path) -> None:
    expected = train(cfg, tmp_path / "whole", SOLVER__FREEZE=PATTERNS)
    assert_same_training(train(cfg, tmp_path / "stopped", stops=(1, 3), SOLVER__FREEZE=PATTERNS), expected)


def test_it_may_change_on_resume(cfg: CfgNode, tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    first = train(cfg, tmp_path / "run", SOLVER__FREEZE=PATTERNS)
    second = train(cfg, tmp_path / "run", SOLVER__MAX_ITER=LENGTH + 1)
    steps = steps_of(second)
    assert steps["backbone.stem.conv1.weight"] == 1
    assert (
        steps[
            "decoder.layers.0.norms.0.weight" if "decoder.layers.0.norms.0.weight" in steps else "flatten.level_embed"
        ]
        == LENGTH + 1
    )
    assert any("parameters were not trained before" in message for message in log.messages)
    third = train(cfg, tmp_path / "run", SOLVER__MAX_ITER=LENGTH + 2, SOLVER__FREEZE=["backbone.*"])
    assert not any(name.startswith("backbone.") for name in steps_of(third))
    name = "backbone.stem.conv1.weight"
    assert not torch.equal(second["model"][name], first["model"][name])
    assert torch.equal(third["model"][name], second["model"][name])


def steps_of(checkpoint: dict[str, Any]) -> dict[str, float]:
    names = checkpoint["trainer"]["parameter_names"]
    state = checkpoint["trainer"]["_trainer"]["optimizer"]["state"]
    return {names[number]: float(values["step"]) for number, values in state.items()}


@pytest.mark.parametrize(
    ("patterns", "words"),
    [
        (
            ["backbone.*", "bakbone.*"],
            "SOLVER.FREEZE has 'bakbone.*', which fits no parameter. Did you mean 'backbone.*'?",
        ),
        (["flatten.level_embd"], "Did you mean 'flatten.level_embed'?"),
        (["backbone"], "SOLVER.FREEZE has 'backbone', which fits no parameter. Did you mean 'backbone.*'?"),
        (["#"], "Names begin as backbone.*, "),
        (["*"], "SOLVER.FREEZE is ['*'], which leaves no parameter to train"),
    ],
)
def test_slips(cfg: CfgNode, patterns: list[str], words: str) -> None:
    cfg.SOLVER.FREEZE = patterns
    with pytest.raises(InputError) as error:
        Trainer(cfg)
    assert words in str(error.value)
