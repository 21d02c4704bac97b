"""Pictures of data, detections and trainings."""

from .curves import draw_curves, draw_loss_curve
from .detections import draw_detections, draw_predictions

__all__ = ["draw_curves", "draw_detections", "draw_loss_curve", "draw_predictions"]
