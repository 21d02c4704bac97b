"""Images and annotation files as people have them: each image is found, once, or named with the reason."""

import json
import os
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from .changed import changing, first, refusal, registered, write
from .folders import coco_content, write_coco_folder
from .halves import Content
from .probes import boxes_trained_on, perfect_ap


def repeat_image(content: Content, *, name: str = "0.png", boxes: bool = True) -> None:
    content["images"].append({**content["images"][0], "id": 99, "file_name": name})
    if boxes:
        twins = [
            {**box, "id": 100 + box["id"], "image_id": 99} for box in content["annotations"] if box["image_id"] == 1
        ]
        content["annotations"] += twins


@pytest.mark.parametrize("name", ["0.png", "./0.png", "0.PNG", "../images/0.png", ".\\0.png"])
def test_an_image_under_several_ids_is_one(tmp_path: Path, name: str) -> None:
    root = write(tmp_path / "set", lambda content: repeat_image(content, name=name))
    folder, (message,) = registered(root, tmp_path / "w")
    assert folder.num_images[folder.train] == 4
    assert boxes_trained_on(folder.train) == 8
    assert perfect_ap(folder.val, coco_content(), tmp_path) == pytest.approx(100)
    assert "the same image file has several image ids: made one image with the boxes of all" in message
    assert "(images 1 and 99)" in message


def test_the_boxes_of_an_image_under_several_ids_come_together(tmp_path: Path) -> None:
    def change(content: Content) -> None:
        repeat_image(content, boxes=False)
        content["annotations"][1]["image_id"] = 99

    folder, _ = registered(write(tmp_path / "set", change), tmp_path / "w")
    assert boxes_trained_on(folder.train) == 8
    assert perfect_ap(folder.val, coco_content(), tmp_path) == pytest.approx(100)


def test_an_image_under_several_ids_is_in_one_half_of_a_split(tmp_path: Path) -> None:
    content = coco_content(images=10)
    content["images"] += [{**image, "id": 100 + image["id"]} for image in content["images"]]
    root = write_coco_folder(tmp_path / "set", train=content)
    (root / "val.json").unlink()
    registered(root, tmp_path / "w")
    halves = [json.loads((tmp_path / "w" / half).read_text()) for half in ("train.json", "val.json")]
    train, val = ({image["file_name"] for image in half["images"]} for half in halves)
    assert (len(train), len(val), len(train | val)) == (8, 2, 10)


def test_one_id_for_two_images_is_an_error_whatever_is_dropped(tmp_path: Path) -> None:
    root = write(tmp_path / "set", changing("images", "id", lambda number: max(number, 2)))
    for on_bad in ("error", "drop"):
        message = refusal(root, split_folder=tmp_path / "w", on_bad=on_bad)
        assert "the 'id' of an image is used by more than one image: image 2 (1.png) and 0.png" in message


def test_an_image_listed_twice_is_one(tmp_path: Path) -> None:
    root = write(tmp_path / "set", lambda content: content["images"].append(dict(content["images"][0])))
    folder, (message,) = registered(root, tmp_path / "w")
    assert (boxes_trained_on(folder.train), folder.num_images[folder.train]) == (8, 4)
    assert "an image is listed twice: listed once: image 1 (0.png)" in message


def test_a_long_name_is_cut_short(tmp_path: Path) -> None:
    root = write(tmp_path / "set", first("images", "file_name", "data:image/png;base64," + "iVBORw0KGgo" * 1000))
    message = refusal(root, split_folder=tmp_path / "w")
    assert "image 1 (data:image/png;base64,iVBOR" in message
    assert "the name is too long" in message
    assert len(message) < 1000


def test_a_folder_without_permission_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.stat

    def refuse(path: Any, *args: Any, **options: Any) -> os.stat_result:
        if str(path).endswith("secret/0.png"):
            raise PermissionError(13, "Permission denied", path)
        return real(path, *args, **options)

    root = write(tmp_path / "set", first("images", "file_name", "secret/0.png"))
    (root / "images" / "0.png").unlink()
    monkeypatch.setattr(os, "stat", refuse)
    message = refusal(root, split_folder=tmp_path / "w")
    assert "an image file is missing, with 2 boxes: image 1 (secret/0.png): permission denied" in message


@pytest.mark.parametrize(("stated", "there"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_of_another_unicode_form_are_found(tmp_path: Path, stated: Any, there: Any) -> None:
    name = "Käfer.png"
    root = write(tmp_path / "set", first("images", "file_name", unicodedata.normalize(stated, name)))
    (root / "images" / "0.png").rename(root / "images" / unicodedata.normalize(there, name))
    folder, (message,) = registered(root, tmp_path / "w")
    assert boxes_trained_on(folder.train) == 8
    assert "a 'file_name' is not that of the file, but for its case, Unicode form" in message


def test_of_two_files_that_a_name_may_mean_neither_is_taken(tmp_path: Path) -> None:
    root = write(tmp_path / "set", first("images", "file_name", "A.png"))
    for name in ("a.png", "a.PNG"):
        Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(root / "images" / name)
    assert "it may be a.PNG or a.png" in refusal(root, split_folder=tmp_path / "w")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_every_encoding_of_unicode_is_read(tmp_path: Path, encoding: str) -> None:
    root = write(tmp_path / "set", lambda content: None)
    content = coco_content()
    content["categories"][0]["name"] = "Käfer"
    for half in ("train", "val"):
        (root / f"{half}.json").write_text(json.dumps(content, ensure_ascii=False), encoding=encoding)
    folder, messages = registered(root, tmp_path / "w")
    assert folder.classes == ("ant", "Käfer", "dog")
    assert (boxes_trained_on(folder.train), messages) == (8, [])
    assert (tmp_path / "w" / "train.json").read_bytes().isascii()
