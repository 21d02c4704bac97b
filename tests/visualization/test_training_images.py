"""The sheet of training images: each as the model gets it, and what it has lost."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from matplotlib.patches import Rectangle
from PIL import Image

from lite_detr_d2.visualization.detections import colour_of_class
from lite_detr_d2.visualization.training_images import TrainingImage, draw_training_images, losses


def training_image(
    width: int = 60, height: int = 40, boxes: list[list[float]] | None = None, channels: str = "RGB", **more: Any
) -> TrainingImage:
    """A red image of three boxes and a crowd, of which those given are left, of classes 0, 1, ..."""
    boxes = [[1.0, 2, 11, 12], [20, 20, 40, 30], [5, 5, 6, 7]] if boxes is None else boxes
    pixels = torch.zeros(3, height, width, dtype=torch.uint8)
    pixels[channels.index("R")] = 255
    instances = Instances((height, width), gt_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4)))
    instances.gt_classes = torch.arange(len(boxes))
    record = {"annotations": [{}, {"iscrowd": 0}, {}, {"iscrowd": 1}]}
    sample = {"file_name": "folder/a_$.png", "width": 30, "height": 20, "image": pixels, "instances": instances}
    return TrainingImage.of({**sample, **more}, record, channels)


@pytest.mark.parametrize("channels", ["RGB", "BGR"])
def test_colours_are_those_of_the_file(channels: str) -> None:
    image = training_image(channels=channels)
    assert image.pixels.shape == (40, 60, 3)
    assert image.pixels.dtype == np.uint8
    assert (image.pixels == (255, 0, 0)).all()


def test_the_caption_says_what_became_of_it() -> None:
    assert training_image().caption() == "a_$.png\n30 x 20 as 60 x 40, 3 boxes, 1 of crowds left out"
    less = training_image(boxes=[[1, 2, 3, 4]])
    assert less.lost == 2
    assert less.caption() == "a_$.png\n30 x 20 as 60 x 40, 1 of 3 boxes, 1 of crowds left out"
    plain = TrainingImage.of({"file_name": "b", "width": 3, "height": 2, "image": torch.zeros(3, 2, 3)}, {}, "RGB")
    assert plain.caption() == "b\n3 x 2 as 3 x 2, 0 boxes"
    assert losses([training_image(), plain]) == "3 boxes, of crowds, and left out: 1"
    assert losses([less, plain]) == "1 box, cut away or empty: 2 (2 of a_$.png), of crowds, and left out: 1"


def test_boxes_have_their_places_names_and_colours() -> None:
    (axes,) = draw_training_images([training_image()], ["first", "the $second"]).axes
    outlines = {tuple(patch.get_bbox().extents): patch for patch in axes.patches if isinstance(patch, Rectangle)}
    assert list(outlines) == [(20, 20, 40, 30), (1, 2, 11, 12), (5, 5, 6, 7)]  # small ones above
    for number, extents in enumerate([(1, 2, 11, 12), (20, 20, 40, 30), (5, 5, 6, 7)]):
        assert outlines[extents].get_edgecolor()[:3] == pytest.approx([c / 255 for c in colour_of_class(number)])
    assert [text.get_text() for text in axes.texts] == ["the $second", "first", "2"]
    assert axes.images[0].get_extent() == [0, 60, 40, 0]


def test_all_are_to_the_same_scale_and_none_is_stretched() -> None:
    figure = draw_training_images([training_image(60, 40), training_image(20, 90), training_image(30, 30)], [])
    assert {(axes.get_xlim(), axes.get_ylim()) for axes in figure.axes} == {((0, 60), (90, 0))}
    assert [tuple(axes.images[0].get_extent()) for axes in figure.axes] == [
        (0, 60, 40, 0),
        (0, 20, 90, 0),
        (0, 30, 30, 0),
    ]
    assert {axes.get_aspect() for axes in figure.axes} == {1.0}


@pytest.mark.parametrize("number", [1, 4, 5, 9])
def test_there_is_a_cell_for_each(number: int) -> None:
    figure = draw_training_images([training_image()] * number, [])
    assert sum(axes.get_visible() for axes in figure.axes) == number


@pytest.mark.parametrize("size", [(1, 1), (3000, 2), (2, 3000)])
def test_images_of_any_shape_become_a_sheet(size: tuple[int, int]) -> None:
    file = io.BytesIO()
    draw_training_images([training_image(*size)] * 2, ["a" * 300]).savefig(file, format="png", dpi=40)
    width, height = Image.open(file).size
    assert width == 288
    assert 15 < height < 400
