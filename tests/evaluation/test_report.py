"""The report as JSON, text and pictures."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from lite_detr_d2.errors import InputError
from lite_detr_d2.evaluation import report
from lite_detr_d2.evaluation.dataset import EvaluationSet
from lite_detr_d2.evaluation.errors import ERRORS
from lite_detr_d2.evaluation.report import check_folder, report_on, summary, write_report
from lite_detr_d2.visualization.evaluation import draw_confusion

from .boxes import CLASSES, SIDE, Box, content, found, random_case

A: Box = (10, 10, 40, 40)
B: Box = (100, 100, 40, 40)


def dataset(folder: Path, truth: Any, names: dict[int, str] | None = None) -> EvaluationSet:
    """Grey images, and what is annotated in them."""
    names = names or CLASSES
    truth = {**truth, "categories": [{"id": key, "name": name} for key, name in names.items()]}
    order = list(names)
    images = []
    for record in truth["images"]:
        file = folder / record["file_name"]
        Image.new("RGB", (SIDE, SIDE), (128, 128, 128)).save(file)
        boxes = [
            {"bbox": box["bbox"], "bbox_mode": 1, "category_id": order.index(box["category_id"])}
            for box in truth["annotations"]
            if box["image_id"] == record["id"]
        ]
        images.append(
            {"file_name": str(file), "image_id": record["id"], "height": SIDE, "width": SIDE, "annotations": boxes}
        )
    return EvaluationSet("val", folder / "val.json", truth, images, list(names.values()), order, 0.0)


def written(folder: Path, data: EvaluationSet, records: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    check_folder(folder)
    write_report(report_on(data, records, **options), data, records, folder, "model.pth")
    content: dict[str, Any] = json.loads((folder / "eval_report.json").read_text())
    return content


def test_all_that_is_written(tmp_path: Path) -> None:
    truth = content((1, 10, A), (1, 10, B), (2, 20, A))
    records = found((1, 10, A, 0.9), (1, 20, B, 0.6), (2, 20, A, 0.8))
    result = written(tmp_path / "out", dataset(tmp_path, truth), records)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "eval_report.json", "confusion.png", "errors.png", "worst.png",
    }  # fmt: skip
    assert (result["weights"], result["dataset"], result["images"]) == (os.path.realpath("model.pth"), "val", 2)
    half = 100 * 51 / 101
    assert result["overall"]["AP"] == pytest.approx((half + 100) / 2)
    assert result["overall"]["AR"] == pytest.approx(75)
    assert result["overall"]["APs"] is None  # all objects are of COCO's medium size
    assert result["overall"]["APm"] == result["overall"]["AP"]
    assert result["overall"]["threshold"] == 0.8
    assert [each["name"] for each in result["per_class"]] == ["ant", "bee", "cat"]
    assert result["per_class"][2] == {
        "name": "cat", "objects": 0, "AP": None, "AP50": None, "best_f1": None, "threshold": None,
    }  # fmt: skip
    assert tuple(result["errors"]) == ERRORS
    assert result["errors"]["classification"]["count"] == 1
    assert result["errors"]["classification"]["AP50_gain"] == pytest.approx((100 - half) / 2)
    confusion = result["confusion"]
    assert (confusion["threshold"], confusion["iou"]) == (0.8, 0.5)
    assert confusion["rows"] == ["ant", "bee", "cat", "(no object)"]
    assert confusion["columns"] == ["ant", "bee", "cat", "(missed)"]
    assert confusion["matrix"] == [[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert result["worst"] == [
        {"file_name": f"{tmp_path}/0.png", "image_id": 1, "right": 1, "confused": 0, "false": 0, "missed": 1}
    ]


def test_a_threshold_is_of_the_confusion_and_the_worst_images_alone(tmp_path: Path) -> None:
    truth = content((1, 10, A), (1, 10, B), (2, 20, A))
    records = found((1, 10, A, 0.9), (1, 20, B, 0.6), (2, 20, A, 0.8))
    data = dataset(tmp_path, truth)
    default, lower = written(tmp_path, data, records), written(tmp_path, data, records, threshold=0.6)
    assert lower["confusion"]["matrix"][0] == [1, 1, 0, 0]
    assert lower["worst"][0]["confused"] == 1
    for key in ("overall", "per_class", "errors"):
        assert lower[key] == default[key]


def test_no_detections(tmp_path: Path) -> None:
    result = written(tmp_path, dataset(tmp_path, content((1, 10, A))), [])
    assert result["overall"]["AP"] == result["overall"]["AR"] == result["overall"]["best_f1"] == 0
    assert result["overall"]["threshold"] is None
    assert result["confusion"]["threshold"] == 0.5
    assert result["worst"][0]["missed"] == 1


def test_nothing_is_wrong(tmp_path: Path) -> None:
    """What an earlier evaluation left does not pass for this one's."""
    data = dataset(tmp_path, content((1, 10, A)))
    written(tmp_path, data, [])
    assert (tmp_path / "worst.png").exists()
    assert written(tmp_path, data, found((1, 10, A, 0.9)))["worst"] == []
    assert not (tmp_path / "worst.png").exists()


def test_the_worst_images_show_what_is_found_from_the_threshold_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth, records = random_case(3)
    drawn: dict[str, Any] = {}

    def draw(images: Any, path: Any, *, title: str, max_value: float) -> None:
        drawn.update(images=images, title=title, path=path)

    monkeypatch.setattr(report, "draw_predictions", draw)
    result = written(tmp_path, dataset(tmp_path, truth), records)
    assert [image.file_name for image in drawn["images"]] == [image["file_name"] for image in result["worst"]][:12]
    assert drawn["path"] == tmp_path / "worst.png"
    threshold = result["confusion"]["threshold"]
    assert f"score of {threshold:.3g} or more" in drawn["title"]
    for image, counts in zip(drawn["images"], result["worst"], strict=False):
        taken = [each for each in records if each["image_id"] == counts["image_id"] and each["score"] >= threshold]
        assert [box.corners[:2] for box in image.detections] == [tuple(each["bbox"][:2]) for each in taken]
        assert image.captions[0].startswith(f"{Path(image.file_name).name}\nground truth: ")
        assert (f"{counts['missed']} missed" in image.captions[0]) == (counts["missed"] > 0)


@pytest.mark.parametrize("number", [1, 31, 120])
def test_any_number_of_classes_of_any_name_is_drawn(tmp_path: Path, number: int) -> None:
    names = {10 * (1 + key): f"class ${key} of ${'x' * key}" for key in range(number)}
    data = dataset(tmp_path, content(*((1, key, A) for key in names)), names)
    written(tmp_path, data, found((1, 10, A, 0.9)))
    with Image.open(tmp_path / "confusion.png") as picture:
        assert 300 < picture.width <= 3200
        assert np.ptp(np.asarray(picture.convert("L"))) > 200


def test_classes_that_have_nothing_are_left_out_of_the_confusions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a to d b has neither objects nor detections, c objects alone, and d detections alone."""
    matrix = np.zeros((5, 5), dtype=np.int64)
    matrix[0, 0], matrix[2, 4], matrix[4, 3] = 3, 2, 1
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(Axes, "set_title", lambda axes, text, **options: drawn.setdefault("title", text))
    monkeypatch.setattr(Axes, "set_yticks", lambda axes, ticks, labels=(), **options: drawn.setdefault("rows", labels))
    draw_confusion(matrix, [*"abcd", "no object"], [*"abcd", "missed"], tmp_path / "confusion.png", 0.5)
    assert drawn["rows"] == ["a", "c", "d", "no object"]
    assert "1 class with neither objects nor such detections left out" in drawn["title"]


def test_the_summary(tmp_path: Path) -> None:
    truth = content((1, 10, A), (1, 10, B), (2, 20, A))
    records = found((1, 10, A, 0.9), (1, 20, B, 0.6), (2, 20, A, 0.8))
    lines = summary(report_on(dataset(tmp_path, truth), records, 0.6)).splitlines()
    assert lines[0].startswith("AP 75.25, AP50 75.25, AP75 75.25, APm 75.25, AR 75.00")
    assert lines[3].split() == ["ant", "2", "50.5", "50.5", "66.7", "0.900"]
    assert lines[6:] == [
        "All classes: F1 is 83.3 on average from a score of 0.800 on.",
        "AP50 gained by mending all errors of a kind, and how many there are among all detections, whatever their "
        "score: classification 24.8 (1), localisation 0.0 (0), both 0.0 (0), duplicate 0.0 (0), background 0.0 (0), "
        "missed by all 0.0 (0).",
        "From a score of 0.600 on: 2 detections are right, 1 of another class, 0 too many; 0 objects are missed.",
        "There, objects are taken for another class: ant for bee (1)",
    ]


def test_what_is_missed_from_the_threshold_on_is_told_from_what_is_missed_by_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second ant of image 1 is found by a low score, the first of image 2 by none."""
    truth = content((1, 10, A), (1, 10, B), (2, 20, A))
    records = found((1, 10, A, 0.9), (1, 10, B, 0.2))
    drawn: list[Any] = []
    monkeypatch.setattr(report, "draw_error_costs", lambda *arguments: drawn.extend(arguments))
    data = dataset(tmp_path, truth)
    result = written(tmp_path, data, records, threshold=0.6)
    assert result["errors"]["missed"]["count"] == 1
    costs, _, classes, _, remark = drawn
    assert [name for name, _ in classes] == [each["name"] for each in result["per_class"] if each["objects"]]
    assert all(ap50 == each["AP50"] for (_, ap50), each in zip(classes, result["per_class"], strict=False))
    assert costs["missed by all"][0] == 1
    assert "from a score of 0.6 on:\nthere, 2 objects are missed" in remark
    lines = summary(report_on(data, records, 0.6))
    assert "missed by all 50.0 (1)" in lines
    assert "2 objects are missed" in lines


def test_where_it_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file is a file"):
        check_folder(tmp_path / "file")
    (tmp_path / "out" / "worst.png").mkdir(parents=True)
    with pytest.raises(InputError, match=r"worst\.png is a folder"):
        check_folder(tmp_path / "out")
