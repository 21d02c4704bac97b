"""torch.compile makes one graph of a detector's functions of tensors, for images of all sizes."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor
from torch._dynamo import mark_dynamic
from torch.testing import assert_close

from lite_detr_d2.detector import DetrDetector
from lite_detr_d2.structures import QueryGroup

from ..helpers import batched_input, choose_detector, randomised

pytestmark = pytest.mark.slow
each_detector = pytest.mark.parametrize("name", ["dino", "deformable_detr_two_stage", "h_detr"])


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture
def cfg(small_cfg: CfgNode) -> CfgNode:
    """With one layer of each kind: symbols take long."""
    node = small_cfg.MODEL.LITE_DETR
    node.DECODER.NUM_LAYERS, node.ENCODER.SPEC = 2, "H2L1-(1+1)x1"
    return small_cfg


def batch(*images: tuple[int, int, int]) -> list[dict[str, Any]]:
    """Of the height, the width and the number of boxes of each image."""
    return [batched_input(*image, seed=seed) for seed, image in enumerate(images)]


def with_sizes_open(images: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
    mark_dynamic(images, (2, 3))
    mark_dynamic(padding, (1, 2))
    return images, padding


@each_detector
@torch.no_grad()
def test_predictions_of_any_size_are_of_one_graph(cfg: CfgNode, name: str) -> None:
    choose_detector(cfg, name)
    model = randomised(build_model(cfg))
    compiled = torch.compile(DetrDetector.detect, fullgraph=True, backend="aot_eager")
    sizes = ((64, 64), (64, 64)), ((96, 70), (51, 120)), ((130, 65), (33, 77))
    for number, pair in enumerate(sizes):
        images, padding = model.preprocess(batch(*((*size, 0) for size in pair)))
        expected = model.detect(images.tensor, padding)
        with torch.compiler.set_stance("fail_on_recompile" if number else "default"):
            found = compiled(model, *with_sizes_open(images.tensor, padding))
        assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-4)
        assert_close(found.boxes, expected.boxes, rtol=1e-4, atol=1e-4)


@each_detector
def test_what_is_trained_is_one_graph_for_any_number_of_boxes(cfg: CfgNode, name: str) -> None:
    choose_detector(cfg, name)
    model = randomised(build_model(cfg)).train()
    compiled = torch.compile(DetrDetector.learn, fullgraph=True, backend="aot_eager")

    def learn(images: Tensor, padding: Tensor, denoising: tuple[QueryGroup, ...]) -> Any:
        for group in denoising:
            for tensor, dim in ((group.queries.content, 1), (group.queries.reference, 1), (group.blocks, 0)):
                mark_dynamic(tensor, dim)
        return compiled(model, *with_sizes_open(images, padding), denoising)

    for number, images in enumerate(
        (((64, 64, 1), (64, 64, 4)), ((96, 70, 2), (51, 120, 0)), ((70, 99, 5), (40, 40, 3)))
    ):
        model.__dict__.pop("learn", None)
        expected, statistics = losses_and_gradients(model, batch(*images))
        model.load_state_dict(statistics, strict=False)
        model.learn = learn
        with torch.compiler.set_stance("fail_on_recompile" if number else "default"):
            found, _ = losses_and_gradients(model, batch(*images))
        assert_close(found, expected, rtol=1e-4, atol=1e-4)


def losses_and_gradients(
    model: DetrDetector, images: list[dict[str, Any]]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Of a batch; and the norms' statistics as they were before it."""
    statistics = {name: buffer.clone() for name, buffer in model.named_buffers() if "pixel" not in name}
    torch.manual_seed(0)
    model.zero_grad()
    losses = model(images)
    torch.stack(list(losses.values())).sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {**{key: loss.detach() for key, loss in losses.items()}, **gradients}, statistics
