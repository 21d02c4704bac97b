"""Pictures of data, detections, attention, trainings and evaluations."""

from .attention import View, draw_attention
from .comparison import ComparedImage, JudgedBox, Outcome, draw_predictions
from .curves import draw_curves, draw_loss_curve
from .detections import draw_annotations, draw_beside, draw_detections
from .evaluation import draw_confusion, draw_error_costs
from .tradeoff import draw_tradeoff

__all__ = [
    "ComparedImage",
    "JudgedBox",
    "Outcome",
    "View",
    "draw_annotations",
    "draw_attention",
    "draw_beside",
    "draw_confusion",
    "draw_curves",
    "draw_detections",
    "draw_error_costs",
    "draw_loss_curve",
    "draw_predictions",
    "draw_tradeoff",
]
