"""What training makes of an image's size."""

from dataclasses import dataclass

import numpy as np
from detectron2.config import CfgNode

from .table import Floats


@dataclass(frozen=True)
class TrainingSizes:
    """How images are resized in training, and how many objects the model can find in one.

    Attributes:
        shortest: what the short side becomes, in pixels; 0 leaves images as they are. Of several, the largest.
        longest: what the long side may be at most.
        num_queries: the number of queries; None where no model is known.
    """

    shortest: int = 800
    longest: int = 1333
    num_queries: int | None = None

    @classmethod
    def from_config(cls, cfg: CfgNode) -> "TrainingSizes":
        """Those of a config: INPUT.MIN_SIZE_TRAIN, INPUT.MAX_SIZE_TRAIN and MODEL.LITE_DETR.NUM_QUERIES."""
        return cls(max(cfg.INPUT.MIN_SIZE_TRAIN, default=0), cfg.INPUT.MAX_SIZE_TRAIN, cfg.MODEL.LITE_DETR.NUM_QUERIES)

    def scales(self, sizes: Floats) -> Floats:
        """By how much images are enlarged.

        Args:
            sizes: (N, 2), in pixels.

        Returns:
            (N,).
        """
        if not self.shortest:
            return np.ones(len(sizes))
        scales: Floats = np.minimum(self.shortest / sizes.min(axis=1), self.longest / sizes.max(axis=1))
        return scales
