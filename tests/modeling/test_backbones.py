import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_backbone
from torchvision.ops import StochasticDepth


def test_narrow_resnet(small_cfg: CfgNode) -> None:
    small_cfg.MODEL.RESNETS.STEM_OUT_CHANNELS, small_cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 8, 16
    backbone = build_backbone(small_cfg)
    maps = backbone(torch.randn(1, 3, 64, 96))
    assert {name: tuple(value.shape[1:]) for name, value in maps.items()} == {
        "res3": (32, 8, 12),
        "res4": (64, 4, 6),
        "res5": (128, 2, 3),
    }
    assert {name: shape.channels for name, shape in backbone.output_shape().items()} == {
        "res3": 32,
        "res4": 64,
        "res5": 128,
    }


def test_narrow_resnet_freezes(small_cfg: CfgNode) -> None:
    small_cfg.MODEL.BACKBONE.FREEZE_AT = 2
    backbone = build_backbone(small_cfg)
    frozen = {name.split(".")[0] for name, parameter in backbone.named_parameters() if not parameter.requires_grad}
    assert frozen == {"stem", "res2"}


def test_swin_drop_path_grows_with_depth(small_cfg: CfgNode) -> None:
    small_cfg.MODEL.BACKBONE.NAME = "build_swin_backbone"
    small_cfg.MODEL.SWIN.EMBED_DIM = 24
    backbone = build_backbone(small_cfg)
    rates = [module.p for module in backbone.modules() if isinstance(module, StochasticDepth)]
    torch.testing.assert_close(torch.tensor(rates), torch.linspace(0, 0.2, 12))
    images = torch.randn(1, 3, 50, 70)
    assert not torch.equal(backbone(images)["p3"], backbone(images)["p3"])
    maps = backbone.eval()(images)
    assert {name: tuple(value.shape[1:]) for name, value in maps.items()} == {
        "p1": (48, 7, 9),
        "p2": (96, 4, 5),
        "p3": (192, 2, 3),
    }


def test_a_swin_is_what_its_keys_say(small_cfg: CfgNode) -> None:
    """Heads and windows show in the table of relative positions: (2 * window - 1) squared rows, a column per head."""
    swin = small_cfg.MODEL.SWIN
    small_cfg.MODEL.BACKBONE.NAME = "build_swin_backbone"
    swin.EMBED_DIM, swin.DEPTHS, swin.NUM_HEADS, swin.WINDOW_SIZE = 24, [1, 2, 3, 1], [2, 4, 6, 12], 5
    swin.OUT_INDICES, swin.DROP_PATH_RATE = [2, 3], 0.0
    backbone = build_backbone(small_cfg)
    assert [len(stage.blocks) for stage in backbone.layers] == [1, 2, 3, 1]
    tables = [stage.blocks[0].attn.relative_position_bias_table for stage in backbone.layers]
    assert [tuple(table.shape) for table in tables] == [(81, 2), (81, 4), (81, 6), (81, 12)]
    assert {name: shape.channels for name, shape in backbone.output_shape().items()} == {"p2": 96, "p3": 192}
    assert all(module.p == 0 for module in backbone.modules() if isinstance(module, StochasticDepth))
    assert all(parameter.requires_grad for parameter in backbone.parameters())
