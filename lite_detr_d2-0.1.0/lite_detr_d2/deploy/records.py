"""Dataclasses as JSON and back, everything checked."""

import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from ..wording import in_short
from .bounds import Range

_NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}


class RecordError(ValueError):
    """JSON that is not a record of the kind; the message says where and why, as a clause."""


def to_json(value: Any) -> Any:
    """A dataclass, or what it is made of, as JSON's objects, lists and plain values; a range as ``{min, max}``."""
    if isinstance(value, Range):
        return {"min": value.smallest, "max": value.largest}
    if is_dataclass(value):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return value


def from_json(kind: Any, content: Any, where: str = "") -> Any:
    """Make what :func:`to_json` was given again.

    Args:
        kind: a dataclass; or the annotation of a field, of tuples, mappings, unions, ranges and plain values.
        content: as :mod:`json` reads it. Keys that a dataclass does not have are passed over: later versions add some.
            Those of fields with a default may be missing: earlier versions did not have them.
        where: what messages call it.

    Raises:
        RecordError: it is not of the kind.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _one_of(arguments, content, where)
    if kind is Range:
        return _range(content, where)
    if is_dataclass(kind):
        return _dataclass(kind, _mapping(content, where), where)
    if origin is tuple:
        return _tuple(arguments, content, where)
    if origin is Mapping:
        return {key: from_json(arguments[1], item, f"{where}.{key}") for key, item in _mapping(content, where).items()}
    is_right = kind is Any or type(content) is kind or (kind is float and type(content) is int)
    return content if is_right else _refuse(where, _NAMES[kind], content)


def _one_of(kinds: tuple[Any, ...], content: Any, where: str) -> Any:
    """Of the kinds in a union, JSON's own types tell them apart."""
    if content is None and type(None) in kinds:
        return None
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    for kind in kinds[:-1]:
        try:
            return from_json(kind, content, where)
        except RecordError:
            continue
    return from_json(kinds[-1], content, where)


def _range(content: Any, where: str) -> Range:
    if not isinstance(content, Mapping) or content.keys() != {"min", "max"}:
        _refuse(where, "a whole number, or min and max", content)
    smallest, largest = (from_json(int, content[key], f"{where}.{key}") for key in ("min", "max"))
    if smallest > largest:
        raise RecordError(f"{where} has a min above its max")
    return Range(smallest, largest)


def _dataclass(kind: Any, content: Mapping[str, Any], where: str) -> Any:
    hints, names = typing.get_type_hints(kind), [field.name for field in fields(kind)]
    missing = [field.name for field in fields(kind) if field.name not in content and field.default is MISSING]
    if missing:
        raise RecordError(f"{where or 'it'} has no {in_short(missing)}")
    prefix = f"{where}." if where else ""
    given = [name for name in names if name in content]
    return kind(**{name: from_json(hints[name], content[name], f"{prefix}{name}") for name in given})


def _tuple(kinds: tuple[Any, ...], content: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(content, list):
        _refuse(where, "a list", content)
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(content)
    if len(kinds) != len(content):
        raise RecordError(f"{where} has {len(content)} values: expected {len(kinds)}")
    return tuple(
        from_json(kind, item, f"{where}[{index}]")
        for index, (kind, item) in enumerate(zip(kinds, content, strict=True))
    )


def _mapping(content: Any, where: str) -> Mapping[str, Any]:
    return content if isinstance(content, Mapping) else _refuse(where or "it", "an object", content)


def _refuse(where: str, expected: str, content: Any) -> typing.NoReturn:
    raise RecordError(f"{where} is {type(content).__name__}: expected {expected}")
