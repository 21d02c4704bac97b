"""Small datasets in COCO format, written for tests."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (64, 48)  # width, height
CLASSES = {3: "cat", 1: "ant", 7: "dog"}


def coco_content(images: int = 4, boxes_per_image: int = 2) -> dict[str, Any]:
    """Annotations of so many images, whose boxes are all 16 x 12 pixels and whose classes take turns."""
    identifiers = sorted(CLASSES)
    boxes = [(image, box) for image in range(images) for box in range(boxes_per_image)]
    return {
        "images": [
            {"id": image + 1, "file_name": f"{image}.png", "width": SIZE[0], "height": SIZE[1]}
            for image in range(images)
        ],
        "annotations": [
            {
                "id": 10 + number,
                "image_id": image + 1,
                "category_id": identifiers[number % len(identifiers)],
                "bbox": [4 + 20 * box, 6 + 4 * image, 16, 12],
                "area": 192,
                "iscrowd": 0,
            }
            for number, (image, box) in enumerate(boxes)
        ],
        "categories": [{"id": identifier, "name": name} for identifier, name in CLASSES.items()],
    }


def write_images(folder: Path, content: dict[str, Any]) -> None:
    """Write noise, with a bright rectangle in every box."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for image in content["images"]:
        pixels = rng.integers(0, 100, (image["height"], image["width"], 3), dtype=np.uint8)
        for annotation in content["annotations"]:
            if annotation["image_id"] == image["id"]:
                left, top, width, height = annotation["bbox"]
                pixels[top : top + height, left : left + width] = 255
        Image.fromarray(pixels).save(folder / image["file_name"])


def write_coco_layout(root: Path) -> Path:
    """Write a folder as COCO's own: images 1 to 4 in train2017/, image 5 in val2017/."""
    content = coco_content(images=5)
    for name, identifiers in (("train2017", range(1, 5)), ("val2017", range(5, 6))):
        images = [image for image in content["images"] if image["id"] in identifiers]
        boxes = [annotation for annotation in content["annotations"] if annotation["image_id"] in identifiers]
        half = {**content, "images": images, "annotations": boxes}
        write_images(root / name, half)
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{name}.json").write_text(json.dumps(half))
    return root


def write_single_file_folder(root: Path, images: int = 5) -> Path:
    """Write a folder whose only annotation file is train.json."""
    content = coco_content(images)
    write_images(root / "images", content)
    (root / "train.json").write_text(json.dumps(content))
    return root


def write_coco_folder(
    root: Path, train: dict[str, Any] | None = None, val: dict[str, Any] | None = None, val_name: str = "val"
) -> Path:
    """Write a folder as ``register_coco_folder`` takes it; its halves share their images."""
    train, val = train or coco_content(), val or coco_content()
    write_images(root / "images", train)
    (root / "train.json").write_text(json.dumps(train))
    (root / f"{val_name}.json").write_text(json.dumps(val))
    return root
