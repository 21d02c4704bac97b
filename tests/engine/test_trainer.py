"""The trainer checks before it starts, trains on odd batches, and says what went wrong where."""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from torch import nn

from lite_detr_d2.data import register_coco_folder
from lite_detr_d2.engine import Trainer, on_available_device, read_config
from lite_detr_d2.engine.datasets import check_datasets
from lite_detr_d2.errors import InputError
from lite_detr_d2.modeling.criterion import Criterion
from tests.data.folders import coco_content, write_coco_folder, write_images

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
    cfg: CfgNode, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    cfg.MODEL.DEVICE = "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    trainer = Trainer(cfg)
    assert trainer.cfg.MODEL.DEVICE == "cpu"
    assert {parameter.device.type for parameter in trainer.model.parameters()} == {"cpu"}
    assert "MODEL.DEVICE becomes cpu" in log.text


def test_with_cuda_the_config_stays(cfg: CfgNode, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg.MODEL.DEVICE = "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert on_available_device(cfg) is cfg


@pytest.mark.parametrize("device", ["mps", "xpu", "meta", "mtia", "vulkan", "cuda:-1"])
def test_a_device_that_is_not_here_is_named(cfg: CfgNode, monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    def fail(*_: object, device: torch.device) -> None:
        raise AssertionError(f"Torch not compiled with {device}")

    if device != "meta":
        monkeypatch.setattr(torch, "zeros", fail)
    cfg.MODEL.DEVICE = device
    with pytest.raises(InputError, match=rf"^MODEL\.DEVICE is '{device}'.*: expected cuda, .*cpu\.$"):
        on_available_device(cfg)


def test_a_cuda_device_beyond_the_last_is_named(cfg: CfgNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    cfg.MODEL.DEVICE = "cuda:1"
    assert on_available_device(cfg) is cfg
    cfg.MODEL.DEVICE = "cuda:7"
    with pytest.raises(InputError, match=r"MODEL\.DEVICE is 'cuda:7', and CUDA devices here end at 1"):
        on_available_device(cfg)


@pytest.mark.parametrize("device", ["foo", ""])
def test_a_device_that_does_not_exist_is_named(cfg: CfgNode, device: str) -> None:
    cfg.MODEL.DEVICE = device
    with pytest.raises(InputError, match=rf"MODEL\.DEVICE is '{device}': expected cuda"):
        on_available_device(cfg)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_nothing_is_trained_in_float16_on_the_cpu(cfg: CfgNode, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg.SOLVER.AMP.ENABLED, cfg.MODEL.DEVICE = True, device
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"SOLVER\.AMP\.DTYPE is 'float16'.* set SOLVER\.AMP\.DTYPE to 'bfloat16'"):
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


def annotation_file(name: str) -> Path:
    return Path(MetadataCatalog.get(name).json_file)


def test_a_missing_annotation_file_is_named(cfg: CfgNode) -> None:
    annotation_file(cfg.DATASETS.TEST[0]).unlink()
    with pytest.raises(InputError, match=r"DATASETS\.TEST: the annotation file .*val\.json.*DETECTRON2_DATASETS"):
        Trainer(cfg)


def test_an_empty_annotation_file_is_named_before_anything_is_built(cfg: CfgNode) -> None:
    annotation_file(cfg.DATASETS.TEST[0]).write_text("")
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
        (json.dumps({**coco_content(), "annotations": [{"id": 1, "image_id": 1}]}), "lacks a key that it needs"),
    ],
)
@pytest.mark.parametrize("half", ["TRAIN", "TEST"])
def test_a_bad_annotation_file_is_named_when_it_is_loaded(cfg: CfgNode, half: str, content: str, problem: str) -> None:
    name = cfg.DATASETS[half][0]
    file = annotation_file(name)
    file.write_text(content)
    expected = rf"DATASETS\.{half}: the annotation file {file} of '{name}' cannot be used:\s[\s\S]*{problem}"
    with pytest.raises(InputError, match=expected):
        Trainer.build_train_loader(cfg) if half == "TRAIN" else Trainer.build_test_loader(cfg, name)


@pytest.mark.parametrize("half", ["TRAIN", "TEST"])
def test_why_a_dataset_without_annotation_file_fails_is_not_hidden(cfg: CfgNode, tmp_path: Path, half: str) -> None:
    def load() -> list[dict[str, object]]:
        raise RuntimeError("the database is away")

    name = f"{tmp_path.name}_database_{half}"
    DatasetCatalog.register(name, load)
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = (name,)
    with pytest.raises(RuntimeError, match="^the database is away$"):
        Trainer.build_train_loader(cfg) if half == "TRAIN" else Trainer.build_test_loader(cfg, name)


def test_an_encoding_that_the_locale_does_not_have_is_explained(cfg: CfgNode, tmp_path: Path) -> None:
    name = f"{tmp_path.name}_encoded"
    DatasetCatalog.register(name, lambda: "Käfer".encode().decode("ascii"))
    cfg.DATASETS.TRAIN = (name,)
    with pytest.raises(InputError, match=rf"DATASETS\.TRAIN: .*{name} is not in ascii, .*PYTHONUTF8=1"):
        Trainer.build_train_loader(cfg)


def test_another_error_of_loading_stays_what_it_is(cfg: CfgNode, tmp_path: Path) -> None:
    name = f"{tmp_path.name}_failing"
    DatasetCatalog.register(name, lambda: [1 // 0])
    cfg.DATASETS.TRAIN = (name,)
    with pytest.raises(ZeroDivisionError):
        Trainer.build_train_loader(cfg)


@pytest.mark.parametrize("crowds", [True, False])
def test_a_training_set_without_a_box_to_train_on_is_refused(cfg: CfgNode, tmp_path: Path, crowds: bool) -> None:
    content = coco_content()
    content["annotations"] = [{**annotation, "iscrowd": 1} for annotation in content["annotations"] if crowds]
    write_images(tmp_path / "plain", content)
    file, name = tmp_path / "plain.json", f"{tmp_path.name}_plain"
    file.write_text(json.dumps(content))
    register_coco_instances(name, {}, str(file), str(tmp_path / "plain"))
    cfg.DATASETS.TRAIN = (name,)
    found = r"all 8 annotations are of crowds \('iscrowd' 1\)" if crowds else "there are no annotations"
    with pytest.raises(InputError, match=rf"DATASETS\.TRAIN: nothing to train on in '{name}': {found}"):
        Trainer.build_train_loader(cfg)


def test_what_detectron2_would_drop_of_a_registered_set_is_said_once(
    cfg: CfgNode, tmp_path: Path, said: list[str]
) -> None:
    content = coco_content()
    for annotation in content["annotations"][:3]:
        annotation["segmentation"] = [[]]
    content["annotations"][3]["bbox"] = [1, 1, 0, 5]
    content["annotations"][4]["iscrowd"] = 1
    write_images(tmp_path / "plain", content)
    file, name = tmp_path / "plain.json", f"{tmp_path.name}_plain"
    file.write_text(json.dumps(content))
    register_coco_instances(name, {"thing_classes": ["ant", "cat", "dog"]}, str(file), str(tmp_path / "plain"))
    cfg.DATASETS.TRAIN = (name,)
    for _ in range(2):
        check_datasets(cfg, "TRAIN", "TEST")
    (message,) = said
    assert message.startswith(f"Dataset '{name}' ({file}) is read by detectron2 as it is")
    assert "'segmentation' is no polygon or RLE (3): annotation 10, annotation 11, annotation 12" in message
    assert "a 'bbox' has no area: annotation 13" in message
    assert "('iscrowd' 1): annotation 14" in message


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
    cfg.SOLVER.MAX_SKIPPED_STEPS = 0
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
