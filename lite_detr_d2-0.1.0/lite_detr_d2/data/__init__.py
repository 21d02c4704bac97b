"""Data: from whatever a dataset lies in to detectron2's datasets, and from those to the model's inputs.

A dataset goes one way: ``sources`` find it and hand over its content, ``normalise`` puts it in order and reports what
it changed, ``split`` halves it if need be, ``prepare`` writes it down, ``coco_folder`` registers it with detectron2.
From there, ``sampling`` says in which order images are trained on, ``mapper`` makes an input of each, and
``training_loader`` makes batches of them.

The demo dataset needs scikit-learn and scikit-image, and is imported from :mod:`lite_detr_d2.data.digits`.
"""

from .coco_folder import CocoFolder, is_name_of, register_coco_folder, register_prepared, register_source
from .findings import Check, Finding, Report, Severity
from .images import read_image
from .inspection import TrainingSizes
from .mapper import DetrDatasetMapper
from .prepare import ON_BAD, find_prepared
from .sampling import sampler_factory
from .source import Source
from .sources import find_source, source_of_files
from .training_loader import TrainingLoader
from .validation import DatasetReport, validate_dataset

__all__ = [
    "ON_BAD",
    "Check",
    "CocoFolder",
    "DatasetReport",
    "DetrDatasetMapper",
    "Finding",
    "Report",
    "Severity",
    "Source",
    "TrainingLoader",
    "TrainingSizes",
    "find_prepared",
    "find_source",
    "is_name_of",
    "read_image",
    "register_coco_folder",
    "register_prepared",
    "register_source",
    "sampler_factory",
    "source_of_files",
    "validate_dataset",
]
