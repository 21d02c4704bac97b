"""Boxes that are hard to learn, and boxes that nobody meant."""

from typing import Any

import numpy as np
import pytest
from detectron2.data import transforms as T
from detectron2.structures import Boxes, pairwise_iou

from lite_detr_d2.data.inspection.boxes import box_findings, same_boxes
from lite_detr_d2.data.inspection.sizes import TrainingSizes

from .datasets import half, normalised, places, table

UNCHANGED = TrainingSizes(shortest=0)


def found(*boxes: tuple[Any, ...], sizes: TrainingSizes = UNCHANGED, **options: Any) -> dict[str, tuple[str, ...]]:
    findings = list(box_findings(table("train", boxes=boxes, **options), sizes))
    return {identifier: where for (_, identifier), where in places(findings).items()}


def test_boxes_in_order_are_not_worth_a_word() -> None:
    assert found((0, 0, 10, 10, 30, 20), (0, 1, 50, 10, 30, 80)) == {}


@pytest.mark.parametrize(
    ("size", "shortest", "longest"),
    [((160, 120), 60, 1000), ((160, 120), 240, 1000), ((160, 40), 80, 200), ((40, 160), 80, 200), ((160, 120), 0, 9)],
)
def test_a_box_is_tiny_at_the_size_of_training(size: tuple[int, int], shortest: int, longest: int) -> None:
    """As detectron2 resizes: the shorter side, unless the longer one gets too long; 0 is no resizing."""
    width, height = size
    transform = T.ResizeShortestEdge(shortest, longest).get_transform(np.zeros((height, width, 3), dtype=np.uint8))
    scale = getattr(transform, "new_w", width) / width
    assert TrainingSizes(shortest, longest).scales(np.array([size], dtype=float)) == pytest.approx(scale, rel=0.02)
    below, above = 3.8 / scale, 4.2 / scale
    boxes = [(0, 0, 0, 0, below, 6 * below), (0, 0, 20, 0, 10 / scale, below), (0, 0, 1, 1, above, above)]
    where = found(*boxes, sizes=TrainingSizes(shortest, longest), size=size)["box-tiny"]
    assert where == ("annotation 10 of 0.png", "annotation 11 of 0.png")


def test_sizes_of_a_config(small_cfg: Any) -> None:
    small_cfg.INPUT.MIN_SIZE_TRAIN, small_cfg.INPUT.MAX_SIZE_TRAIN = (320, 480, 400), 640
    assert TrainingSizes.from_config(small_cfg) == TrainingSizes(480, 640, 20)


def test_a_box_that_is_nearly_the_whole_image() -> None:
    boxes = [(0, 0, 0, 0, 160, 120), (0, 1, 2, 0, 157, 118), (0, 2, 0, 0, 160, 113)]
    assert found(*boxes) == {"box-whole-image": ("annotation 10 of 0.png", "annotation 11 of 0.png")}


def test_a_box_that_is_a_line() -> None:
    boxes = [(0, 0, 0, 0, 101, 5), (0, 1, 0, 0, 5, 101), (0, 2, 0, 0, 100, 5)]
    assert found(*boxes) == {"box-thin": ("annotation 10 of 0.png", "annotation 11 of 0.png")}


def test_boxes_that_cover_each_other() -> None:
    boxes = [
        (0, 0, 10, 10, 50, 50),
        (0, 0, 10.5, 10, 50, 50.5),  # the first again
        (0, 1, 10, 10, 50, 50),  # of another class
        (1, 0, 10, 10, 50, 50),  # in another image
        (0, 0, 10, 10, 50, 50, 1),  # a crowd
        (0, 0, 13, 10, 50, 50),  # 0.89
    ]
    where = found(*boxes, files=("0.png", "1.png"))
    assert where == {"box-duplicate": ("annotation 11 of 0.png (as 10)",)}


def test_all_boxes_that_cover_each_other_are_found() -> None:
    """Against detectron2's overlaps of all pairs."""
    rng = np.random.default_rng(0)
    boxes = np.concatenate((rng.uniform(0, 100, (300, 2)), rng.uniform(5, 60, (300, 2))), axis=1)
    copies = boxes[rng.integers(300, size=200)] * rng.uniform(0.99, 1.01, (200, 4))
    boxes = np.concatenate((boxes, copies[:190], copies[:10]))[rng.permutation(500)]
    images, classes = rng.integers(2, size=500), rng.integers(2, size=500)
    corners = np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), axis=1)
    overlaps = pairwise_iou(Boxes(corners), Boxes(corners)).numpy()
    together = (images[:, None] == images) & (classes[:, None] == classes)
    expected = {int(second) for first, second in np.argwhere((overlaps > 0.95) & together) if first < second}
    pairs = same_boxes(boxes, images, classes)
    assert len(expected) > 30
    assert sorted(pairs[:, 1].tolist()) == sorted(expected)
    assert bool((overlaps[tuple(pairs.T)] > 0.95).all())


def test_an_image_of_thousands_of_boxes() -> None:
    """As many as there are, and all alike: each is said once."""
    count = 20_000
    pairs = same_boxes(np.tile([1.0, 2, 30, 40], (count, 1)), np.zeros(count, int), np.zeros(count, int))
    assert pairs[:, 1].tolist() == list(range(1, count))


def test_more_boxes_than_queries() -> None:
    boxes = [(0, 0, 10 * index, 0, 8, 8) for index in range(4)] + [(1, 0, 0, 0, 8, 8)]
    sizes = TrainingSizes(shortest=0, num_queries=3)
    assert found(*boxes, sizes=sizes, files=("0.png", "1.png")) == {"image-crowded": ("0.png (4)",)}
    assert found(*boxes, sizes=TrainingSizes(shortest=0, num_queries=4), files=("0.png", "1.png")) == {}


def test_images_without_boxes() -> None:
    files = ("0.png", "1.png", "2.png")
    boxes = [(1, 0, 0, 0, 8, 8), (2, 0, 0, 0, 8, 8, 1)]
    (finding,) = box_findings(table("val", files=files, boxes=boxes), UNCHANGED)
    assert (finding.id, finding.half, finding.places) == ("image-without-boxes", "val", ("0.png", "2.png"))
    assert finding.message.startswith("66.7 % of the images have no boxes")


def test_a_half_without_annotations() -> None:
    bare = half("val")
    del bare.content["annotations"]
    for content in (half("train"), bare, half("test", files=())):
        (only,) = normalised(content).halves.values()
        assert list(box_findings(table(only.name, files=()), TrainingSizes(num_queries=1))) == []
        assert list(box_findings(table(only.name), TrainingSizes(num_queries=1))) == []
