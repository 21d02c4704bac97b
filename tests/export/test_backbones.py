"""Detectors on backbones of timm: files of standard operators compute what the detector does."""

from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

from lite_detr_d2.deploy.formats import FORMATS, Settings
from lite_detr_d2.deploy.sizing import check_bounds
from lite_detr_d2.detector import DetrDetector
from lite_detr_d2.errors import InputError
from tests.deploy.exports import certain

from .conftest import BOUNDS, batch, tiny_cfg
from .test_formats import compare

# The smallest of their kinds, the sizes that they take, and what the neck takes of them.
VIT = "vit_tiny_patch16_224"
STAGES = ["stage1", "stage2", "stage3"]
BACKBONES = {
    "tf_efficientnet_lite0": ("many sizes", ["stage2", "stage3", "stage4"]),
    "convnext_atto": ("many sizes", STAGES),
    "swin_tiny_patch4_window7_224": ("one size", STAGES),
    VIT: ("many sizes", ["p3", "p4", "p5"]),
}
SHAPES = {"one size": [(2, 64, 96)], "many sizes": [(1, 64, 64), (2, 131, 97), (3, 96, 128)]}


def detector_on(name: str) -> DetrDetector:
    cfg = tiny_cfg()
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.FREEZE_AT = "build_timm_backbone", 0
    cfg.MODEL.TIMM.NAME, cfg.MODEL.LITE_DETR.IN_FEATURES = name, BACKBONES[name][1]
    torch.manual_seed(0)
    detector = certain(build_model(cfg)).eval()
    assert isinstance(detector, DetrDetector)
    return detector


@pytest.mark.parametrize("name", BACKBONES)
def test_files_compute_what_the_detector_does(name: str, tmp_path: Path, _made_once: None) -> None:
    detector, sizes = detector_on(name), BACKBONES[name][0]
    check_bounds(detector, BOUNDS[sizes])
    for kind in ("onnx",) if name == VIT else ("onnx", "openvino"):
        paths = [tmp_path / f"{stem}{FORMATS[kind].suffix}" for stem in ("model", "inspected")]
        written = FORMATS[kind].write(detector, Settings(BOUNDS[sizes]), *paths)
        run = FORMATS[kind].load(paths[1], written.requires)
        for shape in SHAPES[sizes]:
            images, own_sizes = batch(*shape)
            compare(run(images.numpy(), own_sizes.numpy()), detector, images, own_sizes, 1e-4)


def test_openvino_refuses_what_it_computes_otherwise(tmp_path: Path, _made_once: None) -> None:
    with pytest.raises(InputError, match="resizes with antialiasing.*: choose the format onnx"):
        FORMATS["openvino"].write(
            detector_on(VIT), Settings(BOUNDS["many sizes"]), tmp_path / "a.xml", tmp_path / "b.xml"
        )
    assert not list(tmp_path.iterdir())
