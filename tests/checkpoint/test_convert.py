"""The converter on weights it has not seen in a parity fixture, and its command line."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from detectron2.modeling import build_model
from torch import Tensor

from lite_detr_d2.checkpoint import convert_lite_detr, read_checkpoint
from lite_detr_d2.errors import InputError
from tests import reference_weights
from tests.parity.reference import DEFAULT_FOLDER, Reference

SCRIPT = Path(__file__).parents[2] / "projects" / "LiteDETR" / "convert_checkpoint.py"
PUBLISHED = Reference(DEFAULT_FOLDER / "lite_dino_h3l1_a2b3_r50.json")


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    arrays = reference_weights.state_dict(PUBLISHED.facts["shapes"], PUBLISHED.facts["aliases"])
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, check=False)


def test_keep_is_everything(published: dict[str, Tensor]) -> None:
    converted, report = convert_lite_detr(published)
    assert len(report.mapped) == len(published)
    assert not report.skipped and not report.missing and not report.mismatched
    assert converted["decoder.heads.0.class_embed.weight"].shape == (91, 256)
    name = "decoder.layers.2.self_attention"
    fused = published["transformer.decoder.layers.2.self_attn.in_proj_weight"]
    assert torch.equal(converted[f"{name}.query_key_proj.weight"], fused[:512])
    assert torch.equal(converted[f"{name}.value_proj.weight"], fused[512:])


def test_coco80_keeps_the_rows_of_coco_classes(published: dict[str, Tensor]) -> None:
    converted, report = convert_lite_detr(published, classes="coco80")
    assert not report.missing and not report.mismatched
    ids = [category["id"] for category in COCO_CATEGORIES if category["isthing"]]
    assert len(ids) == 80 and ids[0] == 1 and ids[-1] == 90
    for ours, theirs in (
        ("decoder.heads.0.class_embed.weight", "class_embed.0.weight"),
        ("decoder.heads.0.class_embed.bias", "class_embed.0.bias"),
        ("query_selection.head.class_embed.weight", "transformer.enc_out_class_embed.weight"),
    ):
        assert torch.equal(converted[ours], published[theirs][ids])
    labels = converted["denoising.label_embed.weight"]
    assert labels.shape == (81, 256)
    assert torch.equal(labels[:80], published["label_enc.weight"][ids])
    assert torch.equal(labels[80], published["label_enc.weight"][91])


def test_missing_unknown_and_misshapen_tensors_are_reported(published: dict[str, Tensor]) -> None:
    changed = dict(published)
    del changed["transformer.encoder.layers.3.linear1.bias"]
    changed["transformer.novelty.weight"] = torch.zeros(1)
    changed["transformer.encoder.layers.2.norm1.weight"] = torch.zeros(7)
    _, report = convert_lite_detr(changed)
    assert report.missing == ["encoder.layers.3.feed_forward.linear1.bias"]
    assert report.skipped == {"transformer.novelty.weight": "no counterpart"}
    assert list(report.mismatched) == ["encoder.layers.2.norm.weight"]
    text = "\n".join(report.lines())
    assert "missing  encoder.layers.3.feed_forward.linear1.bias" in text
    assert "skipped  transformer.novelty.weight: no counterpart" in text


def test_heads_that_are_not_shared_are_an_error(published: dict[str, Tensor]) -> None:
    changed = published | {"class_embed.1.weight": published["class_embed.1.weight"] + 1}
    with pytest.raises(ValueError, match=r"class_embed.1.weight differs .* heads are not shared"):
        convert_lite_detr(changed)


def test_other_checkpoints_are_named(published: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match=r"not a checkpoint of the Lite-DETR repository's DINO: it has no transformer"):
        convert_lite_detr({"conv1.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="classes must be one of keep, coco80, got 'voc'"):
        convert_lite_detr(published, classes="voc")
    narrow = {name: value[:20] if "class_embed" in name else value for name, value in published.items()}
    with pytest.raises(ValueError, match=r"coco80 needs heads of 91 classes: .* has 20 rows"):
        convert_lite_detr(narrow, classes="coco80")


def test_command_line(tmp_path: Path, published: dict[str, Tensor]) -> None:
    """As published files are: weights beside an argparse.Namespace and a training state."""
    source, target = tmp_path / "published.pth", tmp_path / "converted.pth"
    torch.save({"model": published, "args": argparse.Namespace(enc_scale=3), "epoch": 3}, source)
    result = run(source, target, "--classes", "coco80")
    assert result.returncode == 0, result.stderr
    assert f"{len(published)} mapped, 0 skipped, 0 missing" in result.stdout
    saved = torch.load(target, weights_only=True)["model"]
    cfg = PUBLISHED.config()
    cfg.MODEL.LITE_DETR.NUM_CLASSES = 80
    build_model(cfg).load_state_dict(saved, strict=True)


def test_bare_state_dict(tmp_path: Path, published: dict[str, Tensor]) -> None:
    torch.save(published, tmp_path / "bare.pth")
    assert read_checkpoint(tmp_path / "bare.pth").keys() == published.keys()


class Payload:
    """Something that must not be unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (Path("/nonexistent/ran").touch, ())


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    bad = tmp_path / "bad.pth"
    assert "no such checkpoint" in run(tmp_path / "none.pth", tmp_path / "out.pth").stderr
    bad.write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match=r"bad.pth cannot be read as a checkpoint of tensors"):
        read_checkpoint(bad)
    torch.save({"model": {"x": torch.zeros(1)}, "extra": Payload()}, bad)
    with pytest.raises(ValueError, match=r"bad.pth cannot be read as a checkpoint of tensors"):
        read_checkpoint(bad)
    torch.save([1, 2], bad)
    with pytest.raises(ValueError, match="neither a state dict"):
        read_checkpoint(bad)
    torch.save({"args": Payload()}, bad)
    with pytest.raises(InputError, match=r"tensors: it holds \S+, not tensors and plain values alone\.$"):
        read_checkpoint(bad)
    torch.save([1, 2], bad)
    result = run(bad, tmp_path / "out.pth")
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith("convert_checkpoint.py: ")


def test_an_output_that_cannot_be_written_is_refused_first(tmp_path: Path) -> None:
    for target in (tmp_path, tmp_path / "gone" / "out.pth"):
        result = run(tmp_path / "none.pth", target)
        assert result.returncode == 1
        expected = f"{target} cannot be written: OUTPUT must be a file in a folder that exists."
        assert result.stderr.splitlines()[-1] == f"convert_checkpoint.py: {expected}"


def test_half_a_model_is_not_written(tmp_path: Path, published: dict[str, Tensor]) -> None:
    changed = dict(published) | {"transformer.encoder.layers.2.norm1.weight": torch.zeros(7)}
    del changed["transformer.encoder.layers.3.linear1.bias"]
    torch.save(changed, tmp_path / "half.pth")
    result = run(tmp_path / "half.pth", tmp_path / "out.pth")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-3:] == [
        f"convert_checkpoint.py: {tmp_path / 'half.pth'} is not a whole model; nothing is written.",
        "missing  encoder.layers.3.feed_forward.linear1.bias",
        "shape    encoder.layers.2.norm.weight: (7,), expected (256,)",
    ]
    assert not (tmp_path / "out.pth").exists()
