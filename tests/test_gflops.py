"""The model zoo of projects/LiteDETR/README.md: what it states, and how far that is from what others count."""

import dataclasses
import json
import math
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from lite_detr_d2.analysis import Cost, cost_of, cost_of_config, count_operations

from .conftest import CONFIGS
from .projects.scripts import PROJECT, load_script
from .shipped_configs import FOR_COCO, read

analyze_model = load_script("analyze_model")
TABLE = (PROJECT / "README.md").read_text().partition(analyze_model.BEGIN)[2].partition(analyze_model.END)[0]
PAPER = json.loads((PROJECT / "paper.json").read_text())
MODELS = {paths[0].stem: paths for paths in analyze_model.zoo()}
REFERENCE = {name: row["reference"] for name, row in PAPER["models"].items() if "reference" in row}
TOLERATED_PERCENT = 3.0


def stated() -> dict[str, Any]:
    """The figures of every row of the table, by the name of its first config."""
    rows = [line.strip("| ").split("|") for line in TABLE.splitlines() if line.startswith("| `")]
    return {row[0].split("`")[1]: analyze_model.Figures(*map(float, row[2:7])) for row in rows}


STATED = stated()


def assert_as_stated(name: str, cost: Cost) -> None:
    counted = dataclasses.asdict(analyze_model.Figures.of(cost))
    assert counted == pytest.approx(dataclasses.asdict(STATED[name]), abs=0.051)


def test_the_table_has_every_config_for_coco_once() -> None:
    assert sorted(path for paths in MODELS.values() for path in paths) == FOR_COCO
    assert list(STATED) == list(MODELS)


def test_the_table_is_what_the_command_writes() -> None:
    assert "\n".join(analyze_model.table_lines(STATED)) + "\n" == TABLE


def test_a_note_explains_every_difference_from_the_paper() -> None:
    assert set(PAPER["models"]) <= set(MODELS)
    for name, row in PAPER["models"].items():
        counts = {"gflops": STATED[name].total, "encoder": STATED[name].encoder}
        differences = [analyze_model.percent(counts[key], row[key]) for key in counts if key in row]
        differs = any(abs(difference) > TOLERATED_PERCENT for difference in differences)
        assert differs == bool(row.get("notes")), name
    used = "".join(row.get("notes", "") for row in PAPER["models"].values())
    assert sorted(set(used)) == list(PAPER["notes"])


@pytest.mark.parametrize("name", sorted(MODELS.keys() - REFERENCE.keys()))
def test_parameters(name: str) -> None:
    """Of the models that are not counted in full, below."""
    cfg = read(MODELS[name][0])
    # Without memory or initial values where that will do: detectron2's Swin reads numbers off tensors.
    cfg.MODEL.DEVICE = "cpu" if "swint" in name else "meta"
    with torch.device(cfg.MODEL.DEVICE):
        model = build_model(cfg)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert parameters / 1e6 == pytest.approx(STATED[name].parameters, abs=0.051)


@pytest.mark.parametrize("name", REFERENCE)
def test_counts_are_the_references(name: str) -> None:
    """But for what it computes, and this project does not."""
    model = build_model(read(MODELS[name][0]))
    counted = count_operations(model)
    cost = cost_of(model, counted)
    assert_as_stated(name, cost)
    # A map that is key and value is sampled once here, twice there: 6 and 10 multiply-adds per sampled channel.
    sampling = counted.by_module_and_operator()
    encoder, total = (
        cost_part + sampling[module].get("key_aware_deform_attn", 0) / 6 * 4
        for cost_part, module in ((cost.parts["encoder"], "model.encoder"), (cost.multiply_adds, "model"))
    )
    total += boxes_of_unselected_tokens(model, (800, 1066))
    assert encoder / 1e9 == pytest.approx(REFERENCE[name]["encoder"], rel=0.01)
    assert total / 1e9 == pytest.approx(REFERENCE[name]["total"], rel=0.01)


def boxes_of_unselected_tokens(model: Any, image_size: tuple[int, int]) -> float:
    """What the references of Deformable DETR and H-DETR spend on boxes that evaluation drops."""
    if not getattr(model.query_selection, "class_agnostic", False):
        return 0.0
    tokens = sum(math.prod(math.ceil(side / stride) for side in image_size) for stride in (8, 16, 32, 64))
    layers = model.query_selection.head.box_embed.layers
    return float((tokens - model.query_selection.num_queries) * sum(layer.weight.numel() for layer in layers))


def with_options(name: str, *options: object) -> CfgNode:
    cfg = read(next(CONFIGS.rglob(f"{name}.yaml")))
    cfg.merge_from_list(
        [f"MODEL.LITE_DETR.{value}" if index % 2 == 0 else value for index, value in enumerate(options)]
    )
    return cfg


PLAIN = ("ENCODER.KEY_AWARE", False)
COARSE_ONLY = ("ENCODER.FUSION", "high_only", *PLAIN)


@pytest.mark.parametrize(
    ("note", "name", "options", "total", "encoder"),
    [
        ("a", "lite_dino_h2l2_a2b3_r50_36ep", COARSE_ONLY, "110.5", "14.9"),
        ("a", "lite_deformable_detr_h2l2_a2b3_r50_50ep", COARSE_ONLY, None, "11.6"),
        ("e", "lite_deformable_detr_h2l2_a2b3_r50_50ep", PLAIN, "109.5", "24.0"),
        ("f", "lite_deformable_detr_h3l1_a6b1_r50_50ep", PLAIN, None, "29.1"),
        ("f", "lite_deformable_detr_h3l1_a2b3_r50_50ep", PLAIN, None, "35.7"),
        ("f", "lite_deformable_detr_h3l1_a3b2_r50_50ep", PLAIN, None, "32.4"),
    ],
)
def test_counts_of_the_notes(note: str, name: str, options: tuple[object], total: str | None, encoder: str) -> None:
    cfg = with_options(name, *options)
    if total is None:  # then neither backbone nor decoder matters
        cfg.MODEL.BACKBONE.NAME, cfg.MODEL.LITE_DETR.DECODER.NUM_LAYERS = "build_narrow_resnet_backbone", 1
        cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 8
    cost = cost_of_config(cfg)
    assert encoder in PAPER["notes"][note]
    assert cost.parts["encoder"] / 1e9 == pytest.approx(float(encoder), abs=0.051)
    if total is not None:
        assert total in PAPER["notes"][note]
        assert cost.multiply_adds / 1e9 == pytest.approx(float(total), abs=0.051)


def test_count_of_the_note_on_the_larger_image() -> None:
    """Note d; the paper rounds to whole GFLOPs."""
    size = (850, 1040)
    assert "3 x 850 x 1040" in PAPER["notes"]["d"]
    model = build_model(with_options("deformable_detr_r50_50ep", "NUM_CLASSES", 91))
    cost = cost_of(model, count_operations(model, size))
    boxes = boxes_of_unselected_tokens(model, size)
    figures = {"(2.4)": boxes, "177.5": cost.multiply_adds + boxes, "86.0": cost.parts["encoder"]}
    for text, counted in figures.items():
        assert text in PAPER["notes"]["d"]
        assert counted / 1e9 == pytest.approx(float(text.strip("()")), abs=0.051)
