"""TensorBoard's tags as a hierarchy: by what a figure is of, the group of queries, and the decoder layer."""

import re
from functools import cached_property
from typing import Any

from detectron2.utils.events import TensorboardXWriter, get_event_storage

from ..wording import shown

_LOSS = re.compile(
    r"loss_(?P<kind>ce|bbox|giou)(?P<dn>_dn)?(?P<layer>_\d+)?(?P<o2m>_one2many)?(?P<proposals>_interm|_enc)?(?P<encoder>_\d+)?"
)
_KINDS = {"ce": "class", "bbox": "boxes", "giou": "GIoU"}
_OTHERS = {
    "total_loss": "loss/total",
    "loss_mask_prediction": "loss/encoder/scores of tokens",
    "lr": "schedule/learning rate",
    "eta_seconds": "schedule/seconds to go",
    "time": "pace/seconds of an iteration",
    "data_time": "pace/seconds of it for data",
    "rank_data_time": "pace/seconds of it for data in the first process",
    "images_per_second": "pace/images per second",
    "grad_norm": "gradient/norm",
    "boxes": "batch/boxes to match",
    "max_mem": "memory/GiB at most",
}


def tag_of(name: str) -> str:
    """The tag of a figure that ``metrics.json`` calls ``name``; what is not known keeps its name, in Unicode.

    The loss of a layer is ``loss/GROUP/layer N/KIND``; N counts from 1, and "last layer" is the one that detects.
    """
    match = _LOSS.fullmatch(name)
    if match is None:
        return _OTHERS.get(name, shown(name))
    if match["encoder"]:
        return f"loss/encoder/layer {int(match['encoder'][1:]) + 1}/{_KINDS[match['kind']]}"
    if match["proposals"]:
        return f"loss/proposals/{_KINDS[match['kind']]}"
    group = "denoising" if match["dn"] else "one-to-many" if match["o2m"] else "matching"
    layer = f"layer {int(match['layer'][1:]) + 1}" if match["layer"] else "last layer"
    return f"loss/{group}/{layer}/{_KINDS[match['kind']]}"


class TensorBoard(TensorboardXWriter):
    """detectron2's writer, whose tags are those of :func:`tag_of`.

    It takes the pictures out of detectron2's storage, and so comes after other writers that write them.
    """

    def write(self) -> None:
        try:
            super().write()
        finally:
            get_event_storage().clear_images()  # also those that could not be written: they would add up

    @cached_property
    def _writer(self) -> Any:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  (seconds to import)

        class Renaming(SummaryWriter):
            def add_scalar(self, tag: str, *values: Any, **options: Any) -> None:
                super().add_scalar(tag_of(tag), *values, **options)

        return Renaming(**self._writer_args)
