"""A published checkpoint, evaluated and trained from as a user does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.engine import launch
from detectron2.modeling import build_model

from lite_detr_d2.checkpoint import write_checkpoint
from lite_detr_d2.engine import argument_parser, read_config
from tests.data.folders import coco_content, write_coco_folder
from tests.projects.conftest import loggers_propagate
from tests.projects.scripts import TINY, load_script

from .published import as_published

__all__ = ["loggers_propagate"]

LITE_DINO = "lite_dino_h3l1_a2b3_r50"
SPEC = ("MODEL.LITE_DETR.ENCODER.SPEC", "H3L1-(2+1)x1")
COCO_CLASSES = ("person", "bicycle", "toothbrush")  # categories 1, 2 and 90 of COCO
train_net = load_script("train_net")


def arguments(*words: object) -> Any:
    return argument_parser("").parse_args(["--config-file", str(TINY), *map(str, words)])


def run(*words: object) -> None:
    launch(train_net.main, 1, args=(arguments(*words),))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    content = coco_content()
    for category, name in zip(sorted(content["categories"], key=lambda one: one["id"]), COCO_CLASSES, strict=True):
        category["name"] = name
    return write_coco_folder(tmp_path_factory.mktemp("coco_classes"), train=content, val=content)


@pytest.fixture
def evaluate(dataset: Path, tmp_path: Path) -> Callable[[Path], bytes]:
    def evaluate(weights: Path) -> bytes:
        """The detections of ``--eval-only``."""
        output = tmp_path / f"output_{weights.name}"
        run("--dataset", dataset, "--eval-only", "MODEL.WEIGHTS", weights, "OUTPUT_DIR", output, *SPEC)
        return (output / "inference" / "coco_instances_results.json").read_bytes()

    return evaluate


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    cfg = read_config(arguments("MODEL.LITE_DETR.NUM_CLASSES", 91, *SPEC))
    state = build_model(cfg).state_dict()
    for name in state:
        if name.endswith("class_embed.bias"):
            state[name] = torch.linspace(-2, 2, 91)  # else all classes score alike
    return state


def test_a_published_checkpoint_is_evaluated_on_its_classes(
    tmp_path: Path, weights: dict[str, torch.Tensor], evaluate: Callable[[Path], bytes]
) -> None:
    torch.save({"model": as_published(weights, LITE_DINO)}, tmp_path / "published.pth")
    rows = [1, 2, 90]
    ours = dict(weights)
    for name in weights:
        if ".class_embed." in name:
            ours[name] = weights[name][rows]
    ours["denoising.label_embed.weight"] = weights["denoising.label_embed.weight"][[*rows, 91]]
    write_checkpoint(tmp_path / "ours.safetensors", ours)
    detections = evaluate(tmp_path / "published.pth")
    assert json.loads(detections)
    assert detections == evaluate(tmp_path / "ours.safetensors")


def test_training_starts_from_another_encoder_and_goes_on(
    tmp_path: Path, dataset: Path, weights: dict[str, torch.Tensor]
) -> None:
    """INIT wins over MODEL.WEIGHTS; --resume wins over INIT."""
    torch.save({"model": as_published(weights, LITE_DINO)}, tmp_path / "published.pth")
    write_checkpoint(tmp_path / "unread.pth", {"w": torch.ones(1)})
    common = (
        *("--dataset", dataset, "OUTPUT_DIR", tmp_path / "output", "DATASETS.TEST", "()"),
        *("MODEL.LITE_DETR.ENCODER.NAME", "DeformableEncoder", "MODEL.LITE_DETR.ENCODER.NUM_LAYERS", 2),
        *("MODEL.LITE_DETR.ENCODER.KEY_AWARE", False, "MODEL.LITE_DETR.INIT", tmp_path / "published.pth"),
        *("MODEL.WEIGHTS", tmp_path / "unread.pth", "SOLVER.BASE_LR", 0.0, "SOLVER.STEPS", "()"),
    )
    run(*common, "SOLVER.MAX_ITER", 1)
    checkpoint = torch.load(tmp_path / "output" / "model_final.pth", weights_only=True)
    trained = checkpoint["model"]
    assert checkpoint["class_names"] == list(COCO_CLASSES)
    for name in ("encoder.layers.0.attention.sampling_offsets.weight", "decoder.layers.1.feed_forward.linear1.weight"):
        assert torch.equal(trained[name], weights[name])
    head = "decoder.heads.0.class_embed.weight"
    assert torch.equal(trained[head], weights[head][[1, 2, 90]])
    run("--resume", *common, "SOLVER.MAX_ITER", 2)
    log = (tmp_path / "output" / "log.txt").read_text()
    assert "Starting training from iteration 1" in log
    assert log.count("Starting from what fits of") == 1
    unused = next(line for line in log.splitlines() if line.startswith("  unused: "))
    assert "encoder.layers.*.low_feed_forward (6)" in unused


def test_evaluation_on_other_classes_is_an_error(
    tmp_path: Path, weights: dict[str, torch.Tensor], evaluate: Callable[[Path], bytes]
) -> None:
    write_checkpoint(tmp_path / "other.pth", weights, class_names=[f"class {row}" for row in range(91)])
    with pytest.raises(SystemExit, match=r"other\.pth does not know the classes 'person', 'bicycle', 'toothbrush'"):
        evaluate(tmp_path / "other.pth")
