"""The paper's tables with our figures beside its own."""

from pathlib import Path

import pytest

from lite_detr_d2.analysis import Figures, Paper, as_json, as_markdown, as_text, read_paper
from lite_detr_d2.analysis.zoo import percent

from .papers import FIGURES, write_paper


@pytest.fixture
def paper(tmp_path: Path) -> Paper:
    return read_paper(write_paper(tmp_path / "paper.json"))


@pytest.mark.parametrize(
    ("name", "stated"),
    [
        *[("total", "234.2"), ("encoder", "138.7"), ("others", "25.2"), ("parameters", "46.9")],
        *[("S1", "1.24"), ("S2", "4.77"), ("S3", "18.80"), ("S4", "75.19")],
    ],
)
def test_figures_as_they_are_stated(name: str, stated: str) -> None:
    assert FIGURES["dino_r50"].stated(name) == stated


def test_shares_are_of_the_levels_that_there_are() -> None:
    coarse = Figures(0, 0, 0, 0, 0, (3350, 850, 221))
    assert [coarse.stated(name) for name in ("S1", "S2", "S3")] == ["5.00", "19.23", "75.77"]


@pytest.mark.parametrize(
    ("ours", "paper", "difference"), [("168.1", 177, -5.03), ("1.24", 1.17, 5.98), ("41.2", 40, 3.0), ("137.0", 137, 0)]
)
def test_differences_are_of_what_is_stated(ours: str, paper: float, difference: float) -> None:
    assert percent(ours, paper) == pytest.approx(difference, abs=0.005)


def test_markdown(paper: Paper) -> None:
    lines = as_markdown(paper, paper.chosen(["1", "2"]), FIGURES).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert lines[0] == "### Table 1: models"
    assert rows[0] == [
        *["model", "AP, paper", "GFLOPs, paper", "GFLOPs, ours", "decoder GFLOPs, paper", "decoder GFLOPs, ours"],
        *["source", "notes"],
    ]
    assert rows[2] == ["DINO", "50.7", "235", "234.2 (-0.3 %)", "28", "25.2 (-10.0 %)", "both", "y"]
    assert rows[3] == ["Lite-DINO H3L1", "50.4", "151", "150.8 (-0.1 %)", "", "25.4", "both", ""]
    assert rows[4] == ["YOLO", "50.0", "206", "", "", "", "paper", ""]
    assert rows[5] == ["no GFLOPs", "49.0", "", "", "", "", "paper", ""]
    assert rows[-1] == ["1.17", "1.24 (+6.0 %)", "75.3", "75.19 (-0.1 %)", "both", "x, y"]
    assert lines[-2:] == ["- x: About rounding.", "- y: About parts."]
    assert "- " not in as_markdown(paper, [], FIGURES)


def test_text_has_what_markdown_has(paper: Paper) -> None:
    text = as_text(paper, paper.chosen(["1"]), FIGURES)
    assert text.startswith("Table 1: models\n\n")
    dino = next(line for line in text.splitlines() if line.startswith("DINO"))
    assert dino.split() == ["DINO", "50.7", "235", "234.2", "(-0.3", "%)", "28", "25.2", "(-10.0", "%)", "both", "y"]
    assert "3 x 800 x 1066" in text
    assert text.splitlines()[-1] == "y: About parts."


def test_json(paper: Paper) -> None:
    content = as_json(paper, paper.chosen(["1"]), FIGURES)
    assert content["image"] == [3, 800, 1066]
    assert content["notes"] == {"y": "About parts."}
    dino, lite, yolo, _ = content["tables"]["1"]["rows"]
    assert dino == {
        "config": "dino_r50",
        "source": "both",
        "figures": {
            "model": {"paper": "DINO"},
            "AP": {"paper": 50.7},
            "GFLOPs": {"paper": 235, "ours": 234.2, "difference_percent": -0.3},
            "decoder GFLOPs": {"paper": 28, "ours": 25.2, "difference_percent": -10.0},
        },
        "notes": ["y"],
    }
    assert lite["figures"]["decoder GFLOPs"] == {"paper": None, "ours": 25.4}
    assert (yolo["config"], yolo["source"], yolo["figures"]["GFLOPs"]) == (None, "paper", {"paper": 206})
