"""Computing again saves memory and changes nothing else."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from lite_detr_d2.config import validate_config
from lite_detr_d2.engine import Trainer
from lite_detr_d2.engine.recompute import recompute
from lite_detr_d2.errors import InputError
from tests.helpers import batched_input

from .stops import assert_same, assert_same_training, stoppable_config, train

PARTS = ["backbone", "encoder"]
FROZEN: dict[str, Any] = {"MODEL__RESNETS__NORM": "FrozenBN"}
SWIN = {
    **{"MODEL.BACKBONE.NAME": "build_swin_backbone", "MODEL.LITE_DETR.IN_FEATURES": ["p1", "p2", "p3"]},
    **{"MODEL.SWIN.EMBED_DIM": 12, "MODEL.SWIN.DROP_PATH_RATE": 0.5, "MODEL.SWIN.DEPTHS": [2, 2, 2, 2]},
}


@pytest.fixture
def cfg(tmp_path: Path) -> CfgNode:
    return stoppable_config(tmp_path)


def gradients(cfg: CfgNode, parts: list[str]) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor, int]:
    """Losses, gradients, what is drawn next, and how many bytes were kept for the backward pass."""
    torch.manual_seed(0)
    cfg = cfg.clone()
    cfg.SOLVER.RECOMPUTE = parts
    validate_config(cfg)
    model, kept = Trainer.build_model(cfg), {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    parameters = {parameter.data_ptr() for parameter in model.parameters()}
    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = model(
            [batched_input(64, 96, num_boxes=2, num_classes=3), batched_input(96, 64, num_boxes=1, num_classes=3)]
        )
    total = sum(size for place, size in kept.items() if place not in parameters)
    torch.stack(list(losses.values())).sum().backward()
    found = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    return {name: loss.detach() for name, loss in losses.items()}, found, torch.rand(1), total


@pytest.mark.parametrize("parts", [["backbone"], ["encoder"], PARTS])
@pytest.mark.parametrize("backbone", ["resnet", "swin"])
def test_losses_and_gradients_stay(cfg: CfgNode, backbone: str, parts: list[str]) -> None:
    """With dropout and drop path, which are drawn again as they were."""
    cfg.MODEL.RESNETS.NORM, cfg.MODEL.LITE_DETR.DROPOUT = "FrozenBN", 0.2
    if backbone == "swin":
        cfg.merge_from_list([word for pair in SWIN.items() for word in pair])
    losses, found, drawn, kept = gradients(cfg, parts)
    expected_losses, expected, expected_drawn, all_kept = gradients(cfg, [])
    assert_same(losses, expected_losses)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-6, atol=1e-6)
    assert torch.equal(drawn, expected_drawn)
    assert kept < all_kept


def test_names_stay(cfg: CfgNode) -> None:
    cfg.MODEL.RESNETS.NORM = "FrozenBN"
    expected = Trainer.build_model(cfg).state_dict().keys()
    cfg.SOLVER.RECOMPUTE = PARTS
    assert Trainer.build_model(cfg).state_dict().keys() == expected


def test_stops_leave_no_trace(cfg: CfgNode, tmp_path: Path) -> None:
    options = {**FROZEN, "SOLVER__RECOMPUTE": PARTS}
    expected = train(cfg, tmp_path / "whole", **options)
    assert_same_training(train(cfg, tmp_path / "stopped", stops=(1, 3), **options), expected)


def test_a_copy_computes_with_its_own_weights(cfg: CfgNode) -> None:
    """As the average of the weights is one."""
    cfg.MODEL.RESNETS.NORM, cfg.SOLVER.RECOMPUTE = "FrozenBN", PARTS
    model = Trainer.build_model(cfg)
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
        images = torch.rand(1, 3, 64, 64)
        features = copied.encode(images, torch.zeros(1, 64, 64, dtype=torch.bool))
    assert bool(features.tokens.isfinite().all())


@pytest.mark.parametrize("norm", ["BN", "SyncBN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N"])
def test_statistics_of_batches_are_refused(cfg: CfgNode, norm: str) -> None:
    cfg.MODEL.RESNETS.NORM, cfg.SOLVER.RECOMPUTE = norm, ["backbone"]
    with pytest.raises(InputError, match=f"SOLVER.RECOMPUTE has 'backbone', and MODEL.RESNETS.NORM is '{norm}'"):
        validate_config(cfg)
    cfg.SOLVER.RECOMPUTE = ["encoder"]
    validate_config(cfg)


def test_a_backbone_without_known_blocks_is_refused() -> None:
    model = nn.ModuleDict({"backbone": nn.Linear(1, 1)})
    with pytest.raises(InputError, match="SOLVER.RECOMPUTE has 'backbone', and Linear has no CNNBlockBase or"):
        recompute(model, ["backbone"])
