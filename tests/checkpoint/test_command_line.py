"""projects/LiteDETR/convert_checkpoint.py, as a user runs it."""

import argparse
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from detectron2.modeling import build_model

from lite_detr_d2.checkpoint import convert_published, read_checkpoint
from tests.parity.reference import DEFAULT_FOLDER, Reference
from tests.projects.scripts import PROJECT, load_script

from .published import published
from .test_pickles import Calls

convert_checkpoint = load_script("convert_checkpoint")
LITE_DINO = "lite_dino_h3l1_a2b3_r50"
NAMES = [category["name"] for category in COCO_CATEGORIES if category["isthing"]]


@dataclass(frozen=True)
class Result:
    status: int
    output: str
    errors: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["convert_checkpoint.py", *map(str, arguments)])
        status = convert_checkpoint.main()
        return Result(status, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As published files are: weights beside an argparse.Namespace and a training state."""
    path = tmp_path_factory.mktemp("published") / "published.pth"
    torch.save({"model": published(LITE_DINO), "args": argparse.Namespace(enc_scale=3), "epoch": 3}, path)
    return path


def test_a_pickle_that_says_more_than_arrays_has_to_be_trusted(tmp_path: Path, run: Callable[..., Result]) -> None:
    pickled, target, canary = tmp_path / "R-50.pkl", tmp_path / "out.pth", tmp_path / "canary"
    backbone = {"model": {"stem.weight": np.ones(3)}, "__author__": "somebody", "matching_heuristics": True}
    pickled.write_bytes(pickle.dumps(backbone))
    assert run(pickled, target).status == 0
    assert read_checkpoint(target)["model"]["stem.weight"].tolist() == [1, 1, 1]
    pickled.write_bytes(pickle.dumps({**backbone, "extra": Calls(os.mkdir, str(canary))}))
    refused = run(pickled, target)
    assert refused.status == 1
    assert "--trust-pickle" in refused.errors
    assert not canary.exists()
    assert run(pickled, target, "--trust-pickle").status == 0
    assert canary.exists()


def test_a_published_checkpoint(tmp_path: Path, source: Path) -> None:
    target = tmp_path / "converted.pth"
    command = [sys.executable, PROJECT / "convert_checkpoint.py", source, target, "--classes", "coco80"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert f"{len(published(LITE_DINO))} mapped, 0 skipped, 0 missing" in result.stdout
    saved = torch.load(target, weights_only=True)
    assert saved["class_names"] == NAMES
    cfg = Reference(DEFAULT_FOLDER / f"{LITE_DINO}.json").config()
    cfg.MODEL.LITE_DETR.NUM_CLASSES = 80
    build_model(cfg).load_state_dict(saved["model"], strict=True)


def test_class_names_of_a_published_file_are_kept(tmp_path: Path, run: Callable[..., Result]) -> None:
    names = [f"class {row}" for row in range(91)]
    torch.save({"model": published(LITE_DINO), "class_names": names}, tmp_path / "named.pth")
    assert run(tmp_path / "named.pth", tmp_path / "out.pth").status == 0
    assert read_checkpoint(tmp_path / "out.pth")["class_names"] == names


def test_rows_of_the_ids_of_annotations(tmp_path: Path, source: Path, run: Callable[..., Result]) -> None:
    """Of a training of the published code on classes of one's own, whose heads have a row for each id."""
    categories = [{"id": 5, "name": "king"}, {"id": 1, "name": "ace"}, {"id": 90, "name": "queen"}]
    annotations, target = tmp_path / "train.json", tmp_path / "out.pth"
    annotations.write_text(json.dumps({"images": [], "annotations": [], "categories": categories}))
    result = run(source, target, "--classes", annotations)
    assert result.status == 0, result.errors
    assert "Classes, by their ids: ace, king, queen" in result.output
    assert "left out: 0, 2, 3, 4, 6, ..." in result.output
    saved, (whole, _) = read_checkpoint(target), convert_published(published(LITE_DINO))
    assert saved["class_names"] == ["ace", "king", "queen"]
    for name in ("decoder.heads.0.class_embed.weight", "query_selection.head.class_embed.bias"):
        assert torch.equal(saved["model"][name], whole[name][[1, 5, 90]])
    labels = "denoising.label_embed.weight"
    assert torch.equal(saved["model"][labels], whole[labels][[1, 5, 90, 91]])


def annotations_of(folder: Path, names: dict[int, str]) -> Path:
    categories = [{"id": identifier, "name": name} for identifier, name in names.items()]
    (folder / "train.json").write_text(json.dumps({"images": [], "annotations": [], "categories": categories}))
    return folder / "train.json"


def test_rows_that_have_names_go_by_them(tmp_path: Path, run: Callable[..., Result]) -> None:
    """Rows of a checkpoint of ours are not for ids: 1 is the id of the class of row 0."""
    rows = {"decoder.heads.0.class_embed.bias": torch.arange(5.0), "flatten.level_embed": torch.zeros(4, 8)}
    torch.save({"model": rows, "class_names": list("abcde")}, tmp_path / "ours.pth")
    annotations, target = annotations_of(tmp_path, {1: "a", 2: "b", 4: "e", 3: "d"}), tmp_path / "out.pth"
    result = run(tmp_path / "ours.pth", target, "--classes", annotations)
    assert result.status == 0, result.errors
    assert "Classes, by their names: a, b, d, e" in result.output and "left out: 2" in result.output
    saved = read_checkpoint(target)
    assert saved["class_names"] == ["a", "b", "d", "e"]
    assert saved["model"]["decoder.heads.0.class_embed.bias"].tolist() == [0, 1, 3, 4]
    for names, message in (
        (list("abcd"), "class_names are 4, and its heads have 5 rows"),
        (list("abcdx"), "names its classes ('a', 'b', 'c', 'd', 'x'), and 'e' is none of them"),
        ("abcde", "its class_names must be a list of names"),
    ):
        torch.save({"model": rows, "class_names": names}, tmp_path / "ours.pth")
        refused = run(tmp_path / "ours.pth", tmp_path / "none.pth", "--classes", annotations)
        assert refused.status == 1 and message in refused.errors


def test_91_rows_with_names_of_their_own_are_not_cocos(tmp_path: Path, run: Callable[..., Result]) -> None:
    rows = {"decoder.heads.0.class_embed.bias": torch.arange(91.0), "flatten.level_embed": torch.zeros(4, 8)}
    torch.save({"model": rows, "class_names": [f"class {row}" for row in range(91)]}, tmp_path / "ours.pth")
    result = run(tmp_path / "ours.pth", tmp_path / "none.pth", "--classes", "coco80")
    assert result.status == 1 and "'person', 'bicycle', 'car', 'motorcycle', 'airplane', ... is none" in result.errors


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ([{"id": 91, "name": "ace"}], "Of the category ids 91 have no row in heads of 91, which are for 0 to 90"),
        ([{"id": -1, "name": "ace"}], "Of the category ids -1 have no row"),
        ([{"id": "one", "name": "ace"}], "a category has no whole number as its id, or no name"),
        ([{"id": 1}], "a category has no whole number as its id, or no name"),
        (None, "expected keep, coco80 or an annotation file, and there is no such file"),
    ],
)
def test_annotations_that_do_not_fit(
    tmp_path: Path, source: Path, run: Callable[..., Result], categories: list[dict[str, Any]] | None, message: str
) -> None:
    annotations = tmp_path / "train.json"
    if categories is not None:
        annotations.write_text(json.dumps({"images": [], "annotations": [], "categories": categories}))
    result = run(source, tmp_path / "out.pth", "--classes", annotations)
    assert result.status == 1
    assert message in result.errors
    assert not (tmp_path / "out.pth").exists()


def test_to_safetensors_and_back(tmp_path: Path, source: Path, run: Callable[..., Result]) -> None:
    """The second conversion is of a checkpoint of ours: it changes the format only, or the classes."""
    middle, target = tmp_path / "converted.safetensors", tmp_path / "again.pth"
    assert run(source, middle).status == 0
    assert read_checkpoint(middle)["class_names"][:2] == [None, "person"]
    result = run(middle, target)
    assert result.status == 0, result.errors
    assert "is of lite_detr_d2" in result.output
    first, second = read_checkpoint(middle), read_checkpoint(target)
    assert first["class_names"] == second["class_names"]
    torch.testing.assert_close(dict(second["model"]), first["model"], rtol=0, atol=0)
    assert run(middle, target, "--classes", "coco80").status == 0
    narrowed = read_checkpoint(target)
    assert narrowed["class_names"] == NAMES
    assert narrowed["model"]["decoder.heads.0.class_embed.bias"].shape == (80,)


def test_our_own_checkpoint_loses_its_training_state(tmp_path: Path, run: Callable[..., Result]) -> None:
    state = {"flatten.level_embed": torch.zeros(4, 8)}
    torch.save({"model": state, "trainer": {"iteration": 5}, "class_names": ["cat"]}, tmp_path / "ours.pth")
    assert run(tmp_path / "ours.pth", tmp_path / "out.pth").status == 0
    saved = torch.load(tmp_path / "out.pth", weights_only=True)
    assert saved["class_names"] == ["cat"]
    assert "trainer" not in saved


def test_a_backbone(tmp_path: Path, run: Callable[..., Result]) -> None:
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    result = run(tmp_path / "resnet18.pth", tmp_path / "out.safetensors")
    assert result.status == 0, result.errors
    assert "ImageNet ResNet (torchvision): 100 mapped, 22 skipped" in result.output
    saved = read_checkpoint(tmp_path / "out.safetensors")
    assert saved["matching_heuristics"] is True
    assert "class_names" not in saved
    result = run(tmp_path / "out.safetensors", tmp_path / "again.pth")
    assert result.status == 0, result.errors
    again = read_checkpoint(tmp_path / "again.pth")
    assert again["matching_heuristics"] is True
    torch.testing.assert_close(again["model"], saved["model"], rtol=0, atol=0)


def test_an_output_that_cannot_be_written_is_refused_first(tmp_path: Path, run: Callable[..., Result]) -> None:
    for target in (tmp_path, tmp_path / "gone" / "out.pth"):
        result = run(tmp_path / "none.pth", target)
        assert result.status == 1
        expected = f"{target} cannot be written: OUTPUT must be a file in a folder that exists."
        assert result.errors.splitlines()[-1] == f"convert_checkpoint.py: {expected}"


def test_the_input_is_not_overwritten(tmp_path: Path, run: Callable[..., Result]) -> None:
    result = run(tmp_path / "model.pth", tmp_path / "folder" / ".." / "model.pth")
    assert result.status == 1 and "cannot be written" in result.errors  # the folder is not there
    (tmp_path / "folder").mkdir()
    result = run(tmp_path / "model.pth", tmp_path / "folder" / ".." / "model.pth")
    assert result.status == 1 and "is INPUT: name another OUTPUT" in result.errors


@pytest.mark.parametrize("suffix", [".pkl", ".pyth"])
def test_an_output_that_could_not_be_read_is_refused(tmp_path: Path, run: Callable[..., Result], suffix: str) -> None:
    result = run(tmp_path / "none.pth", tmp_path / f"out{suffix}")
    assert result.status == 1
    assert f"detectron2 reads {suffix} files in another way; name it .pth" in result.errors


def test_bad_inputs_are_one_message(tmp_path: Path, run: Callable[..., Result]) -> None:
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"roi_heads.weight": torch.zeros(1)}, tmp_path / "unknown.pth")
    for name, message in (
        ("none", "no such checkpoint"),
        ("list", "holds neither a state dict"),
        ("unknown", "This is a checkpoint of no implementation that can be converted: expected one of DINO"),
    ):
        result = run(tmp_path / f"{name}.pth", tmp_path / "out.pth")
        assert result.status == 1
        assert result.errors.splitlines()[-1].startswith("convert_checkpoint.py: ")
        assert message in result.errors.splitlines()[-1]


def test_half_a_model_is_not_written(tmp_path: Path, run: Callable[..., Result]) -> None:
    changed = published(LITE_DINO) | {"transformer.encoder.layers.2.norm1.weight": torch.zeros(7)}
    del changed["transformer.encoder.layers.3.linear1.bias"]
    torch.save(changed, tmp_path / "half.pth")
    result = run(tmp_path / "half.pth", tmp_path / "out.pth")
    assert result.status == 1
    assert result.errors.splitlines()[-3:] == [
        f"convert_checkpoint.py: {tmp_path / 'half.pth'} is not a whole model; nothing is written.",
        "missing  encoder.layers.3.feed_forward.linear1.bias",
        "shape    encoder.layers.2.norm.weight: (7,), expected (256,)",
    ]
    assert not (tmp_path / "out.pth").exists()


def test_the_average_takes_the_place_of_the_weights(tmp_path: Path, run: Callable[..., Result]) -> None:
    source, target = tmp_path / "model_final.pth", tmp_path / "average.pth"
    states = {name: {"flatten.level_embed": torch.full((4, 8), float(value))} for value, name in enumerate("we")}
    torch.save({"model": states["w"], "ema": states["e"], "class_names": ["ant"], "trainer": {"iteration": 3}}, source)
    assert run(source, target, "--ema").status == 0
    found = read_checkpoint(target)
    assert found["model"]["flatten.level_embed"].unique().tolist() == [1.0]
    assert found["class_names"] == ["ant"]
    assert "ema" not in found
    torch.save({"model": states["w"]}, source)
    result = run(source, tmp_path / "none.pth", "--ema")
    assert result.status == 1
    assert "has no average of the weights (SOLVER.EMA): leave out --ema" in result.errors
    assert not (tmp_path / "none.pth").exists()
