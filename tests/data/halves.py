"""Sources of content that tests write, and what becomes of them."""

import json
from pathlib import Path
from typing import Any

from lite_detr_d2.data.normalise import Normalised, normalise
from lite_detr_d2.data.source import Source, SourceHalf, read_coco_file

Content = dict[str, Any]


def source_of(root: Path, **halves: Content) -> Source:
    """Write halves, whose images are in images/, and return them as a source."""
    for name, content in halves.items():
        (root / f"{name}.json").write_text(json.dumps(content))
    return source_in(root, *halves)


def source_in(root: Path, *names: str) -> Source:
    """The source of annotation files that lie in ``root``, beside images/."""
    files = {name: root / f"{name}.json" for name in names}
    return Source(
        root,
        "COCO",
        {
            name: SourceHalf(file, (root / "images",), lambda file=file: read_coco_file(file), (file,))  # type: ignore[misc]
            for name, file in files.items()
        },
    )


def normalised(root: Path, **halves: Content) -> Normalised:
    """Write halves and normalise them."""
    return normalise(source_of(root, **halves))


def places(outcome: Normalised, check: str, half: str | None = None) -> tuple[str, ...]:
    """Where a check struck; the finding must be there, once."""
    (finding,) = (f for f in outcome.report.findings if f.id == check and half in (None, f.half))
    return finding.places


def found(outcome: Normalised) -> set[str]:
    """The ids of all warnings and errors."""
    return {finding.id for finding in outcome.report.findings if finding.severity != "INFO"}


def messages(outcome: Normalised) -> set[str]:
    """All warnings and errors: the id, and what is said to be so."""
    return {f"{finding.id}: {finding.message}" for finding in outcome.report.findings if finding.severity != "INFO"}
