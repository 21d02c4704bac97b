"""A line of progress is never worth a training."""

from pathlib import Path

import pytest

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
