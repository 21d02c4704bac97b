"""The paper's tables from the command line: what is counted, printed and written, and what cannot be."""

import json
from pathlib import Path
from typing import Any

import pytest

from lite_detr_d2.analysis import Figures
from lite_detr_d2.errors import InputError

from .scripts import load_script

paper_tables = load_script("paper_tables")
BEGIN, END = paper_tables.MARKS
TOKENS = (13400, 3350, 850, 221)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that would be counted, all of the same figures."""
    asked: list[str] = []

    def count(_: Path, names: list[str]) -> dict[str, Figures]:
        asked.extend(names)
        return dict.fromkeys(names, Figures(47.68, 234.56, 70.0, 130.0, 20.0, TOKENS))

    monkeypatch.setattr(paper_tables, "count_configs", count)
    return asked


@pytest.fixture
def readme(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    path = tmp_path / "README.md"
    path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    monkeypatch.setattr(paper_tables, "README", path)
    return path


def output_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    paper_tables.main([str(argument) for argument in arguments])
    return capsys.readouterr().out


def test_tables_that_are_chosen(counted: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    text = output_of(capsys, "--tables", 2, 1)
    assert counted == ["dino_r50_36ep", "dino_3scale_r50_36ep"]
    assert [line.split(":")[0] for line in text.splitlines() if line.startswith("Table ")] == ["Table 1", "Table 2"]
    row = next(line for line in text.splitlines() if line.startswith("any with four scales"))
    assert row.split()[4:] == [
        *["1.17", "1.24", "(+6.0", "%)", "4.71", "4.77", "(+1.3", "%)"],
        *["18.8", "18.80", "(+0.0", "%)", "75.3", "75.19", "(-0.1", "%)", "both", "i"],
    ]


def test_all_tables_as_markdown(counted: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    lines = output_of(capsys, "--markdown").splitlines()
    assert [line[:12] for line in lines if line.startswith("###")] == [
        f"### Table {number}:"[:12] for number in range(1, 7)
    ]
    assert len(counted) == len(set(counted)) == 33
    dino = next(line for line in lines if line.startswith("| DINO ") and "Swin-T" in line)
    assert [cell.strip() for cell in dino.strip("|").split("|")] == [
        *["DINO", "Swin-T", "36", "54.1", "72.0", "59.3", "38.3", "57.3", "68.6"],
        *["243", "234.6 (-3.5 %)", "137", "130.0 (-5.1 %)", "47", "47.7 (+1.5 %)", "both", ""],
    ]
    other = next(line for line in lines if line.startswith("| Efficient DETR"))
    assert [cell.strip() for cell in other.strip("|").split("|")][8:] == ["159", "", "79", "", "32", "", "paper", ""]


def test_json_and_figure(counted: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = tmp_path / "tables.json", tmp_path / "figure.png"
    output_of(capsys, "--tables", 2, "--json", files[0], "--figure", files[1])
    assert len(counted) == 19  # Figure 1 is of Tables 3 and 4
    assert files[1].read_bytes().startswith(b"\x89PNG")
    content: dict[str, Any] = json.loads(files[0].read_text())
    (row,) = content["tables"]["2"]["rows"]
    assert row["figures"]["S1 (1/64)"] == {"paper": 1.17, "ours": 1.24, "difference_percent": 6.0}


def test_the_zoo_is_counted_and_written(counted: list[str], readme: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output_of(capsys, "--tables", 2, "--write")
    before, table, after = readme.read_text().partition(f"{END}\n")[0].partition(f"{BEGIN}\n")
    assert (before, table, readme.read_text().partition(f"{END}\n")[2]) == ("before\n", f"{BEGIN}\n", "after\n")
    rows = [line for line in after.splitlines() if line.startswith("| `")]
    assert len(counted) == len(set(counted)) == len(rows)
    row = "| 50.7 | 47.7 | 234.6 | 70.0 | 130.0 | 20.0 | 235 (-0.2 %) | 137 (-5.1 %) | 234.6 | |"
    assert f"| `dino_r50_36ep`, `12ep` {row}" in rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing\n", rf"README\.md has no line {BEGIN}: what is written goes between"),
        (f"{BEGIN}\nold\n", rf"README\.md has no line {END}: "),
        (f"{END}\n{BEGIN}\n", rf"README\.md has no line {END}: "),
        (None, r"README\.md cannot be read: No such file"),
    ],
)
def test_a_readme_without_marks_is_left_as_it_is(
    text: str | None, message: str, counted: list[str], readme: Path
) -> None:
    readme.unlink()
    if text is not None:
        readme.write_text(text)
    with pytest.raises(InputError, match=message):
        paper_tables.main(["--write"])
    assert not counted  # minutes later, it would be a pity
    assert text is None or readme.read_text() == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tables", "3", "7"], r"^There is no Table 7"),
        (["--json", "gone/tables.json"], r"gone/tables\.json cannot be written: there is no folder gone"),
        (["--json", "."], r"is a folder: name a file"),
        (["--figure", "gone/figure.png"], r"gone/figure\.png cannot be written"),
        (["--figure", "figure.txt"], r"figure\.txt is not named as a picture"),
    ],
)
def test_what_cannot_be_done_is_said_first(arguments: list[str], message: str, counted: list[str]) -> None:
    with pytest.raises(InputError, match=message):
        paper_tables.main(arguments)
    assert not counted


def test_progress_is_not_in_the_tables(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which standard output may be made a file."""

    def count(_: Path, names: list[str]) -> dict[str, Figures]:
        paper_tables.logger.info("Counting")
        return dict.fromkeys(names, Figures(47.68, 234.56, 70.0, 130.0, 20.0, TOKENS))

    monkeypatch.setattr(paper_tables, "count_configs", count)
    paper_tables.main(["--tables", "2", "--markdown"])
    assert capfd.readouterr().out.startswith("### Table 2")
