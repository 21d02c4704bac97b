"""Every image, opened in full."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lite_detr_d2.data.inspection import look_at_images, without_problems
from tests.data.folders import photograph

from .datasets import half, normalised, opened, places


def test_images_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.jpg", "b.png", "c.webp"):
        photograph(ord(name[0])).save(tmp_path / name)
    photograph(9).convert("L").save(tmp_path / "grey.png")
    Image.fromarray(np.asarray(photograph(8).convert("L")).astype(np.uint16) * 256).save(tmp_path / "deep.png")
    files = ("a.jpg", "b.png", "c.webp", "grey.png", "deep.png")
    assert opened(normalised(half("train", files, root=tmp_path)), workers=2, progress=True) == []
    output = capsys.readouterr()
    assert "5/5" in output.err
    assert output.out == ""


def test_images_that_are_broken_behind_their_header(tmp_path: Path) -> None:
    files = []
    for suffix in ("jpg", "png", "webp", "tif", "gif"):
        files.append(f"cut.{suffix}")
        photograph(3).save(tmp_path / files[-1])
        content = (tmp_path / files[-1]).read_bytes()
        (tmp_path / files[-1]).write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    files += ["empty.png", "gone.png"]
    photograph(4).save(tmp_path / "whole.png")
    (finding,) = opened(normalised(half("val", [*files, "whole.png"], root=tmp_path)))
    assert (finding.id, finding.half, finding.fatal, finding.droppable) == ("image-unreadable", "val", True, True)
    assert [place.partition(": ")[0] for place in finding.places] == files
    assert all(place.partition(": ")[2] for place in finding.places)
    assert not any(str(tmp_path) in place for place in finding.places)


def test_a_size_that_is_not_what_decoding_gives(tmp_path: Path) -> None:
    photograph(0, (120, 160)).save(tmp_path / "tall.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    photograph(1, (120, 160)).save(tmp_path / "turned.jpg", exif=exif)
    found = places(opened(normalised(half("train", ("tall.png", "turned.jpg"), root=tmp_path))))
    assert found == {("train", "image-decoded-size"): ("tall.png: it is 120 x 160, not 160 x 120",)}


def test_odd_modes_and_frames(tmp_path: Path) -> None:
    modes = {"1": "bit.png", "P": "palette.png", "RGBA": "alpha.png", "LA": "la.png", "CMYK": "cmyk.jpg"}
    for seed, (mode, file) in enumerate(modes.items()):
        photograph(seed).convert(mode).save(tmp_path / file)
    photograph(7).save(tmp_path / "moving.webp", save_all=True, append_images=[photograph(8)])
    files = [*modes.values(), "moving.webp"]
    found = places(opened(normalised(half("train", files, root=tmp_path))))
    expected = [*(f"{file} ({mode})" for mode, file in modes.items()), "moving.webp (2 frames)"]
    assert found == {("train", "image-mode"): tuple(expected)}


def test_what_cannot_be_used_is_left_out(tmp_path: Path) -> None:
    photograph(0).save(tmp_path / "0.png")
    (tmp_path / "1.png").write_bytes(b"nothing")
    photograph(2, (8, 8)).save(tmp_path / "2.png")
    boxes = [(image, 0, 1, 1, 8, 8) for image in range(3)]
    dataset = normalised(
        half("train", ("0.png", "1.png", "2.png"), boxes, root=tmp_path),
        half("val", ("2.png", "0.png"), boxes[:2], root=tmp_path),
    )
    kept = without_problems(dataset, look_at_images(dataset))
    contents = [kept.halves[name].content for name in ("train", "val")]
    assert [[image["file_name"] for image in content["images"]] for content in contents] == [["0.png"], ["0.png"]]
    assert [[box["id"] for box in content["annotations"]] for content in contents] == [[10], [11]]
    assert len(dataset.halves["train"].content["images"]) == 3
