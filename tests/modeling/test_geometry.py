import torch
from torchvision.ops import generalized_box_iou

from lite_detr_d2.modeling.geometry import (
    box_xyxy,
    inverse_sigmoid,
    paired_giou,
    pairwise_giou,
    reference_points_of_tokens,
    token_centres,
)


def boxes(count: int) -> torch.Tensor:
    low = torch.rand(count, 2, dtype=torch.float64)
    return torch.cat((low, low + 0.1 + torch.rand(count, 2, dtype=torch.float64)), dim=1)


def test_giou_is_torchvisions_but_for_eps() -> None:
    first, second = boxes(5), boxes(7)
    torch.testing.assert_close(pairwise_giou(first, second, eps=0.0), generalized_box_iou(first, second))
    exact, softened = pairwise_giou(first, second, eps=0.0), pairwise_giou(first, second, eps=1e-6)
    assert 0 < float((exact - softened).abs().max()) < 1e-4
    torch.testing.assert_close(paired_giou(first, second[:5], 1e-6), softened[:, :5].diagonal())


def test_giou_of_points_is_finite_with_eps() -> None:
    point = torch.tensor([[0.5, 0.5, 0.5, 0.5]])
    assert bool(pairwise_giou(point, point, eps=1e-6).isfinite().all())


def test_inverse_sigmoid() -> None:
    values = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    torch.testing.assert_close(inverse_sigmoid(values, 1e-3).sigmoid(), values)
    extremes = inverse_sigmoid(torch.tensor([-1.0, 0.0, 1.0, 2.0]), 1e-3)
    limit = torch.tensor(1000.0).log()
    torch.testing.assert_close(extremes, torch.stack((-limit, -limit, limit, limit)))


def test_boxes_to_corners() -> None:
    torch.testing.assert_close(box_xyxy(torch.tensor([0.5, 0.4, 0.2, 0.6])), torch.tensor([0.4, 0.1, 0.6, 0.7]))


def test_centres_of_valid_tokens_span_the_image() -> None:
    # 3 of 4 columns and all of 2 rows are valid.
    centres = token_centres(((2, 4),), torch.tensor([[[0.75, 1.0]]]))
    x, y = centres[0].view(2, 4, 2).unbind(-1)
    torch.testing.assert_close(x[0], torch.tensor([1.0, 3.0, 5.0, 7.0]) / 6)
    torch.testing.assert_close(y[:, 0], torch.tensor([0.25, 0.75]))


def test_centres_are_exact_whatever_the_padding() -> None:
    """Proposals are cut at exactly 0.99: the centre 49.5 / 50 must not depend on how wide the padded map is."""
    for width in range(50, 131):
        ratio = torch.tensor(50.0) / width
        centres = token_centres(((1, width),), torch.tensor([[[ratio, 1.0]]]))
        assert float(centres[0, 49, 0]) == float(torch.tensor(49.5) / 50), width


def test_reference_points_are_in_units_of_the_padded_levels() -> None:
    ratios = torch.tensor([[[0.5, 1.0], [0.75, 0.5]]])
    points = reference_points_of_tokens(((2, 4), (2, 2)), ratios)
    assert points.shape == (1, 12, 2, 2)
    # The first token's centre: a quarter of the two valid columns, a quarter of the two rows.
    torch.testing.assert_close(points[0, 0], torch.tensor([[0.25 * 0.5, 0.25], [0.25 * 0.75, 0.25 * 0.5]]))
