"""Resizing and cropping of images of any shape."""

import numpy as np
import pytest
from detectron2.data import transforms as T

from lite_detr_d2.data.augmentation import MAX_PIXELS, BoundedResize, NonEmptyCrop, bounded_size

SIDES = (1, 2, 7, 100, 333, 480, 640, 1333, 4000)


@pytest.mark.parametrize(("short", "longest"), [(800, 1333), (480, 1333), (32, 64)])
def test_ordinary_images_get_detectron2s_size(short: int, longest: int) -> None:
    compared = 0
    for height in SIDES:
        for width in SIDES:
            image = np.broadcast_to(np.uint8(0), (height, width, 3))
            ours = BoundedResize(short, longest).get_transform(image)
            theirs = T.ResizeShortestEdge(short, longest).get_transform(image)
            expected = (max(theirs.new_h, 1), max(theirs.new_w, 1))
            assert (ours.new_h, ours.new_w, ours.interp) == (*expected, theirs.interp)
            compared += expected == (theirs.new_h, theirs.new_w)
    assert compared > 40


def test_a_size_is_drawn_as_detectron2_draws_it() -> None:
    image = np.broadcast_to(np.uint8(0), (300, 400, 3))
    sizes = []
    for kind in (BoundedResize, T.ResizeShortestEdge):
        np.random.seed(3)
        draw = kind((400, 500, 600), sample_style="choice")
        sizes.append([draw.get_transform(image).new_h for _ in range(20)])
    assert sizes[0] == sizes[1]
    assert set(sizes[0]) == {400, 500, 600}


@pytest.mark.parametrize("size", [(2, 3000), (3000, 2), (1, 3000), (3, 400), (1, 10**6)])
def test_a_strip_grows_to_the_limit_and_keeps_its_shape(size: tuple[int, int]) -> None:
    image = np.broadcast_to(np.uint8(0), (*size, 3))
    resize = BoundedResize(600).get_transform(image)
    assert 0.8 * MAX_PIXELS < resize.new_h * resize.new_w <= MAX_PIXELS
    assert resize.new_h / resize.new_w == pytest.approx(size[0] / size[1], rel=0.3)


def test_no_size_leaves_the_bounds() -> None:
    for height in (0, 1, 5, 10**4, 10**9):
        for width in (0, 1, 5, 10**4, 10**9):
            bounded = bounded_size(height, width)
            assert min(bounded) >= 1
            assert bounded[0] * bounded[1] <= MAX_PIXELS
            assert (bounded[0] <= bounded[1]) is (height <= width) or bounded[0] == bounded[1]


def test_a_short_side_of_0_resizes_nothing() -> None:
    assert isinstance(BoundedResize(0).get_transform(np.zeros((1, 3000, 3), np.uint8)), T.NoOpTransform)


@pytest.mark.parametrize(("kind", "size"), [("relative", (0.3, 0.3)), ("relative_range", (0.1, 0.1))])
def test_a_crop_is_never_empty(kind: str, size: tuple[float, float]) -> None:
    for shape in ((1, 1), (1, 50), (50, 1), (3, 400)):
        crops = [NonEmptyCrop(kind, size).get_crop_size(shape) for _ in range(50)]
        assert all(crop[0] <= shape[0] and crop[1] <= shape[1] for crop in crops)
        assert all(min(crop) >= 1 for crop in crops)
