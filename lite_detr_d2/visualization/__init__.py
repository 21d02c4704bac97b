"""Pictures of data, detections, trainings and evaluations."""

from .curves import draw_curves, draw_loss_curve
from .detections import draw_detections, draw_predictions
from .evaluation import draw_confusion, draw_error_costs

__all__ = [
    "draw_confusion",
    "draw_curves",
    "draw_detections",
    "draw_error_costs",
    "draw_loss_curve",
    "draw_predictions",
]
