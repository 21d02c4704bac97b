"""Data: DETR's augmentation, folders in COCO format, and the demo dataset.

The demo dataset needs scikit-learn and scikit-image, and is imported from :mod:`lite_detr_d2.data.digits`.
"""

from .coco_folder import CocoFolder, register_coco_folder
from .layout import Half, Halves, find_halves
from .mapper import DetrDatasetMapper
from .split import split_annotations
from .validation import DatasetReport, Problem, validate_dataset

__all__ = [
    "CocoFolder",
    "DatasetReport",
    "DetrDatasetMapper",
    "Half",
    "Halves",
    "Problem",
    "find_halves",
    "register_coco_folder",
    "split_annotations",
    "validate_dataset",
]
