"""The picture of what a dataset is made of shows all of it, whatever it is made of."""

import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from detectron2.structures import BoxMode
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from lite_detr_d2.data.statistics import Statistics
from lite_detr_d2.visualization.statistics import draw_statistics


def images_of(classes: Sequence[int], sides: Sequence[float] = (10, 40, 200)) -> list[dict[str, Any]]:
    """An image for each class, with as many boxes of it as its place says, and their sides in turn."""
    images = []
    for place, number in enumerate(classes):
        annotations = [
            {
                "bbox": [0, 0, 2 * sides[box % len(sides)], sides[box % len(sides)] / 2],
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": number,
            }
            for box in range(place)
        ]
        images.append({"width": 100 + place, "height": 200, "annotations": annotations})
    return images


def drawn(images: list[dict[str, Any]], names: Sequence[str]) -> dict[str, Axes]:
    """The panels by their titles; it is drawn without a warning."""
    figure = draw_statistics(Statistics.of(images, names), "mine$")
    save(figure)
    return {axes.get_title(): axes for axes in figure.axes}


def save(figure: Figure) -> None:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(file, format="png", dpi=40)
    assert Image.open(file).size == (600, 320)


def panel(panels: dict[str, Axes], title: str) -> Axes:
    (found,) = (axes for name, axes in panels.items() if name.startswith(title))
    return found


def heights(axes: Axes) -> list[float]:
    return [bar.get_height() for container in axes.containers for bar in container]


@pytest.mark.parametrize("number", [1, 3, 40])
def test_few_classes_have_bars_with_names(number: int) -> None:
    names = [f"${n}" for n in range(number)]
    axes = panel(drawn(images_of(range(number)), names), "boxes and images")
    boxes, images = ([bar.get_width() for bar in container] for container in axes.containers)
    assert boxes == list(range(number))[::-1]  # most first
    assert images == [1] * (number - 1) + [0]
    assert [text.get_text() for text in axes.get_yticklabels()] == [rf"\${n}" for n in range(number)][::-1]


def test_many_classes_have_curves_and_the_names_of_the_ends() -> None:
    axes = panel(drawn(images_of(range(500), [30]), [f"n{n}" for n in range(500)]), "boxes and images")
    boxes, images = axes.get_lines()
    assert list(boxes.get_ydata()) == list(range(500))[::-1]
    assert list(images.get_ydata()) == [1] * 499 + [0]
    label = axes.get_xlabel()
    assert "most: n499 (499), n498 (498)\n" in label
    assert "fewest: n0 (0), n1 (1)\n1 without a box" in label


def test_all_boxes_are_in_the_histograms() -> None:
    images = images_of([0] * 7, [1, 31.9, 32, 95, 96, 5000])
    panels = drawn(images, ["a"])
    sizes, shapes, counts = (panel(panels, name) for name in ("sizes of boxes", "shapes", "boxes in an image"))
    assert sum(heights(sizes)) == sum(heights(shapes)) == 21
    labels = [text.get_text() for text in sizes.get_legend().get_texts()]
    counted = [sum(bar.get_height() for bar in container) for container in sizes.containers]
    every = np.concatenate([[box["bbox"][2] * box["bbox"][3] for box in image["annotations"]] for image in images])
    small, large = (every < 1024).sum(), (every >= 9216).sum()
    assert dict(zip(labels, counted, strict=True)) == {
        f"small: {small / 21:.0%}": small,
        f"medium: {(21 - small - large) / 21:.0%}": 21 - small - large,
        f"large: {large / 21:.0%}": large,
    }
    assert heights(counts) == [1] * 7
    assert panel(panels, "sizes of images").get_title() == "sizes of images: 100 to 106 x 200 to 200 pixels"
    assert len(panel(panels, "sizes of images").collections[0].get_offsets()) == 7


@pytest.mark.parametrize(
    ("images", "names", "title", "empty"),
    [
        ([], [], "mine$: 0 images, 0 boxes, 0 classes", 5),
        ([{"width": 5, "height": 9}], ["a"], "mine$: 1 image (1 without a box), 0 boxes, 1 class", 2),
        (
            [{"annotations": [{"bbox": [0, 0, 5, 5], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0, "iscrowd": 1}]}],
            ["a", "b"],
            "mine$: 1 image (1 without a box), 0 boxes, and 1 of crowds, 2 classes",
            3,
        ),
        (images_of([0, 0]), [], "mine$: 2 images (1 without a box), 1 box, 1 class", 0),
        (
            [{"annotations": [{"bbox": [0, 0, 0, 5], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}]}],
            ["a"],
            "mine$: 1 image, 1 box, 1 class",
            3,  # a box without an area has no size and no shape
        ),
    ],
)
def test_what_is_not_there_is_said(images: list[dict[str, Any]], names: list[str], title: str, empty: int) -> None:
    figure = draw_statistics(Statistics.of(images, names), "mine$")
    save(figure)
    assert figure.get_suptitle() == title
    assert [text.get_text() for axes in figure.axes for text in axes.texts].count("nothing to show") == empty


@pytest.mark.parametrize("most", [0, 1, 6, 41, 200])
def test_no_bar_of_boxes_in_an_image_is_cut_at_an_edge(most: int) -> None:
    images = [{"width": 9, "height": 9, "annotations": images_of([0] * (most + 1))[-1]["annotations"]}, *images_of([0])]
    axes = panel(drawn(images, ["one"]), "boxes in an image")
    bars = [bar for container in axes.containers for bar in container]
    assert sum(bar.get_height() for bar in bars) == len(images)
    left, right = axes.get_xlim()
    assert left < min(bar.get_x() for bar in bars) - 0.005 * (right - left)
    assert right > max(bar.get_x() + bar.get_width() for bar in bars) + 0.005 * (right - left)
