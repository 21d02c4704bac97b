"""What is shown on a terminal."""

import re
from pathlib import Path

import pytest

from lite_detr_d2.data.findings import Finding, Report, Severity
from lite_detr_d2.data.inspection import screen

from .datasets import half, normalised

HALVES = normalised(half("train", ("a.png", "b.png"), [(0, 0, 1, 1, 8, 8)] * 1234), half("val")).halves


def finding(number: int, severity: Severity = Severity.WARNING, places: int = 3, droppable: bool = True) -> Finding:
    where = tuple(f"annotation {place} of image_{number}.png" for place in range(places))
    return Finding(f"check-{number}", severity, "train", "a thing is so " * 9, "mend it", where, droppable)


def test_one_finding_of_each_severity() -> None:
    report = Report.of([finding(0, Severity.INFO, places=0), finding(1, places=2000), finding(2, Severity.ERROR, 1)])
    lines = screen(Path("mine"), "YOLO", HALVES, report, opened=False).splitlines()
    assert lines[:4] == [
        "YOLO dataset mine",
        "  3 classes: ant, cat, dog",
        "  train         2 images      1,234 boxes",
        "  val           1 images          0 boxes",
    ]
    starts = [line.split(":")[0] for line in lines if re.match("[A-Z]{4}", line) and "dataset" not in line]
    assert starts == ["ERROR    check-2 (train, 1)", "WARNING  check-1 (train, 2,000)", "INFO     check-0 (train)"]
    examples = [line for line in lines if "annotation" in line]
    assert examples[0] == "         annotation 0 of image_2.png"
    assert examples[1].endswith("annotation 1 of image_1.png, annotation 2 of image_1.png, ...")
    assert lines[-2].startswith("1 ERROR, 1 WARNING, 1 INFO. It cannot be trained on: mend the errors")


def test_one_screen_whatever_is_found() -> None:
    report = Report.of([finding(number, places=number) for number in range(40)])
    text = screen(Path("x" * 300), "COCO", HALVES, report, opened=True)
    lines = text.splitlines()
    assert len(lines) < 50
    assert [len(line) for line in lines[1:] if len(line) > 100] == []
    assert len([line for line in lines if line.startswith("WARNING")]) >= 5
    assert set(re.findall(r"check-\d+", text)) == {f"check-{number}" for number in range(40)}
    assert "--verbose shows all" in text


def test_verbose_shows_every_place() -> None:
    report = Report.of([finding(number, places=30) for number in range(10)])
    text = screen(Path("mine"), "COCO", HALVES, report, opened=True, verbose=True)
    places = re.findall(r"annotation \d+ of image_\d+\.png", text)
    assert places == [place for found in report.findings for place in found.places]
    assert "--verbose" not in text


def test_a_place_that_is_longer_than_a_line_is_cut() -> None:
    report = Report((Finding("check", Severity.INFO, "", "it is so", places=("a " * 200, "b")),))
    lines = screen(Path("mine"), "COCO", HALVES, report, opened=True).splitlines()
    assert max(map(len, lines)) <= 100
    assert any(line.endswith("a a ..., b") for line in lines)


NOTE = finding(0, Severity.INFO)
REPAIRED = Finding("box-clipped", Severity.WARNING, "train", "reaches beyond: clipped", places=("annotation 1",))
UNTRAINED = Finding("class-untrained", Severity.WARNING, "train", "classes without an annotation", places=("ant",))


@pytest.mark.parametrize(
    ("findings", "opened", "end"),
    [
        ([], True, "0 ERROR, 0 WARNING, 0 INFO. It can be trained on, and nothing need be done."),
        ([], False, "and nothing need be done. To open every image, too, add --images."),
        ([NOTE], True, "It can be trained on, and nothing need be done."),
        ([REPAIRED], True, "and nothing need be done: what the warnings name is mended on the way."),
        ([finding(0)], True, "It can be trained on; see check-0."),
        ([finding(0)], False, "It can be trained on; see check-0. To open every image, too, add --images."),
        ([finding(0), REPAIRED, finding(1), finding(0)], True, "It can be trained on; see check-0, check-1."),
        ([UNTRAINED], True, "It can be trained on; see class-untrained."),
        (
            [finding(0, Severity.ERROR)],
            True,
            "mend the errors, or leave out what cannot be used with --fix OUT --on-bad drop.",
        ),
        ([finding(0, Severity.ERROR, droppable=False)], True, "It cannot be trained on: mend the errors."),
    ],
)
def test_the_last_line_says_what_to_do(findings: list[Finding], opened: bool, end: str) -> None:
    text = screen(Path("mine"), "COCO", HALVES, Report.of(findings), opened=opened)
    assert re.sub(r"\s+", " ", text).endswith(end)


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "NO_COLOR"])
def test_colours_only_where_they_are_asked_for(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "1")
    report = Report.of([finding(0)])
    plain, coloured = (screen(Path("m"), "COCO", HALVES, report, opened=True, colour=c) for c in (False, True))
    assert "\x1b" not in plain
    assert "\x1b[33mWARNING\x1b[0m" in coloured
    assert re.sub(r"\x1b\[\d+m", "", coloured) == plain


def test_nothing_is_there() -> None:
    assert screen(Path("mine"), "COCO", {}, Report(), opened=True).startswith("COCO dataset mine\n")
