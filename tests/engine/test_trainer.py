"""The trainer checks before it starts, trains on odd batches, and says what went wrong where."""

import argparse
import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from torch import nn

from lite_detr_d2.data import register_coco_folder
from lite_detr_d2.engine import Trainer, on_available_device, read_config
from lite_detr_d2.errors import InputError
from lite_detr_d2.modeling.criterion import Criterion
from tests.data.folders import coco_content, write_coco_folder

TINY = Path(__file__).parent / "tiny.yaml"


@pytest.fixture
def cfg(tmp_path: Path) -> CfgNode:
    """A tiny detector, to be trained on four images of three classes."""
    cfg = read_config(argparse.Namespace(config_file=str(TINY), opts=["OUTPUT_DIR", str(tmp_path / "output")]))
    folder = register_coco_folder(write_coco_folder(tmp_path))
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (folder.train,), (folder.val,)
    cfg.MODEL.LITE_DETR.NUM_CLASSES = 3
    return cfg


def test_without_cuda_it_runs_on_the_cpu_and_says_so(
    cfg: CfgNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cfg.MODEL.DEVICE = "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    logger = logging.getLogger("lite_detr_d2")
    logger.setLevel(logging.INFO)
    logger.addHandler(caplog.handler)
    try:
        trainer = Trainer(cfg)
    finally:
        logger.removeHandler(caplog.handler)
    assert trainer.cfg.MODEL.DEVICE == "cpu"
    assert {parameter.device.type for parameter in trainer.model.parameters()} == {"cpu"}
    assert "MODEL.DEVICE becomes cpu" in caplog.text


def test_with_cuda_the_config_stays(cfg: CfgNode, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg.MODEL.DEVICE = "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert on_available_device(cfg) is cfg


@pytest.mark.parametrize("device", ["foo", ""])
def test_a_device_that_does_not_exist_is_named(cfg: CfgNode, device: str) -> None:
    cfg.MODEL.DEVICE = device
    with pytest.raises(InputError, match=rf"MODEL\.DEVICE is '{device}': expected cuda"):
        on_available_device(cfg)


def test_mixed_precision_needs_cuda(cfg: CfgNode, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg.SOLVER.AMP.ENABLED = True
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"SOLVER\.AMP\.ENABLED"):
        Trainer(cfg)


@pytest.mark.parametrize("half", ["TRAIN", "TEST"])
def test_the_class_count_is_checked_before_anything_is_built(cfg: CfgNode, half: str) -> None:
    name = cfg.DATASETS[half][0]
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ()
    cfg.DATASETS[half] = (name,)
    cfg.MODEL.LITE_DETR.NUM_CLASSES = 80
    expected = rf"NUM_CLASSES is 80, and dataset '{name}' has 3 classes \(ant, cat, dog\)\. Set the key to 3"
    with pytest.raises(InputError, match=expected):
        Trainer(cfg)
    if half == "TEST":
        with pytest.raises(InputError, match=expected):
            Trainer.test(cfg, nn.Identity())


def test_classes_known_only_once_loaded_are_checked_too(cfg: CfgNode, tmp_path: Path) -> None:
    name = f"{tmp_path.name}_lazy"

    def load() -> list[dict[str, object]]:
        MetadataCatalog.get(name).thing_classes = ["one", "two"]
        return []

    DatasetCatalog.register(name, load)
    cfg.DATASETS.TEST = (name,)
    with pytest.raises(InputError, match=rf"dataset '{name}' has 2 classes"):
        Trainer(cfg)


def test_an_unknown_dataset_is_named(cfg: CfgNode) -> None:
    cfg.DATASETS.TEST = ("no_such_set",)
    with pytest.raises(InputError, match=r"DATASETS\.TEST: no dataset 'no_such_set' is registered"):
        Trainer(cfg)


def test_a_missing_annotation_file_is_named(cfg: CfgNode, tmp_path: Path) -> None:
    (tmp_path / "val.json").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"DATASETS\.TEST: the annotation file .*val\.json.*DETECTRON2_DATASETS"):
        Trainer(cfg)


def test_an_empty_annotation_file_is_named_before_anything_is_built(cfg: CfgNode, tmp_path: Path) -> None:
    (tmp_path / "val.json").write_text("")
    with pytest.raises(InputError, match=r"DATASETS\.TEST: the annotation file \S+val\.json of '\S+_val' is empty"):
        Trainer(cfg)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "is not JSON"),
        ("{}", "has no list 'images'"),
        (json.dumps({"images": [], "annotations": [], "categories": []}), "there are no images"),
        (
            json.dumps({**coco_content(), "categories": [{"id": i, "name": str(i)} for i in (1, 3, 7)]}),
            "not the classes",
        ),
        (json.dumps({**coco_content(), "annotations": [{"id": 1, "image_id": 1}]}), "needs the keys"),
    ],
)
@pytest.mark.parametrize("half", ["TRAIN", "TEST"])
def test_a_bad_annotation_file_is_named_when_it_is_loaded(
    cfg: CfgNode, tmp_path: Path, half: str, content: str, problem: str
) -> None:
    name, file = cfg.DATASETS[half][0], tmp_path / ("train.json" if half == "TRAIN" else "val.json")
    file.write_text(content)
    expected = rf"DATASETS\.{half}: the annotation file {file} of '{name}' cannot be used:\n  .*{problem}"
    with pytest.raises(InputError, match=expected):
        Trainer.build_train_loader(cfg) if half == "TRAIN" else Trainer.build_test_loader(cfg, name)


def test_another_error_of_loading_stays_what_it_is(cfg: CfgNode) -> None:
    cfg.DATALOADER.SAMPLER_TRAIN = "NoSuchSampler"
    with pytest.raises(ValueError, match="NoSuchSampler") as error:
        Trainer.build_train_loader(cfg)
    assert not isinstance(error.value, InputError)


def test_batches_without_any_box_train_on(cfg: CfgNode, tmp_path: Path) -> None:
    content = coco_content()
    content["annotations"] = content["annotations"][:1]
    root = write_coco_folder(tmp_path / f"{tmp_path.name}_empty", train=content)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (register_coco_folder(root).train,), ()
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS = 1, 5, ()
    trainer = Trainer(cfg)
    boxes = []
    trainer.model.register_forward_pre_hook(lambda _, inputs: boxes.append(len(inputs[0][0]["instances"])))
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    assert boxes.count(0) >= 3
    assert math.isfinite(json.loads((tmp_path / "output" / "metrics.json").read_text().splitlines()[-1])["total_loss"])
    assert any(not torch.equal(value, before[name]) for name, value in trainer.model.named_parameters())
    assert all(bool(value.isfinite().all()) for value in trainer.model.parameters())


def test_a_loss_that_is_not_finite_stops_before_the_step(cfg: CfgNode, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(cfg)
    compute, calls = Criterion.__call__, []

    def diverge(*inputs: Any) -> dict[str, torch.Tensor]:
        losses = compute(*inputs)
        calls.append(losses)
        return {**losses, "loss_bbox": losses["loss_bbox"] * (np.nan if len(calls) == 2 else 1)}

    monkeypatch.setattr(Criterion, "__call__", diverge)
    with pytest.raises(FloatingPointError) as error:
        trainer.train()
    message = str(error.value)
    assert message.startswith("Iteration 1: loss_bbox = nan, on the images ")
    assert message.count(".png") == 2
    assert "lower SOLVER.BASE_LR" in message
    assert len(calls) == 2
    assert all(bool(value.isfinite().all()) for value in trainer.model.parameters())
