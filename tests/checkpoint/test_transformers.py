"""Files with the names of transformers' Deformable DETR; tests/interop has its models themselves."""

from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor

from lite_detr_d2.checkpoint import COUNTER, convert, convert_published, detect, to_transformers
from tests.projects.scripts import load_script

from .published import of_kind
from .test_detrex import as_detrex

FIXTURES = {
    "single_stage": "deformable_detr_r50",
    "refined": "deformable_detr_r50",
    "two_stage": "deformable_detr_two_stage_r50",
}
SEVERAL_HEADS = ["refined", "two_stage"]


@pytest.fixture
def ours(small_cfg: CfgNode, variant: str) -> dict[str, Tensor]:
    """The tensors of a detector with a ResNet-18, in which no two are the same."""
    cfg = of_kind(small_cfg, FIXTURES[variant])
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.RESNETS.DEPTH = "build_resnet_backbone", 18
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    cfg.MODEL.LITE_DETR.BOX_REFINEMENT = variant != "single_stage"
    state = build_model(cfg).state_dict()
    return {name: torch.rand_like(tensor) for name, tensor in state.items() if not name.endswith(COUNTER)}


def without(state: dict[str, Tensor], *prefixes: str) -> dict[str, Tensor]:
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(prefixes)}
    assert len(kept) < len(state) or not prefixes
    return kept


@pytest.mark.parametrize(
    ("variant", "left_out"),
    [
        ("single_stage", ()),
        ("single_stage", [f"{head}_embed.{layer}" for head in ("class", "bbox") for layer in range(1, 6)]),
        ("refined", ()),
        ("refined", ["model.decoder.bbox_embed."]),
        ("refined", ["bbox_embed."]),
        ("two_stage", ["model.decoder.bbox_embed.", "model.decoder.class_embed."]),
        ("two_stage", ["bbox_embed.", "class_embed."]),
        ("two_stage", ["model.decoder.bbox_embed.", "class_embed."]),
    ],
)
def test_a_file_may_have_one_name_of_a_head(ours: dict[str, Tensor], left_out: list[str]) -> None:
    """safetensors keep one of the names that a tensor has."""
    file = without(to_transformers(ours)[0], *left_out)
    converted, report = convert_published(file)
    assert report.errors() == [] and report.skipped == {}
    torch.testing.assert_close(converted, ours, rtol=0, atol=0)


@pytest.mark.parametrize("head", ["class_embed", "bbox_embed"])
@pytest.mark.parametrize("variant", SEVERAL_HEADS)
def test_the_first_head_alone_is_that_of_all(ours: dict[str, Tensor], variant: str, head: str) -> None:
    own = "box_embed" if head == "bbox_embed" else head
    first = {name: tensor for name, tensor in ours.items() if name.startswith(f"decoder.heads.0.{own}.")}
    shared = dict(ours)
    for name in ours:
        prefix, part, inner = name.partition(f".{own}.")
        if part:
            shared[name] = first[f"decoder.heads.0{part}{inner}"]
    heads = range(1, 7 if variant == "two_stage" else 6)
    others = [f"{owner}{head}.{place}." for owner in ("", "model.decoder.") for place in heads]
    file = without(to_transformers(shared)[0], *others)
    torch.testing.assert_close(convert(detect(file), file)[0], shared, rtol=0, atol=0)


@pytest.mark.parametrize("place", [0, 2])
@pytest.mark.parametrize("variant", SEVERAL_HEADS)
def test_a_head_that_is_not_there_is_missing(ours: dict[str, Tensor], place: int) -> None:
    """And no copy of the first."""
    heads = [f"{owner}{head}_embed.{place}." for owner in ("", "model.decoder.") for head in ("class", "bbox")]
    _, report = convert_published(without(to_transformers(ours)[0], *heads))
    assert sorted(report.missing) == sorted(name for name in ours if name.startswith(f"decoder.heads.{place}."))


@pytest.mark.parametrize("is_detrex", [False, True])
@pytest.mark.parametrize("variant", ["single_stage", "two_stage"])
def test_what_no_tensor_tells_is_said(
    tmp_path: Path, ours: dict[str, Tensor], variant: str, is_detrex: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(as_detrex(ours, FIXTURES[variant]) if is_detrex else ours, tmp_path / "ours.pth")
    program = load_script("convert_checkpoint")
    words = {"to": "transformers", "ema": False, "trust_pickle": False}
    program.convert(str(tmp_path / "ours.pth"), tmp_path / "theirs.pth", "keep", **words)
    said = capsys.readouterr().out
    assert "there always: MODEL.LITE_DETR.POSITION_TEMPERATURE 10000 and CONVENTIONS published." in said
    assert ("with MODEL.LITE_DETR.NUM_QUERIES as two_stage_num_proposals" in said) == (variant == "two_stage")
    assert ("This one is of CONVENTIONS detrex: " in said) == is_detrex
