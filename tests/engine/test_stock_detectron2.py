"""detectron2's own trainer, loaders and evaluation loop on our configs and models, with nothing of ours between."""

import argparse
from pathlib import Path

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.engine import DefaultPredictor, DefaultTrainer
from detectron2.evaluation import COCOEvaluator, inference_on_dataset
from detectron2.modeling import build_model

from lite_detr_d2.data import register_coco_folder
from lite_detr_d2.engine import read_config
from lite_detr_d2.errors import InputError
from tests.checkpoint.published import KINDS, as_published, of_kind
from tests.data.folders import write_coco_folder
from tests.helpers import choose_detector

TINY = Path(__file__).parent / "tiny.yaml"


@pytest.mark.parametrize("name", ["dino", "deformable_detr", "deformable_detr_two_stage", "h_detr"])
def test_default_trainer_trains_and_inference_on_dataset_evaluates(tmp_path: Path, name: str) -> None:
    cfg = read_config(argparse.Namespace(config_file=str(TINY), opts=["OUTPUT_DIR", str(tmp_path / "output")]))
    choose_detector(cfg, name)
    folder = register_coco_folder(write_coco_folder(tmp_path))
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.LITE_DETR.NUM_CLASSES = 3
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (folder.train,), ()
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS = 2, ()
    trainer = DefaultTrainer(cfg)
    before = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
    trainer.train()
    assert trainer.iter == cfg.SOLVER.MAX_ITER
    moved = [name for name, parameter in trainer.model.named_parameters() if bool((parameter != before[name]).any())]
    assert any(name.startswith("encoder.") for name in moved) and any(name.startswith("decoder.") for name in moved)

    loader = build_detection_test_loader(cfg, folder.val)
    evaluator = COCOEvaluator(folder.val, tasks=("bbox",), output_dir=str(tmp_path / "inference"))
    metrics = inference_on_dataset(trainer.model, loader, evaluator)
    assert {"AP", "AP50", "APs", "APm", "APl"} <= metrics["bbox"].keys()


@pytest.mark.parametrize("fixture", KINDS)
def test_published_names_never_make_a_detector_at_random(small_cfg: CfgNode, tmp_path: Path, fixture: str) -> None:
    cfg = of_kind(small_cfg, fixture)
    model = build_model(cfg)
    published = as_published(model.state_dict(), fixture)
    torch.save({"model": published}, tmp_path / "published.pth")
    cfg.MODEL.WEIGHTS = str(tmp_path / "published.pth")
    for load in (
        lambda: DefaultPredictor(cfg),
        lambda: DetectionCheckpointer(model).load(cfg.MODEL.WEIGHTS),
        lambda: model.load_state_dict(published, strict=False),
    ):
        with pytest.raises(InputError, match=r"none of this detector's tensors, but .*convert_checkpoint\.py"):
            load()
    assert not model.load_state_dict({}, strict=False).unexpected_keys
    assert not model.load_state_dict(model.state_dict()).missing_keys
