"""Inputs that several tests need."""

from typing import Any

import torch
from detectron2.structures import Boxes, Instances

from lite_detr_d2.structures import FlattenedFeatures, SpatialShapes


def batched_input(height: int, width: int, num_boxes: int, num_classes: int = 10, seed: int = 0) -> dict[str, Any]:
    """One of detectron2's batched inputs: random pixels, random boxes inside the image."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(num_boxes, 4, generator=generator) * 0.5
    boxes = torch.cat((corners[:, :2], corners[:, :2] + 0.1 + 0.8 * corners[:, 2:]), dim=1)
    instances = Instances((height, width))
    instances.gt_boxes = Boxes(boxes * torch.tensor([width, height, width, height]))
    instances.gt_classes = torch.randint(num_classes, (num_boxes,), generator=generator)
    image = torch.randint(256, (3, height, width), generator=generator, dtype=torch.uint8)
    return {
        "image": image,
        "instances": instances,
        "height": height,
        "width": width,
        "image_id": seed,
        "file_name": f"image_{seed}.png",
    }


def random_features(
    shapes: SpatialShapes, channels: int = 32, images: int = 2, dtype: torch.dtype = torch.float32
) -> FlattenedFeatures:
    """Random tokens of ``shapes``; the last image's right and bottom are padding, from half of each level on."""
    size = sum(height * width for height, width in shapes)
    padding, ratios = [], torch.ones(images, len(shapes), 2, dtype=dtype)
    for level, (height, width) in enumerate(shapes):
        mask = torch.zeros(images, height, width, dtype=torch.bool)
        valid = ((height + 1) // 2, (width + 1) // 2)
        mask[-1, valid[0] :], mask[-1, :, valid[1] :] = True, True
        ratios[-1, level] = torch.tensor([valid[1] / width, valid[0] / height])
        padding.append(mask.flatten(1))
    return FlattenedFeatures(
        tokens=torch.randn(images, size, channels, dtype=dtype),
        position=torch.randn(images, size, channels, dtype=dtype),
        padding=torch.cat(padding, dim=1),
        shapes=shapes,
        valid_ratios=ratios,
    )
