"""What detectors cost: counted, compared with each other, and beside the figures of the Lite DETR paper."""

from .cost import IMAGE_SIZE, Cost, cost_of, cost_of_config, count_operations, random_detector
from .description import compare, describe
from .paper import Paper, read_paper
from .tables import as_json, as_markdown, as_text
from .tradeoff import Detector, Model, configs_of_figure, detectors_of, others_of
from .zoo import Figures, count_configs, models_of, zoo_lines

__all__ = [
    "IMAGE_SIZE",
    "Cost",
    "Detector",
    "Figures",
    "Model",
    "Paper",
    "as_json",
    "as_markdown",
    "as_text",
    "compare",
    "configs_of_figure",
    "cost_of",
    "cost_of_config",
    "count_configs",
    "count_operations",
    "describe",
    "detectors_of",
    "models_of",
    "others_of",
    "random_detector",
    "read_paper",
    "zoo_lines",
]
