import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from lite_detr_d2.analysis import IMAGE_SIZE, Cost, cost_of, cost_of_config, count_operations

SIZE = (64, 96)


def test_parts_are_nearly_all(small_cfg: CfgNode) -> None:
    cost = cost_of_config(small_cfg, SIZE)
    assert set(cost.parts) == {"backbone", "neck", "encoder", "query_selection", "decoder"}
    assert all(operations > 0 for operations in cost.parts.values())
    outside = cost.multiply_adds - sum(cost.parts.values())
    assert 0 <= outside < 0.001 * cost.multiply_adds


def test_the_neck_is_counted_as_its_formula(small_cfg: CfgNode) -> None:
    """Strides 8, 16 and 32, the last a stride-2 convolution of 3 x 3 where the backbone ends at 16."""
    small_cfg.MODEL.LITE_DETR.IN_FEATURES = ["res3", "res4"]
    channels, (narrow, wide) = small_cfg.MODEL.LITE_DETR.HIDDEN_DIM, (64, 128)
    pixels = [SIZE[0] * SIZE[1] // stride**2 for stride in (8, 16, 32)]
    convolutions = channels * (pixels[0] * narrow + pixels[1] * wide + pixels[2] * 9 * wide)
    normalisation = 5 * channels * sum(pixels)  # fvcore's estimate of a group norm
    neck = cost_of_config(small_cfg, SIZE).parts["neck"]
    assert neck == convolutions + normalisation


def test_the_model_is_counted_in_evaluation(small_cfg: CfgNode) -> None:
    model = build_model(small_cfg).train()
    counted = count_operations(model, SIZE)
    cost = cost_of(model, counted)
    assert not model.training
    assert cost.multiply_adds == counted.total()
    small_cfg.MODEL.LITE_DETR.DENOISING.NUM_QUERIES = 0
    undisturbed = cost_of_config(small_cfg, SIZE)
    assert undisturbed.multiply_adds == cost.multiply_adds
    assert undisturbed.parameters == cost.parameters - model.denoising.label_embed.weight.numel()


def test_the_default_is_the_published_size(small_cfg: CfgNode) -> None:
    model = build_model(small_cfg)
    seen: list[torch.Size] = []
    model.backbone.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
    count_operations(model).total()
    assert IMAGE_SIZE == (800, 1066)
    assert tuple(map(int, seen[-1])) == (1, 3, *IMAGE_SIZE)


def test_costs_are_of_the_size_asked_for(small_cfg: CfgNode) -> None:
    def backbone(cost: Cost) -> float:
        return cost.parts["backbone"]

    small, large = (cost_of_config(small_cfg, size) for size in (SIZE, (128, 192)))
    assert backbone(large) == pytest.approx(4 * backbone(small), rel=0.01)
    assert large.parameters == small.parameters
