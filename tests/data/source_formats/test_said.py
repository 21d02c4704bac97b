"""What a source hands on as it is, normalising reports with its place."""

from pathlib import Path

from lite_detr_d2.data.normalise import normalise
from lite_detr_d2.data.sources import find_source

from ..folders import write_voc_files, write_yolo_files


def errors(root: Path) -> str:
    """All that keeps a folder from being used."""
    return "\n".join(finding.text() for finding in normalise(find_source(root, root)).report.errors)


def test_of_yolo(tmp_path: Path) -> None:
    root = write_yolo_files(tmp_path, {"train/labels": "train/images", "val/labels": "val/images"})
    (root / "data.yaml").write_text("names: [ant, cat, dog]")
    (root / "train/labels/0.txt").write_text("0 0.5 0.5 0.1\n9 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.1 0.1\n")
    (root / "val/images/2.png").unlink()
    (root / "val/images/3.png").write_text("no image")
    said = errors(root)
    for place in ("train/labels/0.txt line 1", "train/labels/0.txt line 2", "val/labels/2.txt line 1", "3.png"):
        assert place in said
    assert "0.txt line 3" not in said


def test_of_voc(tmp_path: Path) -> None:
    root = write_voc_files(tmp_path, {"train": "train", "val": "val"})
    (root / "train" / "0.xml").write_text("<annotation>")
    file = root / "train" / "1.xml"
    file.write_text(file.read_text().replace("<xmin>5</xmin>", "").replace("<name>ant</name>", ""))
    (root / "val" / "2.png").unlink()
    said = errors(root)
    for place in ("train/0.xml (no element found", "train/1.xml object 1", "2.png"):
        assert place in said
