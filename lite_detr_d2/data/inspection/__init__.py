"""Inspect a dataset that is in order: duplicates and leakage, classes, boxes, and every image opened in full."""

from .checks import CHECKS, chosen, doubts, exit_code, summary
from .fix import check_out, write_folder
from .inspect import inspect_content, inspect_pictures, look_at_images
from .pictures import Picture, without_problems
from .screen import screen
from .sizes import TrainingSizes

__all__ = [
    "CHECKS",
    "Picture",
    "TrainingSizes",
    "check_out",
    "chosen",
    "doubts",
    "exit_code",
    "inspect_content",
    "inspect_pictures",
    "look_at_images",
    "screen",
    "summary",
    "without_problems",
    "write_folder",
]
