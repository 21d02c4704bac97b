"""The configs that come with the project: where they are, what a name says, and how to make one small."""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model

from lite_detr_d2 import add_lite_detr_config
from lite_detr_d2.checkpoint.packages import PACKAGE
from lite_detr_d2.data import register_coco_folder
from lite_detr_d2.encoder_spec import EncoderSpec
from lite_detr_d2.engine import Trainer, read_config

from .conftest import CONFIGS
from .data.folders import CLASSES, coco_content, write_coco_folder
from .helpers import batched_input

LEAVES = sorted(path for path in CONFIGS.rglob("*.yaml") if "_base_" not in path.parts)
NAMED = [path for path in LEAVES if path.parent.name != "demo"]
# A tiny one has sizes and a schedule of its own; all others are the paper's models and recipes.
FOR_COCO = [path for path in NAMED if not path.stem.endswith("_tiny")]
COCO_IMAGES = 120000  # 118287, rounded up to whole thousands of iterations as the published schedules are
PUBLISHED_WIDTH = 256  # of all of them
DETECTORS = {"DINO": "dino", "DeformableDETR": "deformable_detr", "HDETR": "h_detr"}
FOLDERS = (*DETECTORS.values(), "sparse_detr", "efficient_detr")


def read(path: Path) -> CfgNode:
    cfg = get_cfg()
    add_lite_detr_config(cfg)
    cfg.merge_from_file(str(path))
    cfg.MODEL.DEVICE = "cpu"
    return cfg


def needs_timm(cfg: CfgNode) -> bool:
    """Whether a config's backbone is one of timm, which .venv does not have: tests/interop builds it."""
    return bool(cfg.MODEL.BACKBONE.NAME == "build_timm_backbone")


def distinct_models(paths: list[Path]) -> list[Path]:
    """Those of ``paths`` whose model no earlier one has: a schedule makes no new model."""
    first = {read(path).MODEL.dump(): path for path in reversed(paths)}
    return sorted(first.values())


def one_of_each_kind(paths: list[Path]) -> list[Path]:
    """Of ``paths`` the first with each detector, kind of encoder and backbone."""
    first: dict[tuple[str, str, str], Path] = {}
    for path in paths:
        cfg = read(path)
        first.setdefault((detector_of(cfg), cfg.MODEL.LITE_DETR.ENCODER.NAME, _backbone(cfg)), path)
    return list(first.values())


def detector_of(cfg: CfgNode) -> str:
    """What a detector is called: some of Deformable DETR's kind have a name of their own."""
    model = cfg.MODEL.LITE_DETR
    if model.ENCODER.NAME == "SparseEncoder":
        return "sparse_detr"
    if model.CONTENT_FROM_MEMORY and model.DECODER.NUM_LAYERS == 1:
        return "efficient_detr"
    return DETECTORS[cfg.MODEL.META_ARCHITECTURE]


def name_of(cfg: CfgNode) -> str:
    """What the file of ``cfg`` should be called: ``{detector}_{encoder}_{overlays}_{backbone}_{schedule}``.

    Or ``{detector}_{backbone}_tiny``, if it is narrower than the published ones; that of the demo is not named.
    """
    encoder = cfg.MODEL.LITE_DETR.ENCODER
    lite = encoder.NAME == "InterleavedEncoder"
    parts = ["lite"] if lite else []
    parts.append(detector_of(cfg))
    if cfg.MODEL.LITE_DETR.HIDDEN_DIM < PUBLISHED_WIDTH:
        is_demos = cfg.MODEL.BACKBONE.NAME == "build_narrow_resnet_backbone"
        return "_".join([*parts, *([] if is_demos else [_backbone(cfg)]), "tiny"])
    if lite:
        spec = EncoderSpec.parse(encoder.SPEC)
        parts.append(f"h{spec.high_levels}l{spec.low_levels}_a{spec.refinements}b{spec.blocks}")
    if encoder.NAME == "SparseEncoder":
        parts.append(f"rho{encoder.RHO:.1f}".replace(".", ""))
    parts += _overlays(cfg, lite)
    parts.append(_backbone(cfg))
    epochs = cfg.SOLVER.MAX_ITER * cfg.SOLVER.IMS_PER_BATCH / COCO_IMAGES
    return "_".join([*parts, f"{epochs:g}ep"])


def _backbone(cfg: CfgNode) -> str:
    model = cfg.MODEL
    if model.BACKBONE.NAME == "build_timm_backbone":
        return {"convnext_tiny.fb_in1k": "convnextt", "tf_efficientnet_lite0": "efflite0"}[model.TIMM.NAME]
    if model.BACKBONE.NAME == "build_swin_backbone":
        return {96: "swint", 192: "swinl"}[model.SWIN.EMBED_DIM]
    return f"r{model.RESNETS.DEPTH}"


def _overlays(cfg: CfgNode, lite: bool) -> list[str]:
    model = cfg.MODEL.LITE_DETR
    found = []
    if not model.TWO_STAGE:
        found.append("refined" if model.BOX_REFINEMENT else "single_stage")
    if model.NUM_LEVELS != 4:
        found.append(f"{model.NUM_LEVELS}scale")
    if lite and model.ENCODER.FUSION != "joint":
        found.append(model.ENCODER.FUSION)
    if lite != model.ENCODER.KEY_AWARE:
        found.append("kda" if model.ENCODER.KEY_AWARE else "nokda")
    return found


def shrink(cfg: CfgNode) -> None:
    """Make the model as narrow as it goes, and leave what the config is about: its parts, levels and layers."""
    model = cfg.MODEL.LITE_DETR
    model.HIDDEN_DIM, model.NUM_HEADS = 64, 4
    model.ENCODER.DIM_FEEDFORWARD = model.DECODER.DIM_FEEDFORWARD = 64
    model.NUM_QUERIES = 20
    model.ONE_TO_MANY.NUM_QUERIES = 2 * model.ONE_TO_MANY.REPEATS
    model.DENOISING.NUM_QUERIES = 50
    if cfg.MODEL.BACKBONE.NAME == "build_swin_backbone":
        cfg.MODEL.SWIN.EMBED_DIM, cfg.MODEL.SWIN.DEPTHS = 24, [1, 1, 1, 1]
    elif needs_timm(cfg):  # whose models have one width only
        cfg.MODEL.WEIGHTS, cfg.MODEL.TIMM.PRETRAINED = "", False
    elif cfg.MODEL.RESNETS.DEPTH >= 50:  # detectron2's smaller ones have one width only
        cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 8
        cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 8
        cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 16


def assert_trains_a_step_and_evaluates(cfg: CfgNode) -> None:
    """Let a narrow version of a config's model see an image, in training and in evaluation."""
    shrink(cfg)
    model = build_model(cfg).train()
    item = batched_input(128, 96, num_boxes=2)
    losses = model([item])
    sum(losses.values()).backward()
    assert all(bool(loss.isfinite()) for loss in losses.values())
    encoder = [parameter.grad for name, parameter in model.named_parameters() if name.startswith("encoder.")]
    assert encoder and all(gradient is not None and bool(gradient.isfinite().all()) for gradient in encoder)
    with torch.no_grad():
        instances = model.eval()([item])[0]["instances"]
    assert 0 < len(instances) <= cfg.TEST.DETECTIONS_PER_IMAGE
    assert bool(instances.pred_boxes.tensor.isfinite().all()) and bool(instances.scores.isfinite().all())


# One step, on an image of 192 x 256 pixels: 1,020 tokens, more than DINO's queries.
SMALL_STEP: dict[str, Any] = {
    "MODEL.DEVICE": "cpu",
    "MODEL.LITE_DETR.NUM_CLASSES": len(CLASSES),
    "INPUT.MIN_SIZE_TRAIN": (192,),
    "INPUT.MAX_SIZE_TRAIN": 256,
    "INPUT.MIN_SIZE_TEST": 192,
    "INPUT.MAX_SIZE_TEST": 256,
    "INPUT.CROP.ENABLED": False,
    "DATALOADER.NUM_WORKERS": 0,
    "SOLVER.IMS_PER_BATCH": 1,
    "SOLVER.MAX_ITER": 1,
    "SOLVER.STEPS": (),
    "TEST.EVAL_PERIOD": 1,
    "SEED": 0,
}


def assert_training_of_the_whole_model(path: Path, folder: Path) -> None:
    """Let the trainer take a step with a config's model as it is, and evaluate it; nothing is downloaded."""
    words = [str(word) for pair in SMALL_STEP.items() for word in pair]
    cfg = read_config(argparse.Namespace(config_file=str(path), opts=[*words, "OUTPUT_DIR", str(folder / "output")]))
    content = coco_content(images=1)
    halves = register_coco_folder(write_coco_folder(folder / "data", content, content))
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (halves.train,), (halves.val,)
    cfg.MODEL.TIMM.PRETRAINED = False
    if not cfg.MODEL.WEIGHTS.startswith(PACKAGE):
        cfg.MODEL.WEIGHTS = ""
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trained = {name: value for name, value in trainer.model.named_parameters() if value.requires_grad}
    before = {name: value.detach().clone() for name, value in trained.items()}
    trainer.train()
    for part in ("backbone", "encoder", "decoder"):
        changed = [not torch.equal(value, before[name]) for name, value in trained.items() if name.startswith(part)]
        # Not all: the last layers of box heads start at zero, and those before them learn from the second step on.
        assert sum(changed) > len(changed) / 2, part
    assert all(bool(value.isfinite().all()) for value in trained.values())
    lines = [json.loads(line) for line in (folder / "output" / "metrics.json").read_text().splitlines()]
    assert [line["total_loss"] for line in lines if "total_loss" in line and math.isfinite(line["total_loss"])]
    assert "AP" in json.loads((folder / "output" / "eval_metrics.json").read_text())["bbox"]
