"""A single annotation file is split in two, once, and the same way every time."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from detectron2.utils import comm
from torch import distributed
from torch.multiprocessing import start_processes

from lite_detr_d2.data import split_annotations
from lite_detr_d2.errors import InputError

from .folders import coco_content


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    logger = logging.getLogger("lite_detr_d2")
    logger.addHandler(caplog.handler)  # its messages do not propagate once detectron2 has set it up
    with caplog.at_level(logging.INFO, logger="lite_detr_d2"):
        yield caplog
    logger.removeHandler(caplog.handler)


def write_source(folder: Path, content: dict[str, Any] | None = None, images: int = 10) -> Path:
    source = folder / "all.json"
    source.write_text(json.dumps(content or coco_content(images)))
    return source


def read_halves(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    return json.loads((folder / "train.json").read_text()), json.loads((folder / "val.json").read_text())


def identifiers(half: dict[str, Any]) -> set[int]:
    return {image["id"] for image in half["images"]}


@pytest.mark.parametrize(("images", "for_val"), [(2, 1), (4, 1), (9, 1), (10, 2), (292, 58), (30000, 5000)])
def test_one_image_in_five_is_for_evaluation(tmp_path: Path, images: int, for_val: int) -> None:
    counts = split_annotations(write_source(tmp_path, images=images), tmp_path / "halves", keep=False)
    assert counts == {
        tmp_path / "halves" / "train.json": images - for_val,
        tmp_path / "halves" / "val.json": for_val,
    }
    train, val = (identifiers(half) for half in read_halves(tmp_path / "halves"))
    assert (len(train), len(val)) == (images - for_val, for_val)
    assert train | val == set(range(1, images + 1))


def test_all_but_images_and_annotations_stays(tmp_path: Path) -> None:
    content = {**coco_content(10), "info": {"year": 2026}, "licenses": [{"id": 1, "name": "öffentlich"}]}
    content["annotations"][0]["segmentation"] = [[0.1, 0.2, 1e-7, 4.0, 5.5, 6.0]]
    source = write_source(tmp_path, content)
    split_annotations(source, tmp_path, keep=False)
    halves = read_halves(tmp_path)
    for half in halves:
        assert half["categories"] == content["categories"]
        assert half["licenses"] == content["licenses"]
        assert half["info"]["year"] == 2026
        record = half["info"]["lite_detr_d2"]
        assert (record["split_from"], record["bytes"]) == (str(source), source.stat().st_size)
        assert {annotation["image_id"] for annotation in half["annotations"]} == identifiers(half)
    for kind in ("images", "annotations"):
        both = sorted(halves[0][kind] + halves[1][kind], key=lambda record: int(record["id"]))
        assert both == content[kind]


def test_the_split_depends_on_the_image_ids_alone(tmp_path: Path) -> None:
    content = coco_content(20)
    split_annotations(write_source(tmp_path, content), tmp_path / "one", keep=False)
    content["images"].reverse()
    content["annotations"] = content["annotations"][3:]
    split_annotations(write_source(tmp_path, content), tmp_path / "two", keep=False)
    one, two = (read_halves(tmp_path / name) for name in ("one", "two"))
    assert [identifiers(half) for half in one] == [identifiers(half) for half in two]
    assert identifiers(one[1]) != {17, 18, 19, 20}
    assert identifiers(one[1]) != {1, 2, 3, 4}


def test_a_recorded_split_is_used_again(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    source = write_source(tmp_path)
    counts = split_annotations(source, tmp_path, keep=False)
    assert "is the only annotation file. Split into" in log.text
    assert "8 images in train.json, 2 images in val.json" in log.text
    before = [(file.stat().st_mtime_ns, file.stat().st_ino) for file in counts]
    for keep in (False, True):
        log.clear()
        assert split_annotations(source, tmp_path, keep=keep) == counts
        assert f"the split in {tmp_path} is used: 8 images in train.json, 2 images in val.json" in log.text
    assert [(file.stat().st_mtime_ns, file.stat().st_ino) for file in counts] == before


def test_half_a_split_is_completed(tmp_path: Path) -> None:
    source = write_source(tmp_path)
    split_annotations(source, tmp_path, keep=False)
    halves = read_halves(tmp_path)
    (tmp_path / "val.json").unlink()
    split_annotations(source, tmp_path, keep=True)
    assert read_halves(tmp_path) == halves


def test_a_changed_source_is_split_anew_unless_results_rest_on_the_split(
    tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    split_annotations(write_source(tmp_path), tmp_path, keep=False)
    source = write_source(tmp_path, images=20)
    with pytest.raises(InputError, match=r"The split in .* another content than \S+all\.json has now.*Restore"):
        split_annotations(source, tmp_path, keep=True)
    assert len(read_halves(tmp_path)[0]["images"]) == 8
    split_annotations(source, tmp_path, keep=False)
    assert "It is made anew" in log.text
    assert len(read_halves(tmp_path)[0]["images"]) == 16


@pytest.mark.parametrize("content", ["{", "{}", json.dumps(coco_content()), json.dumps(coco_content() | {"info": []})])
def test_other_files_are_not_overwritten(tmp_path: Path, content: str) -> None:
    (tmp_path / "val.json").write_text(content)
    with pytest.raises(InputError, match=r"val\.json is not a split that was made here"):
        split_annotations(write_source(tmp_path), tmp_path, keep=False)
    assert (tmp_path / "val.json").read_text() == content
    assert not (tmp_path / "train.json").exists()


def test_classes_that_a_half_lacks_are_logged(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    content = coco_content(10)
    rare = content["categories"][0]
    for annotation in content["annotations"]:
        annotation["category_id"] = content["categories"][1]["id"]
    content["annotations"][0]["category_id"] = rare["id"]
    split_annotations(write_source(tmp_path, content), tmp_path, keep=False)
    train, val = read_halves(tmp_path)
    has_rare = content["annotations"][0]["image_id"] in identifiers(train)
    lacking = "val.json" if has_rare else "train.json"
    assert f"{lacking}: classes without an annotation: {rare['name']}, {content['categories'][2]['name']}\n" in log.text


def test_a_single_image_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"all\.json .* its one image cannot be split"):
        split_annotations(write_source(tmp_path, images=1), tmp_path / "halves", keep=False)
    assert not (tmp_path / "halves").exists()


def test_a_half_needs_annotations(tmp_path: Path) -> None:
    content = coco_content(10)
    del content["annotations"][1:]
    with pytest.raises(InputError, match=r"all\.json .* too few of its images have annotations"):
        split_annotations(write_source(tmp_path, content), tmp_path / "halves", keep=False)
    assert not (tmp_path / "halves").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    source = write_source(tmp_path)
    with pytest.raises(InputError, match=rf"cannot be written to {source}: "):
        split_annotations(source, source, keep=False)


def split_in_process(rank: int, folder: str, source: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    outcomes: list[list[object]] = []
    for images in ("halves", "all.json"):  # the second is a file, and no folder can be made of it
        try:
            outcomes.append([*split_annotations(Path(source), Path(folder, images), keep=False).values()])
        except InputError as error:
            outcomes.append([str(error)])
    Path(folder, f"{rank}.json").write_text(json.dumps(outcomes))
    # detectron2 keeps the group in a cache, where it would outlive its threads at exit, and abort the process.
    comm._get_global_gloo_group.cache_clear()
    distributed.destroy_process_group()


def test_two_processes_share_a_split_and_its_errors(tmp_path: Path) -> None:
    source = write_source(tmp_path)
    start_processes(split_in_process, args=(str(tmp_path), str(source)), nprocs=2, start_method="spawn")
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first[0] == [8, 2]
    assert "cannot be written" in first[1][0]
