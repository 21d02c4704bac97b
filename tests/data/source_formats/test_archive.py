"""A .zip of a dataset is unpacked once, and only into a folder of ours."""

import shutil
import stat
import warnings
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

from lite_detr_d2.data.sources import archive, find_source
from lite_detr_d2.errors import InputError

from ..folders import coco_content, write_coco_files, write_voc_files, write_yolo_files
from .helpers import boxes, image_file

LAYOUT = {"train.json": "images", "val.json": "images"}


def pack(folder: Path, file: Path, top: str = "") -> Path:
    """Pack what lies in a folder, below ``top``."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(folder.rglob("*")):
            packed.write(path, Path(top) / path.relative_to(folder))
    return file


def everything(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*"))


@pytest.mark.parametrize("top", ["", "my set", "a/b"])
@pytest.mark.parametrize("kind", ["COCO", "YOLO", "Pascal VOC"])
def test_every_format(tmp_path: Path, kind: str, top: str) -> None:
    folder = tmp_path / "set"
    if kind == "COCO":
        write_coco_files(folder, {"train.json": "images"})
    elif kind == "YOLO":
        write_yolo_files(folder, {"labels": "images"})
        (folder / "data.yaml").write_text("names: [ant, cat, dog]")
    else:
        write_voc_files(folder, {"Annotations": "JPEGImages"})
    (tmp_path / "user").mkdir()
    file = pack(folder, tmp_path / "user" / "set.zip", top)
    shutil.rmtree(folder)
    source = find_source(file, tmp_path / "workspace")
    assert (source.root, source.kind) == (file, kind)
    content = source.halves["train"].read()
    assert boxes(content) == boxes(coco_content(images=2))
    assert all(image_file(source.halves["train"], image["file_name"]).is_file() for image in content["images"])
    assert everything(tmp_path / "user") == [Path("set.zip")]


def test_it_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = pack(write_coco_files(tmp_path / "set", LAYOUT), tmp_path / "set.zip")
    first = find_source(file, tmp_path / "workspace")
    monkeypatch.setattr(archive, "_unpack", lambda *_: pytest.fail("unpacked again"))
    (tmp_path / "other").mkdir()
    copy = shutil.copy(file, tmp_path / "other" / "set.zip")
    again = find_source(copy, tmp_path / "workspace")
    assert again.halves["train"].origin == first.halves["train"].origin
    assert again.fingerprint() == first.fingerprint()
    monkeypatch.undo()
    (tmp_path / "set" / "images" / "0.png").write_bytes(b"another")
    changed = find_source(pack(tmp_path / "set", file), tmp_path / "workspace")
    assert image_file(changed.halves["train"], "0.png").read_bytes() == b"another"
    assert len(list((tmp_path / "workspace").iterdir())) == 2


def test_junk_is_left_out(tmp_path: Path) -> None:
    write_coco_files(tmp_path / "set", LAYOUT)
    for name in ("__MACOSX/._train.json", "images/._0.png", ".DS_Store", "Thumbs.db"):
        (tmp_path / "set" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "set" / name).write_text("junk")
    workspace = tmp_path / "workspace"
    source = find_source(pack(tmp_path / "set", tmp_path / "set.zip"), workspace)
    assert list(source.halves) == ["train", "val"]
    names = {path.name for path in workspace.rglob("*") if path.is_file()}
    assert names == {"train.json", "val.json", "0.png", "1.png", "2.png", "3.png"}


def test_names_of_other_systems(tmp_path: Path) -> None:
    file = tmp_path / "set.zip"
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("train.json", '{"images": [], "annotations": []}')
        packed.writestr("images\\Käfer.png", "1")
    data = bytearray(file.read_bytes())
    for header, flags in ((b"PK\x03\x04", 7), (b"PK\x01\x02", 9)):  # that names are UTF-8 is no longer said
        data[data.rfind(header) + flags] &= ~0x08
    file.write_bytes(data)
    half = find_source(file, tmp_path / "workspace").halves["train"]
    assert image_file(half, "Käfer.png").read_bytes() == b"1"


@pytest.mark.parametrize("name", ["../out.json", "/out.json", "a/../../out.json", "..\\out.json", "C:\\out.json"])
def test_entries_that_land_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / "set.zip"
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("train.json", "{}")
        packed.writestr(name, "{}")
    with pytest.raises(InputError, match=r"set\.zip has an entry that would land outside its folder: .*out\.json"):
        find_source(file, tmp_path / "a" / "workspace")
    assert everything(tmp_path) == [Path("set.zip")]


def test_links_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "set.zip"
    link = zipfile.ZipInfo("images")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr(link, "/etc")
    with pytest.raises(InputError, match="an entry that is a link: images"):
        find_source(file, tmp_path / "workspace")


def test_encrypted_archives_are_refused(tmp_path: Path) -> None:
    file = pack(write_coco_files(tmp_path / "set", LAYOUT), tmp_path / "set.zip")
    data = bytearray(file.read_bytes())
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = data.find(header)
        while place >= 0:
            data[place + flags] |= 1
            place = data.find(header, place + 4)
    file.write_bytes(data)
    with pytest.raises(InputError, match=r"set\.zip is encrypted\. Unpack it by hand"):
        find_source(file, tmp_path / "workspace")


def test_broken_archives_are_refused(tmp_path: Path) -> None:
    whole = pack(write_coco_files(tmp_path / "set", LAYOUT), tmp_path / "set.zip").read_bytes()
    file = tmp_path / "broken.zip"
    for place in range(0, len(whole), len(whole) // 60):
        for data in (whole[:place], whole[:place] + b"\x99\x99" + whole[place + 2 :]):
            file.write_bytes(data)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    halves = find_source(file, tmp_path / "workspace").halves
                except InputError as error:
                    assert str(file) in str(error)
                else:
                    assert set(halves) == {"train", "val"} or set(halves) == {"train"}
    assert not list((tmp_path / "workspace").glob(".unfinished*"))


def test_without_space_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = pack(write_coco_files(tmp_path / "set", LAYOUT), tmp_path / "set.zip")
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1000))
    with pytest.raises(InputError, match=r"no space to unpack \S+set\.zip in \S+workspace"):
        find_source(file, tmp_path / "workspace")
    monkeypatch.undo()

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", no_space)
    with pytest.raises(InputError, match="Make space"):
        find_source(file, tmp_path / "workspace")
    assert not list((tmp_path / "workspace").iterdir())


def test_another_process_may_be_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = pack(write_coco_files(tmp_path / "set", LAYOUT), tmp_path / "set.zip")
    copy = shutil.copyfileobj

    def meanwhile(*args: object) -> None:
        monkeypatch.undo()
        find_source(file, tmp_path / "workspace")
        copy(*args)

    monkeypatch.setattr(shutil, "copyfileobj", meanwhile)
    assert list(find_source(file, tmp_path / "workspace").halves) == ["train", "val"]
    assert len(list((tmp_path / "workspace").iterdir())) == 1
