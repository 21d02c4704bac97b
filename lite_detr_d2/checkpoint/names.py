"""Rules from published names to ours, shared by the formats of :mod:`.formats`.

A rule is a pattern and what the tensors become whose name matches it: their new name, several of a :class:`Split` or
of :class:`Copies`, a :class:`Part` of one, one :class:`WithLastRow`, or nothing, for the reason that :class:`Unused`
gives. The first match wins. The last part of a name (weight, bias, ...) need not be in the pattern, and then follows
unchanged.

Where names differ alone, they are :data:`Pairs`, of which rules for both directions are made.
"""

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from ..errors import InputError
from .report import NO_COUNTERPART, ConversionReport

StateDict: TypeAlias = dict[str, Tensor]
"""Tensors of a model by name, as ``Module.state_dict`` gives them."""

State: TypeAlias = Mapping[str, Tensor]
"""One that is only read."""


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


@dataclass(frozen=True)
class Part:
    """The tensor is one of several that make one of ours, one after the other along ``dim``.

    Attributes:
        name: ours.
        dim: which dimension they are joined along.
        place: where this one is among them.
    """

    name: str
    dim: int
    place: int


@dataclass(frozen=True)
class Copies:
    """The tensor is each of several of ours, which published modules share.

    Attributes:
        names: ours.
    """

    names: tuple[str, ...]


@dataclass(frozen=True)
class WithLastRow:
    """The tensor lacks a last row that ours has and nothing reads: it is zeros.

    Attributes:
        name: ours.
    """

    name: str


Rule: TypeAlias = tuple[str, str | Split | Part | Copies | WithLastRow | Unused]

Pairs: TypeAlias = Iterable[tuple[str, str]]
"""Published names and ours, without the last part (weight, bias, ...); ``#`` stands for a number, the same in both."""


@dataclass(frozen=True)
class Piece:
    """A tensor of which one of ours is made with others: see :class:`Part`."""

    name: str
    dim: int
    place: int
    tensor: Tensor


COUNTER = ".num_batches_tracked"  # of batch normalisation, which does without
WITHOUT_COUNTERS: Rule = (rf".*{re.escape(COUNTER)}", Unused("a counter that normalisation does not need"))

# The layers of deformable attention without keys, which all implementations call so.
ATTENTION = ("sampling_offsets", "attention_weights", "value_proj", "output_proj")
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

# torchvision's ResNet, whose layer1.0.bn2 is detectron2's res2.0.conv2.norm.
RESNET = (
    ("conv1", "backbone.stem.conv1"),
    ("bn1", "backbone.stem.conv1.norm"),
    *(
        (f"layer{layer}.#.{theirs}", f"backbone.res{layer + 1}.#.{ours}")
        for layer in range(1, 5)
        for theirs, ours in (
            ("conv#", "conv#"),
            ("bn#", "conv#.norm"),
            ("downsample.0", "shortcut"),
            ("downsample.1", "shortcut.norm"),
        )
    ),
)


def renamed(pairs: Pairs, prefix: str = "") -> tuple[Rule, ...]:
    """Rules from published names, which come after ``prefix`` (a pattern), to ours."""
    return tuple((prefix + _numbered(theirs), _with_groups(ours)) for theirs, ours in pairs)


def renamed_back(pairs: Pairs, prefix: str = "") -> tuple[Rule, ...]:
    """Rules from our names to published ones, which come after ``prefix`` (a text)."""
    return tuple((_numbered(ours), prefix + _with_groups(theirs)) for theirs, ours in pairs)


def _numbered(name: str) -> str:
    return re.escape(name).replace(r"\#", r"(\d+)")


def _with_groups(name: str) -> str:
    first, *others = name.split("#")
    return first + "".join(rf"\g<{place}>{text}" for place, text in enumerate(others, 1))


def count(state: State, pattern: str) -> int:
    """How many different indices the first group of ``pattern`` takes at the start of names."""
    return len({match[1] for name in state if (match := re.match(pattern, name))})


def resnet(prefix: str) -> tuple[Rule, ...]:
    """torchvision's ResNet after ``prefix`` (a pattern)."""
    return (WITHOUT_COUNTERS, *renamed(RESNET, prefix))


def swin(prefix: str) -> tuple[Rule, ...]:
    """The official Swin Transformer after ``prefix`` (a pattern); detectron2 has the same names."""
    return (
        (rf"{prefix}layers\.\d+\.blocks\.\d+\.attn_mask", Unused("it follows from the image's size")),
        (rf"{prefix}((?:patch_embed|layers|norm\d)\..+)", r"backbone.\1"),
    )


def efficientnet(state: State) -> tuple[Rule, ...]:
    """EfficientNet-PyTorch's blocks, which it counts from first to last, as timm's, which are in stages.

    A stage ends where the number of output channels changes. A first stage without expansion has one convolution less.
    """
    ours = "backbone.body.model"
    rules: list[Rule] = [
        WITHOUT_COUNTERS,
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


def neck(state: State, prefix: str = "") -> tuple[Rule, ...]:
    """Projections, after ``prefix``: those of the backbone's maps have 1x1 kernels, the ones that add levels larger."""
    kernels = {
        int(match[1]): tensor.shape[-1]
        for name, tensor in state.items()
        if (match := re.fullmatch(rf"{re.escape(prefix)}input_proj\.(\d+)\.0\.weight", name))
    }
    inputs = [level for level in sorted(kernels) if kernels[level] == 1]
    added = [level for level in sorted(kernels) if kernels[level] > 1]
    return tuple(
        (rf"{re.escape(prefix)}input_proj\.{level}\.([01])", rf"neck.{place}.{index}.\1")
        for place, levels in (("inputs", inputs), ("added", added))
        for index, level in enumerate(levels)
    )


def shared_heads(decoder: str = "transformer.decoder.") -> tuple[Rule, ...]:
    """One pair of heads, under an alias for every decoder layer, and perhaps in the ``decoder``."""
    return _heads(r"\d+", "decoder.heads.0", rf"(?:{re.escape(decoder)})?")


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


def apply(rules: Iterable[Rule], name: str, tensor: Tensor) -> StateDict | Piece | Unused:
    """Our tensors that the published ``tensor`` becomes, or the piece of one that it is, or why it is none."""
    for pattern, target in rules:
        match = re.fullmatch(rf"(?:{pattern})(?P<parameter>\.\w+)?", name)
        if match is None:
            continue
        if isinstance(target, Unused):
            return target
        name_of = functools.partial(_expanded, match)
        if isinstance(target, Part):
            return Piece(name_of(target.name), target.dim, target.place, tensor)
        return _made(target, name_of, tensor)
    return Unused(NO_COUNTERPART)


def knows(rules: Iterable[Rule], name: str) -> bool:
    """Whether a rule is for a published name."""
    return any(re.fullmatch(rf"(?:{pattern})(\.\w+)?", name) for pattern, _ in rules)


def _expanded(match: re.Match[str], template: str) -> str:
    return match.expand(template) + (match["parameter"] or "")


def _made(target: str | Split | Copies | WithLastRow, name_of: Callable[[str], str], tensor: Tensor) -> StateDict:
    if isinstance(target, str):
        return {name_of(target): tensor}
    if isinstance(target, Copies):
        return {name_of(new): tensor for new in target.names}
    if isinstance(target, WithLastRow):
        return {name_of(target.name): torch.cat((tensor, torch.zeros_like(tensor[:1])))}
    part = tensor.shape[target.dim] // sum(target.shares.values())
    pieces = tensor.split([part * share for share in target.shares.values()], target.dim)
    # Copies, so that saving one piece does not save the storage of the whole.
    return {name_of(new): piece.clone() for new, piece in zip(target.shares, pieces, strict=True)}


def apply_all(rules: Sequence[Rule], state: State, report: ConversionReport) -> StateDict:
    """What rules make of a state dict; the report is told what was mapped and skipped.

    Raises:
        InputError: when two tensors that should be one differ.
    """
    converted: StateDict = {}
    parts: dict[str, list[Piece]] = {}
    for name, tensor in state.items():
        pieces = apply(rules, name, tensor)
        if isinstance(pieces, Unused):
            report.skipped[name] = pieces.reason
            continue
        if isinstance(pieces, Piece):
            parts.setdefault(pieces.name, []).append(pieces)
            report.mapped[name] = (pieces.name,)
            continue
        differing = [
            new for new, piece in pieces.items() if new in converted and not torch.equal(converted[new], piece)
        ]
        if differing:
            raise InputError(
                f"{name} differs from another tensor that also becomes {differing[0]}: heads are not shared."
            )
        converted |= pieces
        report.mapped[name] = tuple(pieces)
    for name, found in parts.items():
        found.sort(key=lambda piece: piece.place)
        converted[name] = torch.cat([piece.tensor for piece in found], found[0].dim)
    return converted
