"""Checkpoints of detrex: names as its own converters have them, and models that have its conventions."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor, nn

from lite_detr_d2.checkpoint import COUNTER, convert_published, detect, read_checkpoint
from lite_detr_d2.detector import DetrDetector
from lite_detr_d2.engine import SafeCheckpointer
from lite_detr_d2.errors import InputError
from tests.projects.scripts import load_script

from .published import as_published, of_kind

# From the published Deformable DETR's names to detrex's; source: projects/deformable_detr/converter.py of
# IDEA-Research/detrex, which makes its checkpoints of the published ones.
RENAMED = [
    (r"backbone\.0\.body\.(conv1|bn1)(.*)", r"backbone.stem.\1\2"),
    (r"backbone\.0\.body\.layer1\.(.*)", r"backbone.res2.\1"),
    (r"backbone\.0\.body\.layer2\.(.*)", r"backbone.res3.\1"),
    (r"backbone\.0\.body\.layer3\.(.*)", r"backbone.res4.\1"),
    (r"backbone\.0\.body\.layer4\.(.*)", r"backbone.res5.\1"),
    (r"(backbone\..*)\bbn(\d)(.*)", r"\1conv\2.norm\3"),
    (r"(backbone\..*)downsample\.0(.*)", r"\1shortcut\2"),
    (r"(backbone\..*)downsample\.1(.*)", r"\1shortcut.norm\2"),
    (r"input_proj\.([012])\.0(.*)", r"neck.convs.\1.conv\2"),
    (r"input_proj\.([012])\.1(.*)", r"neck.convs.\1.norm\2"),
    (r"input_proj\.3\.0(.*)", r"neck.extra_convs.0.conv\1"),
    (r"input_proj\.3\.1(.*)", r"neck.extra_convs.0.norm\1"),
    (r"(.*encoder\.layers\.\d+\.)self_attn(.*)", r"\1attentions.0\2"),
    (r"(.*encoder\.layers\.\d+\.)norm1(.*)", r"\1norms.0\2"),
    (r"(.*encoder\.layers\.\d+\.)norm2(.*)", r"\1norms.1\2"),
    (r"(.*coder\.layers\.\d+\.)linear1(.*)", r"\1ffns.0.layers.0.0\2"),
    (r"(.*coder\.layers\.\d+\.)linear2(.*)", r"\1ffns.0.layers.1\2"),
    (r"(.*decoder\.layers\.\d+\.)norm1(.*)", r"\1norms.1\2"),
    (r"(.*decoder\.layers\.\d+\.)norm2(.*)", r"\1norms.0\2"),
    (r"(.*decoder\.layers\.\d+\.)norm3(.*)", r"\1norms.2\2"),
    (r"(.*decoder\.layers\.\d+\.)self_attn(.*)", r"\1attentions.0.attn\2"),
    (r"(.*decoder\.layers\.\d+\.)cross_attn(.*)", r"\1attentions.1\2"),
    (r"(.*)level_embed(.*)", r"\1level_embeds\2"),
    (r"query_embed(.*)", r"query_embedding\1"),
]
KINDS = {
    "deformable_detr_r50": "detrex's Deformable DETR",
    "deformable_detr_two_stage_r50": "detrex's two-stage Deformable DETR or H-DETR",
    "h_detr_r50": "detrex's two-stage Deformable DETR or H-DETR",
    "dino_4scale_r50": "detrex's DINO",
}


def as_detrex(state: Mapping[str, Tensor], fixture: str) -> dict[str, Tensor]:
    """What detrex would have called our tensors ``state``, of a small model of the kind of ``fixture``."""
    renamed = {}
    for name, tensor in as_published(state, fixture).items():
        for pattern, target in RENAMED:
            name = re.sub(rf"^{pattern}$", target, name)  # noqa: PLW2901
        renamed[name] = tensor
    if fixture.startswith("dino"):
        layers = len({name.split(".")[3] for name in renamed if name.startswith("transformer.decoder.layers.")})
        heads = {name: tensor for name, tensor in renamed.items() if re.search(r"(class|bbox)_embed", name)}
        renamed = {name: tensor for name, tensor in renamed.items() if name not in heads}
        for name, tensor in state.items():
            match = re.fullmatch(r"(?:decoder\.heads\.(\d+)|query_selection\.head)\.(class|box)_embed(.*)", name)
            if match:
                part = {"class": "class_embed", "box": "bbox_embed"}[match[2]]
                place = layers if match[1] is None else match[1]
                for owner in ("", "transformer.decoder."):
                    renamed[f"{owner}{part}.{place}{match[3]}"] = tensor
        renamed["label_enc.weight"] = renamed["label_enc.weight"][:-1]
    return renamed


def detrex_cfg(cfg: CfgNode, fixture: str) -> CfgNode:
    cfg = of_kind(cfg, fixture)
    cfg.MODEL.LITE_DETR.CONVENTIONS, cfg.MODEL.LITE_DETR.POSITION_TEMPERATURE = "detrex", 10000
    return cfg


@pytest.mark.parametrize("fixture", KINDS)
def test_a_checkpoint_is_a_whole_model(small_cfg: CfgNode, fixture: str) -> None:
    torch.manual_seed(0)
    state = build_model(detrex_cfg(small_cfg, fixture)).state_dict()
    theirs = as_detrex(state, fixture)
    kind = detect(theirs)
    assert kind is not None and kind.kind == KINDS[fixture]
    converted, report = convert_published(theirs)
    assert report.skipped == {}
    expected = {name: tensor for name, tensor in state.items() if not name.endswith(COUNTER)}
    if fixture.startswith("dino"):  # nothing reads the last row
        expected["denoising.label_embed.weight"] = torch.cat((theirs["label_enc.weight"], torch.zeros(1, 64)))
    torch.testing.assert_close(converted, expected, rtol=0, atol=0)


@pytest.mark.parametrize("fixture", KINDS)
def test_any_way_of_loading_takes_it(small_cfg: CfgNode, fixture: str) -> None:
    model, other = (build_model(detrex_cfg(small_cfg, fixture)) for _ in range(2))
    other.load_state_dict(as_detrex(model.state_dict(), fixture))
    ours, theirs = model.state_dict(), other.state_dict()
    for name in ours.keys() - {"denoising.label_embed.weight"}:
        torch.testing.assert_close(theirs[name], ours[name], rtol=0, atol=0)


def test_a_dino_of_detrex_needs_its_conventions(small_cfg: CfgNode) -> None:
    theirs = as_detrex(build_model(detrex_cfg(small_cfg, "dino_4scale_r50")).state_dict(), "dino_4scale_r50")
    model = build_model(of_kind(small_cfg, "dino_4scale_r50"))
    message = r"of another architecture: MODEL\.LITE_DETR\.CONVENTIONS is detrex in the file, published in the config"
    with pytest.raises(InputError, match=message):
        model.load_state_dict(theirs, strict=False)


@pytest.mark.parametrize("fixture", [fixture for fixture in KINDS if not fixture.startswith("dino")])
@pytest.mark.parametrize("by_program", [True, False])
def test_what_no_tensor_tells_is_one_warning(
    small_cfg: CfgNode, tmp_path: Path, log: pytest.LogCaptureFixture, fixture: str, by_program: bool
) -> None:
    right = build_model(detrex_cfg(small_cfg, fixture))
    torch.save({"model": as_detrex(right.state_dict(), fixture)}, tmp_path / "detrex.pth")
    checkpointer = SafeCheckpointer if by_program else DetectionCheckpointer

    def warned(model: nn.Module) -> int:
        log.clear()
        checkpointer(model).resume_or_load(str(tmp_path / "detrex.pth"), resume=False)
        return log.text.count(f"of {KINDS[fixture]}, and the model computes otherwise than that: set MODEL.LITE_DETR.C")

    assert warned(build_model(of_kind(small_cfg, fixture))) == 1
    assert warned(right) == 0


def test_published_weights_in_a_model_of_detrex_are_warned_of(
    small_cfg: CfgNode, log: pytest.LogCaptureFixture
) -> None:
    fixture = "deformable_detr_two_stage_r50"
    published = build_model(of_kind(small_cfg, fixture))
    theirs = as_published(published.state_dict(), fixture)
    published.load_state_dict(theirs)
    assert "computes otherwise" not in log.text
    build_model(detrex_cfg(small_cfg, fixture)).load_state_dict(theirs)
    assert log.text.count("computes otherwise than that: set MODEL.LITE_DETR.CONVENTIONS to published.") == 1


def test_a_start_from_what_fits_of_its_dino_is_warned_of(
    small_cfg: CfgNode, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    fixture = "dino_4scale_r50"
    state = as_detrex(build_model(detrex_cfg(small_cfg, fixture)).state_dict(), fixture)
    torch.save({"model": state}, tmp_path / "detrex.pth")
    SafeCheckpointer(build_model(of_kind(small_cfg, fixture))).initialize(str(tmp_path / "detrex.pth"))
    assert log.text.count("CONVENTIONS to detrex, and MODEL.LITE_DETR.POSITION_TEMPERATURE to 10000.") == 1


def test_another_model_of_detrex_is_told_by_what_it_has_more(small_cfg: CfgNode) -> None:
    state = build_model(detrex_cfg(small_cfg, "deformable_detr_r50")).state_dict()
    theirs = as_detrex(state, "deformable_detr_r50") | {"anchor_center.weight": torch.zeros(2)}
    with pytest.raises(InputError, match=r"of detrex's Deformable DETR, but is of another model: .*anchor_center"):
        convert_published(theirs)


def test_conventions_of_detrex(small_cfg: CfgNode) -> None:
    """Half a cell off every position, 0.001 as the least distance from an edge, and a head for each layer of DINO."""
    model = build_model(detrex_cfg(small_cfg, "dino_4scale_r50"))
    column = model.flatten.position(torch.zeros(1, 4, 4, dtype=torch.bool))[0, 0, :, 0]
    torch.testing.assert_close(
        column, torch.sin(torch.tensor([0.5, 1.5, 2.5, 3.5]) / 4 * 2 * torch.pi), atol=1e-4, rtol=0
    )
    assert len(model.decoder.heads) == len(model.decoder.layers)
    other = build_model(detrex_cfg(small_cfg, "deformable_detr_two_stage_r50"))
    assert other.decoder.logit_eps == model.decoder.logit_eps == 1e-3


def of_classes(cfg: CfgNode, number: int, file: Path | None = None) -> DetrDetector:
    """A detector whose rows have numbers, of detrex's conventions; saved as detrex's in ``file``."""
    cfg = detrex_cfg(cfg, "deformable_detr_two_stage_r50")
    cfg.MODEL.LITE_DETR.NUM_CLASSES = number
    model: DetrDetector = build_model(cfg)
    torch.nn.init.normal_(model.decoder.heads[1].class_embed.bias)
    if file is not None:
        torch.save({"model": as_detrex(model.state_dict(), "deformable_detr_two_stage_r50")}, file)
    return model


@pytest.mark.parametrize("is_program", [True, False])
def test_rows_of_heads_are_no_ids(
    small_cfg: CfgNode, tmp_path: Path, capsys: pytest.CaptureFixture[str], is_program: bool
) -> None:
    """They are in the order of the ids, 1, 3, 4 and 7, whatever these are."""
    names = {7: "seven", 1: "one", 4: "four", 3: "three"}
    file, annotations = tmp_path / "detrex.pth", tmp_path / "train.json"
    small_cfg.MODEL.BACKBONE.NAME, small_cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = "build_resnet_backbone", 64
    small_cfg.MODEL.RESNETS.DEPTH, small_cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 18, 64
    source = of_classes(small_cfg, 4, file)

    def taken(names: dict[int, str]) -> Tensor:
        if is_program:
            categories = [{"id": identifier, "name": name} for identifier, name in names.items()]
            annotations.write_text(json.dumps({"images": [], "annotations": [], "categories": categories}))
            program = load_script("convert_checkpoint")
            words = {"to": "lite_detr_d2", "ema": False, "trust_pickle": False}
            program.convert(str(file), tmp_path / "out.pth", str(annotations), **words)
            saved = read_checkpoint(tmp_path / "out.pth")
            assert saved["class_names"] == ["one", "three", "four", "seven"]
            return saved["model"]["decoder.heads.1.class_embed.bias"]
        model = of_classes(small_cfg, len(names))
        ids = sorted(names)
        known = {"class_ids": ids, "class_names": [names[each] for each in ids], "class_rows": "ids"}
        SafeCheckpointer(model, **known).resume_or_load(str(file), resume=False)
        return model.decoder.heads[1].class_embed.bias

    assert torch.equal(taken(names), source.decoder.heads[1].class_embed.bias)
    if is_program:
        assert "by their places in the order of the ids: one, three, four, seven" in capsys.readouterr().out
    del names[4]
    with pytest.raises(InputError, match=r"have 4 rows, one for each class .* there are 3 categories"):
        taken(names)


@pytest.mark.parametrize(
    ("ids", "names"),
    [([1, 3, 4, 7], ["one", "three"]), (None, ["one"]), ([1], None)],
    ids=["fewer names", "no ids", "no names"],
)
def test_rows_by_ids_need_an_id_for_each_name(
    small_cfg: CfgNode, tmp_path: Path, ids: list[int] | None, names: list[str] | None
) -> None:
    model = of_classes(small_cfg, 4, tmp_path / "detrex.pth")
    with pytest.raises(InputError, match="the dataset does not tell its category ids and names: set it to 'names'"):
        SafeCheckpointer(model, class_ids=ids, class_names=names, class_rows="ids").resume_or_load(
            str(tmp_path / "detrex.pth"), resume=False
        )


def test_a_file_without_heads_is_a_start(small_cfg: CfgNode, tmp_path: Path) -> None:
    """Its class heads were taken out, as for another set of classes."""
    fixture, names = "deformable_detr_two_stage_r50", ["one", "three", "four", "seven"]
    source, model = of_classes(small_cfg, 4), of_classes(small_cfg, 4)
    theirs = as_detrex(source.state_dict(), fixture)
    torch.save({"model": {k: v for k, v in theirs.items() if "class_embed" not in k}}, tmp_path / "detrex.pth")
    known = {"class_ids": [1, 3, 4, 7], "class_names": names, "class_rows": "ids"}
    SafeCheckpointer(model, **known).initialize(str(tmp_path / "detrex.pth"))
    assert torch.equal(model.flatten.level_embed, source.flatten.level_embed)


def test_91_rows_of_heads_are_91_classes(small_cfg: CfgNode) -> None:
    theirs = as_detrex(of_classes(small_cfg, 91).state_dict(), "deformable_detr_two_stage_r50")
    with pytest.raises(InputError, match=r"tell 91 classes apart, and the detector 80"):
        of_classes(small_cfg, 80).load_state_dict(theirs)


def test_rows_of_heads_are_cocos_classes(small_cfg: CfgNode, tmp_path: Path) -> None:
    """In the order of their ids, without gaps: classes of one's own start from the rows of the same name."""
    cfg = detrex_cfg(small_cfg, "deformable_detr_two_stage_r50")
    cfg.MODEL.LITE_DETR.NUM_CLASSES = 80
    source = build_model(cfg)
    torch.nn.init.normal_(source.decoder.heads[1].class_embed.bias)
    torch.save({"model": as_detrex(source.state_dict(), "deformable_detr_two_stage_r50")}, tmp_path / "detrex.pth")
    cfg.MODEL.LITE_DETR.NUM_CLASSES = 2
    model = build_model(cfg)
    checkpointer = SafeCheckpointer(model, class_names=["toothbrush", "person"])
    checkpointer.resume_or_load(str(tmp_path / "detrex.pth"), resume=False)
    found, expected = (each.decoder.heads[1].class_embed.bias for each in (model, source))
    assert torch.equal(found, expected[[79, 0]])
