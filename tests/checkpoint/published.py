"""Checkpoints as they are published, of any size."""

from collections.abc import Mapping
from functools import cache, lru_cache

import torch
from detectron2.config import CfgNode
from torch import Tensor

from lite_detr_d2.checkpoint import convert_published
from tests import reference_weights
from tests.parity.reference import DEFAULT_FOLDER, Reference

# Whose models the fixtures are of, by the fixture.
KINDS = {
    "dino_4scale_r50": "DINO (Lite-DETR, IDEA-Research/DINO)",
    "lite_dino_h3l1_a2b3_r50": "DINO (Lite-DETR, IDEA-Research/DINO)",
    "lite_dino_h3l1_a2b3_swint": "DINO (Lite-DETR, IDEA-Research/DINO)",
    "deformable_detr_r50": "Deformable-DETR",
    "deformable_detr_two_stage_r50": "two-stage Deformable-DETR",
    "h_detr_r50": "H-Deformable-DETR",
    "sparse_detr_rho03_r50": "Sparse DETR",
}


@lru_cache(maxsize=2)  # of 190 MB each
def published(name: str) -> dict[str, Tensor]:
    """The state dict that a parity fixture describes."""
    facts = Reference(DEFAULT_FOLDER / f"{name}.json").facts
    arrays = reference_weights.state_dict(facts["shapes"], facts["aliases"])
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


@cache
def our_names(name: str) -> dict[str, tuple[str, ...]]:
    """Published name -> ours, of a parity fixture."""
    return convert_published(published(name))[1].mapped


def as_published(state: Mapping[str, Tensor], fixture: str) -> dict[str, Tensor]:
    """What the publisher of ``fixture`` would have called our tensors ``state``, of a model that may be smaller."""
    split_across = {"query_embed.weight": 1}
    names = {name: ours for name, ours in our_names(fixture).items() if all(part in state for part in ours)}
    return {name: torch.cat([state[part] for part in ours], split_across.get(name, 0)) for name, ours in names.items()}


def of_kind(cfg: CfgNode, fixture: str) -> CfgNode:
    """The config of a detector as small as ``cfg``, of the kind that a parity fixture is of."""
    cfg = cfg.clone()
    node = cfg.MODEL.LITE_DETR
    node.DECODER.NUM_LAYERS = 6  # a published head's number says which layer it is of
    single_stage = fixture.startswith("deformable_detr_r50")
    if fixture.startswith(("deformable_detr", "sparse_detr")):
        cfg.MODEL.META_ARCHITECTURE = "DeformableDETR"
        node.MIXED_SELECTION = False
    if single_stage:
        node.TWO_STAGE = node.BOX_REFINEMENT = node.LOOK_FORWARD_TWICE = False
    if fixture.startswith("h_detr"):
        cfg.MODEL.META_ARCHITECTURE = "HDETR"
        node.ONE_TO_MANY.NUM_QUERIES = 10
    if not fixture.startswith("lite_dino"):
        node.ENCODER.NAME, node.ENCODER.KEY_AWARE, node.ENCODER.NUM_LAYERS = "DeformableEncoder", False, 2
    if fixture.startswith("sparse_detr"):
        node.ENCODER.NAME, node.CONTENT_FROM_MEMORY = "SparseEncoder", True
    return cfg
