"""Pictures of each evaluation: of the same images, in TensorBoard, and kept no longer than until they are written."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.utils.events import EventStorage
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from lite_detr_d2.engine import Trainer
from lite_detr_d2.engine.pictures import ValidationPictures
from lite_detr_d2.engine.tensorboard import TensorBoard
from tests.data.folders import SIZE

from .stops import assert_same_training, stoppable_config, train


@pytest.fixture
def cfg(tmp_path: Path) -> CfgNode:
    cfg = stoppable_config(tmp_path / "data")
    cfg.DATASETS.TEST = cfg.DATASETS.TRAIN
    return cfg


def pictures_in(folder: Path) -> dict[str, dict[int, Any]]:
    """Tag -> iteration -> pixels."""
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    return {
        tag: {each.step: np.asarray(Image.open(io.BytesIO(each.encoded_image_string))) for each in events.Images(tag)}
        for tag in events.Tags()["images"]
    }


def put(cfg: CfgNode, times: int = 1) -> list[tuple[str, Any, int]]:
    pictures, model = ValidationPictures(cfg), Trainer.build_model(cfg).train()
    with EventStorage(5) as storage:
        for _ in range(times):
            pictures.put(model)
        assert model.training
        found: list[tuple[str, Any, int]] = list(storage._vis_data)
    return found


def test_tensorboard_has_them(cfg: CfgNode, tmp_path: Path) -> None:
    expected = train(cfg, tmp_path / "without", TEST__EVAL_PERIOD=2, TEST__PICTURES=0)
    assert pictures_in(tmp_path / "without") == {}
    assert_same_training(train(cfg, tmp_path / "run", TEST__EVAL_PERIOD=2, TEST__PICTURES=3), expected)
    found = pictures_in(tmp_path / "run")
    assert list(found) == [f"predictions/{cfg.DATASETS.TEST[0]}/{number}" for number in (1, 2, 3)]
    width, height = SIZE
    for steps in found.values():
        assert sorted(steps) == [1, 3, 6]
        assert all(picture.shape == (height, 2 * width, 3) for picture in steps.values())
        truths = [picture[:, :width] for picture in steps.values()]
        assert all(np.array_equal(truth, truths[0]) for truth in truths)


def test_the_same_images_each_time(cfg: CfgNode) -> None:
    first, second = put(cfg), put(cfg, times=2)
    assert len(first) == cfg.TEST.PICTURES == 4
    assert all(np.array_equal(one[1], two[1]) for one, two in zip([*first, *first], second, strict=True)), (
        "a model's weights are random, but find nothing"
    )
    assert len({picture.tobytes() for _, picture, _ in first}) == 4


def test_no_annotations_and_several_datasets(cfg: CfgNode) -> None:
    images = DatasetCatalog.get(cfg.DATASETS.TRAIN[0])[:2]
    DatasetCatalog.register("bare", lambda: [{**image, "annotations": []} for image in images])
    cfg.DATASETS.TEST = (*cfg.DATASETS.TRAIN, "bare")
    cfg.TEST.PICTURES = 3
    tags = [tag for tag, _, _ in put(cfg)]
    DatasetCatalog.remove("bare")
    assert tags == [f"predictions/{cfg.DATASETS.TEST[0]}/{n}" for n in (1, 2, 3)] + [
        "predictions/bare/1",
        "predictions/bare/2",
    ]


def test_images_with_boxes_come_first(cfg: CfgNode) -> None:
    images = DatasetCatalog.get(cfg.DATASETS.TRAIN[0])
    bare = [
        {**image, "annotations": image["annotations"] if number == 5 else []} for number, image in enumerate(images)
    ]
    DatasetCatalog.register("one", lambda: bare)
    cfg.DATASETS.TEST = ("one",)
    ((_, picture, _),) = put(cfg)
    DatasetCatalog.remove("one")
    pixels = np.asarray(Image.open(images[5]["file_name"]))
    assert np.array_equal(picture[:, :, SIZE[0] :], pixels.transpose(2, 0, 1))


def test_what_cannot_be_drawn_is_said_once(cfg: CfgNode, tmp_path: Path, said: list[str]) -> None:
    for image in DatasetCatalog.get(cfg.DATASETS.TEST[0]):
        Path(image["file_name"]).write_bytes(b"")
    assert put(cfg, times=2) == []
    assert len([message for message in said if message.startswith("Pictures of the evaluation cannot be made: ")]) == 1


def test_pictures_that_cannot_be_written_do_not_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(SummaryWriter, "add_image", full)
    writer = TensorBoard(str(tmp_path))
    with EventStorage() as storage:
        storage.put_image("x", np.zeros((3, 2, 2), np.uint8))
        with pytest.raises(OSError, match="No space"):
            writer.write()
        assert storage._vis_data == []
