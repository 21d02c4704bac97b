"""What a training leaves, of a detector that was not trained."""

from collections.abc import Sequence
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from lite_detr_d2.detector import DetrDetector
from lite_detr_d2.engine import SafeCheckpointer
from tests.helpers import randomised

NAMES = [f"class {number}" for number in range(10)]


def write_config(cfg: CfgNode, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.yaml"
    path.write_text(cfg.dump())
    return path


def write_run(
    cfg: CfgNode, folder: Path, names: Sequence[str] | None = NAMES, checkpoint: str = "model_final", seed: int = 0
) -> DetrDetector:
    """Write ``config.yaml`` and a checkpoint; return the detector, whose weights ``seed`` decides."""
    write_config(cfg, folder)
    cfg = cfg.clone()
    cfg.MODEL.DEVICE = "cpu"
    torch.manual_seed(seed)
    detector: DetrDetector = randomised(build_model(cfg))
    SafeCheckpointer(detector, str(folder), class_names=names).save(checkpoint)
    return detector
