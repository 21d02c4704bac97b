"""The model zoo of projects/LiteDETR/README.md: what it states, and how far that is from what others count."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from lite_detr_d2.analysis import (
    Cost,
    Figures,
    cost_of,
    cost_of_config,
    count_operations,
    models_of,
    read_paper,
    zoo_lines,
)
from lite_detr_d2.analysis.zoo import percent
from lite_detr_d2.files import text_around
from lite_detr_d2.modeling.sparse import SparseEncoder

from .conftest import CONFIGS
from .projects.scripts import PROJECT, load_script
from .shipped_configs import FOR_COCO, needs_timm, read

README = PROJECT / "README.md"
BEFORE, AFTER = text_around(README, *load_script("paper_tables").MARKS)
TABLE = README.read_text().removeprefix(BEFORE).removesuffix(AFTER)
PAPER = read_paper(PROJECT / "paper.json")
MODELS = {paths[0].stem: paths for paths in models_of(CONFIGS)}
TOKENS = (100 * 134, 50 * 67, 25 * 34, 13 * 17)  # of levels at 800 x 1066
TOLERATED_PERCENT = 3.0


def stated() -> dict[str, Figures]:
    """The figures of every row of the table, by the name of its first config."""
    rows = [line.strip("| ").split("|") for line in TABLE.splitlines() if line.startswith("| `")]
    figures = {}
    for row in rows:
        parameters, *gflops = map(float, row[2:7])
        figures[row[0].split("`")[1]] = Figures(parameters, *gflops, tokens=TOKENS)
    return figures


STATED = stated()


def assert_as_stated(name: str, cost: Cost) -> None:
    counted, in_table = (dataclasses.asdict(figures) for figures in (Figures.of(cost), STATED[name]))
    del counted["tokens"], in_table["tokens"]
    assert counted == pytest.approx(in_table, abs=0.051)


def test_the_table_has_every_config_for_coco_once() -> None:
    assert sorted(path for paths in MODELS.values() for path in paths) == FOR_COCO
    assert list(STATED) == list(MODELS)


def test_the_table_is_what_the_command_writes() -> None:
    assert "\n".join(zoo_lines(PAPER, list(MODELS.values()), STATED)) + "\n" == TABLE


def test_a_note_explains_every_difference_from_the_paper() -> None:
    rows = [(table.number, row) for table in PAPER.tables.values() for row in table.rows if row.config]
    for number, row in rows:
        ours = STATED[str(row.config)]
        differences = [
            percent(ours.stated(figure), float(stated))
            for column, figure in PAPER.counted.items()
            if (stated := row.cells.get(column)) is not None
        ]
        differs = any(abs(difference) > TOLERATED_PERCENT for difference in differences)
        assert differs == bool(row.notes), (number, row, differences)
    assert PAPER.notes_of([row for _, row in rows]) == PAPER.notes


def test_notes_on_parameters_decoder_and_tokens() -> None:
    """Notes g, h and i."""
    rows = [row for row in PAPER.tables["4"].rows if row.config]
    assert {row.cells["params (M)"] for row in rows} == {47}
    ours = {STATED[str(row.config)].stated("parameters"): row.cells for row in rows}
    for extreme in (min(ours), max(ours)):
        backbone = str(ours[extreme]["backbone"]).replace("R50", "R-50")
        assert f"{extreme} ({str(ours[extreme]['model']).split()[0]}, {backbone})" in PAPER.notes["g"]
    for name in ("dino_r50_36ep", "dino_3scale_r50_36ep"):
        assert f"{STATED[name].decoder:.1f}" in PAPER.notes["h"]
    assert all(size in PAPER.notes["i"] for size in ("13 x 17", "25 x 34", "50 x 67", "100 x 134"))


# A full count takes seconds, for it runs the model: torch.jit traces none without memory. These are of each kind.
COUNTED_FIRST = (
    "deformable_detr_single_stage_r50_50ep",
    "lite_dino_h3l1_a2b3_r50_36ep",
    "h_detr_r50_36ep",
    "sparse_detr_rho03_r50_50ep",
)
IN_VENV = {name for name, paths in MODELS.items() if not needs_timm(read(paths[0]))}


def slow_unless(is_quick: bool) -> tuple[pytest.MarkDecorator, ...]:
    return () if is_quick else (pytest.mark.slow,)


@pytest.mark.parametrize("name", sorted(IN_VENV - set(COUNTED_FIRST)))
def test_parameters(name: str) -> None:
    """Of the models that are not counted in full at once, below."""
    cfg = read(MODELS[name][0])
    # Without memory or initial values where that will do: detectron2's Swin reads numbers off tensors.
    cfg.MODEL.DEVICE = "cpu" if "swin" in name else "meta"
    with torch.device(cfg.MODEL.DEVICE):
        model = build_model(cfg)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert parameters / 1e6 == pytest.approx(STATED[name].parameters, abs=0.051)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=slow_unless(name in COUNTED_FIRST)) for name in PAPER.reference]
)
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
    if isinstance(model.encoder, SparseEncoder):  # whose scorer they count, but not as a part of the encoder
        encoder -= sampling["model.encoder.scorer"].total()
    assert encoder / 1e9 == pytest.approx(PAPER.reference[name]["encoder"], rel=0.01)
    assert total / 1e9 == pytest.approx(PAPER.reference[name]["total"], rel=0.01)


def boxes_of_unselected_tokens(model: Any, image_size: tuple[int, int]) -> float:
    """What the references of all but DINO spend on boxes that evaluation drops."""
    if not getattr(model.query_selection, "trains_all", False):
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
    assert encoder in PAPER.notes[note]
    assert cost.parts["encoder"] / 1e9 == pytest.approx(float(encoder), abs=0.051)
    if total is not None:
        assert total in PAPER.notes[note]
        assert cost.multiply_adds / 1e9 == pytest.approx(float(total), abs=0.051)


def test_count_of_the_note_on_the_larger_image() -> None:
    """Note d; the paper rounds to whole GFLOPs."""
    size = (850, 1040)
    assert "3 x 850 x 1040" in PAPER.notes["d"]
    model = build_model(with_options("deformable_detr_r50_50ep", "NUM_CLASSES", 91))
    cost = cost_of(model, count_operations(model, size))
    boxes = boxes_of_unselected_tokens(model, size)
    figures = {"(2.4)": boxes, "177.5": cost.multiply_adds + boxes, "86.0": cost.parts["encoder"]}
    for text, counted in figures.items():
        assert text in PAPER.notes["d"]
        assert counted / 1e9 == pytest.approx(float(text.strip("()")), abs=0.051)


@pytest.mark.parametrize(
    ("rho", "total", "rest"),
    [
        pytest.param(rho, total, rest, marks=slow_unless(rho == "01"))
        for rho, total, rest in (
            ("01", "109.8", "24.5"),
            ("02", "117.7", "32.3"),
            ("03", "125.6", "40.2"),
            ("05", "141.3", "55.9"),
        )
    ],
)
def test_count_of_the_note_on_sparse_detr(rho: str, total: str, rest: str) -> None:
    """Note j."""
    size = (850, 1040)
    model = build_model(read(CONFIGS / "sparse_detr" / f"sparse_detr_rho{rho}_r50_50ep.yaml"))
    counted = count_operations(model, size)
    cost = cost_of(model, counted)
    boxes = boxes_of_unselected_tokens(model, size)
    figures = {
        "(2.4)": boxes,
        total: cost.multiply_adds + boxes,
        rest: cost.multiply_adds - cost.parts["backbone"] - cost.parts["decoder"],
    }
    for text, operations in figures.items():
        assert text in PAPER.notes["j"]
        assert operations / 1e9 == pytest.approx(float(text.strip("()")), abs=0.051)
