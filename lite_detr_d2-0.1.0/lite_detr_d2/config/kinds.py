"""What a value of a config may be: a few kinds, of which the schema is made."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from ..errors import InputError
from ..wording import quoted


class Kind:
    """A kind of values.

    Attributes:
        words: what is expected, as the end of a sentence.
    """

    words: str

    def accepts(self, value: object) -> bool:
        """Whether a value is of this kind."""
        raise NotImplementedError

    def hint(self, value: object) -> str:
        """A sentence on what a wrong value may have been meant to be, or how to mend it; "" if there is none."""
        return ""

    def check(self, key: str, value: object) -> None:
        """Raise ``InputError`` that names the key, the value and what is expected, if it is not of this kind."""
        if not self.accepts(value):
            raise InputError(f"{key} is {quoted(value)}: expected {self.words}. {self.hint(value)}".rstrip())


@dataclass(frozen=True)
class Integer(Kind):
    """An integer within limits, which are allowed; a flag is none, nor is 2.0."""

    least: int | None = None
    most: int | None = None

    @property
    def words(self) -> str:  # type: ignore[override]
        return f"an integer{_limits(self.least, self.most)}"

    def accepts(self, value: object) -> bool:
        return (
            isinstance(value, int)
            and not isinstance(value, bool)
            and (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
        )


@dataclass(frozen=True)
class Number(Kind):
    """An integer or a float within limits; neither a flag nor NaN, and infinite only where ``infinite`` says so."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    infinite: bool = False

    @property
    def words(self) -> str:  # type: ignore[override]
        limits = _limits(self.least, self.most, self.above, self.below)
        return f"a number{limits}{', or .inf (1e999 on the command line)' if self.infinite else ''}"

    def accepts(self, value: object) -> bool:
        """Whether it is a number within the limits; an integer is one, NaN and a truth value are not."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        try:
            number = float(value)
        except OverflowError:  # an integer of more than 308 digits
            return False
        if not math.isfinite(number):
            return self.infinite and number > 0
        return (
            (self.least is None or number >= self.least)
            and (self.most is None or number <= self.most)
            and (self.above is None or number > self.above)
            and (self.below is None or number < self.below)
        )


@dataclass(frozen=True)
class Flag(Kind):
    """True or False."""

    words = "True or False"

    def accepts(self, value: object) -> bool:
        return isinstance(value, bool)


@dataclass(frozen=True)
class Off(Kind):
    """False, of a feature that is not there.

    Attributes:
        reason: why, as a sentence without its full stop.
    """

    reason: str

    @property
    def words(self) -> str:  # type: ignore[override]
        return f"False: {self.reason}"

    def accepts(self, value: object) -> bool:
        return value is False


@dataclass(frozen=True)
class Text(Kind):
    """Characters, which may be none only where ``empty`` says so."""

    empty: bool = True

    @property
    def words(self) -> str:  # type: ignore[override]
        return "a text, in quotes" if self.empty else "a text that is not empty, in quotes"

    def accepts(self, value: object) -> bool:
        # Files and datasets cannot have a NUL in their names.
        return isinstance(value, str) and "\0" not in value and (self.empty or value != "")


class Choice(Kind):
    """One of some values; a misspelt one is shown the nearest."""

    def __init__(self, *choices: str | int) -> None:
        self._choices = choices

    @property
    def choices(self) -> Sequence[str | int]:
        """The values."""
        return self._choices

    @property
    def words(self) -> str:  # type: ignore[override]
        return f"one of {', '.join(str(choice) or repr(choice) for choice in self.choices)}"

    def accepts(self, value: object) -> bool:
        return type(value) in (str, int) and value in self.choices

    def hint(self, value: object) -> str:
        near = nearest(value, [choice for choice in self.choices if isinstance(choice, str)])
        return f"Did you mean {near!r}?" if near else ""


class Registered(Choice):
    """A name that is registered when it is looked up."""

    def __init__(self, names: Callable[[], Sequence[str]], cure: str = "") -> None:
        super().__init__()
        self._names, self._cure = names, cure

    @property
    def choices(self) -> Sequence[str]:
        return self._names()

    def hint(self, value: object) -> str:
        return " ".join(filter(None, (super().hint(value), self._cure)))


@dataclass(frozen=True)
class Items(Kind):
    """A list or tuple of one kind of values.

    Attributes:
        item: their kind.
        fewest: how many there are at least.
        most: how many there are at most.
        distinct: whether each is there once only.
    """

    item: Kind
    fewest: int = 0
    most: int | None = None
    distinct: bool = False

    @property
    def words(self) -> str:  # type: ignore[override]
        count = f" of {self.most}" if self.fewest == self.most else _limits(self.fewest or None, self.most)
        return f"a list{count}, each {'there once, and ' if self.distinct else ''}{self.item.words}"

    def accepts(self, value: object) -> bool:
        return (
            isinstance(value, (list, tuple))
            and len(value) >= self.fewest
            and (self.most is None or len(value) <= self.most)
            and all(map(self.item.accepts, value))
            and not (self.distinct and len(set(value)) < len(value))
        )

    def hint(self, value: object) -> str:
        return f"Write {quoted([value])}." if self.accepts([value]) else ""

    def check(self, key: str, value: object) -> None:
        """As of every kind, but name the first wrong item only: lists can be long."""
        if isinstance(value, (list, tuple)):
            for index, item in enumerate(value):
                self.item.check(f"{key}[{index}]", item)
        super().check(key, value)


@dataclass(frozen=True)
class Row(Kind):
    """A list or tuple of values of different kinds, in their order."""

    cells: tuple[Kind, ...]

    @property
    def words(self) -> str:  # type: ignore[override]
        return f"[{', '.join(cell.words for cell in self.cells)}]"

    def accepts(self, value: object) -> bool:
        return (
            isinstance(value, (list, tuple))
            and len(value) == len(self.cells)
            and all(cell.accepts(item) for cell, item in zip(self.cells, value, strict=True))
        )


@dataclass(frozen=True)
class OrNull(Kind):
    """A kind of values, or none."""

    kind: Kind

    @property
    def words(self) -> str:  # type: ignore[override]
        return f"{self.kind.words}, or null"

    def accepts(self, value: object) -> bool:
        return value is None or self.kind.accepts(value)

    def hint(self, value: object) -> str:
        return self.kind.hint(value)


def nearest(value: object, names: Sequence[str]) -> str:
    """The name that is spelt most like ``value``; "" if none is."""
    if not isinstance(value, str):
        return ""
    by_spelling = {name.lower(): name for name in names}
    found = get_close_matches(value.lower(), by_spelling, n=1)
    return by_spelling[found[0]] if found else ""


def _limits(
    least: float | None = None, most: float | None = None, above: float | None = None, below: float | None = None
) -> str:
    """Words for limits, with a space before them."""
    if least is not None:
        high = f" to {most}" if most is not None else f" to below {below}" if below is not None else ""
        return f" from {least}{high}" if high else f" of at least {least}"
    if above is None:
        return "" if most is None else f" of at most {most}"
    high = f" and at most {most}" if most is not None else f" and below {below}" if below is not None else ""
    return f" above {above}{high}"
