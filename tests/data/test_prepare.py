"""A dataset is made ready once, found again, and never mixed up with another one or with the user's files."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from detectron2.data.datasets import load_coco_json
from detectron2.utils import comm
from torch import distributed
from torch.multiprocessing import start_processes

from lite_detr_d2 import files
from lite_detr_d2.data import prepare as prepare_module
from lite_detr_d2.data import source as source_module
from lite_detr_d2.data.prepare import Prepared, prepare
from lite_detr_d2.data.source import Source, write_coco_file
from lite_detr_d2.errors import InputError

from .folders import coco_content, write_coco_folder, write_images
from .halves import source_in, source_of


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_coco_folder(tmp_path / "pets")


def unreadable(source: Source) -> Source:
    """The source, which may be found again, but not read."""

    def read() -> Any:
        raise AssertionError("what is known is not read")

    return replace(source, halves={name: replace(half, read=read) for name, half in source.halves.items()})


def made(source: Source, folder: Path | None, **options: Any) -> Prepared:
    return prepare(lambda _: source, folder, **options)


def listing(root: Path) -> dict[str, tuple[bytes, int]]:
    return {str(p.relative_to(root)): (p.read_bytes(), p.stat().st_mtime_ns) for p in root.rglob("*") if p.is_file()}


def read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text())
    return content


def whole(root: Path, images: int = 10) -> Source:
    """A source that is to be split."""
    write_images(root / "images", coco_content(images))
    return source_of(root, train=coco_content(images))


def test_what_is_made_is_found_again(root: Path, tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    source = source_in(root, "train", "val")
    first = made(source, tmp_path / "work")
    assert "(COCO) is made ready in" in log.text
    before = listing(tmp_path / "work")
    assert set(before) == {"train.json", "val.json", "report.json"}
    for keep in (False, True):
        log.clear()
        assert made(unreadable(source), tmp_path / "work", keep=keep) == first
        assert f"Of {root}, what is ready in {tmp_path / 'work'} is used" in log.text
        assert "4 images in train.json, 4 images in val.json" in log.text
    assert listing(tmp_path / "work") == before
    assert first.halves["train"].images == root / "images"
    assert dict(first.categories) == {1: "ant", 3: "cat", 7: "dog"}


def test_findings_are_found_again(root: Path, tmp_path: Path) -> None:
    content = coco_content()
    content["annotations"][0]["area"] = 0
    source = source_of(root, train=content, val=coco_content())
    first = made(source, tmp_path / "work")
    again = made(unreadable(source), tmp_path / "work")
    assert [finding.text() for finding in again.report.findings] == [
        finding.text() for finding in first.report.findings
    ]
    assert "'area'" in first.report.findings[0].text()


def test_what_is_written_is_the_content(root: Path, tmp_path: Path) -> None:
    content = {**coco_content(), "info": {"year": 2026}, "licenses": [{"id": 1, "name": "öffentlich"}]}
    content["annotations"][0]["segmentation"] = [[0.1, 0.2, 1e-7, 4.0, 5.5, 6.0]]
    made(source_of(root, train=content, val=coco_content()), tmp_path / "work")
    content["categories"].sort(key=lambda category: category["id"])
    assert read(tmp_path / "work" / "train.json") == content


@pytest.mark.parametrize("records", [0, 1, 999, 1000, 1001, 2000, 2001])
def test_lists_of_every_length_are_written(tmp_path: Path, records: int) -> None:
    content = {"info": {"a": "ä"}, "images": [{"id": number, "x": [None, 1e-9]} for number in range(records)], "n": 5}
    write_coco_file(tmp_path / "x.json", content)
    assert read(tmp_path / "x.json") == content


def test_nothing_is_written_to_the_users_folder(root: Path, tmp_path: Path) -> None:
    before = listing(root)
    made(source_in(root, "train", "val"), tmp_path / "work")
    made(source_in(root, "train"), tmp_path / "other")
    made(source_in(root, "train"), None)
    assert listing(root) == before


def test_without_a_folder_it_is_a_temporary_one(root: Path) -> None:
    source = source_in(root, "train", "val")
    first = made(source, None)
    assert made(unreadable(source), None) == first
    assert root not in first.halves["train"].annotations.parents
    other = made(source_in(root, "train"), None)
    assert other.halves["train"].annotations != first.halves["train"].annotations
    assert first.halves["train"].annotations.is_file()


def test_a_changed_source_is_made_anew(root: Path, tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    for images, keep in ((4, False), (3, False), (2, True)):  # results rest on a split, not on files used as they are
        log.clear()
        source = source_of(root, train=coco_content(images), val=coco_content())
        assert made(source, tmp_path / "work", keep=keep).halves["train"].num_images == images
        said = f"was made of {root} with another content than it has now. It is made anew."
        assert (said in log.text) is (images < 4)
        assert len(read(tmp_path / "work" / "train.json")["images"]) == images


def test_a_changed_source_of_a_split_is_an_error_where_results_rest_on_it(tmp_path: Path) -> None:
    first = made(whole(tmp_path / "pets"), tmp_path / "work")
    assert {name: half.num_images for name, half in first.halves.items()} == {"train": 8, "val": 2}
    before = listing(tmp_path / "work")
    changed = whole(tmp_path / "pets", images=20)
    with pytest.raises(InputError, match=r"was made of \S+pets with another content than it has now\. Restore"):
        made(changed, tmp_path / "work", keep=True)
    assert listing(tmp_path / "work") == before
    assert made(changed, tmp_path / "work").halves["train"].num_images == 16


def test_what_was_dropped_is_an_error_by_another_rule_but_where_results_rest_on_it(root: Path, tmp_path: Path) -> None:
    content = coco_content()
    content["annotations"][0]["bbox"] = [0, 0, -1, 1]
    source = source_of(root, train=content, val=coco_content())
    first = made(source, tmp_path / "work", on_bad="drop")
    assert first.report.findings[0].severity == "WARNING"
    assert made(unreadable(source), tmp_path / "work", on_bad="drop") == first
    assert made(unreadable(source), tmp_path / "work", keep=True) == first
    with pytest.raises(InputError, match="negative side"):
        made(source, tmp_path / "work")
    with pytest.raises(InputError, match="on_bad is 'ignore': expected one of error, drop"):
        made(source, tmp_path / "work", on_bad="ignore")


def test_another_dataset_goes_elsewhere_where_results_rest_on_the_first(
    root: Path, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    made(whole(tmp_path / "split"), tmp_path / "work")
    before = listing(tmp_path / "work")
    source = source_in(root, "train", "val")
    second = made(source, tmp_path / "work", keep=True)
    assert second.halves["train"].annotations.parent.parent == tmp_path / "work"
    assert before.items() <= listing(tmp_path / "work").items()
    assert made(unreadable(source), tmp_path / "work", keep=True) == second
    # Without results, it takes the place of the first.
    assert made(source, tmp_path / "work").halves["train"].annotations == tmp_path / "work" / "train.json"
    assert json.loads((tmp_path / "work" / "report.json").read_text())["source"] == str(root)
    assert f"was made of {tmp_path / 'split'}, not of {root}. It is made anew." in log.text


def test_halves_that_are_no_more_are_removed(root: Path, tmp_path: Path) -> None:
    write_coco_folder(root, val_name="test")
    made(source_in(root, "train", "val", "test"), tmp_path / "work")
    assert set(listing(tmp_path / "work")) == {"train.json", "val.json", "test.json", "report.json"}
    made(source_in(root, "train", "val"), tmp_path / "work")
    assert set(listing(tmp_path / "work")) == {"train.json", "val.json", "report.json"}


@pytest.mark.parametrize("name", ["train.json", "val.json", "report.json"])
@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"key": "", "version": 1}', json.dumps(coco_content())])
def test_the_users_files_are_not_overwritten(root: Path, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / name).write_text(text)
    with pytest.raises(InputError, match=rf"{name} was not made here, and would be overwritten: move it, or give"):
        made(source_in(root, "train", "val"), tmp_path / "work")
    assert {file: content for file, (content, _) in listing(tmp_path / "work").items()} == {name: text.encode()}


def test_the_dataset_itself_is_no_place_for_it(root: Path) -> None:
    before = listing(root)
    with pytest.raises(InputError, match=r"train\.json was not made here"):
        made(source_in(root, "train", "val"), root)
    assert listing(root) == before


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("writes", [1, 2, 3])
@pytest.mark.parametrize("before", [False, True])
def test_what_was_interrupted_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int, keep: bool, before: bool
) -> None:
    real, written = files.write_atomically, []

    def write(path: str, fill: Callable[[Any], object]) -> None:
        if len(written) == writes:
            raise KeyboardInterrupt
        written.append(path)
        real(path, fill)

    if before:
        made(whole(tmp_path / "pets", images=5), tmp_path / "work")
    source = whole(tmp_path / "pets")
    with monkeypatch.context() as patch:
        for module in (prepare_module, source_module):
            patch.setattr(module, "write_atomically", write)
        with pytest.raises(KeyboardInterrupt):
            made(source, tmp_path / "work")
    assert made(source, tmp_path / "work", keep=keep).halves["train"].num_images == 8
    assert len(read(tmp_path / "work" / "train.json")["images"]) == 8
    assert len(read(tmp_path / "work" / "val.json")["images"]) == 2
    made(unreadable(source), tmp_path / "work", keep=True)


@pytest.mark.parametrize("lost", ["train.json", "val.json"])
def test_half_of_it_is_completed(tmp_path: Path, lost: str) -> None:
    source = whole(tmp_path / "pets")
    made(source, tmp_path / "work")
    before = {name: content for name, (content, _) in listing(tmp_path / "work").items()}
    (tmp_path / "work" / lost).unlink()
    made(source, tmp_path / "work", keep=True)
    assert {name: content for name, (content, _) in listing(tmp_path / "work").items()} == before


def test_what_an_earlier_version_made_is_made_anew(root: Path, tmp_path: Path) -> None:
    source = source_in(root, "train", "val")
    made(source, tmp_path / "work")
    record = read(tmp_path / "work" / "report.json")
    (tmp_path / "work" / "report.json").write_text(json.dumps({**record, "version": 0, "halves": {"train": None}}))
    made(source, tmp_path / "work")
    assert read(tmp_path / "work" / "report.json") == record


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_what_the_system_refuses_is_said(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(InputError, match=os.strerror(number)):
        made(source_in(root, "train", "val"), tmp_path / "work")
    monkeypatch.undo()
    made(source_in(root, "train", "val"), tmp_path / "work")


def test_a_folder_that_is_a_file_is_said(root: Path, tmp_path: Path) -> None:
    (tmp_path / "work").write_text("")
    with pytest.raises(InputError, match=r"cannot be made ready in \S+work: "):
        made(source_in(root, "train", "val"), tmp_path / "work")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_said(root: Path, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir(mode=0o500)
    with pytest.raises(InputError, match="Permission denied"):
        made(source_in(root, "train", "val"), tmp_path / "work")


def test_restored_images_are_used_again(root: Path, tmp_path: Path) -> None:
    source = source_in(root, "train", "val")
    (root / "images" / "0.png").rename(tmp_path / "0.png")
    assert made(source, tmp_path / "work", on_bad="drop").halves["train"].num_images == 3
    assert made(unreadable(source), tmp_path / "work", on_bad="drop", keep=True).halves["train"].num_images == 3
    (tmp_path / "0.png").rename(root / "images" / "0.png")
    assert made(source, tmp_path / "work", on_bad="drop").halves["train"].num_images == 4


def test_a_half_without_annotations_is_not_scored(root: Path, tmp_path: Path) -> None:
    prepared = made(source_of(root, train=coco_content(), val={**coco_content(), "annotations": []}), tmp_path / "work")
    assert "annotations" not in read(tmp_path / "work" / "val.json")
    assert "there are no annotations: detections are not scored" in str(prepared.report.findings)
    assert len(load_coco_json(str(prepared.halves["val"].annotations), "")) == 4


def test_records_of_too_many_levels_are_an_error(root: Path, tmp_path: Path) -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    content = coco_content()
    source = source_in(root, "train", "val")
    content["annotations"][0]["attributes"] = nested
    halves = {"train": replace(source.halves["train"], read=lambda: content), "val": source.halves["val"]}
    with pytest.raises(InputError, match="a record has too many levels"):
        made(replace(source, halves=halves), tmp_path / "work")
    while nested:  # level by level: freeing all at once is as deep
        nested = nested.pop()


def test_a_moved_dataset_keeps_its_split(tmp_path: Path) -> None:
    made(whole(tmp_path / "pets"), tmp_path / "work")
    shutil.move(tmp_path / "pets", tmp_path / "moved")
    moved = made(source_in(tmp_path / "moved", "train"), tmp_path / "work", keep=True)
    before, after = (read(file) for file in (tmp_path / "work" / "val.json", moved.halves["val"].annotations))
    assert before == after
    assert moved.halves["val"].images == tmp_path / "moved" / "images"


def prepare_in_process(rank: int, folder: str, root: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)

    def find(workspace: Path) -> Source:
        if rank:
            raise AssertionError("only the main process looks for it")
        return source_in(Path(root), "train")

    outcomes: list[object] = []
    for where in ("work", "file"):  # the second is a file, and no folder can be made of it
        try:
            prepared = prepare(find, Path(folder, where))
            outcomes.append([str(half.annotations) for half in prepared.halves.values()])
        except InputError as error:
            outcomes.append(str(error))
    Path(folder, f"{rank}.json").write_text(json.dumps(outcomes))
    # detectron2 keeps the group in a cache, where it would outlive its threads at exit, and abort the process.
    comm._get_global_gloo_group.cache_clear()
    distributed.destroy_process_group()


def test_processes_share_the_files_and_errors(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    start_processes(prepare_in_process, args=(str(tmp_path), str(root)), nprocs=2, start_method="spawn")
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first[0] == [str(tmp_path / "work" / "train.json"), str(tmp_path / "work" / "val.json")]
    assert "cannot be made ready" in first[1]
