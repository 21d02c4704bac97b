"""Published weights wherever a detector loads some: detectron2's checkpointer and predictors, ``load_state_dict``."""

import logging
from collections.abc import Mapping
from typing import Any

from torch import nn

from ..config import DETREX_TEMPERATURE
from ..detector import DetrDetector
from ..encoder_spec import EncoderSpec
from ..errors import InputError
from ..meta_arch import conventions_of
from ..wording import counted, in_short
from .classes import NUM_COCO_CLASSES, NUM_COCO_IDS, count_classes, is_class_tensor, keep_coco_classes
from .convert import convert
from .formats import Format, detect
from .infer import differences
from .names import COUNTER, StateDict
from .origins import origin_of, resemblance

logger = logging.getLogger(__name__)

_OURS = "flatten.level_embed"  # every detector of this package has it
_DENOISING = "denoising."  # of training alone


def read_published(state: Mapping[str, Any], model: nn.Module) -> Mapping[str, Any]:
    """What a detector is to load: published weights with our names, and others as they are.

    Of heads with a row for each of COCO's 91 category ids, a detector of 80 classes gets its classes' rows; detrex's
    have none for ids.

    Args:
        state: names -> tensors, ours or published.
        model: a detector of this package.

    Raises:
        InputError: these are published weights of a backbone alone, or such as do not fit ``model``; or of an
            implementation whose weights are not converted.
    """
    if _OURS in state or not state:
        return state
    ours = model.state_dict()
    published = detect(state)
    if published is None:
        common = len(state.keys() & ours.keys())
        whose = origin_of(state) or ("" if common else resemblance(state))
        if whose and common < len(ours) / 2:
            raise InputError(f"These weights are not this detector's. {whose}")
        return state
    if published.only_backbone:
        raise InputError(
            f"These weights are of {published.kind}, a backbone alone, and all else would stay random. train_net.py "
            "and lite_detr_d2.engine.SafeCheckpointer start a training from them."
        )
    converted, report = convert(published, state)
    converted = _fitting(converted, ours, by_id=published.has_rows_of_ids)
    logger.info("Converted published weights: %s", report.summary(ours))
    warn_of_conventions(published, model)
    return converted


def warn_of_conventions(published: Format, model: nn.Module) -> None:
    """Warn if a detector does not compute by the conventions of the weights that it gets, which no tensor tells.

    Of DINO tensors tell them, and what does not fit is an error; but for a start from what fits.
    """
    if published.only_backbone or not isinstance(model, DetrDetector) or published.conventions == conventions_of(model):
        return
    temperature = f", and MODEL.LITE_DETR.POSITION_TEMPERATURE to {DETREX_TEMPERATURE}"
    logger.warning(
        "These weights are of %s, and the model computes otherwise than that: set MODEL.LITE_DETR.CONVENTIONS to %s%s.",
        *(published.kind, published.conventions, temperature if published.conventions == "detrex" else ""),
    )


def encoder_told(options: object) -> EncoderSpec | None:
    """The encoder that the options of Lite-DETR's code name, which its checkpoints keep as ``args``.

    Source: github.com/IDEA-Research/Lite-DETR, main.py and models/dino/deformable_transformer.py.

    Returns:
        None where they name none, or a plain one.
    """
    names = ("num_feature_levels", "enc_scale", "enc_layers", "num_expansion")
    numbers = [number for name in names if isinstance(number := getattr(options, name, None), int) and number > 0]
    if len(numbers) < len(names):
        return None
    levels, high, layers, blocks = numbers
    return EncoderSpec(high, levels - high, layers // blocks, blocks) if high < levels and layers >= blocks else None


def warn_of_encoder(told: EncoderSpec | None, model: nn.Module) -> None:
    """Warn if a detector's encoder is another than the weights' options name: tensors of several encoders are alike."""
    if told is None or not isinstance(model, DetrDetector):
        return
    spec = getattr(model.encoder, "spec", type(model.encoder).__name__)
    if told != spec:
        logger.warning(
            "By the options in their file these weights are of the encoder %s, and the detector has %s: take a config "
            "of that, or set MODEL.LITE_DETR.ENCODER.SPEC to it.",
            *(told, spec),
        )


def _fitting(converted: StateDict, ours: StateDict, *, by_id: bool) -> StateDict:
    """The tensors that a detector with ``ours`` loads, if they are all of it; rows of heads may be for ids."""
    found, expected = count_classes(converted), count_classes(ours)
    if by_id and (found, expected) == (NUM_COCO_IDS, NUM_COCO_CLASSES):
        converted, _ = keep_coco_classes(converted)
    converted = {name: tensor for name, tensor in converted.items() if name in ours or not name.startswith(_DENOISING)}
    wrong = [name for name, tensor in converted.items() if name not in ours or tensor.shape != ours[name].shape]
    wrong += [name for name in ours if name not in converted and not name.startswith(_DENOISING)]
    wrong = [name for name in wrong if not name.endswith(COUNTER)]
    if not wrong:
        counters = {name: tensor for name, tensor in ours.items() if name.endswith(COUNTER)}
        return counters | converted
    if found != expected and all(map(is_class_tensor, wrong)):
        raise InputError(
            f"These published weights tell {found} classes apart, and the detector {expected} "
            "(MODEL.LITE_DETR.NUM_CLASSES). train_net.py starts a training on other classes from them, as "
            "MODEL.WEIGHTS."
        )
    tensors = f"{counted(len(wrong), 'tensor does', 'tensors do')} not fit ({in_short(wrong)})"
    raise InputError(
        "These published weights are of another architecture: "
        f"{'; '.join(differences(converted, ours)) or tensors}. Give the config that they are of."
    )
