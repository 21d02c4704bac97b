"""One OUTPUT_DIR is of one training: it goes on, is replaced, or is left alone."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from lite_detr_d2.checkpoint import write_checkpoint
from tests.data.folders import write_coco_folder
from tests.projects.scripts import TINY
from tests.projects.test_train_net import error_of, run

SHORT = ("DATASETS.TEST", "()", "SOLVER.STEPS", "()", "SOLVER.CHECKPOINT_PERIOD", 1, "SOLVER.MAX_ITER")


@pytest.fixture
def common(tmp_path: Path) -> tuple[object, ...]:
    return ("--dataset", write_coco_folder(tmp_path / "set"), "OUTPUT_DIR", tmp_path / "output", *SHORT)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("last_checkpoint", b"model_0000001.pth"),
        ("model_0000001.pth", b"any"),
        ("model_final.pth", b""),
        ("model_best.pth", b"any"),
        ("metrics.json", b"{}\n"),
    ],
)
def test_a_training_is_not_written_over(
    tmp_path: Path, common: tuple[object, ...], capsys: pytest.CaptureFixture[str], name: str, content: bytes
) -> None:
    output = tmp_path / "output"
    output.mkdir()
    (output / name).write_bytes(content)
    message = error_of(capsys, *common, 1)
    assert message == (
        f"error: OUTPUT_DIR {output} has a training in it ({name}): go on with it with --resume, replace it with "
        "--overwrite, or name another folder."
    )
    assert contents(output) == {name: content}


def test_what_is_no_training_is_no_obstacle(tmp_path: Path, common: tuple[object, ...]) -> None:
    output = tmp_path / "output"
    for folder in ("dataset", "ema"):
        (output / folder).mkdir(parents=True)
    others = (
        "notes.txt",
        "backbone.pth",
        "model_notes.txt",
        "notes.unfinished",
        "model.pth",
        "dataset/notes.unfinished",
    )
    half = ("model_0000003.pth", "last_checkpoint", "eval_metrics.json", "dataset/test.json", "ema/eval_metrics.json")
    for name in (*others, *(f"{name}.unfinished" for name in half)):
        (output / name).write_text("half")
    (output / "metrics.json").touch()  # as of a start that failed
    run(*common, 1)
    found = contents(output)
    assert all(found[name] == b"half" for name in others)
    assert not [name for name in found if name.removesuffix(".unfinished") in half and name.endswith(".unfinished")]
    removed = [line for line in (output / "log.txt").read_text().splitlines() if "which was never finished" in line]
    assert len(removed) == len(half)


def test_overwriting_begins_anew_and_says_what_goes(tmp_path: Path, common: tuple[object, ...]) -> None:
    output = tmp_path / "output"
    run(*common, 2)
    theirs = {"model_9999999.pth": b"theirs", "mine.pth": b"mine"}
    for name, content in theirs.items():
        (output / name).write_bytes(content)
    metrics = (output / "metrics.json").read_bytes()
    (output / "bad_batches.json").write_text("{}\n")
    run("--overwrite", *common, 1)
    assert {path.name for path in output.glob("*.pth")} == {"model_0000000.pth", "model_final.pth", "mine.pth"}
    assert (output / "mine.pth").read_bytes() == b"mine"
    moved = contents(output / "overwritten_1")
    assert moved["model_9999999.pth"] == b"theirs"
    assert moved["metrics.json"] == metrics
    assert moved["bad_batches.json"] == b"{}\n"
    assert not (output / "bad_batches.json").exists()
    assert len([name for name in moved if name.startswith("events.out.tfevents.")]) == 1
    assert [json.loads(line)["iteration"] for line in (output / "metrics.json").read_text().splitlines()] == [0]
    assert len(list(output.glob("events.out.tfevents.*"))) == 1
    log = (output / "log.txt").read_text()
    assert "--overwrite: deleted 3 checkpoints (model_0000000.pth, model_0000001.pth, model_final.pth)" in log
    assert f"to {output / 'overwritten_1'}" in log
    run("--overwrite", *common, 1)
    assert contents(output / "overwritten_1") == moved
    assert "metrics.json" in contents(output / "overwritten_2")
    assert log.count("Starting training from iteration 0") == 2


def test_what_the_next_training_starts_from_is_not_overwritten(
    tmp_path: Path, common: tuple[object, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "output"
    output.mkdir()
    weights = output / "model_final.pth"
    write_checkpoint(weights, {"w": torch.ones(1)})
    same = output / ".." / "output" / "model_final.pth"
    for key, source in (
        ("MODEL.WEIGHTS", same),
        ("MODEL.WEIGHTS", f"{weights}?matching_heuristics=True"),
        ("MODEL.LITE_DETR.INIT", same),
    ):
        message = error_of(capsys, "--overwrite", *common, 1, key, source)
        assert f"{key} is " in message
        assert "which --overwrite would delete" in message
        assert weights.is_file()


@pytest.mark.parametrize("key", ["MODEL.WEIGHTS", "MODEL.LITE_DETR.INIT"])
def test_weights_that_are_not_there_cost_nothing(
    tmp_path: Path, common: tuple[object, ...], capsys: pytest.CaptureFixture[str], key: str
) -> None:
    """They are looked for before the dataset is written, and before anything is deleted."""
    output = tmp_path / "output"
    run(*common, 1)
    before = contents(output), contents(output / "dataset")
    assert f"{key}: there is no file gone.pth" in error_of(capsys, "--overwrite", *common, 1, key, "gone.pth")
    message = error_of(capsys, "--overwrite", *common, 1, key, tmp_path)
    assert f"{key}: {tmp_path} is a folder: name a file in it" in message
    assert (contents(output), contents(output / "dataset")) == before


def test_a_start_that_fails_deletes_nothing(
    tmp_path: Path, common: tuple[object, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights that do not fit are found when the detector is there."""
    output, weights = tmp_path / "output", tmp_path / "other.pth"
    run(*common, 1)
    before = {path.name: path.read_bytes() for path in output.glob("*.pth")}
    write_checkpoint(weights, {"decoder.layers.0.feed_forward.linear1.weight": torch.ones(1)})
    assert "other.pth" in error_of(capsys, "--overwrite", *common, 1, "MODEL.WEIGHTS", weights)
    moved = contents(output / "overwritten_1")
    assert before and {name: moved[name] for name in before} == before
    run("--overwrite", *common, 1)
    assert not [name for name in contents(output / "overwritten_1") if name.endswith(".pth")]


def test_what_was_moved_before_is_not_started_from_and_deleted(
    tmp_path: Path, common: tuple[object, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a start that failed; a folder that only looks like one of those is left alone."""
    output, other = tmp_path / "output", tmp_path / "other.pth"
    run(*common, 1)
    write_checkpoint(other, {"decoder.layers.0.feed_forward.linear1.weight": torch.ones(1)})
    error_of(capsys, "--overwrite", *common, 1, "MODEL.WEIGHTS", other)
    moved = output / "overwritten_1" / "model_final.pth"
    shutil.copytree(output / "overwritten_1", mine := output / "overwritten_mine")
    assert "which --overwrite would delete" in error_of(capsys, "--overwrite", *common, 1, "MODEL.WEIGHTS", moved)
    assert moved.is_file()
    run("--overwrite", *common, 1)
    assert not moved.exists()
    assert (mine / "model_final.pth").is_file()


def test_weights_that_an_init_of_the_config_file_would_hide_are_refused(
    tmp_path: Path, common: tuple[object, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    output, weights, init = tmp_path / "output", tmp_path / "mine.pth", tmp_path / "init.pth"
    run(*common, 1)
    for path in (weights, init):
        shutil.copy(output / "model_final.pth", path)
    config = tmp_path / "config.yaml"
    config.write_text(f"_BASE_: {TINY}\nMODEL: {{LITE_DETR: {{INIT: {init}}}}}\n")
    with_config = ("--config-file", config, *common)
    message = error_of(capsys, "--overwrite", *with_config, 1, "MODEL.WEIGHTS", weights)
    assert f"MODEL.WEIGHTS is {weights}, and {config} has MODEL.LITE_DETR.INIT {init}" in message
    run("--overwrite", *with_config, 1, "MODEL.WEIGHTS", weights, "MODEL.LITE_DETR.INIT", "")
    run("--overwrite", *with_config, 1, "MODEL.WEIGHTS", "")
    init.unlink()
    # An evaluation never reads it.
    run("--eval-only", *with_config[: -len(SHORT)], "MODEL.WEIGHTS", weights)


@pytest.mark.parametrize("other", ["--resume", "--eval-only"])
def test_options_that_exclude_each_other(
    common: tuple[object, ...], capsys: pytest.CaptureFixture[str], other: str
) -> None:
    assert f"leave it or {other} out" in error_of(capsys, "--overwrite", other, *common, 1)


def test_an_evaluation_leaves_the_folder_as_it_is(tmp_path: Path, common: tuple[object, ...]) -> None:
    output = tmp_path / "output"
    run(*common, 1)
    (output / "model_0000003.pth.unfinished").write_text("being written")
    before = contents(output)
    evaluation = [part for part in common if part not in ("DATASETS.TEST", "()")]
    run("--eval-only", "--resume", *evaluation[:4])
    after = contents(output)
    for name in ("last_checkpoint", "metrics.json", "model_final.pth", "config.yaml", "model_0000003.pth.unfinished"):
        assert after[name] == before[name]
