"""AP of what a runtime finds, and what of it has to remain."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.config import CfgNode
from PIL import Image

from lite_detr_d2.deploy import precision
from lite_detr_d2.deploy.bounds import fixed
from lite_detr_d2.deploy.precision import Annotated, average_precision, compare_precision, find_annotated
from lite_detr_d2.deploy.predictor import Predictor
from lite_detr_d2.deploy.run import TrainedModel
from lite_detr_d2.deploy.self_check import CheckFailed
from lite_detr_d2.errors import InputError

from .annotated import write_dataset
from .exports import load, write_run

BOUNDS = fixed(1, 96, 128)
Boxes = Callable[[int], list[tuple[float, float, float, float]]]


def annotated(folder: Path, boxes: Boxes, number: int = 4) -> Annotated:
    """Images of a shade that says which they are, with boxes of (x, y, w, h) of class 1."""
    images = {}
    for index in range(number):
        images[index + 1] = folder / f"{index}.png"
        Image.new("RGB", (64, 48), (index, index, index)).save(images[index + 1])
    found = [(index, box) for index in range(number) for box in boxes(index)]
    content = {
        "info": {},
        "categories": [{"id": 5}, {"id": 7}],
        "images": [{"id": key} for key in images],
        "annotations": [
            {
                "id": 1 + key,
                "image_id": index + 1,
                "category_id": 7,
                "bbox": [*box],
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            for key, (index, box) in enumerate(found)
        ],
    }
    return Annotated(images, content, [5, 7])


def predictor(cfg: CfgNode, boxes: Boxes, label: int = 1, batch: int = 1) -> Predictor:
    """Finds boxes by the shade of the image."""
    cfg.INPUT.MIN_SIZE_TEST = cfg.INPUT.MAX_SIZE_TEST = 0

    def runtime(images: Any, sizes: Any) -> Any:
        assert len(images) == batch
        corners = np.array([boxes(int(image[0, 0, 0])) for image in images], dtype=np.float32)
        corners[..., 2:] += corners[..., :2]
        shape = corners.shape[:2]
        return corners, np.full(shape, 0.9, dtype=np.float32), np.full(shape, label)

    return Predictor(cfg, ["ant", "cat"], runtime, bounds=fixed(batch, 48, 64))


def place(index: int) -> list[tuple[float, float, float, float]]:
    return [(4.0 * index, 2.0, 20.0, 30.0)]


def crowded(index: int) -> list[tuple[float, float, float, float]]:
    """120 boxes, of which COCO would count 100."""
    return [(5.0 * column, 4.0 * row, 4.0, 3.0) for column in range(12) for row in range(10)]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("boxes", [place, crowded])
def test_what_finds_all_has_100(small_cfg: CfgNode, tmp_path: Path, boxes: Boxes, batch: int) -> None:
    truth = annotated(tmp_path, boxes)
    assert average_precision(predictor(small_cfg, boxes, batch=batch), truth, batch) == pytest.approx(100.0)


def test_what_finds_nothing_has_0(small_cfg: CfgNode, tmp_path: Path) -> None:
    truth = annotated(tmp_path, place)
    assert average_precision(predictor(small_cfg, place, label=0), truth) == 0.0
    assert average_precision(predictor(small_cfg, lambda _: [(40.0, 2.0, 20.0, 30.0)]), truth) == 0.0


def test_boxes_of_images_that_cannot_be_read_are_not_found(small_cfg: CfgNode, tmp_path: Path, said: list[str]) -> None:
    truth = annotated(tmp_path, place)
    for key in (2, 3):
        truth.images[key].write_bytes(b"no image")
    # Half of the boxes: the precision is 1 up to a recall of 0.5, at 51 of COCO's 101 steps.
    assert average_precision(predictor(small_cfg, place), truth) == pytest.approx(100 * 51 / 101)
    assert "2 of 4 images to measure AP on are passed over" in said[0]


@pytest.fixture
def trained(small_cfg: CfgNode, tmp_path: Path) -> TrainedModel:
    model = load(write_run(small_cfg, tmp_path / "run"))
    write_dataset(model, BOUNDS, tmp_path / "data", number=7)
    return model


def test_images_are_chosen_evenly(trained: TrainedModel) -> None:
    assert list(find_annotated(trained.cfg, 10).images) == [2, 3, 4, 5, 6, 7]
    few = find_annotated(trained.cfg, 10, number=3)
    assert list(few.images) == [2, 4, 7]
    assert [image["id"] for image in few.content["images"]] == [2, 4, 7]
    assert {box["image_id"] for box in few.content["annotations"]} == {2, 4, 7}


def test_there_is_nothing_to_measure_on(trained: TrainedModel) -> None:
    file = Path(trained.cfg.MODEL.WEIGHTS).parent / "dataset" / "val.json"
    content = json.loads(file.read_text())
    for without in ({"images": []}, {"annotations": []}):
        file.write_text(json.dumps({**content, **without}))
        with pytest.raises(InputError, match="on which AP .* what int8 costs: export the OUTPUT_DIR of a training"):
            find_annotated(trained.cfg, 10)


def test_a_file_may_lose_a_twentieth(trained: TrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = find_annotated(trained.cfg, 10)
    values = iter([40.0, 38.1, 40.0, 37.9, 40.0, float("nan")])
    monkeypatch.setattr(precision, "average_precision", lambda *_: next(values))
    assert compare_precision(trained, None, BOUNDS, truth) == precision.Precision(6, 40.0, 38.1)  # type: ignore[arg-type]
    for after in ("37.90", "nan"):
        with pytest.raises(CheckFailed, match=rf"^In int8, AP falls from 40.00 to {after} on 6 images, and 95% of it"):
            compare_precision(trained, None, BOUNDS, truth)  # type: ignore[arg-type]
