"""Objects and detections, made by hand or at random."""

from typing import Any

import numpy as np

from lite_detr_d2.evaluation.matches import ImageMatches, matches_of
from lite_detr_d2.evaluation.scoring import evaluate_boxes

Box = tuple[float, float, float, float]
SIDE = 200
# Categories 10 and 20, and one of which there is nothing unless a test says so.
CLASSES = {10: "ant", 20: "bee", 30: "cat"}


def content(*objects: tuple[int, int, Box], crowds: tuple[tuple[int, int, Box], ...] = (), images: int = 2) -> Any:
    """COCO's content: of each object and crowd the image (from 1), the category and the box (x, y, w, h)."""
    boxes = [(each, 0) for each in objects] + [(each, 1) for each in crowds]
    return {
        "images": [
            {"id": 1 + image, "file_name": f"{image}.png", "width": SIDE, "height": SIDE} for image in range(images)
        ],
        "categories": [{"id": key, "name": name} for key, name in CLASSES.items()],
        "annotations": [
            {
                "id": 1 + number,
                "image_id": image,
                "category_id": category,
                "bbox": list(box),
                "area": box[2] * box[3],
                "iscrowd": is_crowd,
            }
            for number, ((image, category, box), is_crowd) in enumerate(boxes)
        ],
    }


def found(*detections: tuple[int, int, Box, float]) -> list[dict[str, Any]]:
    """COCO's results: of each the image, the category, the box and the score."""
    return [
        {"image_id": image, "category_id": category, "bbox": list(box), "score": score}
        for image, category, box, score in detections
    ]


def matches(truth: Any, detections: list[dict[str, Any]]) -> tuple[list[ImageMatches], int]:
    """Those of all images, and how many classes there are."""
    return matches_of(evaluate_boxes(truth, detections)), len(CLASSES)


def random_case(seed: int, crowds: float = 0.15) -> tuple[Any, list[dict[str, Any]]]:
    """Objects of two classes in 12 images, some of them crowds, and detections of three; one image has nothing."""
    rng = np.random.default_rng(seed)
    objects, detections = [], []
    for image in range(1, 12):
        own = [(image, int(rng.choice([10, 20])), _random_box(rng)) for _ in range(rng.integers(0, 8))]
        objects += own
        for _ in range(rng.integers(0, 12)):
            category, box = int(rng.choice(list(CLASSES))), _random_box(rng)
            if own and rng.random() < 0.75:
                _, near, exact = own[rng.integers(len(own))]
                moved = np.array(exact) + rng.normal(0, rng.choice([1, 6, 20]), 4)
                x, y, width, height = (float(value) for value in moved)
                box = (x, y, max(width, 2.0), max(height, 2.0))
                category = category if rng.random() < 0.3 else near
            detections.append((image, category, box, float(rng.random())))
    is_crowd = rng.random(len(objects)) < crowds
    return (
        content(
            *(each for each, crowd in zip(objects, is_crowd, strict=True) if not crowd),
            crowds=tuple(each for each, crowd in zip(objects, is_crowd, strict=True) if crowd),
            images=12,
        ),
        found(*detections),
    )


def _random_box(rng: np.random.Generator) -> Box:
    width, height = (float(value) for value in rng.uniform(5, 150, 2))
    return float(rng.uniform(0, SIDE - width)), float(rng.uniform(0, SIDE - height)), width, height
