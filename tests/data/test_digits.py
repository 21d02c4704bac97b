"""The demo dataset is what it says: valid, deterministic, of all sizes, with disjoint halves."""

import json
from pathlib import Path

import numpy as np
import pytest

from lite_detr_d2.data import digits, validate_dataset
from lite_detr_d2.data.digits import make_digits_dataset
from lite_detr_d2.errors import InputError

SMALL = {"train_images": 6, "val_images": 3, "image_size": 64}


def snapshot(root: Path) -> dict[str, tuple[bytes, int]]:
    return {str(p.relative_to(root)): (p.read_bytes(), p.stat().st_mtime_ns) for p in root.rglob("*") if p.is_file()}


def test_it_is_valid_and_of_all_sizes(tmp_path: Path) -> None:
    make_digits_dataset(tmp_path, train_images=60, val_images=20)
    for half, images in (("train", 60), ("val", 20)):
        report = validate_dataset(tmp_path / f"{half}.json", tmp_path / "images", scored=True)
        assert report.problems == ()
        assert list(report.categories.values()) == [str(digit) for digit in range(10)]
        content = json.loads((tmp_path / f"{half}.json").read_text())
        per_image = np.bincount([a["image_id"] for a in content["annotations"]], minlength=images + 1)[1:]
        assert len(content["images"]) == images
        assert per_image.min() >= 1
        assert per_image.max() <= 8
        areas = np.array([annotation["area"] for annotation in content["annotations"]])
        sizes = np.digitize(areas, [32**2, 96**2])
        assert np.bincount(sizes, minlength=3).min() > 0.05 * len(areas)
        boxes = np.array([annotation["bbox"] for annotation in content["annotations"]])
        assert areas.tolist() == (boxes[:, 2] * boxes[:, 3]).tolist()


def test_it_is_deterministic(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        make_digits_dataset(tmp_path / name, **SMALL, seed=seed)
    contents = [{name: content for name, (content, _) in snapshot(tmp_path / n).items()} for n in "abc"]
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]


def test_an_intact_dataset_is_left_alone(tmp_path: Path) -> None:
    make_digits_dataset(tmp_path, **SMALL)
    before = snapshot(tmp_path)
    make_digits_dataset(tmp_path, **SMALL)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("damage", ["images/val_00002.jpg", "val.json"])
def test_a_damaged_dataset_is_made_again(tmp_path: Path, damage: str) -> None:
    make_digits_dataset(tmp_path, **SMALL)
    content = (tmp_path / damage).read_bytes()
    (tmp_path / damage).unlink()
    make_digits_dataset(tmp_path, **SMALL)
    assert (tmp_path / damage).read_bytes() == content


def test_other_parameters_make_it_again(tmp_path: Path) -> None:
    make_digits_dataset(tmp_path, **SMALL)
    make_digits_dataset(tmp_path, **{**SMALL, "val_images": 5})
    assert len(json.loads((tmp_path / "val.json").read_text())["images"]) == 5


@pytest.mark.parametrize("content", ['{"images": []}', '{"info": {"description": "mine"}}', "broken"])
def test_another_dataset_is_not_overwritten(tmp_path: Path, content: str) -> None:
    (tmp_path / "train.json").write_text(content)
    with pytest.raises(InputError, match=r"train\.json is not a file of the demo dataset"):
        make_digits_dataset(tmp_path, **SMALL)
    assert (tmp_path / "train.json").read_text() == content


def test_the_halves_share_no_digit_and_no_photograph() -> None:
    train, val = (digits._samples(half)[0] for half in ("train", "val"))
    assert len(train) + len(val) == 1797
    assert not {sample.tobytes() for sample in train} & {sample.tobytes() for sample in val}
    assert not set(digits._PHOTOGRAPHS["train"]) & set(digits._PHOTOGRAPHS["val"])


def test_boxes_fit_the_strokes() -> None:
    rng = np.random.default_rng(0)
    for height in (18.0, 60.0, 170.0):
        _, opacity = digits.glyph("train", height, rng)
        for edge in (opacity[0], opacity[-1], opacity[:, 0], opacity[:, -1]):
            assert edge.max() > 0.5
        assert 0.6 * height < opacity.shape[0] < 1.4 * height
