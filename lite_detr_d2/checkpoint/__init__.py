"""Checkpoints: those of other implementations made into ours, class heads by name, and files."""

from .classes import (
    ClassNames,
    class_names_of,
    coco_categories,
    count_classes,
    is_class_tensor,
    keep_coco_classes,
    names_by_place,
    published_class_names,
    rows_by_name,
    rows_of_categories,
    select_rows,
)
from .convert import convert, convert_published
from .files import SAFETENSORS, check_there, read_checkpoint, write_checkpoint, write_state
from .formats import Format, detect
from .infer import differences
from .names import COUNTER, StateDict
from .origins import origin_of, resemblance
from .reader import encoder_told, read_published, warn_of_conventions, warn_of_encoder
from .report import ConversionReport, modules_of
from .seal import is_intact, iteration_of, save_sealed, seal_of, skimmed
from .transformers import config_for_transformers, differs_in_transformers, to_transformers

__all__ = [
    "COUNTER",
    "SAFETENSORS",
    "ClassNames",
    "ConversionReport",
    "Format",
    "StateDict",
    "check_there",
    "class_names_of",
    "coco_categories",
    "config_for_transformers",
    "convert",
    "convert_published",
    "count_classes",
    "detect",
    "encoder_told",
    "differences",
    "differs_in_transformers",
    "is_class_tensor",
    "is_intact",
    "iteration_of",
    "keep_coco_classes",
    "modules_of",
    "names_by_place",
    "origin_of",
    "published_class_names",
    "read_checkpoint",
    "read_published",
    "resemblance",
    "rows_by_name",
    "rows_of_categories",
    "save_sealed",
    "seal_of",
    "select_rows",
    "skimmed",
    "to_transformers",
    "warn_of_conventions",
    "warn_of_encoder",
    "write_checkpoint",
    "write_state",
]
