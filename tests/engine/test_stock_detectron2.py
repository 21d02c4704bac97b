"""detectron2's own trainer, loaders and evaluation loop on our configs and models, with nothing of ours between."""

import argparse
from pathlib import Path

import pytest
from detectron2.data import build_detection_test_loader
from detectron2.engine import DefaultTrainer
from detectron2.evaluation import COCOEvaluator, inference_on_dataset

from lite_detr_d2.data import register_coco_folder
from lite_detr_d2.engine import read_config
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
