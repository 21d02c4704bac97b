"""Checkpoints of other implementations, made into ours."""

from .convert import CLASS_CHOICES, ConversionReport, convert_lite_detr, read_checkpoint, unreadable_reason

__all__ = ["CLASS_CHOICES", "ConversionReport", "convert_lite_detr", "read_checkpoint", "unreadable_reason"]
