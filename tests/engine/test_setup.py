"""What the entry points share: overrides, the number of processes, and errors for users."""

import argparse
import errno
import os
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, Dataset

from lite_detr_d2.engine import argument_parser, one_line_errors, setup
from lite_detr_d2.errors import InputError
from tests.data.folders import write_coco_folder

TINY = Path(__file__).parent / "tiny.yaml"


def parse(*arguments: object) -> argparse.Namespace:
    return argument_parser("").parse_args([str(argument) for argument in arguments])


def test_a_dataset_sets_its_names_and_its_class_count(tmp_path: Path) -> None:
    dataset = write_coco_folder(tmp_path)
    cfg = setup(parse("--config-file", TINY, "--dataset", dataset, "OUTPUT_DIR", tmp_path / "output"))
    assert cfg.is_frozen()
    assert [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST] == [f"{tmp_path.name}_train", f"{tmp_path.name}_val"]
    assert cfg.MODEL.LITE_DETR.NUM_CLASSES == 3
    assert (tmp_path / "output" / "config.yaml").exists()


def test_options_after_overrides_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--resume comes after KEY VALUE pairs"):
        setup(parse("--config-file", TINY, "OUTPUT_DIR", tmp_path, "--resume"))


def test_overrides_win_over_a_dataset(tmp_path: Path) -> None:
    overrides = ("OUTPUT_DIR", tmp_path / "output", "DATASETS.TRAIN", f"('{tmp_path.name}_val',)", "SOLVER.MAX_ITER", 9)
    cfg = setup(parse("--config-file", TINY, "--dataset", write_coco_folder(tmp_path), *overrides))
    assert cfg.DATASETS.TRAIN == cfg.DATASETS.TEST == (f"{tmp_path.name}_val",)
    assert cfg.SOLVER.MAX_ITER == 9


def test_evaluation_does_not_ask_for_the_training_set(tmp_path: Path) -> None:
    arguments = ("--config-file", TINY, "--dataset", write_coco_folder(tmp_path))
    overrides = ("OUTPUT_DIR", tmp_path / "output", "DATASETS.TRAIN", "('no_such_set',)")
    assert setup(parse(*arguments, "--eval-only", *overrides)).DATASETS.TRAIN == ("no_such_set",)
    with pytest.raises(InputError, match=r"DATASETS\.TRAIN: no dataset 'no_such_set' is registered"):
        setup(parse(*arguments, *overrides))


@pytest.mark.parametrize(
    ("cores", "asked", "used"), [(1, 4, 1), (2, 4, 2), (2, 3, 2), (2, 2, 2), (2, 1, 1), (2, 0, 0), (64, 4, 4)]
)
def test_loading_processes_are_no_more_than_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, asked: int, used: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    arguments = ("--config-file", TINY, "--dataset", write_coco_folder(tmp_path))
    cfg = setup(parse(*arguments, "OUTPUT_DIR", tmp_path / "output", "DATALOADER.NUM_WORKERS", asked))
    assert used == cfg.DATALOADER.NUM_WORKERS
    lines = (tmp_path / "output" / "log.txt").read_text().splitlines()
    said = [line for line in lines if "DATALOADER.NUM_WORKERS becomes" in line]
    assert len(said) == (used < asked)
    assert all(f"becomes {used} instead of {asked}" in line for line in said)


class Unreadable(Dataset[int]):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        raise InputError(f"image {index} is unreadable:\nInputError of old")


def test_a_users_error_ends_the_program_with_its_message() -> None:
    with pytest.raises(SystemExit) as stop, one_line_errors():
        raise InputError("mend it:\n  this\n  that")
    assert stop.value.code == "error: mend it:\n  this\n  that"


def test_the_traceback_of_a_loading_process_is_left_out() -> None:
    with pytest.raises(SystemExit) as stop, one_line_errors():
        next(iter(DataLoader(Unreadable(), num_workers=1)))
    assert stop.value.code == "error: image 0 is unreadable:\nInputError of old"


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ValueError, match="a bug"), one_line_errors():
        raise ValueError("a bug")


def test_an_output_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "output").write_text("")
    with pytest.raises(InputError, match=r"OUTPUT_DIR is '\S+output', and cannot be made a folder: File exists"):
        setup(parse("--config-file", TINY, "OUTPUT_DIR", tmp_path / "output"))


def test_a_full_disk_ends_the_program_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Of detectron2's own writes the error has no file; ending a training fails again, and hides what failed first."""

    def train(first: Exception | None) -> None:
        try:
            if first is not None:
                raise first
        finally:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with (
        pytest.raises(SystemExit, match=r"^error: A file cannot be written: No space left on device\.$"),
        one_line_errors(),
    ):
        train(None)
    with pytest.raises(SystemExit, match=r"^error: model\.pth is too large$"), one_line_errors():
        train(InputError("model.pth is too large"))
    with pytest.raises(SystemExit, match=r"^error: log\.txt cannot be written"), one_line_errors():
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "log.txt")
    with pytest.raises(FileNotFoundError), one_line_errors():
        Path("gone").read_bytes()


def test_an_output_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "log.txt").mkdir()
    with pytest.raises(InputError, match=rf"OUTPUT_DIR is '{tmp_path}', and cannot be made a folder: Is a"):
        setup(parse("--config-file", TINY, "OUTPUT_DIR", tmp_path))
