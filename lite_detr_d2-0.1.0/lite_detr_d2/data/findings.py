"""What is said of a dataset: findings of stated severity, each with its cure and its places, and reports of them."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from typing import Any

from ..wording import in_short, listed

# What users are told is said by this logger, which detectron2's set-up and ours give a handler.
logger = logging.getLogger("lite_detr_d2")

_PLACES_SHOWN = 5


class Severity(str, Enum):
    """How bad a finding is."""

    ERROR = "ERROR"  # cannot be used as it is
    WARNING = "WARNING"  # was repaired, is left out, or is doubtful
    INFO = "INFO"  # worth knowing


@dataclass(frozen=True)
class Check:
    """A kind of finding.

    Attributes:
        id: its stable name, such as ``"box-outside"``.
        severity: how bad it is.
        message: what is so. Keys of annotation files are in quotes.
        cure: what the user can do about it; "" where nothing needs to be done.
        droppable: of an ERROR, whether leaving out the images or boxes in question makes the dataset usable.
        repair: what normalising a dataset does about it; "" for nothing.
    """

    id: str
    severity: Severity
    message: str
    cure: str = ""
    droppable: bool = False
    repair: str = ""


@dataclass(frozen=True)
class Finding:
    """One thing that was found, in one half of a dataset, with all the places where it is.

    Attributes:
        id: the check's.
        severity: the check's, or WARNING for an ERROR whose places were dropped.
        half: "train", "val" or "test"; "" for the dataset as a whole.
        message: what is so.
        cure: what to do about it, or "".
        places: what has it, such as ``"annotation 7 of image 3"``; empty for the half as a whole.
        droppable: whether leaving the places out makes the dataset usable.
    """

    id: str
    severity: Severity
    half: str
    message: str
    cure: str = ""
    places: tuple[str, ...] = ()
    droppable: bool = False

    @property
    def fatal(self) -> bool:
        """Whether it keeps the dataset from being used."""
        return self.severity is Severity.ERROR

    @property
    def count(self) -> int:
        """In how many places it is; 1 for the half as a whole."""
        return max(len(self.places), 1)

    @property
    def what(self) -> str:
        """The message and the cure."""
        return f"{self.message}; {self.cure}" if self.cure else self.message

    def text(self, places_shown: int = _PLACES_SHOWN) -> str:
        """One line: the half, what was found, how often, the first places, and the cure."""
        text = f"{self.half}: {self.message}" if self.half else self.message
        if len(self.places) > 1:
            text += f" ({len(self.places)})"
        if self.places:
            text += f": {in_short(self.places, places_shown)}"
        return f"{text.removesuffix('.')}. Cure: {self.cure}" if self.cure else text

    def __str__(self) -> str:
        return self.text()

    def dropped(self) -> "Finding":
        """The finding when its places have been left out."""
        return replace(self, severity=Severity.WARNING, message=f"dropped: {self.message}")

    def to_json(self) -> dict[str, Any]:
        """The finding as JSON types: ``id, severity, half, count, message, cure, places``."""
        values = {**asdict(self), "severity": self.severity.value, "count": self.count, "places": list(self.places)}
        del values["droppable"]
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Finding":
        """Undo ``to_json``, but for ``droppable``, which no longer matters."""
        kept = {key: value for key, value in values.items() if key != "count"}
        return cls(**{**kept, "severity": Severity(kept["severity"]), "places": tuple(kept["places"])})


@dataclass
class Findings:
    """Findings while they are being collected: places of the same check and half come together.

    Attributes:
        half: "train", "val" or "test"; "" for the dataset as a whole.
        repaired: whether what can be is repaired, and the findings are to say how.
    """

    half: str = ""
    repaired: bool = True
    _places: dict[Check, list[str]] = field(default_factory=dict)
    _boxes: Counter[Check] = field(default_factory=Counter)

    def add(self, check: Check, place: str = "") -> None:
        """Note that ``check`` has struck, at ``place`` or, without one, in the half as a whole."""
        places = self._places.setdefault(check, [])
        if place:
            places.append(place)

    def add_box(self, check: Check) -> None:
        """Note a box that is lost with an image at which ``check`` has struck: one cause, said once."""
        self._boxes[check] += 1

    def __iter__(self) -> Iterator[Finding]:
        for check, places in self._places.items():
            boxes = self._boxes[check]
            message = f"{check.message}, with {boxes} box{'' if boxes == 1 else 'es'}" if boxes else check.message
            if self.repaired and check.repair:
                message += f": {check.repair}"
            yield Finding(check.id, check.severity, self.half, message, check.cure, tuple(places), check.droppable)


@dataclass(frozen=True)
class Report:
    """All findings of a dataset."""

    findings: tuple[Finding, ...] = ()

    @classmethod
    def of(cls, *groups: Iterable[Finding]) -> "Report":
        """Put groups of findings together, the worst first and otherwise in their order."""
        order = list(Severity)
        return cls(tuple(sorted((f for group in groups for f in group), key=lambda f: order.index(f.severity))))

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What keeps the dataset from being used."""
        return tuple(finding for finding in self.findings if finding.fatal)

    def counts(self) -> dict[str, int]:
        """How many findings there are of each severity."""
        found = Counter(finding.severity.value for finding in self.findings)
        return {severity.value: found[severity.value] for severity in Severity}

    def lines(self, *severities: Severity) -> list[str]:
        """The findings of these severities, a line each."""
        return [finding.text() for finding in self.findings if finding.severity in severities]

    def dropped(self) -> "Report":
        """The report when all that can be dropped has been."""
        return Report.of(f.dropped() if f.fatal and f.droppable else f for f in self.findings)

    def without(self, *ids: str) -> "Report":
        """The report less the findings of these checks."""
        return Report(tuple(finding for finding in self.findings if finding.id not in ids))

    def log(self, name: str) -> None:
        """Say it once: all warnings in one record, and what is worth knowing in another."""
        for level, severity in ((logging.WARNING, Severity.WARNING), (logging.INFO, Severity.INFO)):
            lines = self.lines(severity)
            if lines:
                logger.log(level, "%s", listed(f"{name}:", lines))
