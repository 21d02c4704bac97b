"""Counting configs by name; what is written about the shipped ones is checked in tests/test_gflops.py."""

import logging
from pathlib import Path

import pytest

from lite_detr_d2.analysis import Figures, count_configs, models_of, read_paper, zoo_lines
from lite_detr_d2.errors import InputError
from tests.projects.scripts import TINY

from .papers import FIGURES, write_paper


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    """Two models, of which one has two schedules."""
    folder = tmp_path / "configs"
    for name, levels, iterations in (("dino_r50_12ep", 4, 8), ("dino_r50_36ep", 4, 9), ("dino_3scale_r50_36ep", 3, 9)):
        (folder / "dino").mkdir(parents=True, exist_ok=True)
        encoder = f"ENCODER: {{SPEC: 'H{levels - 1}L1-(1+1)x1'}}"
        (folder / "dino" / f"{name}.yaml").write_text(
            f"_BASE_: {TINY}\nSOLVER: {{MAX_ITER: {iterations}}}\n"
            f"MODEL: {{LITE_DETR: {{NUM_LEVELS: {levels}, DENOISING: {{NUM_QUERIES: 50}}, {encoder}}}}}\n"
        )
    return folder


def test_schedules_of_one_model_stand_together(configs: Path) -> None:
    assert [[path.stem for path in paths] for paths in models_of(configs)] == [
        ["dino_r50_36ep", "dino_r50_12ep"],
        ["dino_3scale_r50_36ep"],
    ]


def test_counts_and_progress(configs: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lite_detr_d2.analysis")
    figures = count_configs(configs, ["dino_r50_36ep", "dino_3scale_r50_36ep"])
    assert [record.getMessage() for record in caplog.records] == [
        "Counting dino_r50_36ep (1 of 2)",
        "Counting dino_3scale_r50_36ep (2 of 2)",
    ]
    four, three = figures.values()
    assert four.tokens == (100 * 134, 50 * 67, 25 * 34, 13 * 17)
    assert three.tokens == (100 * 134, 50 * 67, 25 * 34)
    assert four.total > three.total > three.backbone + three.encoder + three.decoder > 0


def test_a_config_that_there_is_not(configs: Path) -> None:
    with pytest.raises(InputError, match=r"^There is no config dino_gone, dino_lost in .*configs, of which a row of"):
        count_configs(configs, ["dino_gone", "dino_r50_36ep", "dino_lost"])


def test_lines(tmp_path: Path) -> None:
    paper = read_paper(write_paper(tmp_path / "paper.json"))
    models = [[Path("dino_r50.yaml"), Path("dino_12ep.yaml")], [Path("other.yaml")]]
    _, _, dino, other, blank, *notes = zoo_lines(paper, models, {**FIGURES, "other": Figures(1, 2, 3, 4, 5)})
    assert dino == "| `dino_r50`, `12ep` | 50.7 | 46.9 | 234.2 | 70.4 | 138.7 | 19.4 | 235 (-0.3 %) | | 234.6 | y |"
    assert other == "| `other` | | 1.0 | 2.0 | 3.0 | 4.0 | 5.0 | | | | |"
    assert (blank, notes) == ("", ["- y: About parts."])
