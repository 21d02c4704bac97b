"""Checkpoints: those of other implementations made into ours, class heads by name, and files."""

from .classes import (
    ClassNames,
    count_classes,
    is_class_tensor,
    keep_coco_classes,
    keep_rows_of_ids,
    published_class_names,
    rows_by_name,
    select_rows,
)
from .convert import convert, convert_published
from .files import SAFETENSORS, check_there, read_checkpoint, write_checkpoint
from .formats import detect
from .infer import differences
from .names import COUNTER, StateDict
from .origins import origin_of
from .report import ConversionReport, modules_of
from .seal import is_intact, iteration_of, save_sealed, seal_of, skimmed

__all__ = [
    "COUNTER",
    "SAFETENSORS",
    "ClassNames",
    "ConversionReport",
    "StateDict",
    "check_there",
    "convert",
    "convert_published",
    "count_classes",
    "detect",
    "differences",
    "is_class_tensor",
    "is_intact",
    "iteration_of",
    "keep_coco_classes",
    "keep_rows_of_ids",
    "modules_of",
    "origin_of",
    "published_class_names",
    "read_checkpoint",
    "rows_by_name",
    "save_sealed",
    "seal_of",
    "select_rows",
    "skimmed",
    "write_checkpoint",
]
