"""Arguments of Python calls: of the right type, and one of what is allowed."""

import os
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any

import torch

from ..errors import InputError
from ..wording import quoted

_DEVICES = "cuda, cuda:1 or the like, or cpu"


def check_argument(
    name: str, value: object, kinds: type | tuple[type, ...], is_allowed: Callable[[Any], bool], expected: str
) -> None:
    """See that an argument is of some type, of which no boolean is a number, and allowed.

    Raises:
        InputError: it is not, with its name, its value, and what is expected.
    """
    if isinstance(value, bool) or not isinstance(value, kinds) or not is_allowed(value):
        raise InputError(f"{name} is {quoted(value)}: expected {expected}.")


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """See that an argument is one of some words."""
    check_argument(name, value, str, lambda word: word in choices, f"one of {', '.join(choices)}")


def check_flag(name: str, value: object) -> None:
    """See that an argument is True or False."""
    if not isinstance(value, bool):
        raise InputError(f"{name} is {quoted(value)}: expected True or False.")


def check_score(name: str, value: object) -> None:
    """See that an argument is a number from 0 to 1."""
    check_argument(name, value, Real, lambda number: 0 <= number <= 1, "a number from 0 to 1")


def check_positive(name: str, value: object) -> None:
    """See that an argument is a whole number from 1 on."""
    check_argument(name, value, Integral, lambda number: number >= 1, "a whole number, at least 1")


def check_path(name: str, value: object) -> None:
    """See that an argument names something: a path, or an address."""
    check_argument(name, value, (str, os.PathLike), lambda path: os.fspath(path) != "", "a path")


def check_device(name: str, value: object) -> None:
    """See that an argument is a device; whether it is there is not looked at."""
    check_argument(name, value, (str, torch.device), _is_device, _DEVICES)


def _is_device(value: Any) -> bool:
    try:
        torch.device(value)
    except RuntimeError:
        return False
    return True
