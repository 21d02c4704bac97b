import pytest
import torch

from lite_detr_d2.modeling.denoising import ContrastiveDenoising
from lite_detr_d2.structures import Targets


def targets(*counts: int) -> list[Targets]:
    return [
        Targets(
            labels=torch.randint(5, (count,)),
            boxes=torch.cat((0.3 + 0.4 * torch.rand(count, 2), 0.1 + 0.2 * torch.rand(count, 2)), dim=1),
            name=str(count),
        )
        for count in counts
    ]


def denoising(num_queries: int = 60, label_noise: float = 0.0, box_noise: float = 0.0) -> ContrastiveDenoising:
    sizes = {"num_channels": 32, "num_classes": 5, "num_queries": num_queries}
    return ContrastiveDenoising(**sizes, label_noise=label_noise, box_noise=box_noise, logit_eps=1e-3)


@pytest.mark.parametrize(
    ("num_queries", "most", "groups"), [(100, 3, 33), (100, 150, 1), (50, 7, 7), (49, 7, 98), (100, 0, 1)]
)
def test_number_of_denoising_groups(num_queries: int, most: int, groups: int) -> None:
    group = denoising(num_queries)(targets(most, min(most, 2)))
    assert group.target_repeats == group.min_boxes == groups
    assert len(group) == groups * 2 * most


def test_denoising_without_noise_is_the_ground_truth() -> None:
    truth = targets(3, 1)
    layer = denoising()
    group = layer(truth)
    content, reference = group.queries.content.view(2, -1, 2, 3, 32), group.queries.reference.view(2, -1, 2, 3, 4)
    assert content.shape[1] == group.target_repeats == 20
    for index, target in enumerate(truth):
        expected = layer.label_embed(target.labels).expand(20, 2, -1, -1)
        torch.testing.assert_close(content[index, :, :, : len(target)], expected)
        boxes = reference[index, :, :, : len(target)].sigmoid()
        torch.testing.assert_close(boxes, target.boxes.expand_as(boxes))
    assert not content[1, :, :, 1:].any() and not reference[1, :, :, 1:].any()


def test_denoising_noise_stays_in_its_range() -> None:
    truth = [
        Targets(
            labels=torch.zeros(200, dtype=torch.long),
            boxes=torch.tensor([[0.5, 0.5, 0.2, 0.1]]).repeat(200, 1),
            name="",
        )
    ]
    group = denoising(label_noise=0.5, box_noise=1.0)(truth)
    boxes = group.queries.reference.sigmoid().view(2, 200, 4)
    corners = torch.cat((boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2), dim=-1)
    moved = (corners - torch.tensor([0.4, 0.45, 0.6, 0.55])).abs() / torch.tensor([0.1, 0.05, 0.1, 0.05])
    # Boxes whose corners crossed have a negative size, which the inverse sigmoid clamps: look at the others.
    proper = (boxes[..., 2:] > 0.002).all(-1)
    positive, negative = moved[0][proper[0]], moved[1][proper[1]]
    assert float(positive.max()) < 1.0 + 1e-2 and float(positive.mean()) == pytest.approx(0.5, abs=0.1)
    assert float(negative.min()) > 1.0 - 1e-2 and float(negative.max()) < 2.0 + 1e-2


def test_a_quarter_of_the_labels_flips() -> None:
    layer = denoising(label_noise=0.5)
    noised = layer._noised_labels(torch.full((20000,), 2))
    # One in five random labels is the label itself.
    assert float((noised != 2).float().mean()) == pytest.approx(0.25 * 0.8, abs=0.02)
    assert set(noised.tolist()) == set(range(5))


def test_denoising_assigns_positives_only() -> None:
    truth = targets(3, 0, 1)
    group = denoising(60)(truth)
    groups, queries = group.target_repeats, group.queries
    assert groups == 20
    matches = group.assign(queries.content, queries.reference, [target.repeated(groups) for target in truth])
    for target, (slots, indices) in zip(truth, matches, strict=True):
        assert indices.tolist() == list(range(len(target) * groups))
        assert slots.tolist() == [start * 6 + slot for start in range(groups) for slot in range(len(target))]


def test_denoising_without_any_box_is_empty_and_differentiable() -> None:
    layer = denoising()
    group = layer(targets(0, 0))
    assert len(group) == 0
    group.queries.content.sum().backward()
    assert layer.label_embed.weight.grad is not None
