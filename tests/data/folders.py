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
                "bbox": [4 + 20 * box, 6 + 4 * (image % 8), 16, 12],
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


def photograph(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A smooth picture, as photographs are, of (width, height) pixels; another for each seed."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC)


def half_of(content: dict[str, Any], images: range) -> dict[str, Any]:
    """Part of a content: the images at these places, and their annotations."""
    chosen = content["images"][images.start : images.stop]
    identifiers = {image["id"] for image in chosen}
    boxes = [annotation for annotation in content["annotations"] if annotation["image_id"] in identifiers]
    return {**content, "images": chosen, "annotations": boxes}


def write_coco_files(root: Path, folders: dict[str, str]) -> Path:
    """Write annotation files in COCO format, two images each, by their paths with the folders of their images."""
    content = coco_content(images=2 * len(folders))
    for place, (file, folder) in enumerate(folders.items()):
        half = half_of(content, range(2 * place, 2 * place + 2))
        write_images(root / folder, half)
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(json.dumps(half))
    return root


def write_yolo_files(root: Path, folders: dict[str, str]) -> Path:
    """Write label files in YOLO's format, two images' each, by their folders with the folders of the images.

    Classes are numbered in the order of ``CLASSES``' ids.
    """
    content = coco_content(images=2 * len(folders))
    classes = sorted(CLASSES)
    for place, (labels, folder) in enumerate(folders.items()):
        half = half_of(content, range(2 * place, 2 * place + 2))
        write_images(root / folder, half)
        (root / labels).mkdir(parents=True, exist_ok=True)
        for image in half["images"]:
            lines = []
            for annotation in half["annotations"]:
                if annotation["image_id"] == image["id"]:
                    x, y, width, height = annotation["bbox"]
                    centre = ((x + width / 2) / SIZE[0], (y + height / 2) / SIZE[1])
                    values = (*centre, width / SIZE[0], height / SIZE[1])
                    number = classes.index(annotation["category_id"])
                    lines.append(" ".join(map(str, (number, *values))) + "\n")
            (root / labels / f"{Path(image['file_name']).stem}.txt").write_text("".join(lines))
    return root


def write_voc_files(root: Path, folders: dict[str, str], *, first: int = 1) -> Path:
    """Write XML files in Pascal VOC's format, two images' each, by their folders with the folders of the images.

    Corners count pixels from 1, or, where ``first`` is 0, are edges from 0.
    """
    content = coco_content(images=2 * len(folders))
    for place, (files, folder) in enumerate(folders.items()):
        half = half_of(content, range(2 * place, 2 * place + 2))
        write_images(root / folder, half)
        (root / files).mkdir(parents=True, exist_ok=True)
        for image in half["images"]:
            objects = []
            for annotation in half["annotations"]:
                if annotation["image_id"] == image["id"]:
                    x, y, width, height = annotation["bbox"]
                    corners = {"xmin": x + first, "ymin": y + first, "xmax": x + width, "ymax": y + height}
                    inner = "".join(f"<{corner}>{value}</{corner}>" for corner, value in corners.items())
                    name = CLASSES[annotation["category_id"]]
                    objects.append(f"<object><name>{name}</name><bndbox>{inner}</bndbox></object>")
            size = f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height><depth>3</depth></size>"
            text = f"<annotation><filename>{image['file_name']}</filename>{size}{''.join(objects)}</annotation>"
            (root / files / f"{Path(image['file_name']).stem}.xml").write_text(text)
    return root
