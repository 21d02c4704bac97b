"""Every configuration key that Lite DETR adds to detectron2's, and what makes a config valid."""

from .defaults import add_lite_detr_config
from .files import merge_file, merge_overrides, merge_text
from .idle import warn_of_idle_keys
from .kinds import nearest
from .rules import check_in_features, class_names_of, validate_config
from .schema import EXAMPLE_CONFIG, is_detector
from .weights import with_random_weights

__all__ = [
    "EXAMPLE_CONFIG",
    "add_lite_detr_config",
    "check_in_features",
    "class_names_of",
    "is_detector",
    "merge_file",
    "merge_overrides",
    "merge_text",
    "nearest",
    "validate_config",
    "warn_of_idle_keys",
    "with_random_weights",
]
