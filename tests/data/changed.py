"""Datasets of 8 boxes in each half, whose halves are changed alike."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lite_detr_d2.data import CocoFolder, register_coco_folder
from lite_detr_d2.errors import InputError
from tests.helpers import warnings_of_the_package

from .folders import coco_content, write_coco_folder
from .halves import Content

Change = Callable[[Content], object]


def each(kind: str, change: Callable[[dict[str, Any]], object]) -> Change:
    def apply(content: Content) -> None:
        for record in content[kind]:
            change(record)

    return apply


def setting(kind: str, **values: Any) -> Change:
    return each(kind, lambda record: record.update(values))


def without(kind: str, key: str) -> Change:
    return each(kind, lambda record: record.pop(key))


def changing(kind: str, key: str, change: Callable[[Any], Any]) -> Change:
    return each(kind, lambda record: record.update({key: change(record[key])}))


def first(kind: str, key: str, value: Any) -> Change:
    return lambda content: content[kind][0].update({key: value})


def write(root: Path, change: Change) -> Path:
    write_coco_folder(root)
    content = coco_content()
    change(content)
    for half in ("train", "val"):
        (root / f"{half}.json").write_text(json.dumps(content))
    return root


def registered(root: Path, work: Path, **options: Any) -> tuple[CocoFolder, list[str]]:
    with warnings_of_the_package() as messages:
        folder = register_coco_folder(root, split_folder=work, **options)
    return folder, messages


def refusal(root: Path, **options: Any) -> str:
    with pytest.raises(InputError) as error:
        register_coco_folder(root, **options)
    return str(error.value)
