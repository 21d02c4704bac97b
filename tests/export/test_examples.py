"""The examples that run exported files: nothing of PyTorch, detectron2 or this package, and what the model finds."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lite_detr_d2.deploy.inference import InferenceModel
from lite_detr_d2.detector import DetrDetector

from .conftest import Exported

EXAMPLES = Path(__file__).parents[2] / "projects" / "LiteDETR" / "deploy_examples"
ROTATED = 6  # EXIF's orientation: a quarter turn clockwise makes it upright
UNITS = torch.tensor([1.0, 100.0, 1.0, 1.0, 1.0, 1.0])  # of label, score and box, to be compared as one
WITHOUT = """
import runpy, sys
for name in ("torch", "detectron2", "lite_detr_d2"):
    sys.modules[name] = None  # whoever imports it fails
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def manifest(file: Exported, min_size: int) -> dict[str, Any]:
    """What the examples read of the JSON."""
    bounds = file.bounds
    sides = [
        values.smallest if values.is_fixed else {"min": values.smallest, "max": values.largest}
        for values in (bounds.batch, bounds.height, bounds.width)
    ]
    return {
        "inputs": [{"name": "images", "dtype": "uint8", "shape": [sides[0], 3, *sides[1:]]}],
        "resize": {"min_size": min_size, "max_size": 120 if min_size else 0, "interpolation": "bilinear"},
        "class_names": [f"digit {index}" for index in range(10)],
        "requires": file.written.requires,
    }


@pytest.mark.parametrize(("script", "name"), [("onnx_runtime.py", "onnx"), ("openvino_runtime.py", "openvino")])
@pytest.mark.parametrize(
    ("sizes", "min_size", "side", "resized"),
    [
        ("many sizes", 80, 160, (75, 120)),
        ("one size", 80, 160, (60, 96)),
        ("many sizes", 0, 110, (100, 110)),  # as it is
        ("one size", 0, 160, (60, 96)),  # as large as fits
    ],
)
def test_an_example_prints_what_the_model_finds(
    script: str,
    name: str,
    sizes: str,
    min_size: int,
    side: int,
    resized: tuple[int, int],
    exported: Any,
    detector: DetrDetector,
    tmp_path: Path,
) -> None:
    file: Exported = exported(name, sizes)
    model, *_ = (Path(shutil.copy(each, tmp_path)) for each in file.written.files)
    model.with_name(f"{model.name}.json").write_text(json.dumps(manifest(file, min_size)))
    upright = Image.fromarray(np.random.default_rng(0).integers(0, 256, (100, side, 3), dtype=np.uint8))
    picture, exif = tmp_path / "picture.png", Image.Exif()
    exif[0x0112] = ROTATED
    upright.transpose(Image.Transpose.ROTATE_90).save(picture, exif=exif)

    command = [sys.executable, "-c", WITHOUT, str(EXAMPLES / script), str(model), str(picture)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr

    height, width = resized
    images = torch.zeros(1, 3, max(height, 64), max(width, 64), dtype=torch.uint8)
    pixels = np.array(upright.resize((width, height), Image.Resampling.BILINEAR))
    images[0, :, :height, :width] = torch.from_numpy(pixels).permute(2, 0, 1)
    with torch.no_grad():
        boxes, scores, labels = InferenceModel(detector)(images, torch.tensor([resized]))
    found = [line.split() for line in result.stdout.splitlines()]
    assert len(found) == int((scores[0] >= 0.5).sum()) > 0
    boxes, labels = boxes[0] * torch.tensor([side / width, 100 / height] * 2), labels[0]
    for line in found:  # in any order: some score alike
        assert line[0] == "digit"
        values = torch.tensor([float(value) for value in line[1:]])
        differences = torch.cat((labels[:, None], scores[0][:, None] * 100, boxes), dim=1) - values * UNITS
        assert differences.abs().amax(dim=1).min() < 0.2, line
