"""A small detector to export, and a format that takes no time."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from PIL import Image
from torch import nn

from lite_detr_d2.deploy.bounds import Bounds, Range, fixed
from lite_detr_d2.deploy.export import export
from lite_detr_d2.deploy.formats import Format, Runtime, Settings, Written
from lite_detr_d2.deploy.inference import InferenceModel, InspectedModel
from lite_detr_d2.deploy.predictor import load as load_predictor
from lite_detr_d2.deploy.run import TrainedModel, load_trained
from lite_detr_d2.detector import DetrDetector
from tests.helpers import randomised

BOUNDS = Bounds(Range(1, 2), Range(32, 128), Range(32, 160))
DIGITS = tuple(f"digit {number}" for number in range(10))


def write_images(folder: Path, number: int = 3) -> Path:
    """Write pictures of coarse noise, of several shapes."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for index in range(number):
        noise = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        size = (160, 120) if index % 2 else (96, 120)
        noise.resize(size, Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return folder


def write_run(cfg: CfgNode, folder: Path, class_names: Sequence[str] = DIGITS) -> Path:
    """Write what a training leaves: a config, and weights of a detector that tells things apart."""
    cfg = cfg.clone()
    cfg.MODEL.LITE_DETR.NUM_CLASSES = len(class_names)
    cfg.MODEL.LITE_DETR.CLASS_NAMES = list(class_names)
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 96, 128
    cfg.TEST.DETECTIONS_PER_IMAGE = 30
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(cfg.dump())
    torch.save({"model": certain(build_model(cfg)).state_dict()}, folder / "model_final.pth")
    (folder / "last_checkpoint").write_text("model_final.pth")
    return folder


def certain(detector: nn.Module) -> nn.Module:
    """Give class heads weights that make scores differ."""
    for name, parameter in randomised(detector).named_parameters():
        if "class_embed" in name and parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.2)
    return detector


def load(run: Path) -> TrainedModel:
    return load_trained(run, device="cpu")


def assert_takes_rgb(cfg: CfgNode, name: str, output: Path, images: Path) -> None:
    """Export a detector whose own images are BGR: the file's are RGB all the same."""
    cfg.INPUT.FORMAT = "BGR"
    trained = load(write_run(cfg, output.parent.parent / "run of BGR"))
    assert export(trained, name, output, Settings(fixed(1, 96, 128)), images).check.passed
    predict = load_predictor(output)
    rgb = np.random.default_rng(1).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    bgr = torch.from_numpy(rgb[:, :, ::-1].copy()).permute(2, 0, 1)
    with torch.no_grad():
        (expected,) = trained.detector([{"image": bgr}])
    found = [predict(rgb), predict(np.ascontiguousarray(rgb[:, :, ::-1]), format="BGR")]
    for instances in (each["instances"] for each in found):
        torch.testing.assert_close(instances.scores, expected["instances"].scores, rtol=0, atol=1e-4)
    assert not torch.allclose(predict(rgb, format="BGR")["instances"].scores, found[0]["instances"].scores, atol=1e-3)


def write_pickled(detector: DetrDetector, settings: Settings, file: Path, twin: Path) -> Written:
    """Save the model as it is, which checks its inputs itself."""
    largest = settings.bounds.largest

    model = InferenceModel(detector, dtype=settings.dtype).eval()
    torch.save(model, file)
    torch.save(InspectedModel(model), twin)
    beside = file.with_name(f"{file.name}.txt")
    beside.write_text(f"largest {largest}")
    return Written([file, beside], {"torch": torch.__version__})


def load_pickled(file: Path, requires: Mapping[str, Any]) -> Runtime:
    assert requires == {"torch": torch.__version__}
    model = torch.load(file, weights_only=False)

    @torch.no_grad()
    def run(images: Any, sizes: Any) -> tuple[Any, ...]:
        return tuple(output.numpy() for output in model(torch.from_numpy(images), torch.from_numpy(sizes)))

    return run


PICKLED = Format(
    name="pickled",
    suffix=".bin",
    dynamic=True,
    dtypes=("float32", "bfloat16"),
    write=write_pickled,
    load=load_pickled,
    requires=("torch",),
)
