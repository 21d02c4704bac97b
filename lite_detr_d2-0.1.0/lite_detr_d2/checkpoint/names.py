"""Rules from published names to ours, shared by the formats of :mod:`.formats`.

A rule is a pattern and what the tensors become whose name matches it: their new name, several of a :class:`Split`, or
nothing, for the reason that :class:`Unused` gives. The first match wins. The last part of a name (weight, bias, ...)
need not be in the pattern, and then follows unchanged.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

StateDict: TypeAlias = dict[str, Tensor]
"""Tensors of a model by name, as ``Module.state_dict`` gives them."""


@dataclass(frozen=True)
class Unused:
    """The tensor has no counterpart."""

    reason: str


@dataclass(frozen=True)
class Split:
    """The tensor is several of ours, one after the other along ``dim``.

    Attributes:
        dim: which dimension to split.
        shares: new name -> how many parts of the tensor it takes.
    """

    dim: int
    shares: Mapping[str, int]


Rule: TypeAlias = tuple[str, str | Split | Unused]

COUNTER = ".num_batches_tracked"  # of batch normalisation, which does without

_ATTENTION = r"(sampling_offsets|attention_weights|value_proj|key_proj|query_proj|output_proj)"
_ENCODER = r"transformer\.encoder\.layers\.(\d+)"
_DECODER = r"transformer\.decoder\.layers\.(\d+)"

# What all detectors of the family have.
TRANSFORMER: tuple[Rule, ...] = (
    (r"transformer\.level_embed", r"flatten.level_embed"),
    (rf"{_ENCODER}\.self_attn\.{_ATTENTION}", r"encoder.layers.\1.attention.\2"),
    (rf"{_ENCODER}\.norm1", r"encoder.layers.\1.norm"),
    (rf"{_ENCODER}\.linear([12])", r"encoder.layers.\1.feed_forward.linear\2"),
    (rf"{_ENCODER}\.norm2", r"encoder.layers.\1.feed_forward.norm"),
    (rf"{_ENCODER}\.linear([12])2", r"encoder.layers.\1.low_feed_forward.linear\2"),
    (rf"{_ENCODER}\.norm22", r"encoder.layers.\1.low_feed_forward.norm"),
    (rf"{_DECODER}\.cross_attn\.{_ATTENTION}", r"decoder.layers.\1.cross_attention.\2"),
    (rf"{_DECODER}\.norm1", r"decoder.layers.\1.cross_attention_norm"),
    (
        rf"{_DECODER}\.self_attn\.in_proj_(weight|bias)",
        Split(
            dim=0,
            shares={
                r"decoder.layers.\1.self_attention.query_key_proj.\2": 2,
                r"decoder.layers.\1.self_attention.value_proj.\2": 1,
            },
        ),
    ),
    (rf"{_DECODER}\.self_attn\.out_proj", r"decoder.layers.\1.self_attention.output_proj"),
    (rf"{_DECODER}\.norm2", r"decoder.layers.\1.self_attention_norm"),
    (rf"{_DECODER}\.linear([12])", r"decoder.layers.\1.feed_forward.linear\2"),
    (rf"{_DECODER}\.norm3", r"decoder.layers.\1.feed_forward.norm"),
    (r"transformer\.enc_output", r"query_selection.proj"),
    (r"transformer\.enc_output_norm", r"query_selection.norm"),
)


def resnet(prefix: str) -> tuple[Rule, ...]:
    """torchvision's ResNet after ``prefix`` (a pattern): ``layer1.0.bn2`` is detectron2's ``res2.0.conv2.norm``."""
    rules: list[Rule] = [
        (rf".*{re.escape(COUNTER)}", Unused("a counter that normalisation does not need")),
        (rf"{prefix}conv1", r"backbone.stem.conv1"),
        (rf"{prefix}bn1", r"backbone.stem.conv1.norm"),
    ]
    for layer in range(1, 5):
        block = rf"{prefix}layer{layer}\.(\d+)"
        rules += [
            (rf"{block}\.conv(\d)", rf"backbone.res{layer + 1}.\1.conv\2"),
            (rf"{block}\.bn(\d)", rf"backbone.res{layer + 1}.\1.conv\2.norm"),
            (rf"{block}\.downsample\.0", rf"backbone.res{layer + 1}.\1.shortcut"),
            (rf"{block}\.downsample\.1", rf"backbone.res{layer + 1}.\1.shortcut.norm"),
        ]
    return tuple(rules)


def swin(prefix: str) -> tuple[Rule, ...]:
    """The official Swin Transformer after ``prefix`` (a pattern); detectron2 has the same names."""
    return (
        (rf"{prefix}layers\.\d+\.blocks\.\d+\.attn_mask", Unused("it follows from the image's size")),
        (rf"{prefix}((?:patch_embed|layers|norm\d)\..+)", r"backbone.\1"),
    )


def efficientnet(state: Mapping[str, Tensor]) -> tuple[Rule, ...]:
    """EfficientNet-PyTorch's blocks, which it counts from first to last, as timm's, which are in stages.

    A stage ends where the number of output channels changes. A first stage without expansion has one convolution less.
    """
    ours = "backbone.body.model"
    rules: list[Rule] = [
        (rf".*{re.escape(COUNTER)}", Unused("a counter that normalisation does not need")),
        (r"_conv_stem", f"{ours}.conv_stem"),
        (r"_bn0", f"{ours}.bn1"),
    ]
    stage, place, channels = -1, 0, None
    for block in range(sum(name.endswith("._project_conv.weight") for name in state)):
        theirs = rf"_blocks\.{block}\."
        width = len(state[f"_blocks.{block}._project_conv.weight"])
        stage, place = (stage, place + 1) if width == channels else (stage + 1, 0)
        channels, prefix = width, f"{ours}.blocks.{stage}.{place}"
        if f"_blocks.{block}._expand_conv.weight" in state:
            layers = {"_expand_conv": "conv_pw", "_depthwise_conv": "conv_dw", "_project_conv": "conv_pwl"}
            layers |= {"_bn0": "bn1", "_bn1": "bn2", "_bn2": "bn3"}
        else:
            layers = {"_depthwise_conv": "conv_dw", "_project_conv": "conv_pw", "_bn1": "bn1", "_bn2": "bn2"}
        rules += [(rf"{theirs}{old}", f"{prefix}.{new}") for old, new in layers.items()]
    return tuple(rules)


def neck(state: Mapping[str, Tensor]) -> tuple[Rule, ...]:
    """Projections of the backbone's maps have 1x1 kernels, the convolutions that add levels larger ones."""
    kernels = {
        int(match[1]): tensor.shape[-1]
        for name, tensor in state.items()
        if (match := re.fullmatch(r"input_proj\.(\d+)\.0\.weight", name))
    }
    inputs = [level for level in sorted(kernels) if kernels[level] == 1]
    added = [level for level in sorted(kernels) if kernels[level] > 1]
    return tuple(
        (rf"input_proj\.{level}\.([01])", rf"neck.{place}.{index}.\1")
        for place, levels in (("inputs", inputs), ("added", added))
        for index, level in enumerate(levels)
    )


def shared_heads() -> tuple[Rule, ...]:
    """One pair of heads, under an alias for every decoder layer."""
    return _heads(r"\d+", "decoder.heads.0")


def heads_of_layers() -> tuple[Rule, ...]:
    """A pair of heads for each decoder layer."""
    return _heads(r"(?P<layer>\d+)", r"decoder.heads.\g<layer>")


def head_of_encoder(num_decoder_layers: int) -> tuple[Rule, ...]:
    """The encoder's pair of heads, which comes after those of the decoder layers."""
    return _heads(str(num_decoder_layers), "query_selection.head")


def heads_of_encoder_layers(first: int, number: int) -> tuple[Rule, ...]:
    """A pair of heads for each encoder layer but the last, which in the decoder's list begin with the ``first``."""
    rules = [_heads(str(first + layer), f"encoder.auxiliary_heads.{layer}") for layer in range(number)]
    alias = _heads(r"(?P<layer>\d+)", r"encoder.auxiliary_heads.\g<layer>", prefix=r"transformer\.encoder\.")
    return (*(rule for pair in rules for rule in pair), *alias)


def _heads(index: str, ours: str, prefix: str = r"(?:transformer\.decoder\.)?") -> tuple[Rule, ...]:
    return (
        (rf"{prefix}bbox_embed\.{index}\.layers\.(?P<linear>\d+)", rf"{ours}.box_embed.layers.\g<linear>"),
        (rf"{prefix}class_embed\.{index}", rf"{ours}.class_embed"),
    )


def apply(rules: Iterable[Rule], name: str, tensor: Tensor) -> StateDict | Unused:
    """Our tensors that the published ``tensor`` becomes, or why there are none."""
    for pattern, target in rules:
        match = re.fullmatch(rf"(?:{pattern})(?P<parameter>\.\w+)?", name)
        if match is None:
            continue
        if isinstance(target, Unused):
            return target
        if isinstance(target, str):
            return {match.expand(target) + (match["parameter"] or ""): tensor}
        part = tensor.shape[target.dim] // sum(target.shares.values())
        pieces = tensor.split([part * share for share in target.shares.values()], target.dim)
        # Copies, so that saving one piece does not save the storage of the whole.
        return {match.expand(new): piece.clone() for new, piece in zip(target.shares, pieces, strict=True)}
    return Unused("no counterpart")
