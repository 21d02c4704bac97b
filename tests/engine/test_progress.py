"""A line of progress is never worth a training."""

import time
from pathlib import Path

import pytest
from detectron2.utils.events import EventWriter

from lite_detr_d2.engine.progress import Dispensable

from .stops import assert_same_training, stoppable_config, train


def test_a_training_goes_on_where_its_metrics_cannot_be_written(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    cfg = stoppable_config(tmp_path / "data")
    expected = train(cfg, tmp_path / "whole", SOLVER__MAX_ITER=21)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "metrics.json").symlink_to("/dev/full")
    assert_same_training(train(cfg, tmp_path / "full", SOLVER__MAX_ITER=21), expected)
    said = [message for message in log.messages if "cannot be written" in message]
    assert len(said) == 1
    assert said[0].startswith("What JSONWriter writes to OUTPUT_DIR cannot be written: No space left on device.")


class Slow(EventWriter):
    """It takes half a second to fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.tried = 100.0, 0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def write(self) -> None:
        self.tried += 1
        self.now += 0.5
        raise TimeoutError("no answer")


def test_what_takes_long_to_fail_is_tried_less_often(
    monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    slow = Slow(monkeypatch)
    writer = Dispensable(slow, "All of it", "wait")
    for after, tried in ((0.0, 1), (4.9, 1), (0.2, 2), (0.0, 2), (5.1, 3)):
        slow.now += after
        writer.write()
        assert slow.tried == tried
    assert log.messages == [
        "All of it cannot be written: no answer. The training goes on, and writes it again where it can; wait."
    ]


def test_other_errors_come_through(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TimeoutError):
        Dispensable(Slow(monkeypatch), "All of it", "wait", (KeyError,)).write()
