"""Options of Lite-DETR's code beside its weights: they name an encoder, which no tensor tells."""

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from lite_detr_d2.checkpoint import encoder_told
from lite_detr_d2.encoder_spec import EncoderSpec
from lite_detr_d2.engine import SafeCheckpointer

from .published import as_published, of_kind

FIXTURE = "lite_dino_h3l1_a2b3_r50"


def options(**changed: Any) -> argparse.Namespace:
    """As config/DINO/DINO_4scale.py of IDEA-Research/Lite-DETR has them, with those of its README's H3L1-(2+1)x3."""
    return argparse.Namespace(
        **{"num_feature_levels": 4, "enc_scale": 3, "enc_layers": 6, "num_expansion": 3} | changed
    )


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "H3L1-(2+1)x3"),
        ({"num_expansion": 1}, "H3L1-(6+1)x1"),
        ({"num_expansion": 2}, "H3L1-(3+1)x2"),
        ({"enc_scale": 2}, "H2L2-(2+1)x3"),
        ({"enc_scale": 2, "num_feature_levels": 3}, "H2L1-(2+1)x3"),
        ({"enc_scale": 4}, None),
        ({"num_expansion": 0}, None),
        ({"num_expansion": "3"}, None),
        ({"enc_layers": None}, None),
    ],
)
def test_options_name_an_encoder(changed: dict[str, Any], expected: str | None) -> None:
    assert encoder_told(options(**changed)) == (expected and EncoderSpec.parse(expected))


@pytest.mark.parametrize("nothing", [None, argparse.Namespace(enc_layers=6), {"enc_scale": 3}, "args"])
def test_other_things_beside_weights_name_none(nothing: object) -> None:
    assert encoder_told(nothing) is None


@pytest.mark.parametrize(("blocks", "warnings"), [(1, 0), (3, 1)])
def test_another_encoder_is_a_warning(
    small_cfg: CfgNode, tmp_path: Path, log: pytest.LogCaptureFixture, blocks: int, warnings: int
) -> None:
    cfg = of_kind(small_cfg, FIXTURE)
    spec = EncoderSpec.parse(cfg.MODEL.LITE_DETR.ENCODER.SPEC)
    theirs = options(
        num_feature_levels=spec.num_levels,
        enc_scale=spec.high_levels,
        enc_layers=spec.refinements * blocks,
        num_expansion=blocks,
    )
    model = build_model(cfg)
    torch.save({"model": as_published(model.state_dict(), FIXTURE), "args": theirs}, tmp_path / "lite_dino.pth")
    SafeCheckpointer(model).resume_or_load(str(tmp_path / "lite_dino.pth"), resume=False)
    assert log.text.count(f"of the encoder {encoder_told(theirs)}, and the detector has {spec}: ") == warnings
