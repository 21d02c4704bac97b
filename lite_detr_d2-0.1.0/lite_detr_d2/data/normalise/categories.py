"""The categories of all halves of a dataset, made one list."""

import unicodedata
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from ...wording import shortened
from ..findings import Findings
from ..source import Content
from . import checks
from .ids import number_of, numbered

_NO_SUPERCATEGORY = (None, "", "none")


@dataclass(frozen=True)
class Categories:
    """The categories that every half gets.

    Attributes:
        listed: their records, by ``id``.
        numbers: for each id, as the halves have it, the one in ``listed``.
    """

    listed: list[dict[str, Any]]
    numbers: dict[Hashable, int]

    @property
    def names(self) -> dict[int, str]:
        """Names by id."""
        return {category["id"]: category["name"] for category in self.listed}


def merge_categories(contents: Mapping[str, Content], found: Mapping[str, Findings], together: Findings) -> Categories:
    """Make one list of the categories of all halves.

    A category that no annotation uses gives way where it contradicts another one, and where it is only the
    supercategory of others.

    Args:
        contents: the halves, by name.
        found: what was found in each.
        together: what was found in them together.
    """
    usable = {half: _usable(content["categories"], found[half]) for half, content in contents.items()}
    numbers = numbered(category["id"] for categories in usable.values() for category in categories)
    used = {number_of(value, numbers) for content in contents.values() for value in _used(content)}

    listed: dict[tuple[int, str], dict[str, Any]] = {}
    for half, categories in usable.items():
        seen: set[tuple[int, str]] = set()
        for category in categories:
            record = {**category, "id": numbers[category["id"]], "name": category_name(category["name"])}
            if type(category["id"]) is not int or category["id"] != record["id"] or type(category["name"]) is not str:
                found[half].add(checks.CATEGORY_TYPE, _place(record))
            elif category["name"] != record["name"]:
                found[half].add(checks.CATEGORY_NAME, _place(record))
            key = (record["id"], record["name"])
            if key in seen:
                found[half].add(checks.CATEGORY_TWICE, _place(record))
            seen.add(key)
            listed.setdefault(key, record)
    for record in _roots(listed, used):
        together.add(checks.CATEGORY_ROOT, _place(record))
        del listed[record["id"], record["name"]]
    _settle_contradictions(listed, used, together)
    _note_unlisted(usable, listed, numbers, found)
    return Categories(sorted(listed.values(), key=lambda category: category["id"]), numbers)


def _usable(categories: list[Any], found: Findings) -> list[dict[str, Any]]:
    if not categories:
        found.add(checks.NO_CATEGORIES)
    usable = []
    for index, category in enumerate(categories):
        named = isinstance(category, dict) and _is_name(category.get("name"))
        if named and isinstance(category.get("id"), str | int | float) and numbered([category["id"]]):
            usable.append(category)
        else:
            found.add(checks.CATEGORY, f"categories[{index}]")
    return usable


def _is_name(value: Any) -> bool:
    return category_name(value) != "" if isinstance(value, str | int | float) else False


def category_name(value: str | float) -> str:
    """A name as text that looks different from all others that are, and can be written everywhere."""
    return unicodedata.normalize("NFC", str(value)).strip().encode(errors="replace").decode()


def _used(content: Content) -> set[Hashable]:
    """All that annotations name as their category, in the type that 'categories' may have it in."""
    values: set[Hashable] = set()
    for annotation in content["annotations"]:
        value = annotation.get("category_id") if isinstance(annotation, dict) else None
        if isinstance(value, str | int | float) and not isinstance(value, bool):  # True would hide a 1
            values.add(value)
    return values


def _roots(listed: Mapping[tuple[int, str], dict[str, Any]], used: Collection[int | None]) -> list[dict[str, Any]]:
    """Categories without an annotation that are there only as the supercategory of others.

    These have no supercategory: one that names itself is a class, perhaps one that is called as the root above it.
    """
    above = [category.get("supercategory") for category in listed.values()]
    parents = {category_name(name) for name in above if isinstance(name, str) and name not in _NO_SUPERCATEGORY}
    return [
        category
        for category in listed.values()
        if category["id"] not in used
        and category.get("supercategory") in _NO_SUPERCATEGORY
        and category["name"] in parents
    ]


def _settle_contradictions(
    listed: dict[tuple[int, str], dict[str, Any]], used: Collection[int | None], together: Findings
) -> None:
    """Of categories with one id or one name, keep the one that is used; note those of which more are."""
    for position, word in ((0, "id"), (1, "name")):
        groups: dict[Any, list[tuple[int, str]]] = {}
        for key in listed:
            groups.setdefault(key[position], []).append(key)
        for value, keys in groups.items():
            rivals = [key for key in keys if key[0] in used] if word == "name" else keys
            if len(keys) == 1:
                continue
            if len(rivals) > 1:
                others = ", ".join(repr(key[1]) if word == "id" else f"{key[0]}" for key in keys)
                other = "names" if word == "id" else "ids"
                together.add(checks.CATEGORY_CONFLICT, f"{word} {value!r} has the {other} {others}")
            for key in keys:
                if len(rivals) == 1 and key not in rivals or not rivals and key != keys[0]:
                    together.add(checks.CATEGORY_TWICE, _place(listed.pop(key)))


def _note_unlisted(
    usable: Mapping[str, list[dict[str, Any]]],
    listed: Mapping[tuple[int, str], dict[str, Any]],
    numbers: Mapping[Hashable, int],
    found: Mapping[str, Findings],
) -> None:
    for half, categories in usable.items():
        there = {numbers[category["id"]] for category in categories}
        for category in listed.values():
            if category["id"] not in there:
                found[half].add(checks.CATEGORY_UNLISTED, _place(category))


def _place(category: Mapping[str, Any]) -> str:
    return f"{category['id']}: {shortened(category['name'])}"
