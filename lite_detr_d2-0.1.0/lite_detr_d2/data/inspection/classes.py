"""How many boxes each class has."""

from collections.abc import Iterator

import numpy as np

from ..findings import Check, Finding, Findings, Severity
from .table import HalfTable

_FEW = 10  # boxes
_IMBALANCE = 1000

CLASS_RARE = Check(
    "class-rare",
    Severity.WARNING,
    f"classes have fewer than {_FEW} boxes to train on, or less than 1/{_IMBALANCE} of the most frequent class",
    "add images of them; their AP says little",
)
CLASS_BALANCE = Check("class-balance", Severity.INFO, "boxes by class")


def class_findings(table: HalfTable) -> Iterator[Finding]:
    """Count the boxes of each class. That a class has none is said by whoever puts the dataset in order."""
    found = Findings(table.name)
    counts = np.bincount(table.class_of, minlength=len(table.classes))
    total = counts.sum()
    for index in np.argsort(-counts, kind="stable"):
        name, count = table.classes[index], int(counts[index])
        if total:
            found.add(CLASS_BALANCE, f"{name} {count:,} ({100 * count / total:.1f} %)")
        if table.name == "train" and 0 < count < max(_FEW, counts.max() / _IMBALANCE):
            found.add(CLASS_RARE, f"{name} ({count:,})")
    yield from found
