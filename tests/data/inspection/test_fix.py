"""A dataset in order is written as a folder of its own."""

import json
from pathlib import Path
from typing import Any

import pytest

from lite_detr_d2.data.inspection import write_folder
from lite_detr_d2.data.normalise import CleanHalf
from lite_detr_d2.errors import InputError

from .datasets import half, normalised


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def write(root: Path, **contents: str) -> Path:
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def read(out: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / f"{name}.json").read_text())
    return content


def test_all_halves_and_all_files(tmp_path: Path) -> None:
    """Images by the names that they have, in folders too; bytes as they are."""
    root = write(tmp_path / "mine", **{"images/a.png": "a", "images/deep/b.png": "b", "images/c.png": "c"})
    before = files_of(tmp_path / "mine")
    images = root / "images"
    halves = [
        half("train", ("a.png", "deep/b.png"), [(0, 0, 1, 1, 8, 8), (1, 2, 1, 1, 8, 8, 1)], root=images),
        half("val", ("c.png",), [(0, 1, 1, 1, 8, 8)], root=images),
        half("test", ("a.png",), root=images),
    ]
    out = tmp_path / "new" / "out"
    write_folder(normalised(*halves), out, root)
    assert files_of(out).keys() == {"train.json", "val.json", "test.json", *before}
    assert {name: content for name, content in files_of(out).items() if name in before} == before
    assert files_of(root) == before
    for written in halves:
        assert read(out, written.name) == written.content
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]


def test_other_files_of_the_same_name_are_kept_apart(tmp_path: Path) -> None:
    """Of two halves' folders, and of those that are told apart by case alone; one file of two halves is one."""
    root = write(tmp_path / "mine", **{"train/0.png": "t", "valid/0.png": "v", "valid/A.png": "A", "test/a.png": "a"})
    elsewhere = write(tmp_path / "elsewhere", **{"0.png": "e", "1.png": "f"})
    halves = [
        half("train", ("0.png", str(elsewhere / "0.png"), str(elsewhere / "1.png")), root=root / "train"),
        half("val", ("0.png", "A.png", "../train/0.png"), root=root / "valid"),
        half("test", ("a.png", "../valid/A.png"), root=root / "test"),
    ]
    write_folder(normalised(*halves), tmp_path / "out", root)
    contents = {
        name: [
            (tmp_path / "out" / "images" / image["file_name"]).read_text()
            for image in read(tmp_path / "out", name)["images"]
        ]
        for name in ("train", "val", "test")
    }
    assert contents == {"train": ["t", "e", "f"], "val": ["v", "A", "t"], "test": ["a", "A"]}
    names = [name.casefold() for name in files_of(tmp_path / "out" / "images")]
    assert len(names) == len(set(names)) == 6
    assert all(len(Path(name).parts) <= 2 for name in names)


def test_many_files_of_one_name_in_a_half_are_kept_apart(tmp_path: Path) -> None:
    root = write(tmp_path / "mine", **{"0.png": "0"})
    others = [str(write(tmp_path / name, **{"0.png": name}) / "0.png") for name in ("a", "b")]
    write_folder(normalised(half("train", ("0.png", *others), root=root)), tmp_path / "out", root)
    files = [image["file_name"] for image in read(tmp_path / "out", "train")["images"]]
    assert [(tmp_path / "out" / "images" / file).read_text() for file in files] == ["0", "a", "b"]


def test_what_is_there_is_never_written_over(tmp_path: Path) -> None:
    root = write(tmp_path / "mine", **{"images/a.png": "a", "train.json": "{}"})
    write(tmp_path / "full", file="precious")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    dataset = normalised(half("train", ("a.png",), root=root / "images"))
    refused = {
        tmp_path / "full": "is there already",
        tmp_path / "full" / "file": "is there already",
        tmp_path / "link": "is there already",
        root: "is there already",
        root / "out": "in the dataset's own folder",
        root / "images" / "out": "in the dataset's own folder",
        tmp_path / "full" / "file" / "below": "cannot be written",
    }
    before = files_of(tmp_path)
    for out, message in refused.items():
        with pytest.raises(InputError, match=message):
            write_folder(dataset, out, root / "train.json" if out == root / "out" else root)
        assert files_of(tmp_path) == before
    write_folder(dataset, tmp_path / "empty", root)
    assert files_of(tmp_path / "empty").keys() == {"train.json", "images/a.png"}


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    root = write(tmp_path / "mine", **{"a.png": "a"})
    gone: CleanHalf = half("train", ("a.png", "gone.png"), root=root)
    with pytest.raises(InputError, match=r"out cannot be written: No such file"):
        write_folder(normalised(gone), tmp_path / "out", root)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
