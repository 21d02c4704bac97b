"""The paper's figures as data, and which of our configs its rows are."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from detectron2.config import CfgNode

from lite_detr_d2.analysis import read_paper
from lite_detr_d2.analysis.paper import Row, Table
from lite_detr_d2.errors import InputError
from tests.projects.scripts import PROJECT
from tests.shipped_configs import FOR_COCO, read

from .papers import CONTENT, write_paper

PAPER = read_paper(PROJECT / "paper.json")
CONFIGS = {path.stem: path for path in FOR_COCO}
ARCHITECTURES = {
    "DINO": "DINO",
    "Deformable DETR": "DeformableDETR",
    "H-DETR": "HDETR",
    "Sparse DETR": "DeformableDETR",
}
BACKBONES = {"R50": ("build_resnet_backbone", 50), "Swin-T": ("build_swin_backbone", None)}
OURS = [(table, row) for table in PAPER.tables.values() for row in table.rows if row.config and table.number != "2"]
every_row = pytest.mark.parametrize(
    ("table", "row"), [pytest.param(*each, id=f"{each[0].number}-{each[1].config}") for each in OURS]
)


def test_the_papers_rows_are_all_there() -> None:
    assert {number: len(table.rows) for number, table in PAPER.tables.items()} == {
        **{"1": 2, "2": 1, "3": 15, "4": 23, "5": 9, "6": 8}
    }
    assert sum(row.config is None for table in PAPER.tables.values() for row in table.rows) == 15


@dataclass(frozen=True)
class Model:
    """What a row says of its model; what its config says."""

    architecture: str
    backbone: tuple[str, int | None]
    levels: int
    spec: str | None  # of an interleaved encoder
    fusion: str
    key_aware: bool
    rho: float | None = None  # of a sparse encoder


def model_of_row(table: Table, row: Row) -> Model:
    backbone = BACKBONES[str(row.cells.get("backbone", "R50"))]
    if table.number == "5":  # whose rows tell a model of DINO by its components
        levels = int(str(row.cells["scales"])[0])
        high, low, key_aware = (row.cells[name] == "yes" for name in ("high-level fusion", "low-level fusion", "KDA"))
        spec = f"H{levels}L{4 - levels}-(2+1)x3" if high else None
        return Model(
            "DINO", backbone, 4 if high else levels, spec, "high_only" if high and not low else "joint", key_aware
        )
    found = re.fullmatch(
        r"(?:Lite-)?([\w -]+?)(?: (H\dL\d-\(\d\+1\)x\d))?(?:-(\d)scale)?(?: \(\d+%\))?(?: rho=(0\.\d))?",
        str(row.cells["model"]),
    )
    assert found is not None, row
    detector, spec, levels, rho = found.groups()
    assert str(row.cells["model"]).startswith("Lite-") == (spec is not None)
    rho = None if rho is None else float(rho)
    return Model(ARCHITECTURES[detector], backbone, int(levels or 4), spec, "joint", spec is not None, rho)


def model_of_config(cfg: CfgNode) -> Model:
    model = cfg.MODEL.LITE_DETR
    spec = model.ENCODER.SPEC if model.ENCODER.NAME == "InterleavedEncoder" else None
    backbone = cfg.MODEL.BACKBONE.NAME, cfg.MODEL.RESNETS.DEPTH if "resnet" in cfg.MODEL.BACKBONE.NAME else None
    fusion = "joint" if spec is None else model.ENCODER.FUSION
    rho = model.ENCODER.RHO if model.ENCODER.NAME == "SparseEncoder" else None
    return Model(cfg.MODEL.META_ARCHITECTURE, backbone, model.NUM_LEVELS, spec, fusion, model.ENCODER.KEY_AWARE, rho)


@every_row
def test_a_config_is_what_its_row_says(table: Table, row: Row) -> None:
    cfg = read(CONFIGS[str(row.config)])
    assert model_of_row(table, row) == model_of_config(cfg)
    epochs = {"3": 50, "6": 50}.get(table.number, 36)
    assert row.cells.get("epochs", epochs) == epochs
    assert str(row.config).endswith(f"_{epochs}ep")


def test_shares_are_of_four_levels() -> None:
    (row,) = PAPER.tables["2"].rows
    assert model_of_config(read(CONFIGS[str(row.config)])).levels == 4


def test_rows_of_our_detectors_have_a_config() -> None:
    for number in ("3", "4", "6"):
        for row in PAPER.tables[number].rows:
            is_ours = (
                re.match(r"(Lite-)?(DINO|Deformable DETR|H-DETR|Sparse DETR)", str(row.cells["model"])) is not None
            )
            assert is_ours == (row.config is not None), row


def test_columns_have_a_meaning() -> None:
    """Ours beside it, or only the paper's, or a name."""
    columns = {column for table in PAPER.tables.values() for column in table.columns}
    names = {"model", "backbone", "epochs", "scales", "high-level fusion", "low-level fusion", "KDA"}
    assert columns == {*PAPER.counted, *PAPER.measured, *names}


def test_the_decoder_of_table_1_is_all_the_rest() -> None:
    for row in PAPER.tables["1"].rows:
        parts = [row.cells[f"{name} GFLOPs"] for name in ("backbone", "encoder", "decoder")]
        assert sum(map(float, parts)) == row.cells["GFLOPs"]  # type: ignore[arg-type]


@pytest.mark.parametrize("number", ["7", "0", "two"])
def test_a_table_that_there_is_not(number: str) -> None:
    with pytest.raises(InputError, match=rf"^There is no Table {number} .*: choose of 1, 2, 3, 4, 5, 6\.$"):
        PAPER.chosen(["3", number])
    assert [table.number for table in PAPER.chosen(["5", "3", "5"])] == ["3", "5"]


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {**CONTENT, "tables": []},
        {name: value for name, value in CONTENT.items() if name != "notes"},
        {**CONTENT, "tables": {"1": {"title": "", "columns": ["model", "config", "notes"], "rows": [["DINO"]]}}},
    ],
)
def test_figures_that_cannot_be_read(content: object, tmp_path: Path) -> None:
    path = tmp_path / "paper.json"
    if content is not None:
        write_paper(path, content)
    with pytest.raises(InputError, match=r"paper\.json cannot be read as the paper's figures: "):
        read_paper(path)
