"""Detectors on backbones of timm: files of standard operators compute what the detector does, at all sizes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.modeling import build_model

from lite_detr_d2.deploy.formats import FORMATS, Settings
from lite_detr_d2.deploy.sizing import choose_bounds
from tests.deploy.exports import certain

from .conftest import BOUNDS, batch, tiny_cfg
from .test_formats import compare

# The smallest of their kinds, and what the neck takes of them.
STAGES = ["stage1", "stage2", "stage3"]
BACKBONES = {
    "tf_efficientnet_lite0": ["stage2", "stage3", "stage4"],
    "convnext_atto": STAGES,
    "swin_tiny_patch4_window7_224": STAGES,
    "vit_tiny_patch16_224": ["p3", "p4", "p5"],
}


@pytest.mark.parametrize("name", BACKBONES)
def test_files_compute_what_the_detector_does(name: str, tmp_path: Path, _made_once: Any) -> None:
    cfg = tiny_cfg()
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.FREEZE_AT = "build_timm_backbone", 0
    cfg.MODEL.TIMM.NAME, cfg.MODEL.LITE_DETR.IN_FEATURES = name, BACKBONES[name]
    torch.manual_seed(0)
    detector = certain(build_model(cfg)).eval()
    bounds = BOUNDS["many sizes"]
    height, width = bounds.height.largest, bounds.width.largest
    chosen = choose_bounds(cfg, detector, size=(height, width), batch=bounds.batch.largest, dynamic=True)
    assert chosen == bounds
    for kind in ("onnx", "openvino"):
        paths = [tmp_path / f"{stem}{FORMATS[kind].suffix}" for stem in ("model", "inspected")]
        written = FORMATS[kind].write(detector, Settings(bounds), *paths)
        run = FORMATS[kind].load(paths[1], written.requires)
        for shape in ((2, height, width), (1, 64, 64), (2, 131, 97), (3, 96, 128)):
            images, sizes = batch(*shape)
            compare(run(images.numpy(), sizes.numpy()), detector, images, sizes, 1e-4)
