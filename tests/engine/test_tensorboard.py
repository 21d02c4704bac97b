"""TensorBoard's tags, of every loss that the detectors have; names in metrics.json stay."""

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lite_detr_d2.engine.tensorboard import tag_of

from .stops import stoppable_config, train


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("total_loss", "loss/total"),
        ("loss_ce", "loss/matching/last layer/class"),
        ("loss_bbox_0", "loss/matching/layer 1/boxes"),
        ("loss_giou_dn", "loss/denoising/last layer/GIoU"),
        ("loss_ce_dn_4", "loss/denoising/layer 5/class"),
        ("loss_giou_one2many", "loss/one-to-many/last layer/GIoU"),
        ("loss_bbox_3_one2many", "loss/one-to-many/layer 4/boxes"),
        ("loss_ce_interm", "loss/proposals/class"),
        ("loss_giou_enc", "loss/proposals/GIoU"),
        ("loss_bbox_enc_0", "loss/encoder/layer 1/boxes"),
        ("loss_mask_prediction", "loss/encoder/scores of tokens"),
        ("loss_mask", "loss_mask"),
        ("bbox/AP", "bbox/AP"),
        ("grad_norm", "gradient/norm"),
        ("gr\udcc3\udcb6sser_val/bbox/AP", "gr\\udcc3\\udcb6sser_val/bbox/AP"),
    ],
)
def test_tags(name: str, tag: str) -> None:
    assert tag_of(name) == tag


def test_a_training_has_them(tmp_path: Path) -> None:
    train(stoppable_config(tmp_path / "data"), tmp_path / "run", SOLVER__MAX_ITER=4)
    record = json.loads((tmp_path / "run" / "metrics.json").read_text().splitlines()[-1])
    names = [name for name in record if name != "iteration"]
    assert {"loss_ce", "loss_ce_dn_0", "loss_giou_interm", "total_loss", "lr", "grad_norm", "boxes"} <= set(names)
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    tags = events.Tags()["scalars"]
    assert {tag_of(name) for name in names} <= set(tags)
    assert not [tag for tag in tags if tag.startswith("loss_") or "/" not in tag]
    assert events.Scalars("loss/matching/last layer/class")[-1].value == pytest.approx(record["loss_ce"], rel=1e-3)
    assert 0 < events.Scalars("gradient/norm")[-1].value < 1e6
