"""Data: DETR's augmentation, folders in COCO format, and the demo dataset.

The demo dataset needs scikit-learn and scikit-image, and is imported from :mod:`lite_detr_d2.data.digits`.
"""

from .coco_folder import CocoFolder, register_coco_folder
from .mapper import DetrDatasetMapper
from .validation import DatasetReport, Problem, validate_dataset

__all__ = [
    "CocoFolder",
    "DatasetReport",
    "DetrDatasetMapper",
    "Problem",
    "register_coco_folder",
    "validate_dataset",
]
