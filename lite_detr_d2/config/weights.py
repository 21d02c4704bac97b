"""Configs of models whose weights come from elsewhere, or do not matter."""

from detectron2.config import CfgNode


def with_random_weights(cfg: CfgNode) -> CfgNode:
    """Return a copy of ``cfg``, not frozen, of which a model is built without fetching weights."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.TIMM.PRETRAINED = False
    return cfg
