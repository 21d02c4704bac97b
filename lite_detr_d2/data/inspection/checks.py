"""All checks of a dataset by their ids, those of normalising too, and the choice among them."""

from collections.abc import Callable

from ...errors import InputError
from ..findings import Check, Finding, Report, Severity
from ..normalise import checks as normalising
from . import boxes, classes, pictures, twins

CHECKS: dict[str, Check] = {
    check.id: check
    for module in (normalising, twins, classes, boxes, pictures)
    for check in vars(module).values()
    if isinstance(check, Check)
}
_OF_OPENED_IMAGES = {
    check.id
    for check in (pictures.IMAGE_DECODED_SIZE, pictures.IMAGE_MODE, twins.LEAKAGE_NEAR, twins.IMAGE_NEAR_DUPLICATE)
}


def chosen(only: str | None, skip: str | None, *, images: bool) -> Callable[[Report], Report]:
    """Return what reduces a report to chosen checks.

    Args:
        only: ids with commas between them, the only ones that count; None for all.
        skip: ids that do not count; None for none.
        images: whether images are opened.

    Raises:
        InputError: there is no such check, or it needs images to be opened.
    """
    wanted, unwanted = _ids(only, "--only", frozenset(CHECKS)), _ids(skip, "--skip", frozenset())
    unopened = sorted(wanted & _OF_OPENED_IMAGES)
    if only is not None and unopened and not images:
        raise InputError(f"--only {unopened[0]} needs every image opened: add --images.")

    def reduce(report: Report) -> Report:
        def counts(identifier: str) -> bool:
            return (only is None or identifier in wanted) and identifier not in unwanted

        return Report(tuple(finding for finding in report.findings if counts(finding.id)))

    return reduce


def _ids(text: str | None, option: str, default: frozenset[str]) -> frozenset[str]:
    if text is None:
        return default
    identifiers = frozenset(part.strip() for part in text.split(",") if part.strip())
    unknown = sorted(identifiers - CHECKS.keys())
    if unknown or not identifiers:
        what = f"there is no check {', '.join(unknown)}" if unknown else "no check is named"
        raise InputError(f"{option} {text}: {what}. The checks are {', '.join(sorted(CHECKS))}.")
    return identifiers


def exit_code(report: Report, *, strict: bool) -> int:
    """1 if there is an ERROR or, with ``strict``, a WARNING; else 0."""
    counts = report.counts()
    return int(counts[Severity.ERROR.value] > 0 or (strict and counts[Severity.WARNING.value] > 0))


def doubts(report: Report, most: int = 3) -> list[str]:
    """A line for each kind of warning: its id, how often it is in which half, and what it is; of so many, and the rest
    in one."""
    kinds: dict[str, list[Finding]] = {}
    for finding in report.findings:
        if finding.severity is Severity.WARNING:
            kinds.setdefault(finding.id, []).append(finding)
    lines = []
    for identifier, found in kinds.items():
        places = ", ".join(f"{finding.count:,} in {finding.half}" for finding in found if finding.half)
        lines.append(f"{identifier}{f' ({places})' if places else ''}: {found[0].message}")
    return [*lines[:most], *([f"and {len(lines) - most} more kinds"] if len(lines) > most else [])]


def summary(report: Report, dataset: str = "FOLDER") -> str:
    """One line: how much was found, the ids of what is bad, and where to read on."""
    told = []
    for severity, noun in ((Severity.ERROR, "error"), (Severity.WARNING, "warning"), (Severity.INFO, "note")):
        identifiers = [finding.id for finding in report.findings if finding.severity is severity]
        names = f" ({', '.join(dict.fromkeys(identifiers))})" if identifiers and severity is not Severity.INFO else ""
        told.append(f"{len(identifiers) or 'no'} {noun}{'' if len(identifiers) == 1 else 's'}{names}")
    return f"Dataset check: {', '.join(told)}; details: projects/LiteDETR/check_dataset.py {dataset}"
