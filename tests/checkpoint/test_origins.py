"""Whose a checkpoint is that is not read is said; and nothing else is taken for one."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from lite_detr_d2.checkpoint import convert_published, origin_of, read_checkpoint, resemblance
from lite_detr_d2.engine import SafeCheckpointer
from lite_detr_d2.errors import InputError

from .published import KINDS, of_kind, published

RESNET = ("conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer4.2.bn3.running_var")
NAMES = {
    "another detector of detrex": (
        "backbone.res2.0.conv1.weight",
        "neck.convs.0.conv.weight",
        "transformer.level_embeds",
        "transformer.encoder.layers.0.attentions.0.sampling_offsets.weight",
        "transformer.encoder.layers.0.ffns.0.layers.0.0.weight",
        "transformer.decoder.layers.0.attentions.0.attn.in_proj_weight",
        "class_embed.0.weight",
        "label_enc.weight",
    ),
    "MMDetection": (
        *(f"backbone.{name}" for name in RESNET),
        "neck.convs.0.conv.weight",
        "encoder.layers.0.self_attn.sampling_offsets.weight",
        "bbox_head.cls_branches.0.weight",
        "bbox_head.reg_branches.0.0.weight",
    ),
    "another detector of transformers": (
        "model.backbone.conv_encoder.model.layer1.0.conv1.weight",
        "model.input_proj.0.0.weight",
        "model.encoder.layers.0.self_attn.sampling_offsets.weight",
        "class_embed.0.weight",
        "bbox_embed.0.layers.0.weight",
    ),
    "Ultralytics": ("model.0.conv.weight", "model.2.cv1.conv.weight", "model.22.dfl.conv.weight"),
    "RT-DETR (lyuwenyu": (
        "backbone.conv1.conv1_1.conv.weight",
        "encoder.input_proj.0.0.weight",
        "decoder.dec_score_head.0.weight",
        "decoder.dec_bbox_head.0.layers.0.weight",
    ),
    "RF-DETR": (
        "backbone.0.projector.stages.0.0.cv1.conv.weight",
        "refpoint_embed.weight",
        "query_feat.weight",
        "transformer.enc_output.0.weight",
        "class_embed.weight",
    ),
    "DETR (facebookresearch/detr)": (
        *(f"backbone.0.body.{name}" for name in RESNET),
        "input_proj.weight",
        "query_embed.weight",
        "transformer.encoder.layers.0.self_attn.in_proj_weight",
        "transformer.decoder.layers.0.multihead_attn.in_proj_weight",
        "class_embed.weight",
        "bbox_embed.layers.0.weight",
    ),
    "another detector of detectron2": (
        "backbone.bottom_up.res2.0.conv1.weight",
        "proposal_generator.rpn_head.conv.weight",
        "roi_heads.box_predictor.cls_score.weight",
    ),
}
MORE_NAMES = [
    ("MMDetection", ("backbone.conv1.weight", "rpn_head.rpn_conv.weight", "roi_head.bbox_head.fc_cls.weight")),
    ("MMDetection", ("bbox_head.transformer.encoder.layers.0.attentions.0.sampling_offsets.weight",)),
    (
        "another detector of transformers",
        ("model.backbone.conv_encoder.model.conv1.weight", "class_labels_classifier.weight"),
    ),
    (
        "another detector of transformers",
        ("model.backbone.model.embedder.embedder.0.convolution.weight", "model.decoder.class_embed.0.bias"),
    ),
    ("Ultralytics", ("model.model.1.conv.weight", "model.model.2.cv1.conv.weight")),
    ("another detector of detectron2", ("backbone.fpn_lateral3.weight", "head.cls_subnet.0.weight")),
]


def tensors(names: tuple[str, ...]) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(2) for name in names}


@pytest.mark.parametrize(("origin", "names"), [*NAMES.items(), *MORE_NAMES])
def test_the_error_names_the_origin(tmp_path: Path, small_cfg: CfgNode, origin: str, names: tuple[str, ...]) -> None:
    torch.save({"model": tensors(names)}, tmp_path / "foreign.pth")
    path = str(tmp_path / "foreign.pth")
    expected = f"It looks like a checkpoint of {origin}"
    model = build_model(small_cfg)
    for load in (
        lambda: SafeCheckpointer(model).resume_or_load(path, resume=False),
        lambda: SafeCheckpointer(model).load(path),
        lambda: SafeCheckpointer(model).initialize(path),
        lambda: convert_published(tensors(names)),
    ):
        with pytest.raises(InputError) as error:
            load()
        assert expected in str(error.value)
        assert "H-Deformable-DETR" in str(error.value)
        assert "It looks like one of" not in str(error.value)


@pytest.mark.parametrize(
    "model",
    [
        lambda: torchvision.models.detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None),
        lambda: torchvision.models.detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None),
    ],
)
def test_torchvisions_detectors_are_known(model: Any) -> None:
    with torch.device("meta"):
        names = list(model().state_dict())
    assert "It looks like a checkpoint of torchvision's detectors" in origin_of(names)


@pytest.mark.parametrize("name", ["state_dict", "ema_state_dict"])
def test_a_state_dict_that_lies_deeper_has_an_origin_too(tmp_path: Path, name: str) -> None:
    torch.save({"meta": {"epoch": 12}, name: tensors(NAMES["MMDetection"])}, tmp_path / "mmdet.pth")
    with pytest.raises(InputError, match=rf"but meta, {name}\. It looks like a checkpoint of MMDetection"):
        read_checkpoint(tmp_path / "mmdet.pth")


@pytest.mark.parametrize(
    ("module", "origin"),
    [
        ("mmengine.config", "a checkpoint of MMDetection"),
        ("models.yolo", "a checkpoint of Ultralytics"),
        ("ultralytics.nn", "a checkpoint of Ultra"),
        (
            "transformers.models.deformable_detr.modeling_deformable_detr",
            r"an object of transformers, .* converted: transformers \(DeformableDetrForObjectDetection\)",
        ),
        ("detrex.layers", r"an object of detrex, .* converted: detrex's DINO, detrex's two-stage Deformable"),
    ],
)
def test_an_object_of_a_package_has_an_origin(tmp_path: Path, module: str, origin: str) -> None:
    """Pickled by name alone: the package need not be there."""
    path = tmp_path / "foreign.pth"
    torch.save({"model": tensors(("weight",)), "what": Placeholder()}, path)
    old, new = f"{__name__}\nPlaceholder\n".encode(), f"{module}\nPlaceholder\n".encode()
    from zipfile import ZipFile  # noqa: PLC0415

    with ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content.replace(old, new))
    with pytest.raises(InputError, match=rf"holds {module}\.Placeholder, not tensors.*{origin}"):
        read_checkpoint(path)


class Placeholder:
    """Something that is no tensor."""


@pytest.mark.parametrize("fixture", KINDS)
def test_what_is_read_has_no_foreign_origin(small_cfg: CfgNode, fixture: str) -> None:
    assert origin_of(build_model(of_kind(small_cfg, fixture)).state_dict()) == ""
    assert origin_of(published(fixture)) == ""


@pytest.mark.parametrize("model", [torchvision.models.resnet18, torchvision.models.swin_t])
def test_backbones_and_others_have_no_origin(model: Any) -> None:
    with torch.device("meta"):
        assert origin_of(model().state_dict()) == ""
    assert origin_of(()) == ""
    assert origin_of(("roi_heads.1", "decoder.layers.0.weight", "model.0.weight")) == ""


def test_a_file_of_no_kind_says_which_it_resembles() -> None:
    """Of a published DINO without the names that all have, and others of its own."""
    state = {name: torch.zeros(2) for name in published("dino_4scale_r50") if "enc_out_class_embed" not in name}
    state |= {f"extra.{place}.weight": torch.zeros(2) for place in range(7)}
    known = len(state) - 7
    with pytest.raises(InputError, match=rf"Of its {len(state)} names, so many are those of: DINO .*\({known}\), "):
        convert_published(state)
    assert resemblance({"extra.weight": torch.zeros(2)}) == ""
    assert resemblance({}) == ""
