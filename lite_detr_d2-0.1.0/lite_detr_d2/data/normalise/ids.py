"""Ids that are integers, or stand for one."""

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

# Scorers hold ids in floating point.
LARGEST = 2**53


def as_integer(value: Any) -> int | None:
    """The integer that ``value`` is or spells: 7, 7.0 and "7" are 7, True is 1; None if it is none, or a huge one."""
    if not isinstance(value, int | float | str):
        return None
    try:
        number = int(value)
    except (ValueError, OverflowError):  # the last of infinity
        return None
    is_whole = not isinstance(value, float) or value == number
    return number if is_whole and abs(number) <= LARGEST else None


def numbered(values: Iterable[Any]) -> dict[Hashable, int]:
    """A number for each of the ids ``values``: the integer that it stands for, or a new one above those.

    Only whole numbers and text are ids: what else there is gets none.
    """
    numbers: dict[Hashable, int] = {}
    others: dict[Hashable, None] = {}
    for value in values:
        if isinstance(value, bool):
            continue
        number = as_integer(value)
        if number is not None:
            numbers[value] = number
        elif isinstance(value, str | int):
            others[value] = None
    following = max(numbers.values(), default=0) + 1
    # A reference may be of another type than the id.
    by_number: dict[Hashable, int] = {number: number for number in numbers.values()}
    return {**by_number, **numbers, **{value: following + index for index, value in enumerate(others)}}


def number_of(value: Any, numbers: Mapping[Hashable, int]) -> int | None:
    """The number of a reference to one of the ids of ``numbers``, which may be of another type; None for no id."""
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        return None
    number = numbers.get(value)
    return number if number is not None else numbers.get(as_integer(value))
