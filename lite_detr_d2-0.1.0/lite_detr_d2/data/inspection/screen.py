"""What the check of a dataset shows on a terminal."""

import textwrap
from collections.abc import Mapping
from pathlib import Path

from termcolor import colored

from ...wording import in_short
from ..findings import Finding, Report, Severity
from ..normalise import CleanHalf
from .checks import CHECKS

_WIDTH = 100
_LINES = 30
_EXAMPLES = 6
_COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}
_INDENT = " " * 9
_ROOM = _WIDTH - len(_INDENT) - len(", ...")


def screen(
    root: Path,
    kind: str,
    halves: Mapping[str, CleanHalf],
    report: Report,
    *,
    opened: bool,
    verbose: bool = False,
    colour: bool = False,
) -> str:
    """Describe a dataset and what was found, in about one screen.

    Args:
        root: the dataset.
        kind: its format.
        halves: its halves.
        report: what was found.
        opened: whether every image was opened.
        verbose: whether to show all, with all places, however long it gets.
        colour: whether to colour severities.
    """
    head = _header(root, kind, halves)
    foot = ["", *_wrapped(_conclusion(report, opened), "")]
    body: list[str] = []
    left_out: list[str] = []
    for finding in report.findings:
        lines = _all_places(finding) if verbose else _some_places(finding)
        if verbose or (not left_out and len(head) + len(body) + len(lines) + len(foot) < _LINES):
            severity = finding.severity
            painted = colored(severity.value, _COLOURS[severity], force_color=True) if colour else severity.value
            body += [lines[0].replace(severity.value, painted, 1), *lines[1:]]
        else:
            left_out.append(_title(finding))
    if left_out:
        body += _wrapped(f"And {', '.join(left_out)}: --verbose shows all.", "")
    return "\n".join([*head, *body, *foot])


def _header(root: Path, kind: str, halves: Mapping[str, CleanHalf]) -> list[str]:
    classes = [category["name"] for half in list(halves.values())[:1] for category in half.content["categories"]]
    names = textwrap.shorten(", ".join(classes), _WIDTH - 20, placeholder=" ...")
    lines = [f"{kind} dataset {root}", f"  {len(classes)} class{'' if len(classes) == 1 else 'es'}: {names}"]
    for name, half in halves.items():
        images, boxes = len(half.content["images"]), len(half.content["annotations"])
        lines.append(f"  {name:<6}{images:>9,} images {boxes:>10,} boxes")
    return [*lines, ""]


def _title(finding: Finding) -> str:
    count = f", {len(finding.places):,}" if finding.places else ""
    return f"{finding.id} ({finding.half}{count})" if finding.half else f"{finding.id}{count and f' ({count[2:]})'}"


def _message(finding: Finding) -> list[str]:
    return _wrapped(f"{finding.severity.value:<8} {_title(finding)}: {finding.what}", _INDENT)


def _some_places(finding: Finding) -> list[str]:
    """The message, and a line of as many places as it holds."""
    line = ""
    for number, place in enumerate(finding.places, 1):
        more = ", ..." if number < len(finding.places) else ""
        longer = f"{line}, {place}" if line else f"{_INDENT}{textwrap.shorten(place, _ROOM, placeholder=' ...')}"
        if number > _EXAMPLES or len(longer) + len(more) > _WIDTH:
            return [*_message(finding), f"{line}, ..."]
        line = longer
    return [*_message(finding), *([line] if line else [])]


def _all_places(finding: Finding) -> list[str]:
    return [*_message(finding), *(f"{_INDENT}{place}" for place in finding.places)]


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _conclusion(report: Report, opened: bool) -> str:
    counts = report.counts()
    told = ", ".join(f"{count} {severity}" for severity, count in counts.items())
    if counts["ERROR"]:
        droppable = all(finding.droppable for finding in report.errors)
        drop = ", or leave out what cannot be used with --fix OUT --on-bad drop" if droppable else ""
        return f"{told}. It cannot be trained on: mend the errors{drop}."
    warnings = [finding for finding in report.findings if finding.severity is Severity.WARNING]
    to_see = dict.fromkeys(finding.id for finding in warnings if not _is_settled(finding))
    if to_see:
        text = f"{told}. It can be trained on; see {in_short(list(to_see), _EXAMPLES)}."
    else:
        why = ": what the warnings name is mended on the way" if warnings else ""
        text = f"{told}. It can be trained on, and nothing need be done{why}."
    return text if opened else f"{text} To open every image, too, add --images."


def _is_settled(finding: Finding) -> bool:
    """Whether normalising has done all there is to do about it."""
    return not finding.cure and finding.id in CHECKS and bool(CHECKS[finding.id].repair)
