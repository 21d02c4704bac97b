"""What a detector costs: its parameters, and the multiply-adds of one image, by part."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.utils.analysis import FlopCountAnalysis

from ..config import with_random_weights
from ..detector import DetrDetector

IMAGE_SIZE = (800, 1066)
"""Height and width of the image that published figures are of."""


@dataclass(frozen=True)
class Cost:
    """What a detector costs in evaluation.

    Attributes:
        parameters: how many it has, those that only training uses included.
        multiply_adds: of one image.
        parts: those of ``backbone``, ``neck``, ``encoder``, ``query_selection`` and ``decoder``; the little that is
            outside of them counts in ``multiply_adds`` only.
    """

    parameters: int
    multiply_adds: float
    parts: Mapping[str, float]


def count_operations(model: DetrDetector, image_size: tuple[int, int] = IMAGE_SIZE) -> FlopCountAnalysis:
    """Count the operations of ``model`` on one black image, with fvcore: a multiply-add is one operation.

    Args:
        model: any detector of this package; it is set to evaluation mode.
        image_size: height and width in pixels.

    Returns:
        The count, traced when it is first read. ``fvcore.nn.flop_count_table`` prints it, ``cost_of`` sums it up.
    """
    image = torch.zeros(3, *image_size)
    counted = FlopCountAnalysis(model.eval(), [{"image": image}])
    # Elementwise operations are free, and what only training uses is not called.
    return counted.unsupported_ops_warnings(False).uncalled_modules_warnings(False)


@torch.no_grad()
def cost_of(model: DetrDetector, counted: FlopCountAnalysis) -> Cost:
    """Sum up what ``count_operations`` counted of ``model``."""
    by_module = counted.by_module()
    names = ("backbone", "neck", "encoder", "query_selection", "decoder")
    return Cost(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        multiply_adds=counted.total(),
        parts={name: by_module[f"model.{name}"] for name in names},
    )


def cost_of_config(cfg: CfgNode, image_size: tuple[int, int] = IMAGE_SIZE) -> Cost:
    """Build the detector of ``cfg``, with random weights, and count: see ``count_operations``."""
    model = random_detector(cfg)
    return cost_of(model, count_operations(model, image_size))


def random_detector(cfg: CfgNode) -> DetrDetector:
    """Build the detector of ``cfg`` with random weights: none are fetched."""
    model: DetrDetector = build_model(with_random_weights(cfg))
    return model
