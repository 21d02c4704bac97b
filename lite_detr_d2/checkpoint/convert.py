"""From a state dict of a published implementation to one of this package's models."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import InputError
from . import names
from .formats import FORMATS, Format, detect
from .infer import expected_shapes
from .names import StateDict
from .origins import origin_of, resemblance
from .report import ConversionReport, modules_of


def convert_published(state: Mapping[str, Tensor]) -> tuple[StateDict, ConversionReport]:
    """Convert the state dict of a published detector or backbone, whatever its kind.

    Args:
        state: published names -> tensors.

    Returns:
        Our state dict with classes as they are, and what became of every tensor. Of a detector the report also has what
        is missing from a whole model, and what has another shape than in it.

    Raises:
        InputError: when ``state`` is of no kind that is known, or contradicts itself.
    """
    published = detect(state)
    if published is None:
        kinds = ", ".join(known.kind for known in FORMATS)
        raise InputError(
            f"This is a checkpoint of no implementation that can be converted: expected one of {kinds}. "
            f"{origin_of(state) or resemblance(state)}".strip()
        )
    converted, report = convert(published, state)
    if not report.only_backbone:
        report.compare(converted, expected_shapes(converted))
    return converted, report


def convert(
    published: Format, state: Mapping[str, Tensor], *, is_whole: bool = True
) -> tuple[StateDict, ConversionReport]:
    """Convert a state dict of a known format; the report says what was mapped and skipped.

    Args:
        published: the format.
        state: published names -> tensors.
        is_whole: whether all of a detector is meant, and not what fits of one.

    Raises:
        InputError: when two tensors that should be one differ, or a detector has tensors that its kind does not have.
    """
    report = ConversionReport(published.kind, published.only_backbone)
    converted = names.apply_all(published.rules(state), state, report)
    foreign = report.without_counterpart
    if foreign and is_whole and not published.only_backbone:
        raise InputError(
            f"This looks like a checkpoint of {published.kind}, but is of another model: that has no "
            f"{modules_of(foreign, state)}. MODEL.LITE_DETR.INIT starts a training from what fits of it."
        )
    return converted | _window_indices(converted), report


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
