"""Inspect a dataset that is in order: what a detector will find hard, and what makes its figures too good."""

from collections.abc import Mapping, Sequence

from ..findings import Finding
from ..normalise import Normalised
from .boxes import box_findings
from .classes import class_findings
from .pictures import Picture, open_images, picture_findings, thumbnails_of
from .sizes import TrainingSizes
from .table import tables_of
from .twins import near_findings, same_files, same_findings


def inspect_content(normalised: Normalised, *, sizes: TrainingSizes | None = None) -> list[Finding]:
    """Look at boxes and classes, and for image files with the same bytes. No image is opened; it takes seconds.

    Args:
        normalised: the dataset.
        sizes: how training resizes images; None for detectron2's defaults.
    """
    tables = tables_of(normalised.halves)
    findings = same_findings(tables, same_files(tables))
    for table in tables:
        findings += [*class_findings(table), *box_findings(table, sizes or TrainingSizes())]
    return findings


def look_at_images(normalised: Normalised, *, workers: int = 1, progress: bool = False) -> dict[str, list[Picture]]:
    """Open every image in full.

    Args:
        normalised: the dataset.
        workers: how many images are opened at a time.
        progress: whether to show a progress bar on standard error.

    Returns:
        By half, what was seen of each of its images.
    """
    return open_images(tables_of(normalised.halves), max_value=normalised.max_value, workers=workers, progress=progress)


def inspect_pictures(normalised: Normalised, pictures: Mapping[str, Sequence[Picture]]) -> list[Finding]:
    """Say which of the images that :func:`look_at_images` has opened cannot be used, are unusual, or look alike."""
    tables = tables_of(normalised.halves)
    findings = near_findings(tables, thumbnails_of(tables, pictures), same_files(tables))
    for table in tables:
        findings += picture_findings(table, pictures[table.name])
    return findings
