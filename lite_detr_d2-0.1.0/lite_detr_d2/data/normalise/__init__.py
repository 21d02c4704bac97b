"""Whatever the source, the same clean COCO content comes out, with a report of what was changed."""

from . import checks
from .normalise import CleanHalf, Normalised, normalise, note_classes

__all__ = ["CleanHalf", "Normalised", "checks", "normalise", "note_classes"]
