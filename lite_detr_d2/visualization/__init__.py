"""Pictures of data, detections, attention and trainings."""

from .attention import View, draw_attention
from .curves import draw_loss_curve
from .detections import draw_detections, draw_predictions

__all__ = ["View", "draw_attention", "draw_detections", "draw_loss_curve", "draw_predictions"]
