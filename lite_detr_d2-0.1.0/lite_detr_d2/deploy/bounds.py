"""Which images an exported model takes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """From ``smallest`` to ``largest``, both included."""

    smallest: int
    largest: int

    def __contains__(self, value: int) -> bool:
        return self.smallest <= value <= self.largest

    def __str__(self) -> str:
        return f"{self.smallest}" if self.is_fixed else f"{self.smallest} to {self.largest}"

    @property
    def is_fixed(self) -> bool:
        """Whether there is but one value."""
        return self.smallest == self.largest

    def clamp(self, value: int) -> int:
        """The value of the range that is nearest to ``value``."""
        return min(max(value, self.smallest), self.largest)


@dataclass(frozen=True)
class Bounds:
    """Of a batch of padded images: how many, and how high and wide, in pixels."""

    batch: Range
    height: Range
    width: Range

    @property
    def smallest(self) -> list[int]:
        """Batch, height and width."""
        return [self.batch.smallest, self.height.smallest, self.width.smallest]

    @property
    def largest(self) -> list[int]:
        """Batch, height and width."""
        return [self.batch.largest, self.height.largest, self.width.largest]

    @property
    def is_fixed(self) -> bool:
        """Whether they allow one size and batch only."""
        return self.smallest == self.largest


def fixed(batch: int, height: int, width: int) -> Bounds:
    """Bounds that allow one size and batch only."""
    return Bounds(Range(batch, batch), Range(height, height), Range(width, width))
