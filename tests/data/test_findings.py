"""What is found is said in one line each, with a count and a few places, and kept in full."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lite_detr_d2.data.findings import Check, Finding, Findings, Report, Severity
from lite_detr_d2.data.normalise import checks
from lite_detr_d2.wording import listed
from tests.helpers import warnings_of_the_package

BAD = Check("bad", Severity.ERROR, "a box is bad", "mend it", droppable=True)
ODD = Check("odd", Severity.WARNING, "a box is odd", repair="made even")
NOTED = Check("noted", Severity.INFO, "a box is noted")


def findings(half: str = "train", *, repaired: bool = True) -> Findings:
    found = Findings(half, repaired)
    for number in range(7):
        found.add(ODD, f"box {number}")
    found.add(BAD, "box 9")
    found.add(NOTED)
    return found


def test_places_of_a_check_come_together() -> None:
    odd, bad, noted = findings()
    assert (odd.count, bad.count, noted.count) == (7, 1, 1)
    assert odd.text() == "train: a box is odd: made even (7): box 0, box 1, box 2, box 3, box 4, ..."
    assert odd.text(places_shown=7).endswith("box 5, box 6")
    assert str(bad) == "train: a box is bad: box 9. Cure: mend it"
    shown = replace(odd, cure="mend it").text(1)
    assert shown == "train: a box is odd: made even (7): box 0, ... Cure: mend it"
    assert str(noted) == "train: a box is noted"


def test_without_repairs_none_is_said() -> None:
    assert next(iter(findings(repaired=False))).text(1) == "train: a box is odd (7): box 0, ..."
    assert next(iter(findings(half=""))).text(1) == "a box is odd: made even (7): box 0, ..."


def test_a_report_starts_with_the_worst() -> None:
    report = Report.of(findings("train"), findings("val"))
    assert [finding.id for finding in report.findings] == ["bad", "bad", "odd", "odd", "noted", "noted"]
    assert [finding.half for finding in report.errors] == ["train", "val"]
    assert report.counts() == {"ERROR": 2, "WARNING": 2, "INFO": 2}
    assert [finding.id for finding in report.without("odd", "noted").findings] == ["bad", "bad"]


def test_what_can_be_dropped_is_no_error_any_more() -> None:
    final = Finding("final", Severity.ERROR, "", "contradiction")
    report = Report.of(findings(), [final]).dropped()
    assert report.errors == (final,)
    assert "train: dropped: a box is bad: box 9. Cure: mend it" in report.lines(Severity.WARNING)


def test_a_report_is_one_record_of_each_severity() -> None:
    with warnings_of_the_package() as messages:
        Report.of(findings("train"), findings("val")).log("Dataset x")
        Report.of().log("Dataset y")
    (message,) = messages
    assert message.splitlines()[0] == "Dataset x:"
    assert message.count("\n  ") == 2
    assert "noted" not in message
    assert listed("Dataset x:", ["one"]) == "Dataset x: one"


def test_findings_are_json_types_and_back() -> None:
    for finding in findings():
        values = json.loads(json.dumps(finding.to_json()))
        assert set(values) == {"id", "severity", "half", "count", "message", "cure", "places"}
        assert values["count"] == finding.count
        assert Finding.from_json(values).text(99) == finding.text(99)


@pytest.mark.parametrize("check", [value for value in vars(checks).values() if isinstance(value, Check)])
def test_checks_are_consistent(check: Check) -> None:
    others = [value for value in vars(checks).values() if isinstance(value, Check) and value is not check]
    assert check.id not in {other.id for other in others}
    assert not check.droppable or check.severity is Severity.ERROR
    assert not check.repair or check.severity is not Severity.ERROR
    assert not check.message.endswith(".")
    documented = Path(checks.__file__).read_text()
    assert documented.count(f'"{check.id}"') == 1
