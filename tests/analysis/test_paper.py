"""The paper's figures as data, and which of our configs its rows are."""

import re
from pathlib import Path

import pytest

from lite_detr_d2.analysis import read_paper
from lite_detr_d2.analysis.paper import Row, Table
from lite_detr_d2.errors import InputError
from tests.projects.scripts import PROJECT
from tests.shipped_configs import FOR_COCO, read

from .papers import CONTENT, write_paper

PAPER = read_paper(PROJECT / "paper.json")
CONFIGS = {path.stem: path for path in FOR_COCO}
ARCHITECTURES = {"DINO": "DINO", "Deformable DETR": "DeformableDETR", "H-DETR": "HDETR"}
OF_TABLES = {"1": "DINO", "5": "DINO"}  # whose rows do not all name the detector
BACKBONES = {"R50": "build_resnet_backbone", "Swin-T": "build_swin_backbone"}
OURS = [(table, row) for table in PAPER.tables.values() for row in table.rows if row.config]
every_row = pytest.mark.parametrize(
    ("table", "row"), [pytest.param(*each, id=f"{each[0].number}-{each[1].config}") for each in OURS]
)


def test_the_papers_rows_are_all_there() -> None:
    assert {number: len(table.rows) for number, table in PAPER.tables.items()} == {
        **{"1": 2, "2": 1, "3": 15, "4": 23, "5": 9, "6": 8}
    }
    assert sum(row.config is None for table in PAPER.tables.values() for row in table.rows) == 19


@every_row
def test_a_config_is_what_its_row_says(table: Table, row: Row) -> None:
    cfg = read(CONFIGS[str(row.config)])
    model = cfg.MODEL.LITE_DETR
    if table.number == "2":
        assert model.NUM_LEVELS == 4
        return
    name = str(row.cells.get("model", ""))
    lite, detector, spec, scales = re.fullmatch(
        r"(Lite-)?([\w -]+?)(?: (H\dL\d-\(\d\+1\)x\d)|-(\dscale)(?: \(\d+%\))?)?", name or OF_TABLES[table.number]
    ).groups()  # type: ignore[union-attr]
    assert cfg.MODEL.META_ARCHITECTURE == ARCHITECTURES[detector]
    assert BACKBONES[str(row.cells.get("backbone", "R50"))] == cfg.MODEL.BACKBONE.NAME
    epochs = {"3": 50, "4": 36, "5": 36, "6": 50}.get(table.number, 36)
    assert row.cells.get("epochs", epochs) == epochs
    assert str(row.config).endswith(f"_{epochs}ep")
    if table.number == "5":
        assert_component(row, cfg)
        return
    assert (cfg.MODEL.LITE_DETR.ENCODER.NAME == "InterleavedEncoder") == bool(lite)
    assert model.NUM_LEVELS == int((scales or "4scale")[0])
    if lite:
        assert (model.ENCODER.SPEC, model.ENCODER.KEY_AWARE, model.ENCODER.FUSION) == (spec, True, "joint")


def assert_component(row: Row, cfg: object) -> None:
    """A row of Table 5, which tells a model by its components."""
    model = cfg.MODEL.LITE_DETR  # type: ignore[attr-defined]
    scales, (high, low, key_aware) = (
        str(row.cells["scales"])[0],
        (row.cells[name] == "yes" for name in ("high-level fusion", "low-level fusion", "KDA")),
    )
    assert model.ENCODER.KEY_AWARE == key_aware
    if high:
        assert model.ENCODER.SPEC.startswith(f"H{scales}L{4 - int(scales)}-(2+1)x3")
        assert model.ENCODER.FUSION == ("joint" if low else "high_only")
    else:
        assert (model.ENCODER.NAME, model.NUM_LEVELS) == ("DeformableEncoder", int(scales))


def test_rows_of_our_detectors_have_a_config() -> None:
    for number in ("3", "4", "6"):
        for row in PAPER.tables[number].rows:
            is_ours = re.match(r"(Lite-)?(DINO|Deformable DETR|H-DETR)", str(row.cells["model"])) is not None
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
