"""The last checkpoints and the best one stay, also over a resume; what the training has not written stays, too."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from torch import nn

from lite_detr_d2.checkpoint import is_intact, seal_of, write_checkpoint
from lite_detr_d2.engine import SafeCheckpointer, Trainer
from lite_detr_d2.engine.retention import BestSaving, PeriodicSaving

from .test_resume import cfg, changed  # noqa: F401  (a fixture)


class Training:
    """As a trainer, of hooks and a checkpointer alone; each iteration finds the AP that is given for it."""

    def __init__(self, folder: Path, keep: int = 2, dataset: str = "val") -> None:
        self.iter = self.start_iter = 0
        self.checkpointer = SafeCheckpointer(nn.Linear(2, 2), str(folder), trainer=self)
        self.hooks = [PeriodicSaving(self.checkpointer, 2, keep), BestSaving(self.checkpointer, dataset)]
        for hook in self.hooks:
            hook.trainer = self

    def state_dict(self) -> dict[str, Any]:
        return {"iteration": self.iter, "hook": self.hooks[0].state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.iter = state["iteration"]
        self.hooks[0].load_state_dict(state["hook"])

    def resumed(self) -> "Training":
        self.checkpointer.resume_or_load("", resume=True)
        self.start_iter = self.iter + 1
        return self

    def train(self, max_iter: int, aps: dict[int, float] | None = None, *, stop: int = 10**9) -> None:
        """Until ``max_iter``, or a kill before iteration ``stop``; what the last one finds is evaluated at the end."""
        saving, best = self.hooks
        self.max_iter, self.iter = max_iter, self.start_iter
        for hook in self.hooks:
            hook.before_train()
        for iteration in range(self.start_iter, min(max_iter, stop)):
            self.iter = iteration
            with torch.no_grad():
                self.checkpointer.model.weight.fill_(iteration)
            saving.after_step()
            if iteration + 1 < max_iter:
                self.evaluate(aps, iteration)
            best.after_step()
        if stop > max_iter:
            self.iter += 1
            self.evaluate(aps, max_iter - 1)
            best.after_train()

    def evaluate(self, aps: dict[int, float] | None, iteration: int) -> None:
        if aps and iteration in aps:
            self._last_eval_results = {"bbox": {"AP": aps[iteration]}}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def numbered(*iterations: int) -> list[str]:
    return [f"model_{iteration:07d}.pth" for iteration in iterations]


def best(folder: Path) -> tuple[float, float, int, int]:
    content = torch.load(folder / "model_best.pth")
    weight = float(content["model"]["weight"][0, 0])
    return content["best"]["AP"], weight, content["iteration"], content["trainer"]["iteration"]


@pytest.mark.parametrize(("keep", "kept"), [(0, (1, 3, 5, 7)), (1, (7,)), (3, (3, 5, 7)), (9, (1, 3, 5, 7))])
def test_so_many_of_the_last_stay(tmp_path: Path, keep: int, kept: tuple[int, ...]) -> None:
    Training(tmp_path, keep).train(9)
    assert names(tmp_path) == ["last_checkpoint", *numbered(*kept), "model_final.pth"]
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


def test_what_was_written_before_a_resume_goes_too(tmp_path: Path) -> None:
    Training(tmp_path).train(20, stop=5)
    assert names(tmp_path) == ["last_checkpoint", *numbered(1, 3)]
    Training(tmp_path).resumed().train(20, stop=9)
    assert names(tmp_path) == ["last_checkpoint", *numbered(5, 7)]


def test_what_the_training_did_not_write_stays(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    theirs = ["model_0000000.pth", "model_9999999.pth", "mine.pth", "model_best.pth.txt"]
    for name in theirs:
        (tmp_path / name).write_bytes(b"theirs")
    Training(tmp_path).train(20, stop=5)
    torch.save({"another": 1}, tmp_path / "model_0000001.pth")  # in the place of one that was written
    Training(tmp_path).resumed().train(20, stop=9)
    assert names(tmp_path) == sorted(["last_checkpoint", *numbered(1, 5, 7), *theirs])
    assert "model_0000001.pth stays: it is not what this training wrote." in log.messages
    assert all((tmp_path / name).read_bytes() == b"theirs" for name in theirs)


def test_only_the_checkpoint_itself_is_in_its_list_without_a_checksum(tmp_path: Path) -> None:
    """Else one from elsewhere could have whatever is there deleted."""
    Training(tmp_path).train(20, stop=5)
    training = Training(tmp_path)
    state = {"iteration": 3, "hook": {"written": dict.fromkeys(numbered(1, 3), "")}}
    training.load_state_dict(state)
    assert [name for name, digest in training.hooks[0].state_dict()["written"].items() if digest] == numbered(3)


@pytest.mark.parametrize("name", ["../other.pth", "mine.pth", "model_final.pth", "x/../model_0000000.pth"])
def test_a_list_from_elsewhere_deletes_nothing_of_another_name(tmp_path: Path, name: str) -> None:
    """Even with the right checksum."""
    run = tmp_path / "run"
    (run / "x").mkdir(parents=True)
    saved = write_sealed(run / name)
    training = Training(run)
    training.load_state_dict({"iteration": 0, "hook": {"written": {name: seal_of(saved)}}})
    training.train(20, stop=9)
    assert saved.is_file()


def write_sealed(path: Path) -> Path:
    write_checkpoint(path, {"w": torch.ones(1)})
    return path


def test_one_that_cannot_be_deleted_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(1, "Operation not permitted", path)

    monkeypatch.setattr("os.unlink", refuse)
    Training(tmp_path, keep=1).train(4)
    assert f"{tmp_path / 'model_0000001.pth'} cannot be deleted: Operation not permitted." in log.messages


def test_the_best_stays(tmp_path: Path) -> None:
    Training(tmp_path).train(9, {1: 10.0, 3: 30.0, 5: 20.0, 8: 25.0})
    assert best(tmp_path) == (30.0, 3, 3, 3)
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


def test_the_last_evaluation_counts(tmp_path: Path) -> None:
    Training(tmp_path).train(9, {1: 10.0, 8: 25.0})
    assert best(tmp_path) == (25.0, 8, 8, 8)


def test_the_best_survives_a_kill_after_its_evaluation(tmp_path: Path) -> None:
    """The checkpoint that is resumed was written before it."""
    Training(tmp_path).train(20, {1: 10.0, 3: 30.0}, stop=4)
    Training(tmp_path).resumed().train(9, {5: 20.0})
    assert best(tmp_path) == (30.0, 3, 3, 3)
    Training(tmp_path).resumed().train(12, {9: 40.0})
    assert best(tmp_path) == (40.0, 9, 9, 9)


def test_a_damaged_best_is_said_and_written_anew(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    Training(tmp_path).train(20, {1: 10.0, 3: 30.0}, stop=4)
    content = bytearray((tmp_path / "model_best.pth").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "model_best.pth").write_bytes(content)
    Training(tmp_path).resumed().train(9, {5: 20.0})
    assert f"{tmp_path / 'model_best.pth'} is damaged: the next evaluation writes it anew." in log.messages
    assert is_intact(tmp_path / "model_best.pth")
    assert best(tmp_path) == (20.0, 5, 5, 5)


def test_where_there_is_nothing_to_measure_there_is_no_best(tmp_path: Path) -> None:
    Training(tmp_path).train(4, {1: math.nan})
    assert "model_best.pth" not in names(tmp_path)
    training = Training(tmp_path / "empty")
    training._last_eval_results = {}
    (tmp_path / "empty").mkdir()
    training.train(2)
    assert "model_best.pth" not in names(tmp_path / "empty")


def test_of_several_sets_the_first_counts(tmp_path: Path) -> None:
    training = Training(tmp_path, dataset="second")
    training._last_eval_results = {"first": {"bbox": {"AP": 50.0}}, "second": {"bbox": {"AP": 20.0}}}
    training.train(1)
    assert best(tmp_path)[0] == 20


def test_another_set_starts_anew(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    Training(tmp_path).train(2, {1: 30.0})
    Training(tmp_path, dataset="harder").resumed().train(4, {3: 5.0})
    assert best(tmp_path) == (5.0, 3, 3, 3)
    assert any("is not of an evaluation on 'harder': the next one writes it anew" in line for line in log.messages)


def test_a_new_training_has_no_best_yet(tmp_path: Path) -> None:
    Training(tmp_path).train(2, {1: 30.0})
    Training(tmp_path).train(2, {1: 20.0})
    assert best(tmp_path)[0] == 20


@pytest.mark.parametrize("state", ["missing", "damaged", "older"])
def test_a_training_that_was_killed_in_its_last_write_ends(tmp_path: Path, state: str) -> None:
    final = tmp_path / "model_final.pth"
    if state == "older":
        Training(tmp_path).train(4)
        older = final.read_bytes()
        Training(tmp_path).resumed().train(6)
        final.write_bytes(older)
    else:
        Training(tmp_path).train(6)
        final.unlink()
    if state == "damaged":
        final.write_bytes(b"half")
    (tmp_path / "last_checkpoint").write_text("model_0000005.pth")
    Training(tmp_path).resumed().train(6)
    content, last = torch.load(final), torch.load(tmp_path / "model_0000005.pth")
    assert content["iteration"] == content["trainer"]["iteration"] == 5
    assert torch.equal(content["model"]["weight"], last["model"]["weight"])
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    before = final.stat().st_mtime_ns
    Training(tmp_path).resumed().train(6)
    assert final.stat().st_mtime_ns == before


def test_a_real_training_resumes_so(cfg: CfgNode) -> None:  # noqa: F811
    """The hooks' place among detectron2's, and their state in the trainer's."""
    folder = Path(cfg.OUTPUT_DIR)
    cfg = changed(cfg, "SOLVER.CHECKPOINT_PERIOD", 1, "SOLVER.KEEP_LAST", 2)
    cfg.DATASETS.TEST = cfg.DATASETS.TRAIN
    kinds = [type(hook).__name__ for hook in Trainer(cfg)._hooks]
    before = ["IterationTimer", "LRScheduler", "PeriodicSaving", "EvalHook", "BestSaving", "PeriodicWriter"]
    assert kinds == [*before, "EarlyProgress", "Stop"]
    for steps, kept in ((2, (0, 1)), (4, (2, 3))):
        trainer = Trainer(changed(cfg, "SOLVER.MAX_ITER", steps))
        trainer.resume_or_load(resume=True)
        trainer.train()
        found = {path.name for path in folder.glob("*.pth")}
        assert found == {*numbered(*kept), "model_best.pth", "model_final.pth"}
    content = torch.load(folder / "model_best.pth")
    assert content["best"] == {"AP": content["best"]["AP"], "dataset": cfg.DATASETS.TRAIN[0]}
    (folder / "model_final.pth").unlink()
    trainer = Trainer(changed(cfg, "SOLVER.MAX_ITER", 4))
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 4
    trainer.train()
    last, final = (torch.load(folder / f"{name}.pth") for name in ("model_0000003", "model_final"))
    assert final["trainer"]["iteration"] == final["iteration"] == 3
    assert all(torch.equal(value, final["model"][name]) for name, value in last["model"].items())


def test_weights_that_are_lost_do_not_become_the_last(cfg: CfgNode) -> None:  # noqa: F811
    folder = Path(cfg.OUTPUT_DIR)
    trainer = Trainer(changed(cfg, "SOLVER.CHECKPOINT_PERIOD", 1))
    step = trainer._trainer.run_step

    def diverge() -> None:
        step()
        if trainer.iter == 1:
            with torch.no_grad():
                next(trainer.model.parameters()).fill_(math.nan)

    trainer._trainer.run_step = diverge
    with pytest.raises(
        FloatingPointError, match=r"tensors of the model are not finite.*model_0000001\.pth is not written"
    ):
        trainer.train()
    assert (folder / "last_checkpoint").read_text() == "model_0000000.pth"
    assert [path.name for path in folder.glob("*.pth")] == ["model_0000000.pth"]
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=True)
    trainer.train()
    assert all(bool(value.isfinite().all()) for value in torch.load(folder / "model_final.pth")["model"].values())
