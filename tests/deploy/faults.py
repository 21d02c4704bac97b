"""Faults planted in what is exported, and not in the detector that it is compared with."""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from lite_detr_d2.deploy.export import export
from lite_detr_d2.deploy.formats import FORMATS, Format, Settings, Written
from lite_detr_d2.deploy.run import TrainedModel
from lite_detr_d2.deploy.self_check import CheckFailed
from lite_detr_d2.detector import DetrDetector
from lite_detr_d2.modeling import attention, key_aware
from lite_detr_d2.ops import reference

Fault = Callable[[DetrDetector, pytest.MonkeyPatch], None]

_SAMPLE = functional.grid_sample


def swapped_weight(detector: DetrDetector, _: pytest.MonkeyPatch) -> None:
    """The rows of one layer of the decoder, in another order."""
    weight = detector.decoder.layers[0].feed_forward.linear1.weight
    weight.data = weight.data.flip(0)


def aligned_corners(_: DetrDetector, patch: pytest.MonkeyPatch) -> None:
    """Sampling that takes the centres of the corners for the edges."""
    patch.setattr(functional, "grid_sample", lambda plane, grid, **_: _SAMPLE(plane, grid, align_corners=True))
    # The compiled ops do not sample by it.
    patch.setattr(attention, "ms_deform_attn", reference.ms_deform_attn)
    patch.setattr(key_aware, "key_aware_deform_attn", reference.key_aware_deform_attn)


def wrong_mean(detector: DetrDetector, _: pytest.MonkeyPatch) -> None:
    """By one of 256 shades, in one channel."""
    detector.pixel_mean[0] += 1.0  # type: ignore[operator, index]


# By what the check says of them.
FAULTS: dict[Fault, str] = {
    swapped_weight: "does: predictions differ by",
    aligned_corners: "does: encoder tokens differ by",
    wrong_mean: "does: encoder tokens differ by",
}


def assert_fault_is_seen(
    fault: Fault, name: str, trained: TrainedModel, output: Path, settings: Settings, images: Path | None = None
) -> None:
    """Export with a fault: it is said, and nothing is left."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(CheckFailed, match=FAULTS[fault]):
        patch.setitem(FORMATS, name, with_fault(FORMATS[name], fault))
        export(trained, name, output, settings, images)
    assert not list(output.parent.iterdir())


def with_fault(format: Format, fault: Fault) -> Format:
    """A format that writes a detector with a fault in it."""

    def write(detector: DetrDetector, *arguments: Any) -> Written:
        other = copy.deepcopy(detector)
        with pytest.MonkeyPatch.context() as patch, torch.no_grad():
            fault(other, patch)
            return format.write(other, *arguments)

    return dataclasses.replace(format, write=write)
