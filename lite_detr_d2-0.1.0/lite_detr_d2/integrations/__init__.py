"""Our compiled attention in other people's models. It needs torch alone: no detectron2, nor those people's packages."""

from lite_detr_d2.integrations.patching import patch, unpatch

__all__ = ["patch", "unpatch"]
