"""Heads with another number of rows than the dataset has classes: each advice is followed, and works."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.modeling import build_model
from torch import Tensor

from lite_detr_d2.engine import argument_parser, read_config
from tests.data.folders import coco_content, write_coco_folder
from tests.projects.conftest import loggers_propagate
from tests.projects.scripts import TINY, load_script

from .published import as_published

__all__ = ["loggers_propagate"]

LITE_DINO = "lite_dino_h3l1_a2b3_r50"
SPEC = ("MODEL.LITE_DETR.ENCODER.SPEC", "H3L1-(2+1)x1")
IDS = [1, 3, 7]  # of the dataset's ant, cat and dog
HEADS = ("decoder.heads.0.class_embed.weight", "query_selection.head.class_embed.bias")
ADVICE = "MODEL.LITE_DETR.CLASS_ROWS ids"
train_net = load_script("train_net")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco_folder(tmp_path_factory.mktemp("three_classes"))


def arguments(*words: object) -> Any:
    return argument_parser("").parse_args(["--config-file", str(TINY), *map(str, words)])


def weights_of(rows: int) -> dict[str, Tensor]:
    state: dict[str, Tensor] = build_model(
        read_config(arguments("MODEL.LITE_DETR.NUM_CLASSES", rows, *SPEC))
    ).state_dict()
    for name in state:
        if name.endswith("class_embed.bias"):
            state[name] = torch.linspace(-2, 2, rows)  # else all classes score alike
    return state


def save(path: Path, state: Mapping[str, Tensor], published: bool, **extra: object) -> Path:
    torch.save({"model": as_published(state, LITE_DINO) if published else dict(state), **extra}, path)
    return path


def with_rows(state: Mapping[str, Tensor], rows: list[int]) -> dict[str, Tensor]:
    """The weights of a model of these classes, taken by hand."""
    count = len(state[HEADS[0]])
    chosen = {name: tensor[rows] if ".class_embed." in name else tensor for name, tensor in state.items()}
    chosen["denoising.label_embed.weight"] = state["denoising.label_embed.weight"][[*rows, count]]
    return chosen


def detections(dataset: Path, output: Path, weights: Path, *words: object) -> bytes:
    train_net.main(
        arguments("--dataset", dataset, "--eval-only", "OUTPUT_DIR", output, *SPEC, "MODEL.WEIGHTS", weights, *words)
    )
    found = (output / "inference" / "coco_instances_results.json").read_bytes()
    assert json.loads(found)
    return found


def trained(dataset: Path, output: Path, weights: Path, *words: object) -> dict[str, Tensor]:
    """The tensors after an iteration that changes none."""
    common = ("--dataset", dataset, "OUTPUT_DIR", output, *SPEC, "DATASETS.TEST", "()", "SOLVER.BASE_LR", 0.0)
    train_net.main(arguments(*common, "SOLVER.MAX_ITER", 1, "SOLVER.STEPS", "()", "MODEL.WEIGHTS", weights, *words))
    state: dict[str, Tensor] = torch.load(output / "model_final.pth", weights_only=True)["model"]
    return state


def said(output: Path) -> str:
    return (output / "log.txt").read_text()


@pytest.mark.parametrize("published", [False, True])
def test_rows_by_id(tmp_path: Path, dataset: Path, published: bool) -> None:
    """Eight rows, one more than the highest id."""
    state = weights_of(8)
    expected = with_rows(state, IDS)
    weights = save(tmp_path / "by_id.pth", state, published)
    by_hand = detections(dataset, tmp_path / "by_hand", save(tmp_path / "by_hand.pth", expected, False))

    with pytest.raises(SystemExit) as stop:
        detections(dataset, tmp_path / "refused", weights)
    assert ADVICE in str(stop.value)
    assert "NUM_CLASSES 80" not in str(stop.value)
    assert detections(dataset, tmp_path / "followed", weights, *ADVICE.split()) == by_hand

    trained(dataset, tmp_path / "anew", weights)
    assert ADVICE in said(tmp_path / "anew")
    state = trained(dataset, tmp_path / "trained", weights, *ADVICE.split())
    assert "It has rows for ids up to" not in said(tmp_path / "trained")
    for name in (*HEADS, "denoising.label_embed.weight"):
        assert torch.equal(state[name], expected[name])
    # The same command evaluates what it has trained, whose classes have names.
    final = tmp_path / "trained" / "model_final.pth"
    assert detections(dataset, tmp_path / "again", final, *ADVICE.split()) == detections(
        dataset, tmp_path / "plain", final
    )


def test_heads_of_more_rows_than_ids_serve_too(tmp_path: Path, dataset: Path) -> None:
    state = weights_of(20)
    expected = detections(
        dataset, tmp_path / "by_hand", save(tmp_path / "by_hand.pth", with_rows(state, IDS), published=False)
    )
    weights = save(tmp_path / "wide.pth", state, published=True)
    assert detections(dataset, tmp_path / "wide", weights, *ADVICE.split()) == expected


def test_91_rows_are_not_cocos_when_ids_are_asked_for(tmp_path: Path, dataset: Path) -> None:
    state = weights_of(91)
    weights = save(tmp_path / "wide.pth", state, published=True)
    heads = trained(dataset, tmp_path / "trained", weights, *ADVICE.split())
    assert torch.equal(heads[HEADS[0]], state[HEADS[0]][IDS])
    assert "It has rows for ids up to 90, and the dataset's end at 7: see that" in said(tmp_path / "trained")


@pytest.mark.parametrize("rows", [3, 4, 7])
def test_an_id_without_a_row_is_an_error(tmp_path: Path, dataset: Path, rows: int) -> None:
    weights = save(tmp_path / "few.pth", weights_of(rows), published=True)
    expected = rf"few\.pth: MODEL\.LITE_DETR\.CLASS_ROWS is 'ids', .*category ids .*7 have no row in heads of {rows}"
    for run in (detections, trained):
        with pytest.raises(SystemExit, match=expected):
            run(dataset, tmp_path / "output", weights, *ADVICE.split())


@pytest.mark.parametrize("published", [False, True])
def test_where_nothing_fits_each_advice_works(tmp_path: Path, dataset: Path, published: bool) -> None:
    state = weights_of(4)
    weights = save(tmp_path / "four.pth", state, published)
    with pytest.raises(SystemExit) as stop:
        detections(dataset, tmp_path / "refused", weights)
    message = str(stop.value)
    assert "It has 4, and the dataset has 3 (MODEL.LITE_DETR.NUM_CLASSES). Train from it" in message
    assert "save the file with 'class_names' beside 'model': a list with a name for each row, None" in message
    assert ADVICE not in message
    assert "NUM_CLASSES 80" not in message

    anew = trained(dataset, tmp_path / "anew", weights)
    assert anew[HEADS[0]].shape[0] == 3
    assert "'class_names' beside 'model'" in said(tmp_path / "anew")

    names = [None, "dog", "ant", "cat"]
    named = save(tmp_path / "named.pth", state, published, class_names=names)
    by_hand = save(tmp_path / "by_hand.pth", with_rows(state, [2, 3, 1]), published=False)
    assert detections(dataset, tmp_path / "named", named) == detections(dataset, tmp_path / "by_hand", by_hand)
    assert torch.equal(trained(dataset, tmp_path / "trained", named)[HEADS[0]], state[HEADS[0]][[2, 3, 1]])


def test_resuming_with_another_number_of_classes(tmp_path: Path, dataset: Path) -> None:
    """The advice: as MODEL.WEIGHTS, without --resume."""
    common = (*SPEC, "OUTPUT_DIR", tmp_path, "DATASETS.TEST", "()", "SOLVER.STEPS", "()", "SOLVER.MAX_ITER", 1)
    train_net.main(arguments("--dataset", dataset, *common))
    content = coco_content()
    content["categories"].append({"id": 9, "name": "owl"})
    more = write_coco_folder(tmp_path / f"{tmp_path.name}_more", train=content, val=content)
    with pytest.raises(SystemExit) as stop:
        train_net.main(arguments("--resume", "--dataset", more, *common))
    message = str(stop.value)
    assert "is of other classes" in message
    assert "It has 3, and the dataset has 4" in message
    assert "train anew from it, without --resume, as MODEL.WEIGHTS" in message
    weights = ("MODEL.WEIGHTS", tmp_path / "model_final.pth", "OUTPUT_DIR", tmp_path / "anew")
    train_net.main(arguments("--dataset", more, *common, *weights))
