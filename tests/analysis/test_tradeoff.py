"""What Figure 1 is made of."""

from pathlib import Path

from lite_detr_d2.analysis import Detector, Model, configs_of_figure, detectors_of, others_of, read_paper
from tests.projects.scripts import PROJECT

from .papers import CONTENT, FIGURES, write_paper


def test_ap_is_the_papers_and_gflops_are_ours_where_we_have_the_model(tmp_path: Path) -> None:
    paper = read_paper(write_paper(tmp_path / "paper.json"))
    assert configs_of_figure(paper) == ["dino_r50", "lite_dino_r50"]
    assert detectors_of(paper, FIGURES) == [
        Detector("DINO, R-50", Model("DINO", 234.21, 50.7), (Model("H3L1", 150.84, 50.4),))
    ]
    assert others_of(paper) == [Model("YOLO", 206, 50.0)]


def test_a_model_of_ours_that_is_no_detector_of_the_figure_stands_with_the_others(tmp_path: Path) -> None:
    table = CONTENT["tables"]["1"]
    rows = [*table["rows"], ["Sparse DETR", 46.0, 127, None, "sparse_detr", ""]]
    content = {**CONTENT, "tables": {**CONTENT["tables"], "1": {**table, "rows": rows}}}
    paper = read_paper(write_paper(tmp_path / "paper.json", content))
    assert others_of(paper) == [Model("YOLO", 206, 50.0), Model("Sparse DETR", 127, 46.0)]


def test_every_model_of_ours_in_tables_3_and_4_is_in_the_figure_once() -> None:
    """But Sparse DETR's, which are rivals."""
    paper = read_paper(PROJECT / "paper.json")
    rows = [row.config for number in ("3", "4") for row in paper.tables[number].rows if row.config]
    rows = [config for config in rows if not config.startswith("sparse_detr")]
    assert sorted(configs_of_figure(paper)) == sorted(rows)
    for detector in paper.figure["detectors"]:
        ending = detector["plain"].removeprefix("dino").removeprefix("h_detr").removeprefix("deformable_detr")
        family = detector["plain"].removesuffix(ending)
        assert all(name.startswith(f"lite_{family}_h") and name.endswith(ending) for name in detector["lite"])
