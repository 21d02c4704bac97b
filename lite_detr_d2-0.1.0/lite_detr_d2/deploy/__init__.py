"""Detectors at work: prediction on whatever images come, an inference form, and export to other runtimes, checked."""

from .inference_form import PreparedDetector, prepare

__all__ = ["PreparedDetector", "prepare"]
