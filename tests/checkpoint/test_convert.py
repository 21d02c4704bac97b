"""The converter on the state dicts of every published implementation, and on variants of them."""

import re

import pytest
import torch
import torchvision
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_backbone, build_model
from torch import Tensor

from lite_detr_d2 import add_lite_detr_config
from lite_detr_d2.checkpoint import convert, convert_published, detect, modules_of
from lite_detr_d2.errors import InputError

from .published import KINDS, as_published, of_kind, published

LITE_DINO = "lite_dino_h3l1_a2b3_r50"


@pytest.fixture
def backbone_cfg() -> CfgNode:
    cfg = get_cfg()
    add_lite_detr_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 18, 64
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res3", "res4", "res5"]
    return cfg


def with_levels(state: dict[str, Tensor], levels: int) -> dict[str, Tensor]:
    """The state dict with attention to another number of levels; the neck stays."""
    before = len(state["transformer.level_embed"])
    resized = dict(state)
    for name, tensor in state.items():
        if re.search(r"level_embed|sampling_offsets|attention_weights", name):
            resized[name] = tensor.new_zeros(len(tensor) * levels // before, *tensor.shape[1:])
    return resized


@pytest.mark.parametrize("name", KINDS)
def test_every_published_detector_is_a_whole_model(name: str) -> None:
    state = published(name)
    assert detect(state).kind == KINDS[name]
    converted, report = convert_published(state)
    assert report.kind == KINDS[name]
    assert report.errors() == []
    assert set(report.mapped) | set(report.skipped) == set(state)
    assert set(report.skipped.values()) <= {"unused without key-aware attention"}
    assert detect(converted) is None


@pytest.mark.parametrize("name", KINDS)
def test_every_tensor_comes_back(name: str, small_cfg: CfgNode) -> None:
    """Our own weights under published names: a tensor in the wrong place would differ."""
    cfg = of_kind(small_cfg, name)
    if name.endswith("swint"):
        cfg.merge_from_list(["MODEL.BACKBONE.NAME", "build_swin_backbone", "MODEL.SWIN.EMBED_DIM", 12])
        cfg.MODEL.LITE_DETR.IN_FEATURES = ["p1", "p2", "p3"]
    ours = build_model(cfg).state_dict()
    state = as_published({key: torch.rand_like(value.float()) for key, value in ours.items()}, name)
    model = build_model(cfg)
    converted, report = convert(detect(state), state)
    model.load_state_dict(converted, strict=True)
    assert not report.skipped
    again = as_published(model.state_dict(), name)
    assert set(again) == set(state)
    assert all(torch.equal(again[key], state[key]) for key in state)


def test_fused_attention_is_split() -> None:
    state = published(LITE_DINO)
    converted, _ = convert_published(state)
    assert converted["decoder.heads.0.class_embed.weight"].shape == (91, 256)
    name = "decoder.layers.2.self_attention"
    fused = state["transformer.decoder.layers.2.self_attn.in_proj_weight"]
    assert torch.equal(converted[f"{name}.query_key_proj.weight"], fused[:512])
    assert torch.equal(converted[f"{name}.value_proj.weight"], fused[512:])


def test_queries_of_the_single_stage_are_position_then_content() -> None:
    state = published("deformable_detr_r50")
    converted, _ = convert_published(state)
    assert torch.equal(converted["query_selection.position.weight"], state["query_embed.weight"][:, :256])
    assert torch.equal(converted["query_selection.content.weight"], state["query_embed.weight"][:, 256:])
    assert torch.equal(converted["query_selection.reference_points.bias"], state["transformer.reference_points.bias"])
    assert "decoder.heads.1.class_embed.weight" not in converted


def test_the_single_stage_with_box_refinement_has_a_head_per_layer() -> None:
    state = dict(published("deformable_detr_r50"))
    heads = {name: tensor for name, tensor in state.items() if re.match(r"(class|bbox)_embed\.", name)}
    state |= {name: torch.rand_like(tensor) for name, tensor in heads.items()}
    state |= {f"transformer.decoder.{name}": state[name] for name in heads if name.startswith("bbox_embed")}
    converted, report = convert_published(state)
    assert report.errors() == []
    for layer in range(6):
        assert torch.equal(converted[f"decoder.heads.{layer}.class_embed.bias"], state[f"class_embed.{layer}.bias"])
        ours = converted[f"decoder.heads.{layer}.box_embed.layers.2.bias"]
        assert torch.equal(ours, state[f"bbox_embed.{layer}.layers.2.bias"])


@pytest.mark.parametrize("name", ["deformable_detr_two_stage_r50", "h_detr_r50"])
def test_the_last_head_of_the_two_stage_is_the_encoders(name: str) -> None:
    state = published(name)
    converted, _ = convert_published(state)
    assert torch.equal(converted["query_selection.head.class_embed.bias"], state["class_embed.6.bias"])
    assert torch.equal(converted["decoder.heads.5.class_embed.bias"], state["class_embed.5.bias"])
    assert torch.equal(converted["query_selection.proposal_embed.proj.weight"], state["transformer.pos_trans.weight"])
    assert "decoder.heads.6.class_embed.bias" not in converted


def test_the_further_heads_of_sparse_detr_are_the_encoder_layers() -> None:
    state = published("sparse_detr_rho03_r50")
    converted, report = convert_published(state)
    assert report.kind == "Sparse DETR" and not report.skipped
    assert torch.equal(converted["query_selection.head.class_embed.bias"], state["class_embed.6.bias"])
    for layer in range(5):
        ours = converted[f"encoder.auxiliary_heads.{layer}.class_embed.bias"]
        assert torch.equal(ours, state[f"transformer.encoder.class_embed.{layer}.bias"])
        assert torch.equal(ours, state[f"class_embed.{7 + layer}.bias"])
    assert "decoder.heads.6.class_embed.bias" not in converted and "encoder.auxiliary_heads.5" not in str(
        list(converted)
    )


def test_sparse_detr_without_auxiliary_losses() -> None:
    further = re.compile(r".*(class|bbox)_embed\.([7-9]|1[01])\..*|transformer\.encoder\.(class|bbox)_embed\..*")
    full = published("sparse_detr_rho03_r50")
    state = {name: tensor for name, tensor in full.items() if not further.fullmatch(name)}
    converted, report = convert_published(state)
    assert report.errors() == [] and report.kind == "Sparse DETR"
    assert not [name for name in converted if "auxiliary" in name]


def test_h_detr_without_mixed_selection_is_a_two_stage_deformable_detr() -> None:
    state = {name: tensor for name, tensor in published("h_detr_r50").items() if name != "query_embed.weight"}
    converted, report = convert_published(state)
    assert report.kind == "two-stage Deformable-DETR"
    assert report.errors() == []
    assert "query_selection.content.weight" not in converted


def test_one_level() -> None:
    """Of one map, the coarsest, no level is added."""
    state = with_levels(published("deformable_detr_r50"), 1)
    last = {name.replace(".2.", ".0.", 1): tensor for name, tensor in state.items() if name.startswith("input_proj.2.")}
    state = {name: tensor for name, tensor in state.items() if not name.startswith("input_proj.")} | last
    converted, report = convert_published(state)
    assert report.errors() == []
    assert torch.equal(converted["neck.inputs.0.0.weight"], last["input_proj.0.0.weight"])


@pytest.mark.parametrize(("name", "channels"), [("dino_4scale_r50", 256), ("lite_dino_h3l1_a2b3_swint", 96)])
def test_five_levels_of_four_maps(name: str, channels: int) -> None:
    """The finest map of the backbone comes first, and its projection has 1x1 kernels as those of the others have."""
    four = with_levels(published(name), 5)
    state = {key: tensor for key, tensor in four.items() if not key.startswith("input_proj.")}
    for level in range(4):
        for part in ("0.weight", "0.bias", "1.weight", "1.bias"):
            state[f"input_proj.{level + 1}.{part}"] = four[f"input_proj.{level}.{part}"]
            state[f"input_proj.0.{part}"] = torch.zeros_like(four[f"input_proj.0.{part}"])
    state["input_proj.0.0.weight"] = torch.zeros(256, channels, 1, 1)
    if channels == 96:
        state |= {"backbone.0.norm0.weight": torch.ones(96), "backbone.0.norm0.bias": torch.zeros(96)}
    converted, report = convert_published(state)
    assert report.errors() == []
    assert torch.equal(converted["neck.inputs.3.0.weight"], four["input_proj.2.0.weight"])
    assert torch.equal(converted["neck.added.0.0.weight"], four["input_proj.3.0.weight"])


def test_a_swin_backbone_may_have_either_prefix() -> None:
    state = published("lite_dino_h3l1_a2b3_swint")
    inner = {re.sub(r"^backbone\.0\.", "backbone.0.body.", name): tensor for name, tensor in state.items()}
    assert "backbone.0.body.patch_embed.proj.weight" in inner
    expected, _ = convert_published(state)
    converted, report = convert_published(inner)
    assert report.errors() == []
    assert converted.keys() == expected.keys()


def test_what_is_wrong_is_reported() -> None:
    changed = dict(published(LITE_DINO))
    del changed["transformer.encoder.layers.3.linear1.bias"]
    changed["transformer.encoder.layers.2.norm1.weight"] = torch.zeros(7)
    changed["backbone.0.body.layer1.9.conv1.weight"] = torch.zeros(3)
    converted, report = convert_published(changed)
    assert report.missing == ["encoder.layers.3.feed_forward.linear1.bias"]
    assert report.skipped == {}
    text = "\n".join(report.lines())
    assert "missing  encoder.layers.3.feed_forward.linear1.bias" in text
    assert "shape    encoder.layers.2.norm.weight: (7,), expected (256,)" in text
    assert "shape    backbone.res2.9.conv1.weight: (3,), expected no such tensor" in text
    assert "mapped   transformer.level_embed -> flatten.level_embed" in text
    counts = f"{len(changed)} mapped, 0 skipped, 1 missing, 2 of another shape"
    assert report.lines()[-1] == f"DINO (Lite-DETR, IDEA-Research/DINO): {counts}"
    assert report.summary([*converted, *report.missing]).splitlines()[1:] == [
        "  missing: encoder.layers.*.feed_forward.linear1.bias (1)",
    ]


@pytest.mark.parametrize("name", KINDS)
def test_another_model_is_told_by_what_it_has_more(name: str) -> None:
    """``pix_trans`` is of detectors that mix pixels into the proposals, and have all that these have."""
    state = published(name) | {f"transformer.pix_trans.{part}": torch.zeros(1) for part in ("weight", "bias")}
    wanted = rf"of {re.escape(KINDS[name])}, but is of another model: that has no transformer\.pix_trans \(2\)\. MODEL"
    with pytest.raises(InputError, match=wanted):
        convert_published(state)
    _, report = convert(detect(state), state, is_whole=False)
    assert report.without_counterpart == ["transformer.pix_trans.weight", "transformer.pix_trans.bias"]
    skipped = [line for line in report.summary([]).splitlines() if "no counterpart" in line]
    assert skipped == ["  skipped, no counterpart: transformer.pix_trans (2)"]


def test_heads_that_are_not_shared_are_an_error() -> None:
    state = published(LITE_DINO)
    changed = state | {"class_embed.1.weight": state["class_embed.1.weight"] + 1}
    with pytest.raises(ValueError, match=r"class_embed.1.weight differs .* heads are not shared"):
        convert_published(changed)


def test_an_unknown_state_dict_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"expected one of DINO .*, H-Deformable-DETR, two-stage Deformable-DETR"):
        convert_published({"stem.conv1.weight": torch.zeros(1)})


@pytest.mark.parametrize("depth", [18, 50])
def test_torchvision_resnet_computes_the_same(backbone_cfg: CfgNode, depth: int) -> None:
    theirs = getattr(torchvision.models, f"resnet{depth}")().eval()
    for name, buffer in theirs.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    converted, report = convert_published(theirs.state_dict())
    assert report.kind == "ImageNet ResNet (torchvision)"
    assert {name.rpartition(".")[2] for name in report.skipped if not name.startswith("fc.")} == {"num_batches_tracked"}
    backbone_cfg.MODEL.RESNETS.DEPTH, backbone_cfg.MODEL.RESNETS.STRIDE_IN_1X1 = depth, False
    backbone_cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64 if depth == 18 else 256
    ours = build_backbone(backbone_cfg).eval()
    ours.load_state_dict({name.removeprefix("backbone."): tensor for name, tensor in converted.items()}, strict=True)
    features = {}
    theirs.layer4.register_forward_hook(lambda module, args, output: features.update(res5=output))
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        theirs(image)
        torch.testing.assert_close(ours(image)["res5"], features["res5"], rtol=1e-4, atol=1e-4)


def test_official_swin(backbone_cfg: CfgNode) -> None:
    backbone_cfg.MODEL.BACKBONE.NAME = "build_swin_backbone"
    backbone_cfg.MODEL.SWIN.EMBED_DIM = 24
    ours = build_backbone(backbone_cfg).state_dict()
    theirs = {name: tensor for name, tensor in ours.items() if not re.match(r"norm\d", name)}
    extra = ("norm.weight", "norm.bias", "head.weight", "head.bias", "layers.0.blocks.1.attn_mask")
    converted, report = convert_published(theirs | {name: torch.zeros(1) for name in extra})
    assert report.kind == "ImageNet Swin Transformer"
    assert set(report.skipped) == set(extra)
    assert {name.removeprefix("backbone.") for name in converted} == theirs.keys()
    assert all(torch.equal(converted[f"backbone.{name}"], tensor) for name, tensor in theirs.items())


def test_modules_that_are_listed_whole_are_named_once() -> None:
    everything = [
        f"encoder.{layer}.{part}.{kind}" for layer in range(3) for part in "ab" for kind in ("weight", "bias")
    ]
    backbone = ["backbone.stem.weight", "backbone.res2.0.weight"]
    listed = [*backbone, *(name for name in everything if ".a." in name), "encoder.1.b.weight"]
    assert modules_of(listed, everything + backbone) == "backbone (2), encoder.*.a (6), encoder.*.b.weight (1)"
    listed.append("encoder.1.b.bias")
    assert modules_of(listed, everything + backbone) == "backbone (2), encoder.*.a (4), encoder.* (4)"
    assert modules_of([f"part{number}.x" for number in range(30)], []).endswith("part19 (1), ...")
