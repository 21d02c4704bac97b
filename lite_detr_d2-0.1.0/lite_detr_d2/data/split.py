"""Split the one half of a dataset in two."""

import hashlib
from dataclasses import replace

from ..errors import InputError
from .findings import Findings, Report
from .normalise import CleanHalf, Normalised, checks, note_classes

# One image in so many is evaluated on, and no more than COCO evaluates on.
_ONE_IN = 5
_MOST_FOR_VAL = 5000


def split(normalised: Normalised, source: str) -> Normalised:
    """Split the training half: one image in five is for evaluation, at least one and at most 5,000.

    Which ones depends on the image ids alone, but that each half gets an image with annotations.

    Args:
        normalised: a dataset with a training half only.
        source: its name, for messages.

    Raises:
        InputError: it has one image only, or only one that has annotations.
    """
    whole = normalised.halves["train"]
    annotated = {annotation["image_id"] for annotation in whole.content["annotations"]}
    chosen = _images_for_val([image["id"] for image in whole.content["images"]], annotated, source)
    halves = {name: _part(whole, name, chosen, is_val=name == "val") for name in ("train", "val")}
    classes = {name: Findings(name) for name in halves}
    for name, half in halves.items():
        note_classes(half, classes[name])
    # What is said of the classes of the whole is said of each half.
    rest = normalised.report.without(checks.CLASS_UNTRAINED.id, checks.ONLY_CROWDS.id)
    return replace(normalised, halves=halves, report=Report.of(rest.findings, *classes.values()))


def _part(whole: CleanHalf, name: str, chosen: set[int], *, is_val: bool) -> CleanHalf:
    content = {
        **whole.content,
        "images": [image for image in whole.content["images"] if (image["id"] in chosen) == is_val],
        "annotations": [box for box in whole.content["annotations"] if (box["image_id"] in chosen) == is_val],
    }
    return replace(whole, name=name, content=content)


def _images_for_val(identifiers: list[int], annotated: set[int], source: str) -> set[int]:
    if len(identifiers) == 1:
        raise InputError(
            f"{source} is the only annotation file, and its one image cannot be split into one to train on and one to "
            "evaluate on. Add images, or an annotation file to evaluate on."
        )
    if len(annotated) < 2:
        raise InputError(
            f"{source} is the only annotation file, and too few of its images have annotations: split in two, one half "
            "has none. Split it by hand, or add annotations."
        )
    count = min(max(len(identifiers) // _ONE_IN, 1), _MOST_FOR_VAL)
    # By a hash, images that are added later move few of the others to the other half.
    shuffled = sorted(identifiers, key=lambda identifier: hashlib.sha256(str(identifier).encode()).digest())
    chosen, rest = set(shuffled[:count]), set(shuffled[count:])
    for lacking, other in ((chosen, rest), (rest, chosen)):
        if not lacking & annotated:
            gained = next(identifier for identifier in shuffled if identifier in annotated)
            given = next(identifier for identifier in shuffled if identifier in lacking)
            lacking ^= {gained, given}
            other ^= {gained, given}
    return chosen
