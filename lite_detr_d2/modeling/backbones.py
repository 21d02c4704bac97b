"""Backbones made of detectron2's parts that it does not register itself."""

from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import Backbone
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, ResNet
from detectron2.modeling.backbone.swin import SwinTransformer, SwinTransformerBlock
from torch import nn
from torchvision.ops import StochasticDepth

from ..quiet import quiet


def shifts_windows(backbone: nn.Module) -> bool:
    """Whether a backbone is a Swin Transformer, detectron2's or timm's: its masks depend on the images' size."""
    return any(
        isinstance(module, SwinTransformerBlock) or hasattr(module, "dynamic_mask") for module in backbone.modules()
    )


@BACKBONE_REGISTRY.register()
def build_swin_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """detectron2's Swin Transformer as ``cfg.MODEL.SWIN`` describes it.

    Drop path is torchvision's ``StochasticDepth``; detectron2's own needs timm.
    """
    swin = cfg.MODEL.SWIN
    with quiet():  # it calls torch.meshgrid without its indexing, of which PyTorch warns
        backbone = SwinTransformer(
            in_chans=input_shape.channels,
            embed_dim=swin.EMBED_DIM,
            depths=swin.DEPTHS,
            num_heads=swin.NUM_HEADS,
            window_size=swin.WINDOW_SIZE,
            drop_path_rate=0.0,
            out_indices=tuple(swin.OUT_INDICES),
            frozen_stages=-1,
        )
    blocks = [module for module in backbone.modules() if isinstance(module, SwinTransformerBlock)]
    for index, block in enumerate(blocks):
        rate = swin.DROP_PATH_RATE * index / max(len(blocks) - 1, 1)
        block.drop_path = StochasticDepth(rate, mode="row")
    return backbone


@BACKBONE_REGISTRY.register()
def build_narrow_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """A ResNet-18 of any width: detectron2's builder insists on 64 channels.

    ``MODEL.RESNETS.RES2_OUT_CHANNELS`` is the first stage's width, which doubles with every stage, and
    ``STEM_OUT_CHANNELS`` the stem's; ``NORM``, ``OUT_FEATURES`` and ``MODEL.BACKBONE.FREEZE_AT`` keep their meaning.
    """
    resnet = cfg.MODEL.RESNETS
    shared: dict[str, Any] = {"norm": resnet.NORM}
    stem = BasicStem(in_channels=input_shape.channels, out_channels=resnet.STEM_OUT_CHANNELS, **shared)
    stages, in_channels = [], resnet.STEM_OUT_CHANNELS
    for index in range(4):
        out_channels = resnet.RES2_OUT_CHANNELS * 2**index
        stride = 1 if index == 0 else 2
        channels = {"in_channels": in_channels, "out_channels": out_channels}
        stages.append(ResNet.make_stage(BasicBlock, 2, stride_per_block=[stride, 1], **channels, **shared))
        in_channels = out_channels
    return ResNet(stem, stages, out_features=resnet.OUT_FEATURES, freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT)
