"""Which detection of another model is of the same object; projects/test_visualize_attention.py has the pictures."""

import pytest
import torch

from lite_detr_d2.deploy.attention import Detected

BOX = torch.tensor([0.2, 0.2, 0.4, 0.4])
SAME, MOST, HALF, APART = [0.2, 0.2, 0.4, 0.4], [0.2, 0.2, 0.4, 0.38], [0.2, 0.2, 0.4, 0.3], [0.5, 0.5, 0.9, 0.9]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([(0.9, SAME), (0.8, MOST)], 0),
        ([(0.9, MOST), (0.1, SAME)], 0),  # fits a little less, and is found
        ([(0.9, HALF), (0.8, SAME)], 1),  # is found with a little more, and fits less
        ([(0.9, APART), (0.02, HALF)], 1),
        ([(0.9, APART)], None),
    ],
)
def test_the_detection_of_the_same_object(found: list[tuple[float, list[float]]], expected: int | None) -> None:
    numbers = torch.arange(len(found))
    scores, boxes = (torch.tensor(column) for column in zip(*found, strict=True))
    assert Detected(boxes, scores, numbers, numbers).at(BOX) == expected
