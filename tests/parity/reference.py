"""A parity fixture: what a published implementation computed, and our model of the same configuration and weights."""

import json
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn
from torchvision.ops import box_convert

from lite_detr_d2.checkpoint import ConversionReport, convert_published
from tests import reference_weights

from .options import DEFAULTS, config_of

DEFAULT_FOLDER = Path(__file__).parent.parent / "data" / "parity"


def fixture_paths() -> list[Path]:
    """The JSON file of every fixture in ``LITE_DETR_PARITY_DIR``, or in the folder that comes with the tests."""
    return sorted(Path(os.environ.get("LITE_DETR_PARITY_DIR", DEFAULT_FOLDER)).glob("*.json"))


def names_of_arrays(path: Path) -> list[str]:
    """What a fixture has recorded."""
    with np.load(path.with_suffix(".npz")) as arrays:
        return list(arrays.files)


@dataclass(frozen=True)
class Reference:
    """One fixture."""

    path: Path

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The JSON part."""
        return json.loads(self.path.read_text())

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """The NPZ part."""
        with np.load(self.path.with_suffix(".npz")) as arrays:
            return dict(arrays)

    @cached_property
    def converted(self) -> tuple[dict[str, Tensor], ConversionReport]:
        """The reference weights through our converter."""
        rules = self.facts.get("weight_rules", ())
        arrays = reference_weights.state_dict(self.shapes, self.facts["aliases"], rules)
        return convert_published({name: torch.from_numpy(array) for name, array in arrays.items()})

    @property
    def shapes(self) -> dict[str, list[int]]:
        """Of every reference tensor that the reference's run used."""
        options = DEFAULTS | self.facts["config"]
        # The network of the low-level tokens is there with ``small_expand`` even when no level is low.
        no_low_levels = options.get("enc_scale") == options["num_feature_levels"]
        unused = re.compile(r"transformer\.encoder\..*\.(linear[12]2|norm22)\..*" if no_low_levels else r"(?!)")
        return {name: shape for name, shape in self.facts["shapes"].items() if not unused.fullmatch(name)}

    @property
    def loss_weights(self) -> dict[str, float]:
        """Of the losses that the reference computes: H-DETR lists weights of losses that it does not have."""
        return {name: weight for name, weight in self.facts["loss_weights"].items() if name in self.facts["losses"]}

    def detections(self, index: int) -> dict[str, np.ndarray]:
        """Scores, labels and boxes (in pixels) of the best detections of an image, best first."""
        recorded = {key: self.arrays.get(f"det{index}_{key}") for key in ("scores", "labels", "boxes")}
        if recorded["scores"] is not None:
            return recorded
        # Only DINO's fixtures record them: the others' are the best pairs of a query and a class, too.
        logits, boxes = self.arrays["pred_logits"][index], self.arrays["pred_boxes"][index]
        best = np.argsort(-logits, axis=None, kind="stable")[:50]
        centre, size = np.split(boxes[best // logits.shape[1]], 2, axis=1)
        height, width = self.facts["image_sizes"][index]
        corners = np.concatenate((centre - size / 2, centre + size / 2), axis=1) * (width, height, width, height)
        scores = 1 / (1 + np.exp(-logits.flatten()[best]))
        return {"scores": scores, "labels": best % logits.shape[1], "boxes": corners}

    def model(self) -> nn.Module:
        """Our model with the reference weights, strictly loaded."""
        model = build_model(self.config())
        model.load_state_dict(self.converted[0], strict=True)
        return model

    def config(self) -> CfgNode:
        """Our configuration of the reference's run."""
        return config_of(self.facts["source"], self.facts["config"], self.path.name)

    def inputs(self) -> list[dict[str, Any]]:
        """The reference's images and targets as detectron2's batched inputs."""
        batch = []
        sizes, seeds = self.facts["image_sizes"], self.facts["image_seeds"]
        for index, (seed, (height, width)) in enumerate(zip(seeds, sizes, strict=True)):
            image = reference_weights.image(seed, height, width)
            instances = Instances((height, width))
            boxes = torch.from_numpy(self.arrays[f"target{index}_boxes"])
            scale = torch.tensor([width, height, width, height], dtype=torch.float32)
            instances.gt_boxes = Boxes(box_convert(boxes, "cxcywh", "xyxy") * scale)
            instances.gt_classes = torch.from_numpy(self.arrays[f"target{index}_labels"]).long()
            chw = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
            batch.append({"image": chw, "instances": instances, "height": height, "width": width, "image_id": index})
        return batch
