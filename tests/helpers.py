"""Inputs that several tests need."""

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances
from torch import nn

from lite_detr_d2.structures import FlattenedFeatures, SpatialShapes

REFINED = ("BOX_REFINEMENT",)
TWO_STAGE = (*REFINED, "TWO_STAGE")
ALL_STAGES = (*TWO_STAGE, "MIXED_SELECTION", "LOOK_FORWARD_TWICE")
# The meta-architecture and the stages of every kind of detector.
DETECTORS = {
    "dino": ("DINO", ALL_STAGES),
    "deformable_detr": ("DeformableDETR", ()),
    "deformable_detr_refined": ("DeformableDETR", REFINED),
    "deformable_detr_two_stage": ("DeformableDETR", TWO_STAGE),
    "sparse_detr": ("DeformableDETR", TWO_STAGE),
    "deformable_detr_all_stages": ("DeformableDETR", ALL_STAGES),
    "h_detr_single_stage": ("HDETR", ()),
    "h_detr_two_stage": ("HDETR", TWO_STAGE),
    "h_detr": ("HDETR", ALL_STAGES),
}


def choose_detector(cfg: CfgNode, name: str) -> None:
    """Make ``cfg`` that of one of ``DETECTORS``, with a one-to-many branch of few queries."""
    set_stages(cfg, *DETECTORS[name])
    if name == "sparse_detr":
        cfg.MODEL.LITE_DETR.CLASS_SPECIFIC_PROPOSALS = cfg.MODEL.LITE_DETR.CONTENT_FROM_MEMORY = True
        cfg.MODEL.LITE_DETR.ENCODER.NAME, cfg.MODEL.LITE_DETR.ENCODER.NUM_LAYERS = "SparseEncoder", 3
    cfg.MODEL.LITE_DETR.ONE_TO_MANY.NUM_QUERIES, cfg.MODEL.LITE_DETR.ONE_TO_MANY.REPEATS = 30, 3


def set_stages(cfg: CfgNode, architecture: str, stages: Collection[str]) -> None:
    """Choose the meta-architecture, and turn on ``stages`` and no others."""
    cfg.MODEL.META_ARCHITECTURE = architecture
    for stage in ALL_STAGES:
        cfg.MODEL.LITE_DETR[stage] = stage in stages


def randomised(model: nn.Module) -> nn.Module:
    """Give zero-initialised layers weights, so that everything has an effect."""
    for name, parameter in model.named_parameters():
        if "sampling_offsets.weight" in name or "attention_weights" in name or "box_embed.layers.2" in name:
            nn.init.normal_(parameter, std=0.1)
    return model.eval()


def batched_input(height: int, width: int, num_boxes: int, num_classes: int = 10, seed: int = 0) -> dict[str, Any]:
    """One of detectron2's batched inputs: random pixels, random boxes inside the image."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(num_boxes, 4, generator=generator) * 0.5
    boxes = torch.cat((corners[:, :2], corners[:, :2] + 0.1 + 0.8 * corners[:, 2:]), dim=1)
    instances = Instances((height, width))
    instances.gt_boxes = Boxes(boxes * torch.tensor([width, height, width, height]))
    instances.gt_classes = torch.randint(num_classes, (num_boxes,), generator=generator)
    image = torch.randint(256, (3, height, width), generator=generator, dtype=torch.uint8)
    return {
        "image": image,
        "instances": instances,
        "height": height,
        "width": width,
        "image_id": seed,
        "file_name": f"image_{seed}.png",
    }


def random_features(
    shapes: SpatialShapes, channels: int = 32, images: int = 2, dtype: torch.dtype = torch.float32
) -> FlattenedFeatures:
    """Random tokens of ``shapes``; the last image's right and bottom are padding, from half of each level on."""
    size = sum(height * width for height, width in shapes)
    padding, ratios = [], torch.ones(images, len(shapes), 2, dtype=dtype)
    for level, (height, width) in enumerate(shapes):
        mask = torch.zeros(images, height, width, dtype=torch.bool)
        valid = ((height + 1) // 2, (width + 1) // 2)
        mask[-1, valid[0] :], mask[-1, :, valid[1] :] = True, True
        ratios[-1, level] = torch.tensor([valid[1] / width, valid[0] / height])
        padding.append(mask.flatten(1))
    return FlattenedFeatures(
        tokens=torch.randn(images, size, channels, dtype=dtype),
        position=torch.randn(images, size, channels, dtype=dtype),
        padding=torch.cat(padding, dim=1),
        shapes=shapes,
        valid_ratios=ratios,
    )


@contextmanager
def warnings_of_the_package() -> Iterator[list[str]]:
    """Collect the WARNING records of the logger ``lite_detr_d2``, and those alone."""

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno == logging.WARNING:
                messages.append(record.getMessage())

    messages: list[str] = []
    logger, handler = logging.getLogger("lite_detr_d2"), Collector()
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
