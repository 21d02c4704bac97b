"""EfficientNet-PyTorch's names, on a network of four blocks; tests/interop has the whole one, with its weights."""

import torch

from lite_detr_d2.checkpoint import convert_published


def test_blocks_are_counted_in_stages() -> None:
    """A block with other output channels than the one before begins a stage."""
    widths = {0: 16, 1: 24, 2: 24, 3: 40}
    state = {"_conv_stem.weight": torch.zeros(32, 3, 3, 3), "_bn0.running_mean": torch.zeros(32)}
    for block, width in widths.items():
        if block:
            state[f"_blocks.{block}._expand_conv.weight"] = torch.zeros(96, 16, 1, 1)
            state[f"_blocks.{block}._bn0.weight"] = torch.zeros(96)
        state[f"_blocks.{block}._depthwise_conv.weight"] = torch.zeros(96, 1, 3, 3)
        state[f"_blocks.{block}._bn1.bias"] = torch.zeros(96)
        state[f"_blocks.{block}._project_conv.weight"] = torch.zeros(width, 96, 1, 1)
        state[f"_blocks.{block}._bn2.running_var"] = torch.zeros(width)
    head = ["_conv_head.weight", "_bn1.weight", "_bn1.num_batches_tracked", "_fc.bias"]
    state |= dict.fromkeys(head, torch.zeros(1))
    _, report = convert_published(state)
    assert report.only_backbone and sorted(report.skipped) == sorted(head)
    ours = {old: new.removeprefix("backbone.body.model.") for old, (new,) in report.mapped.items()}
    assert ours == {
        "_conv_stem.weight": "conv_stem.weight",
        "_bn0.running_mean": "bn1.running_mean",
        "_blocks.0._depthwise_conv.weight": "blocks.0.0.conv_dw.weight",
        "_blocks.0._bn1.bias": "blocks.0.0.bn1.bias",
        "_blocks.0._project_conv.weight": "blocks.0.0.conv_pw.weight",
        "_blocks.0._bn2.running_var": "blocks.0.0.bn2.running_var",
        **{
            f"_blocks.{block}.{theirs}": f"blocks.{place}.{ours}"
            for block, place in ((1, "1.0"), (2, "1.1"), (3, "2.0"))
            for theirs, ours in {
                "_expand_conv.weight": "conv_pw.weight",
                "_bn0.weight": "bn1.weight",
                "_depthwise_conv.weight": "conv_dw.weight",
                "_bn1.bias": "bn2.bias",
                "_project_conv.weight": "conv_pwl.weight",
                "_bn2.running_var": "bn3.running_var",
            }.items()
        },
    }
