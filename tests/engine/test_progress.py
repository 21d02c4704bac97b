"""A line of progress is never worth a training."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from detectron2.utils.events import EventStorage, EventWriter

from lite_detr_d2.engine.progress import Dispensable, EarlyProgress, ProgressLine

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


def lines(monkeypatch: pytest.MonkeyPatch, seconds: list[float], start: int = 0) -> None:
    """Write a line every 20 iterations, of which each takes so many seconds, and none measures more than its own."""
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    writer = ProgressLine(max_iter=1000)
    with EventStorage(start) as storage:
        for number, each in enumerate(seconds, 1):
            now += each
            storage.put_scalars(total_loss=1.0, data_time=0.0, time=each)
            if number % 20 == 0:
                writer.write()
            storage.step()


def test_how_long_it_takes_is_said_before_the_first_line(
    monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    """By its own iterations, also of a training that goes on; and not where there is nothing left."""
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    for start, last in ((0, 1000), (500, 1000), (0, 2)):
        hook = EarlyProgress()
        hook.trainer = SimpleNamespace(start_iter=start, max_iter=last)
        for number, seconds in enumerate([60.0, 2.0, *[4.0] * 18][: last - start]):
            now += seconds
            hook.trainer.iter = start + number
            hook.after_step()
    assert log.messages == [
        "iteration 2 of 1,000, about 0:33:16 to go",
        "iteration 10 of 1,000, about 1:02:20 to go",
        "iteration 502 of 1,000, about 0:16:36 to go",
        "iteration 510 of 1,000, about 0:30:51 to go",
    ]


def test_the_first_line_says_how_long_the_training_takes(
    monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    """By the iterations themselves: of the first, which prepares much, nothing is concluded."""
    lines(monkeypatch, [60.0, *[0.5] * 19, *[2.0] * 20])
    first, second = log.messages
    assert first.startswith("iteration 20 of 1,000, loss 1.00")
    assert "0.50 s each, 0:08:10 to go" in first
    assert "2.00 s each, 0:32:00 to go" in second


def test_a_training_that_goes_on_says_so_of_the_rest(
    monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    lines(monkeypatch, [1.0] * 20, start=900)
    (line,) = log.messages
    assert "iteration 920 of 1,000" in line
    assert "1.00 s each, 0:01:20 to go" in line


def test_a_line_without_any_time_has_no_pace(log: pytest.LogCaptureFixture) -> None:
    """Of a trainer that does not measure it."""
    with EventStorage(19) as storage:
        storage.put_scalars(total_loss=1.0)
        ProgressLine(max_iter=1000).write()
    (line,) = log.messages
    assert "each" not in line
    assert "to go" not in line
