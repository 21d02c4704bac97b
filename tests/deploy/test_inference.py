"""The detector as a function of tensors: it detects what the detector detects, and nothing in it depends on sizes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor
from torch.export import Dim

from lite_detr_d2.deploy.inference import InferenceModel, InspectedModel
from lite_detr_d2.detector import DetrDetector

VARIANTS: dict[str, list[Any]] = {
    "Lite-DINO": [],
    "DINO, plain encoder": ["MODEL.LITE_DETR.ENCODER.NAME", "DeformableEncoder"],
    "keys of their own": ["MODEL.LITE_DETR.ENCODER.KEY_PROJ", True],
    "plain attention": ["MODEL.LITE_DETR.ENCODER.KEY_AWARE", False],
    "sequential": ["MODEL.LITE_DETR.ENCODER.FUSION", "sequential"],
    "Lite-H-DETR": ["MODEL.META_ARCHITECTURE", "HDETR"],
    "Lite-Deformable-DETR": ["MODEL.META_ARCHITECTURE", "DeformableDETR"],
    "Sparse-DETR": [
        *("MODEL.META_ARCHITECTURE", "DeformableDETR", "MODEL.LITE_DETR.MIXED_SELECTION", False),
        *("MODEL.LITE_DETR.LOOK_FORWARD_TWICE", False, "MODEL.LITE_DETR.CLASS_SPECIFIC_PROPOSALS", True),
        *("MODEL.LITE_DETR.CONTENT_FROM_MEMORY", True, "MODEL.LITE_DETR.ENCODER.NAME", "SparseEncoder"),
        *("MODEL.LITE_DETR.ENCODER.NUM_LAYERS", 2),
    ],
    "learned queries": [
        *("MODEL.META_ARCHITECTURE", "DeformableDETR", "MODEL.LITE_DETR.TWO_STAGE", False),
        *("MODEL.LITE_DETR.MIXED_SELECTION", False, "MODEL.LITE_DETR.LOOK_FORWARD_TWICE", False),
    ],
}


def _built(cfg: CfgNode, changes: list[Any]) -> DetrDetector:
    cfg.merge_from_list(changes)
    detector = build_model(cfg).eval()
    assert isinstance(detector, DetrDetector)
    for parameter in detector.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)  # heads and offsets start alike for all tokens
    return detector


@pytest.fixture(params=VARIANTS)
def detector(request: pytest.FixtureRequest, small_cfg: CfgNode) -> DetrDetector:
    return _built(small_cfg, VARIANTS[request.param])


def _images(*sizes: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Images of these (height, width), padded with noise, which must not count."""
    height, width = (max(side) for side in zip(*sizes, strict=True))
    return torch.randint(0, 256, (len(sizes), 3, height, width), dtype=torch.uint8), torch.tensor(sizes)


@torch.no_grad()
def test_it_detects_what_the_detector_detects(detector: DetrDetector) -> None:
    images, sizes = _images((96, 128), (80, 100))
    boxes, scores, labels = InferenceModel(detector)(images, sizes)
    inputs = [
        {"image": image[:, :height, :width]} for image, (height, width) in zip(images, sizes.tolist(), strict=True)
    ]
    for index, result in enumerate(detector(inputs)):
        found = result["instances"]  # without boxes that are empty once clipped
        kept = (boxes[index, :, 2:] > boxes[index, :, :2]).all(dim=1)
        torch.testing.assert_close(boxes[index][kept], found.pred_boxes.tensor, atol=1e-4, rtol=0)
        torch.testing.assert_close(scores[index][kept], found.scores, atol=1e-6, rtol=0)
        assert torch.equal(labels[index][kept], found.pred_classes)


@torch.no_grad()
def test_images_are_rgb_whatever_the_detector_takes(small_cfg: CfgNode) -> None:
    small_cfg.INPUT.FORMAT = "BGR"
    detector = _built(small_cfg, [])
    images, sizes = _images((96, 128))
    (found,) = detector([{"image": images[0].flip(0)}])
    torch.testing.assert_close(InferenceModel(detector)(images, sizes)[1][0], found["instances"].scores)


@torch.no_grad()
def test_boxes_are_clipped_to_the_image_without_its_padding(detector: DetrDetector) -> None:
    images, sizes = _images((96, 128), (40, 60))
    boxes, scores, _ = InferenceModel(detector)(images, sizes)
    assert boxes.min() >= 0
    assert (boxes.amax(dim=1) <= sizes.flip(1).repeat(1, 2)).all()
    assert (scores.diff(dim=1) <= 0).all()
    assert (boxes.dtype, scores.dtype) == (torch.float32, torch.float32)


@torch.no_grad()
def test_predictions_of_given_tokens_are_theirs(small_cfg: CfgNode) -> None:
    model = InferenceModel(_built(small_cfg, []))
    images, sizes = _images((96, 128))
    inspection = model.inspect(images, sizes)
    assert inspection.selected is not None
    again = model.inspect(images, sizes, inspection.selected)
    assert torch.equal(again.predictions.logits, inspection.predictions.logits)
    others = model.inspect(images, sizes, inspection.selected.flip(1))
    assert not torch.allclose(others.predictions.boxes, inspection.predictions.boxes)


@pytest.mark.parametrize("detector", ["Lite-H-DETR", "Sparse-DETR", "learned queries"], indirect=True)
@torch.no_grad()
def test_a_program_serves_all_sizes_and_batches(detector: DetrDetector) -> None:
    model = InspectedModel(InferenceModel(detector))
    batch, height, width = Dim("n", min=1, max=4), Dim("h", min=64, max=512), Dim("w", min=64, max=512)
    program = torch.export.export(
        model, _images((96, 128), (80, 100)), dynamic_shapes=({0: batch, 2: height, 3: width}, {0: batch}), strict=False
    ).module()
    for case in (_images((96, 128), (80, 100)), _images((200, 113)), _images((64, 300), (70, 301), (71, 302))):
        for ours, exported in zip(model(*case), program(*case), strict=True):
            assert torch.equal(ours, exported)


@torch.no_grad()
def test_it_compiles_without_a_break(small_cfg: CfgNode) -> None:
    model = InferenceModel(_built(small_cfg, []))
    compiled: Callable[..., tuple[Tensor, ...]] = torch.compile(model, fullgraph=True, backend="eager", dynamic=False)
    case = _images((96, 128))
    for ours, theirs in zip(model(*case), compiled(*case), strict=True):
        torch.testing.assert_close(ours, theirs)


@torch.no_grad()
def test_bfloat16_rounds_what_is_multiplied_and_not_what_is_put_out(small_cfg: CfgNode) -> None:
    detector = _built(small_cfg, [])
    images, sizes = _images((96, 128))
    exact, rounded = InferenceModel(detector), InferenceModel(detector, dtype="bfloat16")
    assert [tensor.dtype for tensor in rounded(images, sizes)] == [torch.float32, torch.float32, torch.int64]
    difference = (exact.inspect(images, sizes).tokens - rounded.inspect(images, sizes).tokens).abs().max()
    assert 1e-4 < difference < 0.3


@torch.no_grad()
def test_what_is_not_padded_need_not_be_masked(detector: DetrDetector) -> None:
    model = InferenceModel(detector)
    images, sizes = _images((96, 128), (96, 128))
    masked, unmasked = (model.inspect(images, sizes, is_padded=is_padded) for is_padded in (True, False))
    assert torch.equal(masked.tokens, unmasked.tokens)
    assert torch.equal(masked.predictions.boxes, unmasked.predictions.boxes)


@pytest.mark.parametrize(("sizes", "is_padded"), [([(64, 96), (64, 96)], False), ([(64, 96), (64, 95)], True)])
@torch.no_grad()
def test_images_of_one_size_are_not_padded(small_cfg: CfgNode, sizes: list[tuple[int, int]], is_padded: bool) -> None:
    detector = _built(small_cfg, [])
    seen: list[bool] = []
    detector.flatten.register_forward_hook(lambda *arguments: seen.append(arguments[-1].is_padded))
    detector([{"image": torch.zeros(3, *size)} for size in sizes])
    assert seen == [is_padded]
