"""Detectors at work: prediction on whatever images come, and export to other runtimes, checked."""
