"""Whose a checkpoint is that cannot be read here, by what is found in it."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from ..wording import counted
from .formats import FORMATS
from .names import knows

_ALIKE = 0.1  # the share of its names that makes a checkpoint resemble a kind
_KINDS_TOLD = 3


@dataclass(frozen=True)
class Origin:
    """An implementation whose checkpoints are not converted.

    Attributes:
        name: what people call it.
        marks: patterns; for each of them, its state dicts have a tensor whose whole name matches, and no others do.
        packages: of objects that its files may hold beside tensors.
    """

    name: str
    marks: tuple[str, ...]
    packages: tuple[str, ...] = ()


ORIGINS = (
    Origin(
        "another detector of detrex",
        (r"transformer\.(encoder|decoder)\.layers\.\d+\.(attentions|ffns)\.\d+\..+",),
        ("detrex",),
    ),
    Origin("MMDetection", (r"(bbox_head|roi_head|rpn_head|mask_head)\..+",), ("mmdet", "mmengine", "mmcv")),
    Origin(
        "Ultralytics (YOLO, RT-DETR)",
        (r"(model\.)?model\.\d+\.cv\d+\.conv\.weight",),
        ("ultralytics", "models.yolo"),
    ),
    Origin(
        "another detector of transformers (DETR, RT-DETR, Grounding DINO, ...)",
        (r"model\.backbone\.(conv_encoder|model)\..+|class_labels_classifier\..+|bbox_predictor\.layers\..+",),
        ("transformers",),
    ),
    Origin("RT-DETR (lyuwenyu/RT-DETR)", (r"decoder\.dec_score_head\..+", r"decoder\.dec_bbox_head\..+")),
    Origin("RF-DETR or LW-DETR", (r"query_feat\.weight", r"backbone\.0\.projector\..+"), ("rfdetr",)),
    Origin(
        "DETR (facebookresearch/detr)",
        (r"input_proj\.weight", r"transformer\.decoder\.layers\.\d+\.multihead_attn\.in_proj_weight"),
    ),
    Origin("torchvision's detectors", (r"backbone\..+", r"rpn\.head\..+|head\.classification_head\..+")),
    Origin(
        "another detector of detectron2",
        (r"(proposal_generator\.rpn_head|roi_heads\.box_(head|predictor)|head\.(cls|bbox)_subnet)\..+",),
    ),
)


def origin_of(names: Iterable[str]) -> str:
    """Say, in whole sentences, whose tensors of these names are and what to do; "" if they are not known."""
    names = list(names)
    for origin in ORIGINS:
        if all(any(re.fullmatch(mark, name) for name in names) for mark in origin.marks):
            return _advice(origin)
    return ""


def resemblance(state: Mapping[str, Tensor]) -> str:
    """Say, in a whole sentence, which kinds a checkpoint of none resembles, by names that it shares; "" for none."""
    shares = {}
    for known in FORMATS:
        try:
            rules = known.rules(state)
        except (KeyError, IndexError):  # of a part of one, or of something that contradicts itself
            continue
        shares[known.kind] = sum(knows(rules, name) for name in state)
    least = max(1, _ALIKE * len(state))
    found = sorted(((count, kind) for kind, count in shares.items() if count >= least), reverse=True)
    if not found:
        return ""
    told = ", ".join(f"{kind} ({count})" for count, kind in found[:_KINDS_TOLD])
    return f"Of its {counted(len(state), 'name', 'names')}, so many are those of: {told}."


def origin_of_object(path: str) -> str:
    """As :func:`origin_of`, of an object that a file holds, by the dotted path of its class."""
    package, origin = next(
        ((name, origin) for origin in ORIGINS for name in origin.packages if path.startswith(f"{name}.")), ("", None)
    )
    kinds = ", ".join(known.kind for known in FORMATS if package and known.kind.startswith(package))
    if kinds:
        return f"It is an object of {package}, of which the tensors of these are converted: {kinds}."
    return _advice(origin) if origin else ""


def _advice(origin: Origin) -> str:
    kinds = ", ".join(known.kind for known in FORMATS)
    return (
        f"It looks like a checkpoint of {origin.name}, which is not converted. Those of this package are read, and of "
        f"{kinds}: give one of them. Of a file with this package's names for its tensors, MODEL.LITE_DETR.INIT takes "
        "what fits."
    )
