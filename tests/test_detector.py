"""The whole detector: padding, neighbours in the batch, empty targets, and detectron2's tools on it."""

from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, LazyCall, instantiate
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model
from detectron2.utils.analysis import FlopCountAnalysis
from fvcore.nn import flop_count_table
from torch import Tensor, nn

from lite_detr_d2.errors import InputError
from lite_detr_d2.meta_arch import DINO
from lite_detr_d2.modeling.encoder import DeformableEncoder, encoder_attention

from .helpers import batched_input


def randomised(model: nn.Module) -> nn.Module:
    """Give zero-initialised layers weights, so that everything has an effect."""
    for name, parameter in model.named_parameters():
        if "sampling_offsets.weight" in name or "attention_weights" in name or "box_embed.layers.2" in name:
            nn.init.normal_(parameter, std=0.1)
    return model.eval()


@pytest.fixture(params=["plain", "lite"])
def model(request: pytest.FixtureRequest, small_cfg: CfgNode) -> nn.Module:
    if request.param == "plain":
        small_cfg.MODEL.LITE_DETR.ENCODER.NAME = "DeformableEncoder"
        small_cfg.MODEL.LITE_DETR.ENCODER.NUM_LAYERS = 2
        small_cfg.MODEL.LITE_DETR.ENCODER.KEY_AWARE = False
    return randomised(build_model(small_cfg))


def assert_same_detections(first: dict[str, Any], second: dict[str, Any], tolerance: float = 1e-4) -> None:
    ours, theirs = first["instances"], second["instances"]
    torch.testing.assert_close(ours.scores, theirs.scores, rtol=0, atol=tolerance)
    torch.testing.assert_close(ours.pred_boxes.tensor, theirs.pred_boxes.tensor, rtol=1e-4, atol=tolerance * 100)
    assert torch.equal(ours.pred_classes, theirs.pred_classes)


def test_an_image_is_detected_alike_alone_and_beside_one_of_its_size(model: nn.Module) -> None:
    first, second = batched_input(96, 128, 0, seed=1), batched_input(96, 128, 0, seed=2)
    with torch.no_grad():
        together, alone = model([first, second]), model([first])
    assert len(alone[0]["instances"]) > 0
    assert_same_detections(together[0], alone[0])


def test_padded_tokens_change_no_valid_token_and_no_detection(model: nn.Module) -> None:
    batch = [batched_input(96, 128, 0, seed=1), batched_input(64, 80, 0, seed=2)]
    memories: list[Tensor] = []
    masks: list[Tensor] = []

    def poison(module: nn.Module, args: Any, output: Any) -> Any:
        masks.append(output.padding)
        return output.with_tokens(torch.where(output.padding[..., None], 1e3, output.tokens))

    model.encoder.register_forward_hook(lambda module, args, output: memories.append(output))
    with torch.no_grad():
        clean = model(batch)
        handle = model.flatten.register_forward_hook(poison)
        poisoned = model(batch)
        handle.remove()
    keep = ~masks[0]
    assert 0 < int(keep.sum()) < keep.numel()
    torch.testing.assert_close(memories[0][keep], memories[1][keep], rtol=0, atol=0)
    for ours, theirs in zip(clean, poisoned, strict=True):
        assert_same_detections(ours, theirs, tolerance=0.0)


def test_padded_encoder_outputs_change_no_detection(model: nn.Module) -> None:
    batch = [batched_input(96, 128, 0, seed=1), batched_input(64, 80, 0, seed=2)]
    masks: list[Tensor] = []
    model.flatten.register_forward_hook(lambda module, args, output: masks.append(output.padding))
    with torch.no_grad():
        clean = model(batch)
        model.encoder.register_forward_hook(lambda module, args, output: torch.where(masks[-1][..., None], 1e3, output))
        poisoned = model(batch)
    for ours, theirs in zip(clean, poisoned, strict=True):
        assert_same_detections(ours, theirs, tolerance=0.0)


def test_results_are_at_the_original_size(model: nn.Module) -> None:
    item = batched_input(64, 96, 0)
    plain = model([item])[0]["instances"]
    scaled = model([item | {"height": 128, "width": 192}])[0]["instances"]
    assert scaled.image_size == (128, 192)
    torch.testing.assert_close(scaled.pred_boxes.tensor, plain.pred_boxes.tensor * 2)


@pytest.mark.parametrize("counts", [(0, 0), (0, 3), (30, 1)])
def test_any_number_of_boxes_trains(model: nn.Module, counts: tuple[int, int]) -> None:
    """None at all, none in one image, more than there are queries: finite losses, a gradient for every parameter."""
    model.train()
    losses = model([batched_input(64, 96, count, seed=index) for index, count in enumerate(counts)])
    total = sum(losses.values())
    assert bool(total.isfinite())
    total.backward()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert not [name for name, parameter in trained.items() if parameter.grad is None]


def test_without_denoising(small_cfg: CfgNode) -> None:
    small_cfg.MODEL.LITE_DETR.DENOISING.NUM_QUERIES = 0
    losses = build_model(small_cfg)([batched_input(64, 96, 2)])
    assert len(losses) == 3 * 3  # two decoder layers and the encoder
    assert not [name for name in losses if "_dn" in name]


def test_dropout_acts_in_training_only(small_cfg: CfgNode) -> None:
    small_cfg.MODEL.RESNETS.NORM = "FrozenBN"
    small_cfg.MODEL.LITE_DETR.DROPOUT = 0.5
    model = randomised(build_model(small_cfg))
    item = batched_input(64, 96, 2)
    outputs: list[Tensor] = []
    for part in ("encoder.layers.0", "decoder.layers.0"):
        module = model.get_submodule(part)
        module.register_forward_hook(lambda module, args, output: outputs.append(output))
        with torch.no_grad():
            for training in (False, False, True, True):
                model.train(training)([item])
        first, second, noisy, noisier = (output[:, :10] for output in outputs)
        assert torch.equal(first, second) and not torch.equal(noisy, noisier)
        outputs.clear()
        module._forward_hooks.clear()


def test_an_image_without_annotations_field_is_named(model: nn.Module) -> None:
    item = batched_input(64, 96, 2, seed=7)
    del item["instances"]
    with pytest.raises(InputError, match="image_7.png has no instances"):
        model.train()([item])


def test_class_ids_out_of_range_name_the_image(model: nn.Module) -> None:
    item = batched_input(64, 96, 2, seed=7)
    item["instances"].gt_classes[1] = 10
    with pytest.raises(ValueError, match=r"image_7.png has a class id outside 0..9: .*NUM_CLASSES"):
        model.train()([item])


def test_training_and_evaluation_share_the_matching_queries(small_cfg: CfgNode) -> None:
    """With BatchNorm out of the way, evaluation's predictions are those that training's losses are computed on."""
    small_cfg.MODEL.RESNETS.NORM = "FrozenBN"
    model = randomised(build_model(small_cfg))
    seen: list[Any] = []
    model.decoder.register_forward_hook(lambda module, args, output: seen.append(module.predict(output, -1)))
    item = batched_input(64, 96, 3)
    with torch.no_grad():
        model([item])
        model.train()([item])
    queries = seen[0].boxes.shape[1]
    assert seen[1].boxes.shape[1] > queries
    torch.testing.assert_close(seen[1].boxes[:, :queries], seen[0].boxes)
    torch.testing.assert_close(seen[1].logits[:, :queries], seen[0].logits)


def test_forward_assigns_nothing(model: nn.Module) -> None:
    def attributes() -> dict[str, object]:
        """Every plain attribute of every module, but for parts that are compared on their own."""
        return {
            f"{name}.{key}": value
            for name, module in model.named_modules()
            for key, value in vars(module).items()
            if not key.startswith("_")
        }

    model.train()
    before = attributes()
    model([batched_input(64, 96, 2)])
    after = attributes()
    assert after.keys() == before.keys()
    assert not [key for key, value in after.items() if value is not before[key]]


def test_default_predictor(small_cfg: CfgNode) -> None:
    small_cfg.MODEL.WEIGHTS = ""
    predictor = DefaultPredictor(small_cfg)
    image = np.random.default_rng(0).integers(256, size=(90, 120, 3), dtype=np.uint8)
    instances = predictor(image)["instances"]
    assert instances.image_size == (90, 120) and len(instances) > 0
    assert bool((instances.pred_boxes.tensor[:, 2] <= 120).all())


def test_flop_counts(model: nn.Module) -> None:
    inputs = [{"image": torch.rand(3, 96, 128) * 255}]
    with_grad = FlopCountAnalysis(model, inputs)
    total = with_grad.total()
    with torch.no_grad():
        assert FlopCountAnalysis(model, inputs).total() == total
    unsupported = with_grad.unsupported_ops()
    assert not [name for name in unsupported if "lite_detr" in name or "attention" in name]
    assert not [name for name in unsupported if "grid_sampler" in name or name == "prim::PythonOp"]
    by_module = with_grad.by_module()
    assert by_module["model.encoder"] > 0 and by_module["model.decoder"] > 0
    assert "decoder" in flop_count_table(with_grad, max_depth=2)


def test_lazy_config_can_replace_a_part(small_cfg: CfgNode) -> None:
    parts = DINO.from_config(small_cfg)
    encoder = LazyCall(DeformableEncoder)(
        attention=encoder_attention(small_cfg), num_layers=1, dim_feedforward=64, dropout=0.0
    )
    model = DINO(**parts | {"encoder": instantiate(encoder)}).eval()
    assert len(model([batched_input(64, 96, 0)])[0]["instances"]) > 0
