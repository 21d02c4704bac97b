"""Pictures of a few validation images at each evaluation: what there is to find, beside what is found."""

import logging
import random
from functools import cached_property
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import get_detection_dataset_dicts
from detectron2.evaluation.evaluator import inference_context
from detectron2.utils.events import get_event_storage
from torch import nn

from ..data import DetrDatasetMapper
from ..errors import InputError
from ..visualization import draw_beside
from ..wording import shown
from .datasets import class_names

logger = logging.getLogger(__name__)


class ValidationPictures:
    """Puts pictures into detectron2's event storage, for the writers; they are of the same images each time."""

    def __init__(self, cfg: CfgNode) -> None:
        """Make them of ``TEST.PICTURES`` images of each of ``DATASETS.TEST``, if it has so many with boxes."""
        self._cfg = cfg
        self._has_failed = False

    def put(self, model: nn.Module) -> None:
        """Draw what ``model`` finds, as ``predictions/DATASET/NUMBER``; what cannot be drawn is said once."""
        with torch.no_grad(), inference_context(model):
            try:  # within: detectron2's context does not set the model back to training where an error leaves it
                for tag, (image, names) in self._images.items():
                    found = model([self._mapper(image)])[0]["instances"]
                    picture = draw_beside(image, found, names, max_value=self._cfg.INPUT.MAX_VALUE)
                    get_event_storage().put_image(tag, picture.transpose(2, 0, 1))
            except (InputError, OSError) as error:
                if not self._has_failed:
                    logger.warning("Pictures of the evaluation cannot be made: %s", error)
                self._has_failed = True

    @cached_property
    def _mapper(self) -> DetrDatasetMapper:
        mapper: DetrDatasetMapper = DetrDatasetMapper(self._cfg, False)
        return mapper

    @cached_property
    def _images(self) -> dict[str, tuple[dict[str, Any], list[str]]]:
        """Tag -> the image in detectron2's dataset format, and the names of its classes."""
        most = self._cfg.TEST.PICTURES
        chosen = {}
        for name in self._cfg.DATASETS.TEST if most else ():
            images = get_detection_dataset_dicts(name, filter_empty=False)
            if not isinstance(images, list):
                continue
            to_show = [image for image in images if image.get("annotations")] or images
            names = list(class_names(name) or ())
            for number, image in enumerate(random.Random(0).sample(to_show, min(most, len(to_show))), 1):
                chosen[f"predictions/{shown(name)}/{number}"] = image, names
        return chosen
