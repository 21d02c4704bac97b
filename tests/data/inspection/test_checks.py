"""The checks by their ids, the choice among them, and what is said of all."""

import importlib
import pkgutil

import pytest

import lite_detr_d2.data.normalise as normalising
from lite_detr_d2.data import inspection
from lite_detr_d2.data.findings import Check, Finding, Report, Severity
from lite_detr_d2.data.inspection import CHECKS, chosen, doubts, exit_code, summary
from lite_detr_d2.errors import InputError

REPORT = Report.of(
    [
        Finding("leakage", Severity.WARNING, "val", "m", places=("a", "b")),
        Finding("box-tiny", Severity.WARNING, "train", "m"),
        Finding("box-tiny", Severity.WARNING, "val", "m"),
        Finding("image-unreadable", Severity.ERROR, "val", "m"),
        Finding("class-balance", Severity.INFO, "train", "m"),
    ]
)


def ids(report: Report) -> list[str]:
    return [finding.id for finding in report.findings]


def test_every_check_is_listed() -> None:
    """Those of every module of both packages."""
    defined = {
        value.id: value
        for package in (inspection, normalising)
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
        for value in vars(importlib.import_module(module.name)).values()
        if isinstance(value, Check)
    }
    assert len(defined) > 40
    assert defined == CHECKS


def test_only_and_skip() -> None:
    assert ids(chosen(None, None, images=False)(REPORT)) == ids(REPORT)
    assert ids(chosen("leakage, class-balance", None, images=False)(REPORT)) == ["leakage", "class-balance"]
    assert ids(chosen(None, "box-tiny,leakage", images=False)(REPORT)) == ["image-unreadable", "class-balance"]
    assert ids(chosen("leakage,box-tiny", "box-tiny", images=False)(REPORT)) == ["leakage"]


@pytest.mark.parametrize(("only", "skip"), [("leakage,typo", None), (None, "typo"), ("", None), (None, ",")])
def test_unknown_checks_are_refused(only: str | None, skip: str | None) -> None:
    with pytest.raises(InputError, match=r"^--(only|skip) .*(typo|is named).* The checks are .*box-tiny.*leakage"):
        chosen(only, skip, images=False)


def test_a_check_that_needs_images_asks_for_them() -> None:
    with pytest.raises(InputError, match="--only leakage-near needs every image opened: add --images"):
        chosen("leakage,leakage-near", None, images=False)
    assert ids(chosen("leakage,leakage-near", None, images=True)(REPORT)) == ["leakage"]


def test_exit_codes() -> None:
    warnings, notes = Report(REPORT.findings[1:]), Report(REPORT.findings[-1:])
    codes = [[exit_code(report, strict=strict) for strict in (False, True)] for report in (REPORT, warnings, notes)]
    assert codes == [[1, 1], [0, 1], [0, 0]]


def test_doubts_say_what_and_where() -> None:
    assert doubts(REPORT) == ["leakage (2 in val): m", "box-tiny (1 in train, 1 in val): m"]
    assert doubts(REPORT, most=1) == ["leakage (2 in val): m", "and 1 more kinds"]
    assert doubts(Report.of([Finding("no-images", Severity.WARNING, "", "none")])) == ["no-images: none"]


def test_the_summary() -> None:
    assert summary(REPORT, "mine") == (
        "Dataset check: 1 error (image-unreadable), 3 warnings (leakage, box-tiny), 1 note; "
        "details: projects/LiteDETR/check_dataset.py mine"
    )
    assert summary(Report()).startswith("Dataset check: no errors, no warnings, no notes; ")
