"""What a dataset is worth: how many boxes are trained on, and how perfect detections are scored."""

from pathlib import Path
from typing import Any

import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, Instances

from lite_detr_d2 import add_lite_detr_config
from lite_detr_d2.data import DetrDatasetMapper


def boxes_trained_on(name: str) -> int:
    """The number of boxes that the mapper of the training loader makes of a dataset."""
    cfg = get_cfg()
    add_lite_detr_config(cfg)
    cfg.INPUT.FORMAT, cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = "RGB", (48,), 64
    cfg.INPUT.CROP.ENABLED = False
    mapper = DetrDatasetMapper(cfg, True)
    return sum(len(mapper(record)["instances"]) for record in DatasetCatalog.get(name))


def perfect_results(name: str, truth: dict[str, Any], output_dir: Path) -> dict[str, float]:
    """COCO's results, in percent, where every box of ``truth`` is detected with score 1.

    Images are those of the same file, classes those of the same name: nothing else of the dataset is relied on.
    """
    classes = MetadataCatalog.get(name).thing_classes
    class_names = {category["id"]: category["name"] for category in truth["categories"]}
    files = {image["id"]: image["file_name"] for image in truth["images"]}
    evaluator = COCOEvaluator(name, tasks=("bbox",), distributed=False, output_dir=str(output_dir))
    evaluator.reset()
    for record in DatasetCatalog.get(name):
        file = Path(record["file_name"]).name
        boxes = [box for box in truth["annotations"] if files[box["image_id"]] == file]
        corners = [[x, y, x + width, y + height] for x, y, width, height in (box["bbox"] for box in boxes)]
        instances = Instances((record["height"], record["width"]))
        instances.pred_boxes = Boxes(torch.tensor(corners, dtype=torch.float32).reshape(-1, 4))
        instances.scores = torch.ones(len(boxes))
        instances.pred_classes = torch.tensor([classes.index(class_names[box["category_id"]]) for box in boxes])
        evaluator.process([record], [{"instances": instances}])
    results: dict[str, float] = evaluator.evaluate()["bbox"]
    return results


def perfect_ap(name: str, truth: dict[str, Any], output_dir: Path) -> float:
    """The AP of :func:`perfect_results`, in percent."""
    return perfect_results(name, truth, output_dir)["AP"]
