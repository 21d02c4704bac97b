"""The same picture within a half, and in two."""

import os
from pathlib import Path

import numpy as np
import pytest

from lite_detr_d2.data.inspection import inspect_content
from lite_detr_d2.data.inspection.table import tables_of
from lite_detr_d2.data.inspection.twins import same_files
from tests.data.folders import photograph

from .datasets import half, normalised, opened, places


def write(folder: Path, **contents: bytes) -> None:
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)


def test_the_same_bytes_within_a_half_and_between_halves(tmp_path: Path) -> None:
    write(tmp_path / "a", one=b"1" * 9, two=b"2" * 9, again=b"1" * 9, longer=b"1" * 10)
    write(tmp_path / "b", one=b"3" * 9, copy=b"1" * 9, new=b"4" * 9)
    write(tmp_path / "c", copy=b"1" * 9, three=b"3" * 9)
    dataset = normalised(
        half("train", ("one", "two", "again", "longer"), root=tmp_path / "a"),
        half("val", ("one", "copy", "new"), root=tmp_path / "b"),
        half("test", ("copy", "three"), root=tmp_path / "c"),
    )
    found = places(inspect_content(dataset))
    assert found["train", "image-duplicate"] == ("again (as one)",)
    assert found["val", "leakage"] == ("copy (as one of train)",)
    assert found["test", "leakage"] == ("copy (as one of train)", "copy (as copy of val)", "three (as one of val)")
    assert not {("val", "image-duplicate"), ("test", "image-duplicate"), ("train", "leakage")} & found.keys()


def test_files_that_differ_in_one_byte_are_two(tmp_path: Path) -> None:
    """At the start, in the middle or at the end; the last bytes alone do not decide."""
    content = bytearray(os.urandom(20_000))
    names = []
    for place in (0, 10_000, 19_999, None):
        changed = bytearray(content)
        if place is not None:
            changed[place] ^= 1
        names.append(f"{place}")
        (tmp_path / names[-1]).write_bytes(changed)
    assert same_files(tables_of(normalised(half("train", names, root=tmp_path)).halves)) == []


def test_the_same_file_by_other_paths(tmp_path: Path) -> None:
    """It is not read, however large."""
    write(tmp_path / "a", one=b"1" * 9)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    os.link(tmp_path / "a" / "one", tmp_path / "a" / "hard")
    (tmp_path / "a" / "soft").symlink_to(tmp_path / "a" / "one")
    dataset = normalised(
        half("train", ("one",), root=tmp_path / "a"),
        half("val", ("one", "hard", "../link/soft"), root=tmp_path / "link"),
    )
    assert places(inspect_content(dataset))["val", "leakage"] == tuple(
        f"{name} (as one of train)" for name in ("one", "hard", "../link/soft")
    )
    (tmp_path / "a" / "one").chmod(0)
    assert same_files(tables_of(dataset.halves))[0] == (1, 0)


def test_files_that_are_missing_are_nobodys_twins() -> None:
    files = ("gone.png", "lost.png")
    assert same_files(tables_of(normalised(half("train", files), half("val", ("away.png",))).halves)) == []


@pytest.mark.parametrize("how", ["resized", "recompressed", "darker"])
def test_near_duplicates_and_leakage(tmp_path: Path, how: str) -> None:
    for seed in range(6):
        photograph(seed).save(tmp_path / f"{seed}.png")
    copies = {
        "resized": photograph(1).resize((80, 60)).resize((160, 120)),
        "recompressed": photograph(1),
        "darker": photograph(1).point(lambda value: value * 0.7),
    }
    copies[how].save(tmp_path / "copy.jpg", quality=40)
    dataset = normalised(
        half("train", ("0.png", "1.png", "2.png", "copy.jpg"), root=tmp_path),
        half("val", ("3.png", "copy.jpg", "2.png"), root=tmp_path),
    )
    found = places(opened(dataset, workers=2))
    assert found == {
        ("train", "image-near-duplicate"): ("copy.jpg (as 1.png)",),
        # Its very twin in train, and 2.png, are found without opening images.
    }
    beside = normalised(
        half("train", ("0.png", "1.png"), root=tmp_path), half("val", ("3.png", "copy.jpg"), root=tmp_path)
    )
    assert places(opened(beside)) == {("val", "leakage-near"): ("copy.jpg (as 1.png of train)",)}
    assert ("val", "leakage") not in places(inspect_content(beside))


def test_images_that_cannot_be_read_are_not_alike(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    write(tmp_path, a=rng.bytes(99), b=rng.bytes(100))
    found = places(opened(normalised(half("train", ("a", "b"), root=tmp_path))))
    assert found.keys() == {("train", "image-unreadable")}
