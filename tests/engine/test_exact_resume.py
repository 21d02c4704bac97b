"""A training that was stopped, however often, ends with the bits of one that was not."""

import json
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.engine import hooks
from detectron2.engine.hooks import PeriodicWriter

from lite_detr_d2.config.schema import SAMPLERS
from lite_detr_d2.engine.resume import keep_metrics_before

from .stops import LENGTH, assert_same_training, stoppable_config, train


@pytest.fixture
def cfg(tmp_path: Path) -> CfgNode:
    return stoppable_config(tmp_path)


@pytest.mark.parametrize("stops", [(1,), (0, 2, 3), (4,)])
def test_stops_leave_no_trace(cfg: CfgNode, tmp_path: Path, stops: tuple[int, ...]) -> None:
    """Also between checkpoints, and before the first one."""
    expected = train(cfg, tmp_path / "whole")
    assert_same_training(train(cfg, tmp_path / "stopped", stops=stops), expected)


def test_the_number_of_data_loading_processes_does_not_matter(cfg: CfgNode, tmp_path: Path) -> None:
    expected = train(cfg, tmp_path / "none")
    found = train(cfg, tmp_path / "two", DATALOADER__NUM_WORKERS=2)
    stopped = train(cfg, tmp_path / "stopped", stops=(3,), DATALOADER__NUM_WORKERS=3)
    assert_same_training(found, expected)
    assert_same_training(stopped, expected)


def test_a_drawn_seed_is_kept(cfg: CfgNode, tmp_path: Path) -> None:
    seeds = {train(cfg, tmp_path / f"run {run}", SEED=-1, SOLVER__MAX_ITER=1)["trainer"]["seed"] for run in range(3)}
    assert len(seeds) > 1
    folder = tmp_path / "stopped"
    stopped = train(cfg, folder, stops=(3,), SEED=-1)
    cfg.SEED = stopped["trainer"]["seed"]
    assert_same_training(stopped, train(cfg, tmp_path / "whole"))


def test_another_seed_acts_from_where_it_is_given(cfg: CfgNode, tmp_path: Path) -> None:
    whole = train(cfg, tmp_path / "whole")
    train(cfg, tmp_path / "changed", SOLVER__MAX_ITER=2)
    changed = train(cfg, tmp_path / "changed", SEED=8)
    assert changed["trainer"]["seed"] == 8
    name = "backbone.stem.conv1.weight"
    assert not torch.equal(changed["model"][name], whole["model"][name])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_goes_on_where_it_was(cfg: CfgNode, tmp_path: Path, sampler: str) -> None:
    options: dict[str, object] = {"DATALOADER__SAMPLER_TRAIN": sampler, "DATALOADER__RANDOM_SUBSET_RATIO": 0.5}
    options["DATALOADER__REPEAT_THRESHOLD"] = 0.9
    expected = train(cfg, tmp_path / "whole", **options)
    assert_same_training(train(cfg, tmp_path / "stopped", stops=(2,), **options), expected)


def test_metrics_have_each_iteration_once(cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if it was stopped before the first checkpoint."""
    monkeypatch.setattr(hooks, "PeriodicWriter", lambda writers, period: PeriodicWriter(writers, 1))
    train(cfg, tmp_path / "whole", stops=(0, 2, 4))
    with (tmp_path / "whole" / "metrics.json").open("a") as file:
        file.write('{"iteration": 5, "tot')
    train(cfg, tmp_path / "whole", SOLVER__MAX_ITER=LENGTH + 2)
    lines = (tmp_path / "whole" / "metrics.json").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == list(range(LENGTH + 2))


def test_metrics_of_an_evaluation_outlast_what_is_cut_off(tmp_path: Path) -> None:
    """detectron2 writes them when it writes the next losses, and after these."""
    file = tmp_path / "metrics.json"
    lines = [f'{{"iteration": {iteration}}}\n' for iteration in (1, 3, 2, 4, 2)]
    file.write_text("".join(lines) + '{"iteration": 5, "tot')
    with file.open("a") as writer:
        keep_metrics_before(3, str(file))
        assert file.read_text() == "".join([lines[0], lines[2], lines[4]])
        writer.write(lines[1])
    assert file.read_text() == "".join([lines[0], lines[2], lines[4], lines[1]])
    keep_metrics_before(0, str(file))
    assert file.read_text() == ""


def test_precise_statistics_of_norms_do_not_depend_on_stops(cfg: CfgNode, tmp_path: Path) -> None:
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.TEST.PRECISE_BN.ENABLED, cfg.TEST.PRECISE_BN.NUM_ITER, cfg.TEST.EVAL_PERIOD = True, 1, 2
    expected = train(cfg, tmp_path / "whole")
    assert_same_training(train(cfg, tmp_path / "stopped", stops=(3,)), expected)
