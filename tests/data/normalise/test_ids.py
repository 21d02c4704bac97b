"""Ids of any type become numbers, and references find them."""

from typing import Any

import pytest

from lite_detr_d2.data.normalise.ids import as_integer, number_of, numbered


@pytest.mark.parametrize(
    ("value", "integer"),
    [
        (7, 7),
        (7.0, 7),
        ("7", 7),
        (" 07 ", 7),
        (-3, -3),
        (True, 1),
        (2**53, 2**53),
        (2**53 + 1, None),
        (1e300, None),
        (7.5, None),
        (float("nan"), None),
        (float("inf"), None),
        ("7.0", None),
        ("", None),
        ("x", None),
        ("9" * 1_000_000, None),
        (None, None),
        ([7], None),
    ],
)
def test_an_integer_is_read_from_what_spells_it(value: Any, integer: int | None) -> None:
    assert as_integer(value) == integer


def test_ids_get_their_integer_or_one_above_all_others() -> None:
    numbers = numbered([3, "5", "a", 4.0, 2**60, "b", None, True, 1.5, [1], {}, float("nan")])
    assert {key: numbers[key] for key in (3, "5", "a", 4, 2**60, "b")} == {3: 3, "5": 5, "a": 6, 4: 4, 2**60: 7, "b": 8}
    assert not {None, True, 1.5} & numbers.keys()
    assert numbered([]) == {}
    assert numbered([-5, "a"])["a"] > -5


@pytest.mark.parametrize(
    ("reference", "number"),
    [
        (5, 5),
        (5.0, 5),
        ("5", 5),
        (3, 3),
        ("3", 3),
        ("a", 6),
        (6, None),
        ("b", None),
        (True, None),
        (None, None),
        ([3], None),
    ],
)
def test_a_reference_may_be_of_another_type(reference: Any, number: int | None) -> None:
    assert number_of(reference, numbered([3, "5", "a"])) == number
