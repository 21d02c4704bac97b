"""Weights of transformers' Deformable DETR compute here what they do there, and ours there; files of it are read."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor, nn

from lite_detr_d2.checkpoint import config_for_transformers, convert_published, read_checkpoint, to_transformers
from lite_detr_d2.checkpoint.infer import inferred_config
from lite_detr_d2.detector import DetrDetector
from lite_detr_d2.engine import SafeCheckpointer
from lite_detr_d2.errors import InputError
from tests.projects.scripts import load_script

HEADS, POINTS, QUERIES = 4, 3, 12
VARIANTS: dict[str, dict[str, bool]] = {
    "single_stage": {},
    "refined_shared": {"with_box_refine": True},  # transformers' default: all layers share one head for classes
    "refined": {"with_box_refine": True, "tie_word_embeddings": False},
    "two_stage_shared": {"with_box_refine": True, "two_stage": True},  # with the decoder alone
    "two_stage": {"with_box_refine": True, "two_stage": True, "tie_word_embeddings": False},
}
BACKBONES: dict[str, dict[str, Any]] = {
    "timm": {"backbone": "resnet18", "use_timm_backbone": True},
    "native": {
        "backbone": None,
        "use_timm_backbone": False,
        "backbone_config": hf.ResNetConfig(
            embedding_size=64,
            hidden_sizes=[64, 128, 256, 512],
            depths=[2, 2, 2, 2],
            layer_type="basic",
            out_features=["stage2", "stage3", "stage4"],
        ),
    },
}
TOLERANCE = 1e-4


def foreign(variant: str, backbone: str = "timm", **others: Any) -> nn.Module:
    """A model of transformers whose every weight matters."""
    torch.manual_seed(0)
    config = hf.DeformableDetrConfig(
        d_model=64,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS,
        encoder_n_points=POINTS,
        decoder_n_points=POINTS,
        encoder_ffn_dim=48,
        decoder_ffn_dim=32,
        num_queries=QUERIES,
        two_stage_num_proposals=QUERIES,
        num_labels=5,
        use_pretrained_backbone=False,
        **BACKBONES[backbone],
        **VARIANTS[variant],
        **others,
    )
    model = hf.DeformableDetrForObjectDetection(config)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif name.endswith(("bias", "running_mean")):
                tensor.normal_(std=0.1)
            elif tensor.dim() == 2:
                tensor.normal_(std=0.15)
        # The decoder's heads are the model's, in whatever is trained; not tied, they only start so.
        for name, module in (("bbox_embed", model.bbox_embed), ("class_embed", model.class_embed)):
            if getattr(model.model.decoder, name) is not None:
                getattr(model.model.decoder, name).load_state_dict(module.state_dict())
    return model.eval()


def ours(state: dict[str, Tensor]) -> DetrDetector:
    """A detector of the config that the tensors tell, with what they do not tell."""
    cfg = inferred_config(convert_published(state)[0])
    with_what_is_not_told(cfg)
    model: DetrDetector = build_model(cfg).eval()
    return model


def with_what_is_not_told(cfg: CfgNode) -> None:
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    node = cfg.MODEL.LITE_DETR
    node.NUM_HEADS, node.NUM_QUERIES, node.POSITION_TEMPERATURE = HEADS, QUERIES, 10000
    node.ENCODER.NUM_POINTS = node.DECODER.NUM_POINTS = POINTS


def assert_same_outputs(theirs: nn.Module, model: DetrDetector) -> float:
    """Of a batch in which one image is smaller; the largest difference."""
    images = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(1))
    valid = torch.ones(2, 96, 128, dtype=torch.long)
    valid[1, 64:] = valid[1, :, 96:] = 0
    images = images * valid[:, None]
    with torch.no_grad():
        expected = theirs(pixel_values=images, pixel_mask=valid)
        found = model.detect(images, valid == 0)
    assert float(expected.logits.std()) > 0.1  # they look at something
    pairs = ((found.logits, expected.logits), (found.boxes, expected.pred_boxes))
    largest = max(float((one - other).abs().max()) for one, other in pairs)
    assert largest < TOLERANCE
    return largest


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_their_weights_compute_the_same_here(variant: str, backbone: str) -> None:
    theirs = foreign(variant, backbone)
    state = theirs.state_dict()
    converted, report = convert_published(state)
    assert report.skipped == {} and report.errors() == []
    model = ours(state)
    model.load_state_dict(state)  # as they are: the detector converts
    torch.testing.assert_close(dict(model.state_dict()), converted, rtol=0, atol=0)
    largest = assert_same_outputs(theirs, model)
    print(f"| {variant}, {backbone} | {len(report.mapped)} | {len(report.skipped)} | {largest:.1e} |")  # noqa: T201


@pytest.mark.parametrize("variant", ["single_stage", "refined", "two_stage"])
def test_our_weights_compute_the_same_there(variant: str) -> None:
    model = ours(foreign(variant).state_dict())
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(std=0.15)
    theirs = foreign(variant)
    assert {key: getattr(theirs.config, key) for key in config_for_transformers(model.state_dict())} == (
        config_for_transformers(model.state_dict())
    )
    converted, report = to_transformers(dict(model.state_dict()))
    assert not report.without_counterpart
    theirs.load_state_dict(converted, strict=True)
    assert_same_outputs(theirs, model)


@pytest.mark.parametrize("variant", ["single_stage", "refined_shared", "two_stage_shared", "two_stage"])
def test_files_of_save_pretrained_are_read(tmp_path: Path, variant: str) -> None:
    """They have older names, and one of the tensors that modules share."""
    theirs = foreign(variant)
    theirs.save_pretrained(tmp_path)
    saved = read_checkpoint(tmp_path / "model.safetensors")["model"]
    assert any(".out_proj." in name for name in saved)
    assert (len(saved) < len(theirs.state_dict())) == theirs.config.tie_word_embeddings
    converted, report = convert_published(saved)
    assert report.skipped == {} and report.errors() == []
    torch.testing.assert_close(converted, convert_published(theirs.state_dict())[0], rtol=0, atol=0)
    model = ours(saved)
    SafeCheckpointer(model).load(str(tmp_path / "model.safetensors"))
    torch.testing.assert_close(dict(model.state_dict()), converted, rtol=0, atol=0)


@pytest.mark.parametrize("variant", ["refined", "two_stage"])
def test_files_without_the_decoders_names_of_heads_are_read(variant: str) -> None:
    """As those of transformers 4 are, whose safetensors keep one name of a tensor that modules share."""
    state = foreign(variant).state_dict()
    file = {name: tensor for name, tensor in state.items() if not re.match(r"model\.decoder\.(bbox|class)_embed", name)}
    assert len(file) < len(state)
    torch.testing.assert_close(convert_published(file)[0], convert_published(state)[0], rtol=0, atol=0)


def test_there_and_back_by_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = foreign("refined")
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    program = load_script("convert_checkpoint")
    for arguments in (
        ["pytorch_model.bin", "ours.pth"],
        ["ours.pth", "theirs.safetensors", "--to", "transformers"],
        ["ours.pth", "theirs.bin", "--to", "transformers"],
    ):
        paths = [str(tmp_path / name) for name in arguments[:2]]
        monkeypatch.setattr(sys, "argv", ["convert_checkpoint.py", *paths, *arguments[2:]])
        assert program.main() == 0
    assert "with_box_refine=True, two_stage=False, tie_word_embeddings=False, num_queries=12" in capsys.readouterr().out
    expected = dict(theirs.state_dict())
    for name in ("theirs.safetensors", "theirs.bin"):
        torch.testing.assert_close(read_checkpoint(tmp_path / name)["model"], expected, rtol=0, atol=0)
    again = foreign("refined")
    again.load_state_dict(torch.load(tmp_path / "theirs.bin", weights_only=True), strict=True)
    model = ours(dict(expected))
    DetectionCheckpointer(model).load(str(tmp_path / "ours.pth"))
    assert_same_outputs(again, model)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            [],
            r"a model with MODEL\.META_ARCHITECTURE DINO, .*NAME InterleavedEncoder, .*KEY_AWARE True",
        ),
        (["MODEL.META_ARCHITECTURE", "HDETR"], r"a model with MODEL\.META_ARCHITECTURE HDETR"),
        (
            ["MODEL.META_ARCHITECTURE", "DeformableDETR", "MODEL.LITE_DETR.MIXED_SELECTION", False],
            r"a model with MODEL\.LITE_DETR\.ENCODER\.NAME InterleavedEncoder",
        ),
    ],
)
def test_what_transformers_does_not_have_is_named(small_cfg: CfgNode, overrides: list[Any], message: str) -> None:
    small_cfg.merge_from_list(overrides)
    with pytest.raises(InputError, match=f"^transformers has Deformable DETR alone.*{message}"):
        to_transformers(build_model(small_cfg).state_dict())
    with pytest.raises(InputError, match="no whole detector of lite_detr_d2"):
        to_transformers({"decoder.norm.weight": torch.zeros(2)})


def test_heads_of_the_decoder_that_are_others_are_refused() -> None:
    """Without tied weights, transformers lets those that refine boxes and those that predict differ."""
    state = foreign("refined").state_dict()
    state["model.decoder.bbox_embed.1.layers.0.bias"] = state["bbox_embed.1.layers.0.bias"] + 1
    with pytest.raises(InputError, match=r"differs from another tensor that also becomes decoder\.heads\.1\.box_embed"):
        convert_published(state)


def test_learned_positions_are_refused() -> None:
    state = foreign("single_stage", position_embedding_type="learned").state_dict()
    with pytest.raises(InputError, match=r"but is of another model: that has no model\.position_embedding \(2\)"):
        convert_published(state)
