"""The op that an exported model begins with: what it lets through, and what it names."""

import pytest
import torch
from torch import Tensor

from .test_errors import REFUSED, needs_compiled_ops

SMALLEST, LARGEST = [1, 32, 48], [2, 64, 96]
IMAGES = torch.arange(2 * 3 * 40 * 50).remainder(256).to(torch.uint8).view(2, 3, 40, 50)
SIZES = torch.tensor([[40, 50], [1, 1]])

pytestmark = needs_compiled_ops


def check(images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    checked: tuple[Tensor, Tensor] = torch.ops.lite_detr.check_images(images, sizes, SMALLEST, LARGEST)
    return checked


def other_layout(tensor: Tensor) -> Tensor:
    return tensor.transpose(0, 1).contiguous().transpose(0, 1)


@pytest.mark.parametrize("images", [IMAGES, other_layout(IMAGES), IMAGES.expand(2, -1, -1, -1)])
@pytest.mark.parametrize("sizes", [SIZES, other_layout(SIZES)])
def test_good_inputs_are_copied(images: Tensor, sizes: Tensor) -> None:
    for given, got in zip((images, sizes), check(images, sizes), strict=True):
        assert torch.equal(given, got)
        assert got.is_contiguous()
        assert got.data_ptr() != given.data_ptr()


@pytest.mark.parametrize(
    "shape", [(number, 3, height, width) for number in (1, 2) for height in (32, 64) for width in (48, 96)]
)
def test_the_bounds_are_allowed(shape: tuple[int, ...]) -> None:
    images, sizes = check(torch.zeros(shape, dtype=torch.uint8), torch.tensor([shape[2:]] * shape[0]))
    assert images.shape == shape
    assert sizes.tolist() == [list(shape[2:])] * shape[0]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES.float(), "images: expected uint8, got Float"),
        (IMAGES.to(torch.int8), "images: expected uint8, got Char"),
        (IMAGES[0], r"images: expected shape \(N, 3, H, W\), got \(3, 40, 50\)"),
        (IMAGES[:, :1], r"images: expected shape \(N, 3, H, W\), got \(2, 1, 40, 50\)"),
        (IMAGES.permute(0, 2, 3, 1), r"images: expected shape \(N, 3, H, W\)"),
        (IMAGES[:0], "images: .* a batch of 1 to 2, got 0"),
        (IMAGES.repeat(2, 1, 1, 1), "images: .* a batch of 1 to 2, got 4"),
        (IMAGES[:, :, :31], "images: .* heights of 32 to 64, got 31"),
        (torch.zeros(2, 3, 65, 50, dtype=torch.uint8), "images: .* heights of 32 to 64, got 65"),
        (IMAGES[..., :47], "images: .* widths of 48 to 96, got 47"),
        (torch.zeros(2, 3, 40, 97, dtype=torch.uint8), "images: .* widths of 48 to 96, got 97"),
        (IMAGES[:1], r"sizes: expected shape \(1, 2\), got \(2, 2\)"),
    ],
)
def test_images_that_are_refused(images: Tensor, message: str) -> None:
    with pytest.raises(REFUSED, match=f"^{message}"):
        check(images, SIZES)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (SIZES.int(), "expected int64, got Int"),
        (SIZES.float(), "expected int64, got Float"),
        (SIZES[:1], r"expected shape \(2, 2\), got \(1, 2\)"),
        (SIZES[:, :1], r"expected shape \(2, 2\), got \(2, 1\)"),
        (SIZES[0], r"expected shape \(2, 2\), got \(2\)"),
        (SIZES.flip(1), r".* within the 40 x 50 of images, got \(50, 40\)"),
        (torch.tensor([[40, 50], [41, 50]]), r".*, got \(41, 50\)"),
        (torch.tensor([[40, 51], [40, 50]]), r".*, got \(40, 51\)"),
        (torch.tensor([[40, 50], [0, 50]]), r".*, got \(0, 50\)"),
        (torch.tensor([[40, 50], [40, -1]]), r".*, got \(40, -1\)"),
    ],
)
def test_sizes_that_are_refused(sizes: Tensor, message: str) -> None:
    with pytest.raises(REFUSED, match=f"^sizes: {message}"):
        check(IMAGES, sizes)


@pytest.mark.parametrize("images", [IMAGES, other_layout(IMAGES)])
def test_the_op_keeps_the_dispatchers_rules(images: Tensor) -> None:
    torch.library.opcheck(torch.ops.lite_detr.check_images.default, (images, SIZES, SMALLEST, LARGEST))
