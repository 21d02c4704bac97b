"""Crowded images, sets without annotations, and metrics that cannot be computed."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.structures import Boxes, Instances

from lite_detr_d2.engine import SafeCheckpointer, Trainer, argument_parser, read_config
from lite_detr_d2.engine.evaluation import write_metrics
from tests.data.folders import SIZE, coco_content, write_images
from tests.projects.scripts import TINY, load_script


def about(words: str, messages: list[str]) -> list[str]:
    return [message for message in messages if words in message]


def config(tmp_path: Path, val: dict[str, Any], train: dict[str, Any] | None = None) -> CfgNode:
    """A tiny detector, and sets of such annotations."""
    cfg = read_config(argparse.Namespace(config_file=str(TINY), opts=["OUTPUT_DIR", str(tmp_path / "output")]))
    cfg.MODEL.LITE_DETR.NUM_CLASSES = 3
    names = []
    for half, content in (("train", train or coco_content()), ("val", val)):
        write_images(tmp_path / half, content | {"annotations": content.get("annotations", [])})
        (tmp_path / f"{half}.json").write_text(json.dumps(content))
        names.append(f"{tmp_path.name}_{half}")
        classes = {"thing_classes": ["ant", "cat", "dog"]}
        register_coco_instances(names[-1], classes, str(tmp_path / f"{half}.json"), str(tmp_path / half))
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (names[0],), (names[1],)
    return cfg


def crowded(counts: list[int], classes: tuple[int, ...] = (1, 3, 7)) -> dict[str, Any]:
    """An image per count, with so many small boxes apart from each other, of several sizes."""
    content = coco_content(images=len(counts), boxes_per_image=0)
    for image, count in enumerate(counts, start=1):
        for box in range(count):
            side = 1 + box % 2
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": image,
                    "category_id": classes[box % len(classes)],
                    "bbox": [3 * (box % 20), 3 * (box // 20), side, side],
                    "area": side * side,
                    "iscrowd": 0,
                }
            )
    return content


def perfect_scores(cfg: CfgNode) -> dict[str, float]:
    """What the set's own annotations score as detections."""
    name = cfg.DATASETS.TEST[0]
    loader = Trainer.build_test_loader(cfg, name)
    evaluator = Trainer.build_evaluator(cfg, name)
    ids = MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id
    annotations = json.loads(Path(MetadataCatalog.get(name).json_file).read_text())["annotations"]
    evaluator.reset()
    for batch in loader:
        own = [one for one in annotations if one["image_id"] == batch[0]["image_id"] and not one["iscrowd"]]
        boxes = torch.tensor([one["bbox"] for one in own], dtype=torch.float32).reshape(-1, 4)
        found = Instances(SIZE[::-1])
        found.pred_boxes = Boxes(torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1))
        found.scores = torch.linspace(0.9, 0.1, len(own))
        found.pred_classes = torch.tensor([ids[one["category_id"]] for one in own])
        evaluator.process(batch, [{"instances": found}])
    scores: dict[str, float] = evaluator.evaluate()["bbox"]
    return scores


@pytest.mark.parametrize(("counts", "crowded_images"), [([300], 1), ([2, 101], 1), ([150, 3, 300], 2)])
@pytest.mark.parametrize("classes", [(3,), (1, 3, 7)])
def test_perfect_detections_of_crowded_images_score_100(
    tmp_path: Path, said: list[str], counts: list[int], crowded_images: int, classes: tuple[int, ...]
) -> None:
    cfg = config(tmp_path, crowded(counts, classes))
    for _ in range(2):
        scores = perfect_scores(cfg)
    assert [scores[key] for key in ("AP", "AP50", "AP75", "APs", "AP-cat")] == pytest.approx([100] * 5)
    most = max(counts)
    messages = about("AP counts up to", said)
    assert len(messages) == 1
    assert messages[0].startswith(f"Image {counts.index(most) + 1} of '{tmp_path.name}_val'")
    assert f"has {most} boxes, and {crowded_images} image" in messages[0]
    assert f"AP counts up to {most} detections" in messages[0]
    assert "TEST.DETECTIONS_PER_IMAGE" in messages[0]


def test_coco_counts_100_where_no_image_has_more(tmp_path: Path, said: list[str]) -> None:
    val = crowded([100, 2])
    val["annotations"] += [{**val["annotations"][0], "id": 999, "iscrowd": 1}]
    cfg = config(tmp_path, val)
    cfg.MODEL.LITE_DETR.NUM_QUERIES = cfg.TEST.DETECTIONS_PER_IMAGE = 100
    assert perfect_scores(cfg)["AP"] == pytest.approx(100)
    evaluator = Trainer.build_evaluator(cfg, cfg.DATASETS.TEST[0])
    assert evaluator._max_dets_per_image == [1, 10, 100]
    assert not said


def test_every_version_of_pycocotools_finds_what_it_needs(tmp_path: Path) -> None:
    cfg = config(tmp_path, coco_content())
    assert Trainer.build_evaluator(cfg, cfg.DATASETS.TEST[0])._coco_api.dataset["info"] == {}


def test_a_set_of_crowds_is_not_scored(tmp_path: Path, said: list[str]) -> None:
    val = coco_content()
    for annotation in val["annotations"]:
        annotation["iscrowd"] = 1
    cfg = config(tmp_path, val)
    Trainer.build_evaluator(cfg, cfg.DATASETS.TEST[0])
    assert len(about("nothing to score", said)) == 1


@pytest.mark.parametrize("half", ["train", "val"])
def test_more_boxes_than_can_be_found_are_said_before_the_training(tmp_path: Path, said: list[str], half: str) -> None:
    many = crowded([2, 30, 21])
    cfg = config(tmp_path, many if half == "val" else coco_content(), many if half == "train" else coco_content())
    cfg.TEST.DETECTIONS_PER_IMAGE = 25
    trainer = Trainer(cfg)
    trainer.build_test_loader(cfg, cfg.DATASETS.TEST[0])
    messages = about("boxes", said)
    expected = [f"MODEL.LITE_DETR.NUM_QUERIES is 20, and image 2 of '{tmp_path.name}_{half}'"]
    if half == "val":
        expected.append(f"TEST.DETECTIONS_PER_IMAGE is 25, and image 2 of '{tmp_path.name}_{half}'")
    assert len(messages) == len(expected)
    for message, start in zip(messages, expected, strict=True):
        assert message.startswith(start)
        assert f"{tmp_path / half / '1.png'}) has 30 boxes" in message
    assert "of 2 images with more than 20 some" in messages[0]


@pytest.mark.parametrize("annotations", [None, []])
def test_a_set_without_annotations_is_not_scored(
    tmp_path: Path, said: list[str], annotations: list[Any] | None
) -> None:
    val = coco_content(images=2)
    del val["annotations"]
    cfg = config(tmp_path, val if annotations is None else {**val, "annotations": annotations})
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS, cfg.TEST.EVAL_PERIOD = 2, (), 1
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "eval_metrics.json").write_text('{"bbox": {"AP": 50}}')
    Trainer(cfg).train()
    detections = json.loads((tmp_path / "output" / "inference" / "coco_instances_results.json").read_text())
    assert {found["image_id"] for found in detections} == {1, 2}
    messages = about("nothing to score", said)
    assert len(messages) == 1
    assert str(tmp_path / "output" / "inference") in messages[0]
    metrics = json.loads((tmp_path / "output" / "eval_metrics.json").read_text())
    assert all(value is None for value in metrics.get("bbox", {}).values())


def test_evaluating_a_set_without_annotations_writes_detections(tmp_path: Path, said: list[str]) -> None:
    val = coco_content(images=2)
    del val["annotations"]
    cfg = config(tmp_path, val)
    SafeCheckpointer(Trainer.build_model(cfg), str(tmp_path), class_names=["ant", "cat", "dog"]).save("model")
    options = ["OUTPUT_DIR", str(tmp_path / "output"), "MODEL.LITE_DETR.NUM_CLASSES", "3"]
    options += ["DATASETS.TEST", f"('{cfg.DATASETS.TEST[0]}',)", "MODEL.WEIGHTS", str(tmp_path / "model.pth")]
    args = argument_parser("").parse_args(["--config-file", str(TINY), "--eval-only", *options])
    load_script("train_net").main(args)
    detections = json.loads((tmp_path / "output" / "inference" / "coco_instances_results.json").read_text())
    assert {found["image_id"] for found in detections} == {1, 2}
    assert {found["category_id"] for found in detections} <= {1, 3, 7}
    assert len(about("there is nothing to score", said)) == 1
    assert json.loads((tmp_path / "output" / "eval_metrics.json").read_text()) == {}


def test_several_sets_of_which_one_has_no_annotations(tmp_path: Path) -> None:
    val = coco_content(images=2)
    del val["annotations"]
    cfg = config(tmp_path, val)
    cfg.DATASETS.TEST = (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN)
    Trainer.test(cfg, Trainer.build_model(cfg))
    metrics = json.loads((tmp_path / "output" / "eval_metrics.json").read_text())
    assert metrics[f"{tmp_path.name}_val"] == {}
    assert metrics[f"{tmp_path.name}_train"]["bbox"]["AP"] >= 0


def reject(constant: str) -> float:
    raise AssertionError(f"{constant} is not JSON")


def test_metrics_are_json_whatever_they_are(tmp_path: Path) -> None:
    """Evaluators of others give NumPy's and torch's numbers; what is not finite becomes null, however deep it lies."""
    results = {
        "one": {"bbox": {"AP": float("nan"), "AP50": np.float64(12.5), "APs": np.float32("nan"), "AP-Käfer": 3}},
        "two": {"bbox": {"AP": torch.tensor(float("inf")), "counts": [np.int64(2), float("-inf")], "done": True}},
    }
    write_metrics(str(tmp_path / "new"), results)
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["eval_metrics.json"]
    written = json.loads((tmp_path / "new" / "eval_metrics.json").read_text("ascii"), parse_constant=reject)
    assert written == {
        "one": {"bbox": {"AP": None, "AP50": 12.5, "APs": None, "AP-Käfer": 3}},
        "two": {"bbox": {"AP": None, "counts": [2, None], "done": True}},
    }


def test_a_size_that_no_box_has_is_null(tmp_path: Path) -> None:
    cfg = config(tmp_path, coco_content())
    results = Trainer.test(cfg, Trainer.build_model(cfg))
    assert np.isnan(results["bbox"]["APl"])
    metrics = json.loads((tmp_path / "output" / "eval_metrics.json").read_text(), parse_constant=reject)
    assert metrics["bbox"]["APl"] is None
    assert metrics["bbox"]["AP"] == pytest.approx(results["bbox"]["AP"])
