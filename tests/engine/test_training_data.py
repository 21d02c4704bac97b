"""What is looked at before a training is what the training sees."""

import json
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data.datasets import register_coco_instances

from lite_detr_d2.engine import Trainer
from lite_detr_d2.engine.training_data import first_samples, load_images, usable_images
from tests.data.folders import coco_content, write_images


@pytest.fixture
def cfg(small_cfg: CfgNode, tmp_path: Path) -> CfgNode:
    """Six images, of which the last two have no box, or a crowd's alone."""
    content = coco_content(images=6)
    content["annotations"] = [box for box in content["annotations"] if box["image_id"] != 6]
    for box in content["annotations"]:
        box["iscrowd"] = int(box["image_id"] == 5)
    write_images(tmp_path / "images", content)
    (tmp_path / "train.json").write_text(json.dumps(content))
    name = f"{tmp_path.name}_train"
    register_coco_instances(name, {}, str(tmp_path / "train.json"), str(tmp_path / "images"))
    small_cfg.DATASETS.TRAIN, small_cfg.DATASETS.TEST = (name,), ()
    small_cfg.MODEL.LITE_DETR.NUM_CLASSES = 3
    small_cfg.MODEL.DEVICE, small_cfg.MODEL.WEIGHTS = "cpu", ""
    small_cfg.SOLVER.IMS_PER_BATCH, small_cfg.DATALOADER.NUM_WORKERS, small_cfg.SEED = 2, 0, 11
    small_cfg.INPUT.MIN_SIZE_TRAIN, small_cfg.INPUT.MAX_SIZE_TRAIN = (40, 48, 56, 64), 128
    small_cfg.OUTPUT_DIR = str(tmp_path / "output")
    return small_cfg


def fields(sample: dict[str, Any]) -> list[torch.Tensor]:
    return [sample["image"], sample["instances"].gt_boxes.tensor, sample["instances"].gt_classes]


def test_samples_are_those_that_a_training_sees(cfg: CfgNode, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[dict[str, Any]]] = []
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS = 4, ()
    trainer = Trainer(cfg)
    trainer.checkpointer.model.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    trainer.resume_or_load(resume=False)
    trainer.train()
    batches = list(chain.from_iterable(seen))[:7]
    found = first_samples(cfg, usable_images(cfg, load_images(cfg)), 7, seed=11)
    assert [sample["image_id"] for sample, _ in found] == [sample["image_id"] for sample in batches]
    for (sample, record), trained in zip(found, batches, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(fields(sample), fields(trained), strict=True))
        assert record["image_id"] == sample["image_id"]
        assert len(record["annotations"]) == (0 if record["image_id"] == 6 else 2)
    others = first_samples(cfg, usable_images(cfg, load_images(cfg)), 7, seed=12)
    assert [sample["image"].shape for sample, _ in others] != [sample["image"].shape for sample, _ in found]


@pytest.mark.parametrize("filtered", [True, False])
def test_images_without_a_box_are_counted_as_left_out(
    cfg: CfgNode, filtered: bool, log: pytest.LogCaptureFixture
) -> None:
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = filtered
    images = load_images(cfg)
    assert len(images) == 6
    usable = usable_images(cfg, images)
    assert [image["image_id"] for image in usable] == [1, 2, 3, 4] + ([] if filtered else [5, 6])
    told = f"2 of the 6 images of {cfg.DATASETS.TRAIN[0]} have no box, and are not trained on (DATALOADER.FILTER_"
    assert (told in log.text) == filtered
    loader = Trainer.build_train_loader(cfg)
    trained = {sample["image_id"] for sample in chain.from_iterable(islice(loader, 12))}
    assert trained == {image["image_id"] for image in usable}
