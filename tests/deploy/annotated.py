"""A dataset that a detector whose weights are random finds the objects of: they are what it detects."""

import json
from pathlib import Path

import numpy as np

from lite_detr_d2.data import register_coco_folder
from lite_detr_d2.deploy.bounds import Bounds
from lite_detr_d2.deploy.fitting import fitted_predictor
from lite_detr_d2.deploy.run import TrainedModel

from .exports import write_images

NUM_BOXES = 4


def write_dataset(trained: TrainedModel, bounds: Bounds, folder: Path, number: int = 4) -> Path:
    """Write a folder of the best detections, and make it ready beside the weights as a training does.

    The halves share their images, but for the first one, which is of training alone.
    """
    images = write_images(folder / "images", number)
    predictor = fitted_predictor(trained, bounds)
    content = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 3 + index, "name": name} for index, name in enumerate(trained.class_names)],
    }
    for key, path in enumerate(sorted(images.iterdir()), start=1):
        found = predictor(path)["instances"]
        height, width = found.image_size
        content["images"].append({"id": key, "file_name": path.name, "width": width, "height": height})
        boxes = found.pred_boxes.tensor.numpy().astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        large = np.flatnonzero(boxes[:, 2:].min(1) > 4)[:NUM_BOXES]
        content["annotations"] += [
            {
                "id": 100 * key + index,
                "image_id": key,
                "category_id": 3 + int(found.pred_classes[index]),
                "bbox": boxes[index].tolist(),
                "area": float(boxes[index, 2:].prod()),
                "iscrowd": 0,
            }
            for index in large.tolist()
        ]
    val = {
        **content,
        "images": content["images"][1:],
        "annotations": [box for box in content["annotations"] if box["image_id"] > 1],
    }
    for name, half in (("train", content), ("val", val)):
        (folder / f"{name}.json").write_text(json.dumps(half))
    register_coco_folder(folder, split_folder=Path(trained.cfg.MODEL.WEIGHTS).parent / "dataset")
    return folder
