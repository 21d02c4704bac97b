"""The whole detector: padding, neighbours in the batch, empty targets, and detectron2's tools on it."""

from dataclasses import replace
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

from .helpers import DETECTORS, batched_input, choose_detector, randomised

# Every kind of detector with Lite DETR's encoder and key-aware attention, two of them also without.
MODELS = [(name, True) for name in DETECTORS] + [("dino", False), ("deformable_detr", False)]


@pytest.fixture(params=MODELS, ids=[name if lite else f"plain_{name}" for name, lite in MODELS])
def model(request: pytest.FixtureRequest, small_cfg: CfgNode) -> nn.Module:
    name, lite = request.param
    choose_detector(small_cfg, name)
    if not lite:
        small_cfg.MODEL.LITE_DETR.ENCODER.NAME = "DeformableEncoder"
        small_cfg.MODEL.LITE_DETR.ENCODER.NUM_LAYERS = 2
        small_cfg.MODEL.LITE_DETR.ENCODER.KEY_AWARE = False
    return randomised(build_model(small_cfg))


def loss_names(*suffixes: str) -> set[str]:
    return {f"loss_{kind}{suffix}" for kind in ("ce", "bbox", "giou") for suffix in suffixes}


@torch.no_grad()
def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Give ``target`` the weights of ``source``, and of its learned queries as many as it has itself."""
    weights = source.state_dict()
    for name, value in target.state_dict().items():
        value.copy_(weights[name] if value.dim() == 0 else weights[name][: len(value)])


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
        return replace(output, tokens=torch.where(output.padding[..., None], 1e3, output.tokens))

    model.encoder.register_forward_hook(lambda module, args, output: memories.append(output.tokens))
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
        model.encoder.register_forward_hook(
            lambda module, args, output: replace(output, tokens=torch.where(masks[-1][..., None], 1e3, output.tokens))
        )
        poisoned = model(batch)
    for ours, theirs in zip(clean, poisoned, strict=True):
        assert_same_detections(ours, theirs, tolerance=0.0)


@pytest.mark.parametrize("part", ["flatten", "encoder"])
def test_padded_tokens_change_no_loss(model: nn.Module, part: str) -> None:
    batch = [batched_input(96, 128, 3, seed=1), batched_input(64, 80, 2, seed=2)]
    masks: list[Tensor] = []

    def poison(module: nn.Module, args: Any, output: Any) -> Any:
        return replace(output, tokens=torch.where(masks[-1][..., None], 1e3, output.tokens))

    def losses() -> dict[str, Tensor]:
        torch.manual_seed(0)  # denoising draws at random
        found: dict[str, Tensor] = model(batch)
        return found

    model.train()
    model.flatten.register_forward_hook(lambda module, args, output: masks.append(output.padding))
    with torch.no_grad():
        clean = losses()
        model.get_submodule(part).register_forward_hook(poison)
        poisoned = losses()
    assert bool(masks[0].any())
    torch.testing.assert_close(poisoned, clean, rtol=0, atol=0)


def test_results_are_at_the_original_size(model: nn.Module) -> None:
    item = batched_input(64, 96, 0)
    plain = model([item])[0]["instances"]
    scaled = model([item | {"height": 128, "width": 192}])[0]["instances"]
    assert scaled.image_size == (128, 192)
    torch.testing.assert_close(scaled.pred_boxes.tensor, plain.pred_boxes.tensor * 2)


@pytest.mark.parametrize("counts", [(0, 0), (0, 3), (30, 1)])
def test_any_number_of_boxes_trains(model: nn.Module, counts: tuple[int, int]) -> None:
    """None at all, none in one image, more than there are queries: finite losses, a gradient for every parameter.

    Without a box, those of the box heads and of the denoising queries' labels are zero; else none is.
    """
    model.train()
    losses = model([batched_input(64, 96, count, seed=index) for index, count in enumerate(counts)])
    total = sum(losses.values())
    assert bool(total.isfinite())
    total.backward()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert not [name for name, parameter in trained.items() if parameter.grad is None]
    assert not [name for name, parameter in trained.items() if not bool(parameter.grad.isfinite().all())]
    untrained = [name for name, parameter in trained.items() if not parameter.grad.any()]
    of_boxes = [name for name in trained if "box_embed" in name or "label_embed" in name]
    assert sorted(untrained) == ([] if any(counts) else sorted(of_boxes))


def test_mixed_selection_uses_half_of_the_proposal_embedding(small_cfg: CfgNode) -> None:
    """The half that would be the content is computed, as published, and trained by nothing."""
    choose_detector(small_cfg, "h_detr")
    model = build_model(small_cfg)
    sum(model([batched_input(64, 96, 2)]).values()).backward()
    position, content = model.query_selection.proposal_embed.norm.bias.grad.chunk(2)
    assert bool(position.all()) and not content.any()


@pytest.mark.parametrize("name", ["h_detr_two_stage", "h_detr", "deformable_detr_two_stage", "dino"])
@pytest.mark.parametrize(("height", "width", "tokens"), [(32, 40, 28), (24, 24, 14)])
def test_fewer_tokens_than_queries(small_cfg: CfgNode, name: str, height: int, width: int, tokens: int) -> None:
    """20 queries, and H-DETR's 30 more: these are fewer, or none are left."""
    choose_detector(small_cfg, name)
    model, groups = build_model(small_cfg), []
    model.decoder.register_forward_hook(lambda module, args, output: groups.append(len(args[0])))
    batch = [batched_input(height, width, 2, seed=seed) for seed in (1, 2)]
    losses = model(batch)
    total = sum(losses.values())
    assert bool(total.isfinite())
    total.backward()
    assert not [key for key, value in model.named_parameters() if value.requires_grad and value.grad is None]
    if "h_detr" in name:
        assert groups == [tokens]
        assert bool(losses["loss_ce_one2many"] > 0) == (tokens > 20)
    assert all(len(result["instances"]) > 0 for result in model.eval()(batch))
    assert groups[-1] == min(tokens, 20)


@pytest.mark.parametrize("name", DETECTORS)
def test_names_of_the_losses(small_cfg: CfgNode, name: str) -> None:
    choose_detector(small_cfg, name)
    expected = ["", "_0"]
    if name == "dino":
        expected += ["_dn", "_dn_0", "_interm"]
    elif small_cfg.MODEL.LITE_DETR.TWO_STAGE:
        expected += ["_enc"]
    if small_cfg.MODEL.META_ARCHITECTURE == "HDETR":
        expected += ["_one2many", "_0_one2many"]
    if name == "sparse_detr":
        expected += ["_enc_0", "_enc_1"]
    of_scores = {"loss_mask_prediction"} if name == "sparse_detr" else set()
    assert set(build_model(small_cfg)([batched_input(64, 96, 2)])) == loss_names(*expected) | of_scores


@pytest.mark.parametrize("name", ["dino", "deformable_detr_two_stage", "h_detr", "sparse_detr"])
def test_whose_proposals_learn_the_classes(small_cfg: CfgNode, name: str) -> None:
    """DINO's, which are the queries' own, and Sparse DETR's; the others' learn where there is an object."""
    choose_detector(small_cfg, name)
    model = randomised(build_model(small_cfg)).train()
    item = batched_input(64, 96, 3)
    losses, trained = [], []
    model.query_selection.register_forward_hook(
        lambda module, args, output: trained.append(output[1].predictions.logits.shape[1])
    )
    for label in (0, 9):
        item["instances"].gt_classes.fill_(label)
        torch.manual_seed(0)
        losses.append(model([item]))
    suffix = "_interm" if name == "dino" else "_enc"
    same = {key: torch.equal(losses[0][key], losses[1][key]) for key in (f"loss_ce{suffix}", "loss_ce")}
    assert same == {f"loss_ce{suffix}": name not in ("dino", "sparse_detr"), "loss_ce": False}
    assert trained == ([20, 20] if name == "dino" else [126, 126])


@pytest.mark.parametrize("name", ["dino", "deformable_detr_refined", "deformable_detr_all_stages", "h_detr_two_stage"])
def test_which_boxes_go_to_the_next_layer(small_cfg: CfgNode, name: str) -> None:
    """Those that a layer predicts; in DINO, which normalises for its predictions, those read off without that."""
    choose_detector(small_cfg, name)
    model = randomised(build_model(small_cfg))
    for parameter in model.decoder.norm.parameters():
        nn.init.normal_(parameter)
    decoded: list[Any] = []
    model.decoder.register_forward_hook(lambda module, args, output: decoded.extend(output))
    with torch.no_grad():
        model([batched_input(64, 96, 0)])
        predicted = model.decoder.predict(decoded, 0).boxes
    assert torch.allclose(decoded[1].reference, predicted) == (name != "dino")


def test_without_denoising(small_cfg: CfgNode) -> None:
    small_cfg.MODEL.LITE_DETR.DENOISING.NUM_QUERIES = 0
    assert set(build_model(small_cfg)([batched_input(64, 96, 2)])) == loss_names("", "_0", "_interm")


@pytest.mark.parametrize(
    ("name", "offsets"),
    [
        ("dino", [0.0]),
        ("deformable_detr", [-2.0]),
        ("deformable_detr_refined", [-2.0, 0.0]),
        ("deformable_detr_two_stage", [0.0, 0.0]),
    ],
)
def test_heads_that_start_from_points_start_with_a_size(small_cfg: CfgNode, name: str, offsets: list[float]) -> None:
    choose_detector(small_cfg, name)
    biases = [head.box_embed.layers[-1].bias.tolist() for head in build_model(small_cfg).decoder.heads]
    assert biases == [[0.0, 0.0, offset, offset] for offset in offsets]


def test_dropout_acts_in_training_only(small_cfg: CfgNode) -> None:
    small_cfg.MODEL.RESNETS.NORM = "FrozenBN"
    small_cfg.MODEL.LITE_DETR.DROPOUT = 0.5
    model = randomised(build_model(small_cfg))
    item = batched_input(64, 96, 2)
    outputs: list[Tensor] = []
    for part in ("encoder.layers.0", "decoder.layers.0.feed_forward"):
        module = model.get_submodule(part)
        module.register_forward_hook(lambda module, args, output: outputs.append(output))
        with torch.no_grad():
            for training in (False, False, True, True):
                model.train(training)([item])
        first, second, noisy, noisier = (output[:, :10] for output in outputs)
        assert torch.equal(first, second) and not torch.equal(noisy, noisier)
        outputs.clear()
        module._forward_hooks.clear()


def test_an_image_without_annotations_field_is_named(small_cfg: CfgNode) -> None:
    item = batched_input(64, 96, 2, seed=7)
    del item["instances"]
    with pytest.raises(InputError, match="image_7.png has no instances"):
        build_model(small_cfg)([item])


@pytest.mark.parametrize("name", ["dino", "deformable_detr", "h_detr"])
def test_class_ids_out_of_range_name_the_image(small_cfg: CfgNode, name: str) -> None:
    choose_detector(small_cfg, name)
    item = batched_input(64, 96, 2, seed=7)
    item["instances"].gt_classes[1] = 10
    with pytest.raises(ValueError, match=r"image_7.png has a class id outside 0..9: .*NUM_CLASSES"):
        build_model(small_cfg)([item])


@pytest.mark.parametrize("name", DETECTORS)
def test_training_and_evaluation_share_the_matching_queries(small_cfg: CfgNode, name: str) -> None:
    """With BatchNorm out of the way, evaluation's predictions are those that training's losses are computed on."""
    choose_detector(small_cfg, name)
    small_cfg.MODEL.RESNETS.NORM = "FrozenBN"
    model = randomised(build_model(small_cfg))
    seen: list[Any] = []
    model.decoder.register_forward_hook(lambda module, args, output: seen.append(module.predict(output, -1)))
    item = batched_input(64, 96, 3)
    with torch.no_grad():
        model([item])
        model.train()([item])
    queries = seen[0].boxes.shape[1]
    extra_groups = name == "dino" or "h_detr" in name
    assert queries == 20 and (seen[1].boxes.shape[1] > queries) == extra_groups
    torch.testing.assert_close(seen[1].boxes[:, :queries], seen[0].boxes)
    torch.testing.assert_close(seen[1].logits[:, :queries], seen[0].logits)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("h_detr_single_stage", "ONE_TO_MANY.NUM_QUERIES", 7),
        ("h_detr", "ONE_TO_MANY.NUM_QUERIES", 0),
        ("h_detr", "ONE_TO_MANY.REPEATS", 2),
        ("h_detr_two_stage", "ONE_TO_MANY.WEIGHT", 0.0),
        ("dino", "DENOISING.NUM_QUERIES", 0),
        ("dino", "DENOISING.BOX_NOISE", 0.0),
    ],
)
def test_what_is_there_in_training_only_changes_no_detection(
    small_cfg: CfgNode, name: str, key: str, value: float
) -> None:
    choose_detector(small_cfg, name)
    model = randomised(build_model(small_cfg))
    small_cfg.merge_from_list([f"MODEL.LITE_DETR.{key}", value])
    other = build_model(small_cfg).eval()
    copy_weights(model, other)
    batch = [batched_input(96, 128, 0, seed=1), batched_input(64, 80, 0, seed=2)]
    for ours, theirs in zip(model(batch), other(batch), strict=True):
        assert_same_detections(ours, theirs, tolerance=0.0)


@pytest.mark.parametrize(
    ("name", "twin"),
    [
        ("h_detr_single_stage", "deformable_detr"),
        ("h_detr_two_stage", "deformable_detr_two_stage"),
        ("h_detr", "deformable_detr_all_stages"),
    ],
)
def test_h_detr_evaluates_as_deformable_detr(small_cfg: CfgNode, name: str, twin: str) -> None:
    choose_detector(small_cfg, name)
    model = randomised(build_model(small_cfg))
    choose_detector(small_cfg, twin)
    other = build_model(small_cfg).eval()
    assert other.state_dict().keys() == model.state_dict().keys()
    copy_weights(model, other)
    batch = [batched_input(96, 128, 0, seed=1), batched_input(64, 80, 0, seed=2)]
    for ours, theirs in zip(model(batch), other(batch), strict=True):
        assert_same_detections(ours, theirs, tolerance=0.0)


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
    model.eval()
    before = attributes()
    model([batched_input(64, 96, 0)])
    assert not [key for key, value in attributes().items() if value is not before[key]]


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


@pytest.mark.parametrize(("width", "is_taken"), [(8, False), (12, False), (24, False), (32, True), (64, True)])
def test_narrow_backbones_are_not_trained_in_channels_last(small_cfg: CfgNode, width: int, is_taken: bool) -> None:
    """In which PyTorch writes beyond the gradient of their strided convolutions."""
    small_cfg.MODEL.BACKBONE.NAME = "build_narrow_resnet_backbone"
    small_cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = width
    model = build_model(small_cfg).train()
    seen: list[bool] = []
    model.backbone.register_forward_pre_hook(
        lambda _, images: seen.append(images[0].is_contiguous(memory_format=torch.channels_last))
    )
    model([batched_input(96, 128, 2)])
    assert seen == [is_taken]


def test_an_encoder_that_returns_tokens_alone_is_told_what_to_return(small_cfg: CfgNode) -> None:
    model = build_model(small_cfg).eval()
    model.encoder.register_forward_hook(lambda module, args, output: output.tokens)
    with pytest.raises(TypeError, match=r"InterleavedEncoder returns Tensor: let it return EncoderResult\(tokens\)"):
        model([batched_input(64, 64, 0)])
