"""A state dict tells what model it is of: the shapes of one that is built so are its own."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor

from lite_detr_d2.checkpoint import differences
from lite_detr_d2.checkpoint.infer import expected_shapes

from ..helpers import choose_detector

RESNET = {
    "MODEL.BACKBONE.NAME": "build_resnet_backbone",
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 64,
    "MODEL.RESNETS.NORM": "FrozenBN",  # whose statistics are no counters
}
SWIN = {"MODEL.BACKBONE.NAME": "build_swin_backbone", "MODEL.LITE_DETR.IN_FEATURES": ["p1", "p2", "p3"]}
NODE = "MODEL.LITE_DETR."


def resnet(depth: int) -> dict[str, Any]:
    return RESNET | {"MODEL.RESNETS.DEPTH": depth, "MODEL.RESNETS.RES2_OUT_CHANNELS": 64 if depth < 50 else 256}


def state_of(cfg: CfgNode, changes: Mapping[str, Any]) -> dict[str, Tensor]:
    """Of a model without memory where that will do: detectron2's Swin reads numbers off tensors."""
    cfg = cfg.clone()
    for key, value in changes.items():
        cfg.merge_from_list([key, value])
    cfg.MODEL.DEVICE = "cpu" if "swin" in cfg.MODEL.BACKBONE.NAME else "meta"
    with torch.device(cfg.MODEL.DEVICE):
        state: dict[str, Tensor] = build_model(cfg).state_dict()
    return state


def shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_the_depth_of_a_resnet(small_cfg: CfgNode, depth: int) -> None:
    state, other = state_of(small_cfg, resnet(depth)), state_of(small_cfg, resnet(50 if depth != 50 else 34))
    assert expected_shapes(state) == shapes(state)
    told = differences(state, other)
    assert f"MODEL.RESNETS.DEPTH is {depth} in the file, {50 if depth != 50 else 34} in the config" in told


@pytest.mark.parametrize(
    "changes",
    [
        {"MODEL.SWIN.EMBED_DIM": 24, "MODEL.SWIN.NUM_HEADS": [2, 4, 6, 12], "MODEL.SWIN.WINDOW_SIZE": 5},
        {"MODEL.SWIN.EMBED_DIM": 48, "MODEL.SWIN.DEPTHS": [1, 2, 3, 1]},
        {
            "MODEL.SWIN.EMBED_DIM": 24,
            "MODEL.LITE_DETR.IN_FEATURES": ["p2", "p3"],
            "MODEL.SWIN.OUT_INDICES": [2, 3],
            "MODEL.LITE_DETR.NUM_LEVELS": 3,
        },
    ],
    ids=["heads and windows", "depths", "two outputs"],
)
def test_the_sizes_of_a_swin(small_cfg: CfgNode, changes: dict[str, Any]) -> None:
    state = state_of(small_cfg, SWIN | changes)
    assert expected_shapes(state) == shapes(state)


@pytest.mark.parametrize(
    ("detector", "changes"),
    [
        ("dino", {}),
        ("dino", {"DECODER.NUM_LAYERS": 1}),
        ("dino", {"ENCODER.SPEC": "H2L1-(1+1)x1", "ENCODER.LOW_LEVEL_FFN_RATIO": 4}),
        ("dino", {"ENCODER.SPEC": "H2L1-(3+1)x2", "ENCODER.KEY_PROJ": True}),
        ("dino", {"ENCODER.FUSION": "sequential", "NUM_CLASSES": 1}),
        ("dino", {"ENCODER.NAME": "DeformableEncoder", "ENCODER.KEY_AWARE": False, "ENCODER.NUM_LAYERS": 1}),
        ("deformable_detr", {"DECODER.NUM_LAYERS": 1}),
        ("deformable_detr", {"DECODER.NUM_LAYERS": 3}),
        ("deformable_detr_refined", {"DECODER.NUM_LAYERS": 3}),
        ("deformable_detr_two_stage", {"DECODER.NUM_LAYERS": 1, "DECODER.NUM_POINTS": 2}),
        ("deformable_detr_two_stage", {"ENCODER.NUM_POINTS": 2, "ENCODER.DIM_FEEDFORWARD": 96}),
        ("h_detr", {"DECODER.NUM_LAYERS": 1}),
        ("h_detr", {"DECODER.DIM_FEEDFORWARD": 96}),
        ("sparse_detr", {"DECODER.NUM_LAYERS": 1, "ENCODER.NUM_LAYERS": 1}),
        ("sparse_detr", {"ENCODER.AUXILIARY_LOSS": False}),
    ],
    ids=str,
)
def test_the_rest_of_a_detector(small_cfg: CfgNode, detector: str, changes: dict[str, Any]) -> None:
    """A single decoder layer has a single head, whether or not the layers share one."""
    choose_detector(small_cfg, detector)
    state = state_of(small_cfg, resnet(18) | {NODE + key: value for key, value in changes.items()})
    assert expected_shapes(state) == shapes(state)
