"""Every configuration key that Lite DETR adds to detectron2's, with its default; and what makes a config valid."""

import logging

from detectron2.config import CfgNode
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY

from .detector import DetrDetector
from .encoder_spec import FUSIONS, EncoderSpec
from .errors import InputError
from .modeling.denoising import SMALLEST_SHARED_DENOISING
from .modeling.encoder import ENCODER_REGISTRY
from .modeling.neck import GROUPS
from .wording import in_short

OPTIMIZERS = ("ADAMW", "SGD")
CLASS_ROWS = ("names", "ids")

logger = logging.getLogger(__name__)


def add_lite_detr_config(cfg: CfgNode) -> None:
    """Add the keys of Lite DETR to ``cfg`` (detectron2's default config), in place.

    The defaults are those of DINO on COCO with a plain encoder; see ``configs/`` for whole recipes.
    """
    cfg.MODEL.LITE_DETR = _detector_keys()

    # build_swin_backbone: detectron2's Swin Transformer; the defaults are Swin-T.
    cfg.MODEL.SWIN = CfgNode()
    cfg.MODEL.SWIN.EMBED_DIM = 96
    cfg.MODEL.SWIN.DEPTHS = [2, 2, 6, 2]
    cfg.MODEL.SWIN.NUM_HEADS = [3, 6, 12, 24]
    cfg.MODEL.SWIN.WINDOW_SIZE = 7
    cfg.MODEL.SWIN.DROP_PATH_RATE = 0.2
    # Stages whose outputs are kept: 1 is p1 (stride 8), 2 is p2 (16), 3 is p3 (32).
    cfg.MODEL.SWIN.OUT_INDICES = [1, 2, 3]

    # DETR's augmentation: with probability 0.5, resize the short side to one of these, then crop as INPUT.CROP says.
    cfg.INPUT.CROP.MIN_SIZE_TRAIN = (400, 500, 600)
    # Of images with more than 8 bits, the value that becomes 255, such as 4095.0. With 0.0, the range of each image is
    # the smallest of 1 (floating point), 255, 1023, 4095, 16383, 65535 and 2**31 - 1 that holds its largest value.
    cfg.INPUT.MAX_VALUE = 0.0

    # lite_detr_d2.engine.Trainer: ADAMW, or SGD as detectron2 builds it.
    cfg.SOLVER.OPTIMIZER = "ADAMW"
    # Learning-rate multipliers of the backbone, and of the layers that predict sampling offsets and reference points.
    cfg.SOLVER.BACKBONE_MULTIPLIER = 0.1
    cfg.SOLVER.OFFSET_MULTIPLIER = 1.0
    # Clip the L2 norm of all gradients together, instead of each parameter's (CLIP_GRADIENTS.ENABLED turns it on).
    cfg.SOLVER.CLIP_GRADIENTS.FULL_MODEL = False
    # The number of training images that the schedule is made for: --dataset fits it to a set of another size, unless
    # --epochs decides (see lite_detr_d2.engine.schedule). 0: the schedule is for whatever dataset is given, as in a
    # config of your own set.
    cfg.SOLVER.REFERENCE_NUM_IMAGES = 0


def _detector_keys() -> CfgNode:
    node = CfgNode()
    # Training starts from what fits of this checkpoint, of another detector or encoder, instead of MODEL.WEIGHTS (which
    # give the backbone if this one has another).
    node.INIT = ""
    # Which row of a checkpoint's class heads a class takes. "names": that of the class of the same name, where both are
    # known. "ids": where the checkpoint does not name its classes, row i is for the dataset's category id i: DINO and
    # Deformable DETR are trained so on a set of one's own, with one row more than its highest id.
    node.CLASS_ROWS = "names"
    node.NUM_CLASSES = 80
    # What they are called, in their order; training sets it to the dataset's. Empty: not known here.
    node.CLASS_NAMES = []
    node.NUM_QUERIES = 900
    # Backbone outputs, fine to coarse. Further levels, up to NUM_LEVELS, are stride-2 convolutions of the last one.
    node.IN_FEATURES = ["res3", "res4", "res5"]
    node.NUM_LEVELS = 4
    # Channels of a token, split evenly over the attention heads.
    node.HIDDEN_DIM = 256
    node.NUM_HEADS = 8
    node.DROPOUT = 0.0
    # Temperature of the sine encoding of token positions; that of the queries' boxes is always 10000.
    node.POSITION_TEMPERATURE = 20
    # Each decoder layer starts from the boxes of the layer before. DINO needs this and the next three.
    node.BOX_REFINEMENT = True
    # The loss of a layer's boxes reaches the layer before.
    node.LOOK_FORWARD_TWICE = True
    # Queries start from the encoder's proposals; else they are learned.
    node.TWO_STAGE = True
    # With them, the queries' content is learned; else it is made of the proposals, too.
    node.MIXED_SELECTION = True

    node.ENCODER = CfgNode()
    # A name in lite_detr_d2.modeling.encoder.ENCODER_REGISTRY.
    node.ENCODER.NAME = "DeformableEncoder"
    # Layers of DeformableEncoder; an InterleavedEncoder's count follows from its spec.
    node.ENCODER.NUM_LAYERS = 6
    # InterleavedEncoder: HxLy-(A+1)xB, and how a block refines the low-level tokens: "joint", "sequential" or
    # "high_only" (not at all).
    node.ENCODER.SPEC = "H3L1-(2+1)x3"
    node.ENCODER.FUSION = "joint"
    # Key-aware deformable attention, in the encoder and in the decoder's cross-attention.
    node.ENCODER.KEY_AWARE = False
    # Whether key-aware attention in the encoder projects keys on their own (else keys are the projected values).
    node.ENCODER.KEY_PROJ = False
    node.ENCODER.DIM_FEEDFORWARD = 2048
    # InterleavedEncoder: the low-level tokens' own feed-forward network is this many times narrower (the paper's
    # lambda); 0 makes it as wide, and with joint fusion the same.
    node.ENCODER.LOW_LEVEL_FFN_RATIO = 8
    # Sampling points per head and level.
    node.ENCODER.NUM_POINTS = 4

    node.DECODER = CfgNode()
    node.DECODER.NUM_LAYERS = 6
    node.DECODER.DIM_FEEDFORWARD = 2048
    node.DECODER.NUM_POINTS = 4

    _add_training_keys(node)
    return node


def _add_training_keys(node: CfgNode) -> None:
    # DINO's contrastive denoising. NUM_QUERIES noised positives, and as many negatives, are shared out over groups that
    # each hold an image's boxes; 0 turns it off. As published, fewer than 50 are not shared out: they make
    # 2 * NUM_QUERIES groups.
    node.DENOISING = CfgNode()
    node.DENOISING.NUM_QUERIES = 100
    # A label flips to a random one with half this probability.
    node.DENOISING.LABEL_NOISE = 0.5
    # Corners move by up to this fraction of half the box's size (negatives: by one to two times that).
    node.DENOISING.BOX_NOISE = 1.0

    # H-DETR's one-to-many branch: so many further queries in training (0 turns it off), how many of them a target is
    # matched to, and the weight of their losses.
    node.ONE_TO_MANY = CfgNode()
    node.ONE_TO_MANY.NUM_QUERIES = 1500
    node.ONE_TO_MANY.REPEATS = 6
    node.ONE_TO_MANY.WEIGHT = 1.0

    node.MATCHER = CfgNode()
    node.MATCHER.CLASS_COST = 2.0
    node.MATCHER.L1_COST = 5.0
    node.MATCHER.GIOU_COST = 2.0

    node.LOSS = CfgNode()
    node.LOSS.CLASS_WEIGHT = 1.0
    node.LOSS.L1_WEIGHT = 5.0
    node.LOSS.GIOU_WEIGHT = 2.0
    node.LOSS.FOCAL_ALPHA = 0.25
    node.LOSS.FOCAL_GAMMA = 2.0


def validate_config(cfg: CfgNode) -> None:
    """Check that the keys that Lite DETR adds or relies on are usable, alone and together.

    Raises:
        InputError: naming the key, its value and what is allowed.
    """
    _check_registered_names(cfg)
    model = cfg.MODEL.LITE_DETR
    for key in ("NUM_CLASSES", "NUM_QUERIES", "NUM_LEVELS", "HIDDEN_DIM", "NUM_HEADS"):
        _at_least(f"MODEL.LITE_DETR.{key}", model[key], 1)
    for node in ("ENCODER", "DECODER"):
        for key in ("NUM_LAYERS", "DIM_FEEDFORWARD", "NUM_POINTS"):
            _at_least(f"MODEL.LITE_DETR.{node}.{key}", model[node][key], 1)
    _at_least("MODEL.LITE_DETR.ONE_TO_MANY.REPEATS", model.ONE_TO_MANY.REPEATS, 1)
    for node in ("DENOISING", "ONE_TO_MANY", "MATCHER", "LOSS"):
        for key, value in model[node].items():
            _at_least(f"MODEL.LITE_DETR.{node}.{key}", value, 0)
    _fraction("MODEL.LITE_DETR.DROPOUT", model.DROPOUT)
    _fraction("MODEL.LITE_DETR.DENOISING.LABEL_NOISE", model.DENOISING.LABEL_NOISE)
    _at_least("MODEL.LITE_DETR.POSITION_TEMPERATURE", model.POSITION_TEMPERATURE, 1)
    _at_least("TEST.DETECTIONS_PER_IMAGE", cfg.TEST.DETECTIONS_PER_IMAGE, 1)
    _at_least("INPUT.MAX_VALUE", cfg.INPUT.MAX_VALUE, 0)
    _at_least("DATALOADER.NUM_WORKERS", cfg.DATALOADER.NUM_WORKERS, 0)
    _at_least("SOLVER.IMS_PER_BATCH", cfg.SOLVER.IMS_PER_BATCH, 1)
    _at_least("SOLVER.MAX_ITER", cfg.SOLVER.MAX_ITER, 1)
    _at_least("SOLVER.REFERENCE_NUM_IMAGES", cfg.SOLVER.REFERENCE_NUM_IMAGES, 0)
    _check_sizes(cfg)
    _check_class_names(cfg)
    _check_channels(cfg)
    _check_encoder(cfg)
    _check_stages(cfg)
    _one_of("SOLVER.OPTIMIZER", cfg.SOLVER.OPTIMIZER, OPTIMIZERS)
    _one_of("MODEL.LITE_DETR.CLASS_ROWS", model.CLASS_ROWS, CLASS_ROWS)
    if cfg.MODEL.META_ARCHITECTURE == "DINO" and 0 < model.DENOISING.NUM_QUERIES < SMALLEST_SHARED_DENOISING:
        logger.warning(
            "MODEL.LITE_DETR.DENOISING.NUM_QUERIES is %d: below %d it is half the number of groups, each of two "
            "queries per box, and takes more memory than above.",
            *(model.DENOISING.NUM_QUERIES, SMALLEST_SHARED_DENOISING),
        )


def _check_registered_names(cfg: CfgNode) -> None:
    ours = [name for name, kind in META_ARCH_REGISTRY if isinstance(kind, type) and issubclass(kind, DetrDetector)]
    hint = " Give a config of this project (--config-file configs/...)."
    name = cfg.MODEL.META_ARCHITECTURE
    _require("MODEL.META_ARCHITECTURE", name, name in ours, f"one of {', '.join(sorted(ours))}", hint)
    _one_of("MODEL.BACKBONE.NAME", cfg.MODEL.BACKBONE.NAME, tuple(sorted(name for name, _ in BACKBONE_REGISTRY)))


def _check_sizes(cfg: CfgNode) -> None:
    # detectron2 shrinks to nothing what may be no longer than 0.
    for half in ("TRAIN", "TEST"):
        shortest, longest = cfg.INPUT[f"MIN_SIZE_{half}"], cfg.INPUT[f"MAX_SIZE_{half}"]
        sides = (shortest,) if isinstance(shortest, int) else shortest
        _require(f"INPUT.MIN_SIZE_{half}", shortest, all(side >= 0 for side in sides), "at least 0")
        expected = f"at least 1, as INPUT.MIN_SIZE_{half} is {shortest} (where that is 0, images are not resized)"
        _require(f"INPUT.MAX_SIZE_{half}", longest, not any(sides) or longest >= 1, expected)


def class_names_of(cfg: CfgNode) -> list[str]:
    """Return ``MODEL.LITE_DETR.CLASS_NAMES``; none of a config of an earlier version that is read as it is."""
    names: list[str] = cfg.MODEL.LITE_DETR.get("CLASS_NAMES", [])
    return names


def _check_class_names(cfg: CfgNode) -> None:
    names, num_classes = class_names_of(cfg), cfg.MODEL.LITE_DETR.NUM_CLASSES
    strangers = [name for name in names if not isinstance(name, str)]
    if strangers:
        raise InputError(f"MODEL.LITE_DETR.CLASS_NAMES has {strangers[0]!r}: expected names, in quotes.")
    if len(names) not in (0, num_classes):
        raise InputError(
            f"MODEL.LITE_DETR.CLASS_NAMES has {len(names)} names ({in_short(names)}): expected one for each of "
            f"MODEL.LITE_DETR.NUM_CLASSES ({num_classes}), or [] where they are not known."
        )


def _check_channels(cfg: CfgNode) -> None:
    model = cfg.MODEL.LITE_DETR
    channels, heads = model.HIDDEN_DIM, model.NUM_HEADS
    _require(
        "MODEL.LITE_DETR.HIDDEN_DIM",
        channels,
        channels % heads == 0,
        f"a multiple of MODEL.LITE_DETR.NUM_HEADS ({heads})",
    )
    # The neck normalises in groups. One channel per group would fail on a map of one pixel, as small images have.
    fits_groups = channels % GROUPS == 0 and channels > GROUPS
    _require("MODEL.LITE_DETR.HIDDEN_DIM", channels, fits_groups, f"a multiple of {GROUPS} above {GROUPS}")
    features = model.IN_FEATURES
    _require("MODEL.LITE_DETR.IN_FEATURES", features, len(features) > 0, "at least one output of the backbone")
    _require(
        "MODEL.LITE_DETR.NUM_LEVELS",
        model.NUM_LEVELS,
        len(features) <= model.NUM_LEVELS,
        f"at least the number of MODEL.LITE_DETR.IN_FEATURES ({len(features)})",
    )


def _check_encoder(cfg: CfgNode) -> None:
    model, encoder = cfg.MODEL.LITE_DETR, cfg.MODEL.LITE_DETR.ENCODER
    _one_of("MODEL.LITE_DETR.ENCODER.NAME", encoder.NAME, tuple(sorted(name for name, _ in ENCODER_REGISTRY)))
    if encoder.KEY_PROJ and not encoder.KEY_AWARE:
        raise InputError(
            "MODEL.LITE_DETR.ENCODER.KEY_PROJ is True, and KEY_AWARE is False: plain deformable attention has no keys. "
            "Set KEY_AWARE to True or KEY_PROJ to False."
        )
    if encoder.NAME != "InterleavedEncoder":
        return
    _one_of("MODEL.LITE_DETR.ENCODER.FUSION", encoder.FUSION, FUSIONS)
    try:
        spec = EncoderSpec.parse(encoder.SPEC)
    except ValueError as error:
        raise InputError(f"MODEL.LITE_DETR.ENCODER.SPEC: {error}") from None
    _require(
        "MODEL.LITE_DETR.ENCODER.SPEC",
        encoder.SPEC,
        spec.num_levels == model.NUM_LEVELS,
        f"HxLy with x + y = MODEL.LITE_DETR.NUM_LEVELS ({model.NUM_LEVELS})",
    )
    ratio, width = encoder.LOW_LEVEL_FFN_RATIO, encoder.DIM_FEEDFORWARD
    _require(
        "MODEL.LITE_DETR.ENCODER.LOW_LEVEL_FFN_RATIO",
        ratio,
        ratio == 0 or (ratio > 0 and width % ratio == 0),
        f"0 (one network for all tokens) or a divisor of MODEL.LITE_DETR.ENCODER.DIM_FEEDFORWARD ({width})",
    )


def _check_stages(cfg: CfgNode) -> None:
    model, architecture = cfg.MODEL.LITE_DETR, cfg.MODEL.META_ARCHITECTURE
    needs = {"TWO_STAGE": "BOX_REFINEMENT", "MIXED_SELECTION": "TWO_STAGE", "LOOK_FORWARD_TWICE": "BOX_REFINEMENT"}
    for key, needed in needs.items():
        if model[key] and not model[needed]:
            raise InputError(
                f"MODEL.LITE_DETR.{key} is True, and {needed} is False: set {needed} to True or {key} to False."
            )
    if architecture == "DINO" and not (model.MIXED_SELECTION and model.LOOK_FORWARD_TWICE):
        raise InputError(
            "MODEL.META_ARCHITECTURE is 'DINO', of which MODEL.LITE_DETR.MIXED_SELECTION and LOOK_FORWARD_TWICE are "
            "parts: set them to True, or choose 'DeformableDETR' or 'HDETR'."
        )


def _require(key: str, value: object, satisfied: bool, expected: str, hint: str = "") -> None:
    if not satisfied:
        raise InputError(f"{key} is {value!r}: expected {expected}.{hint}")


def _one_of(key: str, value: str, allowed: tuple[str, ...]) -> None:
    _require(key, value, value in allowed, f"one of {', '.join(allowed)}")


def _fraction(key: str, value: float) -> None:
    _require(key, value, 0.0 <= value <= 1.0, "a number from 0 to 1")


def _at_least(key: str, value: float, minimum: int) -> None:
    _require(key, value, value >= minimum, f"at least {minimum}")
