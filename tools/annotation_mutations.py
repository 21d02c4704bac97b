"""Mutations of annotation files in COCO format: some are harmless, of the others anything may be expected."""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from harmless_mutations import HARMLESS, LISTS, WILD, Halves, base_halves, encoded


@dataclass(frozen=True)
class Case:
    """Annotation files of one mutation.

    Attributes:
        name: what was done.
        files: by half, what its file holds.
        harmless: whether all of it must be used, without a word.
    """

    name: str
    files: dict[str, bytes]
    harmless: bool


def make_case(rng: Random) -> Case:
    """Mutate the base, in one of three ways: harmlessly, in its values, or in its bytes."""
    halves = base_halves()
    if rng.random() < 0.2:
        del halves["val"]  # what is left is to be split
    kind = rng.random()
    if kind < 0.35:
        names = [_apply(rng, HARMLESS, halves) for _ in range(rng.randint(1, 3))]
        return Case(" + ".join(names), encoded(rng, halves), harmless=True)
    names = [_apply(rng, _VALUES, halves) for _ in range(rng.choice((1, 1, 2, 4)))] if kind < 0.85 else []
    files = {half: json.dumps(content).encode() for half, content in halves.items()}
    if kind >= 0.8:
        half = rng.choice(sorted(files))
        change = rng.choice(_BYTES)
        names.append(change.__name__)
        files[half] = change(rng, files[half])
    return Case(" + ".join(names), files, harmless=False)


def _apply(rng: Random, changes: Sequence[Callable[[Random, Halves], str | None]], halves: Halves) -> str:
    change = rng.choice(changes)
    detail = change(rng, halves)
    return f"{change.__name__}({detail})" if detail else change.__name__


# Values.


def _record(rng: Random, halves: Halves) -> tuple[str, list[Any], int]:
    """One record: its half and list, as words, the list, and where in it."""
    half = rng.choice(sorted(halves))
    kind = rng.choice((*LISTS, "annotations", "annotations"))
    records = halves[half].get(kind)
    if not isinstance(records, list) or not records:
        kind, records = "lost", [{}]
    index = rng.randrange(len(records))
    return f"{half} {kind}[{index}]", records, index


def _wild(rng: Random, value: Any) -> Any:
    """Something else than ``value``, often akin."""
    akin: list[Any] = [[value], {"a": value}, [value, value], str(value)]
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9:
        akin += [float(value), -value, value + 1, value * 1000, value / 64, value + 0.5, bool(value)]
    if isinstance(value, list):
        akin += [value[:-1], [*value, 1], value[::-1], list(map(str, value)), tuple(value)]
    if isinstance(value, str):
        akin += [value.upper(), f" {value}", f"{value}\n", f"./{value}", value[1:], value * 200]
    return copy.deepcopy(rng.choice(akin if rng.random() < 0.4 else WILD))


def set_value(rng: Random, halves: Halves) -> str:
    where, records, index = _record(rng, halves)
    record = records[index]
    if not isinstance(record, dict) or not record:
        return where
    key = rng.choice(sorted(set(record) - {"tag"}))
    record[key] = _wild(rng, record[key])
    return f"{where}.{key} = {_shown(record[key])}"


def set_number_of_box(rng: Random, halves: Halves) -> str:
    where, records, index = _record(rng, halves)
    box = records[index].get("bbox") if isinstance(records[index], dict) else None
    if isinstance(box, list) and box:
        box[rng.randrange(len(box))] = _wild(rng, box[0])
    return f"{where}.bbox = {_shown(box)}"


def set_value_of_all(rng: Random, halves: Halves) -> str:
    where, records, index = _record(rng, halves)
    if not isinstance(records[index], dict) or not records[index]:
        return where
    key = rng.choice(sorted(set(records[index]) - {"tag"}))
    change = rng.choice((str, float, lambda value: None, lambda value: [value], lambda value: value, bool, _half_of))
    for record in records:
        if isinstance(record, dict) and key in record:
            try:
                record[key] = change(record[key])
            except (TypeError, ValueError, OverflowError):
                record[key] = "?"
    return f"all of {where}.{key}, such as {_shown(records[index][key])}"


def _half_of(value: Any) -> Any:
    return [number / 64 for number in value] if isinstance(value, list) else value / 64


def remove_key(rng: Random, halves: Halves) -> str:
    where, records, index = _record(rng, halves)
    if isinstance(records[index], dict) and records[index]:
        key = rng.choice(sorted(set(records[index]) - {"tag"}) or ["tag"])
        for record in records if rng.random() < 0.3 else [records[index]]:
            if isinstance(record, dict):
                record.pop(key, None)
        return f"{where}.{key}"
    return where


def copy_value(rng: Random, halves: Halves) -> str:
    """Give a record the value of another one."""
    where, records, index = _record(rng, halves)
    other = rng.choice(records)
    if isinstance(records[index], dict) and isinstance(other, dict) and set(other) - {"tag"}:
        key = rng.choice(sorted(set(other) - {"tag"}))
        records[index][key] = copy.deepcopy(other[key])
        return f"{where}.{key}"
    return where


def remove_record(rng: Random, halves: Halves) -> str:
    where, records, index = _record(rng, halves)
    del records[index]
    return where


def repeat_record(rng: Random, halves: Halves) -> str:
    where, records, index = _record(rng, halves)
    twin = copy.deepcopy(records[index])
    if isinstance(twin, dict) and rng.random() < 0.5:
        twin["id"] = rng.choice((777, "777", 777.0))
    if isinstance(twin, dict) and "tag" in twin:
        twin["tag"] = f"{twin['tag']}, again"
    records.insert(rng.randrange(len(records) + 1), twin)
    return where


def replace_record(rng: Random, halves: Halves) -> str:
    where, records, index = _record(rng, halves)
    records[index] = copy.deepcopy(rng.choice(WILD))
    return where


def insert_record(rng: Random, halves: Halves) -> str:
    where, records, index = _record(rng, halves)
    records.insert(index, copy.deepcopy(rng.choice(WILD)))
    return where


def replace_list(rng: Random, halves: Halves) -> str:
    half, kind = rng.choice(sorted(halves)), rng.choice(LISTS)
    halves[half][kind] = copy.deepcopy(rng.choice((*WILD, *(halves[half].get(other) for other in LISTS))))
    return f"{half} {kind}"


def remove_list(rng: Random, halves: Halves) -> str:
    half, kind = rng.choice(sorted(halves)), rng.choice(LISTS)
    halves[half].pop(kind, None)
    return f"{half} {kind}"


def exchange_lists(rng: Random, halves: Halves) -> str:
    half, (one, two) = rng.choice(sorted(halves)), rng.sample(LISTS, 2)
    content = halves[half]
    content[one], content[two] = content.get(two), content.get(one)
    return f"{half} {one} {two}"


def contradict(rng: Random, halves: Halves) -> str:
    """Rename a class of one half, or give it another's id."""
    half = rng.choice(sorted(halves))
    listed = halves[half].get("categories")
    records = [record for record in listed if isinstance(record, dict)] if isinstance(listed, list) else []
    if records:
        record = rng.choice(records)
        record["name" if rng.random() < 0.5 else "id"] = rng.choice(("ant", "dog", "emu", 1, 3, 7, 9))
    return half


_VALUES = (
    *(set_value, set_value, set_value, set_number_of_box, set_number_of_box, set_value_of_all, remove_key, copy_value),
    *(
        remove_record,
        repeat_record,
        replace_record,
        insert_record,
        replace_list,
        remove_list,
        exchange_lists,
        contradict,
    ),
)


def _shown(value: Any) -> str:
    try:
        return json.dumps(value)[:60]
    except (ValueError, TypeError):
        return type(value).__name__


# Bytes.


def truncate(rng: Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def flip_bytes(rng: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        changed[rng.randrange(len(data))] = rng.choice((rng.randrange(256), ord("9"), ord(","), ord('"'), ord("-")))
    return bytes(changed)


def remove_bytes(rng: Random, data: bytes) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.choice((1, 1, 5, 100)) :]


def append_bytes(rng: Random, data: bytes) -> bytes:
    return data + rng.choice((b"\0", b"}", data, b"//", b" ", b"\xff", b"\x1a", b'{"images": []}'))


def prepend_bytes(rng: Random, data: bytes) -> bytes:
    return (
        rng.choice((b"\xef\xbb\xbf", b"\xef\xbb\xbf\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\0", b"//\n", b" "))
        + data
    )


def recode(rng: Random, data: bytes) -> bytes:
    text = json.dumps(json.loads(data), ensure_ascii=False)
    return text.encode(rng.choice(("latin-1", "cp1252", "utf-16", "utf-7", "utf-8-sig", "cp500")), "replace")


def repeat_key(rng: Random, data: bytes) -> bytes:
    key = rng.choice(
        (b"bbox", b"id", b"image_id", b"category_id", b"file_name", b"images", b"annotations", b"categories")
    )
    marked = b'"' + key + b'": '
    value = rng.choice((b"[1, 2, 3, 4]", b"1", b"[]", b"null", b'"x"'))
    at = rng.choice([i for i in range(len(data)) if data.startswith(marked, i)] or [1])
    return data[:at] + marked + value + b", " + data[at:]


def repeat_list_at_the_end(rng: Random, data: bytes) -> bytes:
    kind = rng.choice(LISTS).encode()
    return data.rstrip()[:-1] + b', "' + kind + b'": ' + rng.choice((b"[]", b"null", b"[{}]")) + b"}"


_BYTES = (
    truncate,
    flip_bytes,
    flip_bytes,
    remove_bytes,
    append_bytes,
    prepend_bytes,
    recode,
    repeat_key,
    repeat_list_at_the_end,
)
