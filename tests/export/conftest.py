"""A model as small as one can be, in each format, for one size and for many. Each is written once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from torch import Tensor

from lite_detr_d2 import add_lite_detr_config
from lite_detr_d2.deploy import formats
from lite_detr_d2.deploy.bounds import Bounds, Range, fixed
from lite_detr_d2.deploy.formats import FORMATS, Settings, Written
from lite_detr_d2.deploy.formats.format import Runtime
from lite_detr_d2.detector import DetrDetector
from tests.deploy.conftest import folder, images, run, trained

__all__ = ["folder", "images", "run", "trained"]

CONFIG = Path(__file__).parents[2] / "configs" / "demo" / "lite_dino_digits.yaml"
NAMES = ("onnx", "onnx-gather", "openvino")
BOUNDS = {"one size": fixed(2, 64, 96), "many sizes": Bounds(Range(1, 3), Range(64, 160), Range(64, 160))}


@dataclass(frozen=True)
class Exported:
    """What a format wrote."""

    written: Written
    inspected: Path
    bounds: Bounds
    run: Runtime
    run_inspected: Runtime


def tiny_cfg() -> CfgNode:
    """One block of an encoder layer each for high and low levels, one decoder layer."""
    cfg = get_cfg()
    add_lite_detr_config(cfg)
    cfg.merge_from_file(str(CONFIG))
    cfg.MODEL.DEVICE = "cpu"
    node = cfg.MODEL.LITE_DETR
    node.HIDDEN_DIM, node.NUM_HEADS, node.NUM_QUERIES = 64, 4, 20
    node.ENCODER.DIM_FEEDFORWARD = node.DECODER.DIM_FEEDFORWARD = 64
    node.ENCODER.SPEC = "H2L1-(1+1)x1"
    node.DECODER.NUM_LAYERS = 1
    node.DENOISING.NUM_QUERIES = 100
    return cfg


@pytest.fixture(scope="session")
def detector() -> DetrDetector:
    torch.manual_seed(0)
    model: DetrDetector = build_model(tiny_cfg()).eval()
    with torch.no_grad():  # else boxes lie where they start, classes score alike, and offsets are whole pixels
        for name, parameter in model.named_parameters():
            if name.endswith("class_embed.bias"):
                parameter.zero_()  # half of all scores are above 0.5
            if any(part in name for part in ("sampling_offsets", "box_embed", "class_embed", "attention_weights")):
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.fixture(scope="session")
def _made_once() -> Iterator[None]:
    """The ONNX model that two formats are made of is made once."""
    with pytest.MonkeyPatch.context() as patch:
        make_once = cache(formats.onnx.make_model)
        for module in (formats.onnx, formats.openvino):
            patch.setattr(module, "make_model", make_once)
        yield


@pytest.fixture(scope="session")
def exported(detector: DetrDetector, tmp_path_factory: pytest.TempPathFactory, _made_once: None) -> Any:
    """A function: of a format's name and a key of ``BOUNDS``, the files."""

    @cache
    def export(name: str, sizes: str, dtype: str = "float32") -> Exported:
        kind, folder = FORMATS[name], tmp_path_factory.mktemp("exported")
        path, inspected = folder / f"model{kind.suffix}", folder / f"inspected{kind.suffix}"
        written = kind.write(detector, Settings(BOUNDS[sizes], dtype), path, inspected)
        runs = (kind.load(file, written.requires) for file in (path, inspected))
        return Exported(written, inspected, BOUNDS[sizes], *runs)

    return export


def batch(number: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Images, each of its own size, and these."""
    images = torch.randint(1, 256, (number, 3, height, width), dtype=torch.uint8)
    sizes = torch.tensor([[height - 7 * index, width - 11 * index] for index in range(number)])
    for image, (own_height, own_width) in zip(images, sizes.tolist(), strict=True):
        image[:, own_height:], image[:, :, own_width:] = 0, 0
    return images, sizes


def arrays(number: int, height: int, width: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """As :func:`batch`, for a runtime."""
    images, sizes = batch(number, height, width)
    return images.numpy(), sizes.numpy()
