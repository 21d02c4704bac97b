"""Training and evaluation: the trainer, its optimizer and checkpoints, and what the entry points share."""

from .checkpointer import SafeCheckpointer
from .configs import read_config
from .console import open_console
from .data_setup import seed_of_run, setup_data
from .datasets import class_names, classes_for_checkpoints
from .last_checkpoint import is_newer, tagged_checkpoint
from .optimizer import build_optimizer
from .options import add_import, add_trust_pickle, import_modules
from .output_folder import delete_overwritten
from .processes import launch_checked
from .setup import argument_parser, limit_workers, one_line_errors, setup
from .submit import submit
from .summary import log_model, log_start, model_in_words
from .trainer import Trainer, on_available_device

__all__ = [
    "SafeCheckpointer",
    "Trainer",
    "add_import",
    "add_trust_pickle",
    "argument_parser",
    "build_optimizer",
    "class_names",
    "classes_for_checkpoints",
    "delete_overwritten",
    "import_modules",
    "is_newer",
    "launch_checked",
    "limit_workers",
    "log_model",
    "log_start",
    "model_in_words",
    "on_available_device",
    "one_line_errors",
    "open_console",
    "read_config",
    "seed_of_run",
    "setup",
    "setup_data",
    "submit",
    "tagged_checkpoint",
]
