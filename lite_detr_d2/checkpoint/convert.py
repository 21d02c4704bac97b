"""From a checkpoint of the Lite-DETR repository (Lite-DINO, and DINO) to a state dict of this package's ``DINO``."""

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from torch import Tensor

from ..errors import InputError
from .infer import expected_shapes
from .names import renamed

StateDict = dict[str, Tensor]

CLASS_CHOICES = ("keep", "coco80")
NUM_COCO_IDS = 91  # the published heads have a row for each COCO category id, used or not


@dataclass
class ConversionReport:
    """What became of every tensor.

    Attributes:
        mapped: published name -> our names; more than one where a fused tensor was split.
        skipped: published name -> why it was not used.
        missing: names that the model has and the checkpoint does not give.
        mismatched: our name -> the given and the expected shape, where they differ.
    """

    mapped: dict[str, tuple[str, ...]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    mismatched: dict[str, str] = field(default_factory=dict)

    def errors(self) -> list[str]:
        """What keeps the result from being a whole model, one tensor per line."""
        lines = [f"missing  {name}" for name in self.missing]
        return lines + [f"shape    {name}: {text}" for name, text in self.mismatched.items()]

    def lines(self) -> list[str]:
        """The report for people, one tensor per line, and a summary last."""
        lines = [f"mapped   {old} -> {', '.join(new)}" for old, new in self.mapped.items()]
        lines += [f"skipped  {name}: {reason}" for name, reason in self.skipped.items()]
        lines += self.errors()
        counts = f"{len(self.mapped)} mapped, {len(self.skipped)} skipped, {len(self.missing)} missing"
        return [*lines, f"{counts}, {len(self.mismatched)} of another shape"]


def read_checkpoint(path: str | Path) -> StateDict:
    """Read the tensors of a published checkpoint, without running any code in it.

    Args:
        path: a file with a bare state dict or ``{"model": state dict, ...}``; an ``argparse.Namespace`` beside it is
            allowed.

    Raises:
        InputError: naming the file, when it is not there, not a checkpoint, or holds objects other than tensors.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such checkpoint.")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises a different type for each way in which a file can be bad
        raise InputError(f"{path} cannot be read as a checkpoint of tensors: it {unreadable_reason(error)}.") from error
    state = content.get("model", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f'{path} holds neither a state dict nor {{"model": state dict}}.')
    return dict(state)


def unreadable_reason(error: Exception) -> str:
    """What "it", a file with which ``torch.load`` fails, does wrong; torch's own advice is to run the file's code."""
    unsupported = re.search(r"GLOBAL (\S+)", str(error))
    return f"holds {unsupported[1]}, not tensors and plain values alone" if unsupported else "is damaged"


def convert_lite_detr(state: Mapping[str, Tensor], classes: str = "keep") -> tuple[StateDict, ConversionReport]:
    """Convert a state dict of the Lite-DETR repository, with a ResNet or a Swin backbone.

    Args:
        state: published names -> tensors.
        classes: "keep" leaves the class heads as wide as they are; "coco80" makes 91-wide ones (COCO category ids)
            80 wide, in detectron2's order of the classes.

    Returns:
        The state dict of the ``DINO`` meta-architecture, and what became of every tensor.

    Raises:
        InputError: when ``state`` is not of this kind, or ``classes`` does not fit it.
    """
    if classes not in CLASS_CHOICES:
        raise InputError(f"classes must be one of {', '.join(CLASS_CHOICES)}, got {classes!r}.")
    for name in ("transformer.level_embed", "transformer.tgt_embed.weight", "transformer.enc_out_class_embed.weight"):
        if name not in state:
            raise InputError(f"This is not a checkpoint of the Lite-DETR repository's DINO: it has no {name}.")
    report = ConversionReport()
    converted: StateDict = {}
    for name, tensor in state.items():
        reason = _reason_to_skip(name, state)
        pieces = {} if reason else _pieces(name, tensor)
        if reason or not pieces:
            report.skipped[name] = reason or "no counterpart"
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
    converted |= _window_indices(converted)
    if classes == "coco80":
        _select_coco_classes(converted)
    _compare(converted, report)
    return converted, report


def _reason_to_skip(name: str, state: Mapping[str, Tensor]) -> str | None:
    if name.endswith("num_batches_tracked"):
        return "a counter that frozen normalisation does not have"
    layer, _, parameter = name.rpartition(".")
    attention, _, projection = layer.rpartition(".")
    if projection in ("query_proj", "key_proj") and f"{attention}.attention_weights.{parameter}" in state:
        return "unused without key-aware attention"
    return None


def _pieces(name: str, tensor: Tensor) -> StateDict:
    """Our tensors that a published tensor becomes; none for an unknown name."""
    fused = re.fullmatch(r"(.*\.self_attn)\.in_proj_(weight|bias)", name)
    if fused is None:
        new = renamed(name)
        return {} if new is None else {new: tensor}
    query_key, value = tensor.split([2 * tensor.shape[0] // 3, tensor.shape[0] // 3])
    parts = {f"{fused[1]}.query_key_proj.{fused[2]}": query_key, f"{fused[1]}.value_proj.{fused[2]}": value}
    # A copy, so that saving one piece does not save the storage of the whole.
    return {new: part.clone() for old, part in parts.items() if (new := renamed(old)) is not None}


def _window_indices(converted: Mapping[str, Tensor]) -> StateDict:
    """Swin's ``relative_position_index`` buffers, which follow from the window's size, for each bias table."""
    suffix = "relative_position_bias_table"
    indices = {}
    for name, table in converted.items():
        if name.endswith(suffix):
            window = (int(table.shape[0] ** 0.5) + 1) // 2
            grid = torch.arange(window)
            position = torch.stack(torch.meshgrid(grid, grid, indexing="ij")).flatten(1)
            y, x = position[:, :, None] - position[:, None, :] + window - 1
            indices[name.removesuffix(suffix) + "relative_position_index"] = y * (2 * window - 1) + x
    return indices


def _select_coco_classes(converted: StateDict) -> None:
    """Keep the rows of COCO's 80 classes; the label embedding also keeps its last row, which is no class."""
    ids = [category["id"] for category in COCO_CATEGORIES if category["isthing"]]
    for name, tensor in converted.items():
        is_label_embedding = name == "denoising.label_embed.weight"
        if not is_label_embedding and ".class_embed." not in name:
            continue
        rows = NUM_COCO_IDS + int(is_label_embedding)
        if tensor.shape[0] != rows:
            raise InputError(
                f"--classes coco80 needs heads of {NUM_COCO_IDS} classes: {name} has {tensor.shape[0]} rows."
            )
        converted[name] = tensor[ids + [NUM_COCO_IDS] * int(is_label_embedding)]


def _compare(converted: Mapping[str, Tensor], report: ConversionReport) -> None:
    """Report where ``converted`` is not what the model that it describes expects."""
    expected = expected_shapes(converted)
    report.missing = [name for name in expected if name not in converted]
    for name, tensor in converted.items():
        if name in expected and tuple(tensor.shape) != expected[name]:
            report.mismatched[name] = f"{tuple(tensor.shape)}, expected {expected[name]}"
