"""What each key that has an effect may be, of this package's and of detectron2's; relations of keys are in ``rules``.

A new key takes a line of ``defaults`` and one of ``SCHEMA``. Upper limits are there where what is beyond cannot be
meant: it would ask for more memory than any machine has, or overflow.
"""

from collections.abc import Iterator, Mapping

from detectron2.config import CfgNode
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY

from ..detector import DetrDetector
from ..encoder_spec import FUSIONS
from ..modeling.encoder import ENCODER_REGISTRY
from .kinds import Choice, Flag, Integer, Items, Kind, Number, Off, OrNull, Registered, Row, Text

# Channels that Pillow makes of each image format that arrives as 8-bit integers.
CHANNELS = {"RGB": 3, "BGR": 3, "L": 1, "HSV": 3, "YCbCr": 3, "LAB": 3, "CMYK": 4, "RGBA": 4}
SAMPLERS = (
    "TrainingSampler",
    "RepeatFactorTrainingSampler",
    "RandomSubsetTrainingSampler",
    "WeightedTrainingSampler",
    "WeightedCategoryTrainingSampler",
)
RESNET_STAGES = ("stem", "res2", "res3", "res4", "res5")
# Their maps fit each other where the sides of images are multiples of 32 only, to which these detectors do not pad.
_FEATURE_PYRAMIDS = ("build_resnet_fpn_backbone", "build_retinanet_resnet_fpn_backbone")


def _architectures() -> list[str]:
    return sorted(
        name for name, kind in META_ARCH_REGISTRY if isinstance(kind, type) and issubclass(kind, DetrDetector)
    )


def _backbones() -> list[str]:
    return sorted(name for name, _ in BACKBONE_REGISTRY if name not in _FEATURE_PYRAMIDS)


def _encoders() -> list[str]:
    return sorted(name for name, _ in ENCODER_REGISTRY)


_IMPORT = "One of your own has to be imported first, by the module that registers it: --import MODULE."
_FLAG = Flag()
_FRACTION = Number(least=0, most=1)
_BELOW_ONE = Number(least=0, below=1)
_WEIGHT = Number(least=0, most=10**6)
_FACTOR = Number(least=0, most=1000)
_DECAY = Number(least=0, most=1)
_LAYERS = Integer(1, 1000)
_WIDTH = Integer(1, 2**16)
_QUERIES = 100_000
_ITERATIONS = 10**9
# An event later than the end of the training does not take place: so "never" is said.
_EVER = 2**63 - 1
_SIDE = Integer(1, 100_000)
_SIDE_OR_0 = Integer(0, 100_000)
_NAMES = Items(Text(empty=False))
_NORM = OrNull(
    Choice("", "BN", "SyncBN", "FrozenBN", "GN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N", "LN")  # detectron2's
)
EXAMPLE_CONFIG = "such as --config-file configs/dino/lite_dino_tiny.yaml, for small datasets of your own"
_BOXES_ONLY = "these detectors find boxes"

SCHEMA: Mapping[str, Kind] = {
    "VERSION": Choice(2),
    "OUTPUT_DIR": Text(empty=False),
    "SEED": Integer(-(2**31), 2**31 - 1),
    "CUDNN_BENCHMARK": _FLAG,
    "LOGGERS": Items(Choice("wandb", "mlflow"), distinct=True),
    "DATASETS.TRAIN": _NAMES,
    "DATASETS.TEST": _NAMES,
    "DATALOADER.NUM_WORKERS": Integer(0, 1024),
    "DATALOADER.ASPECT_RATIO_GROUPING": _FLAG,
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS": _FLAG,
    "DATASETS.TRAIN_REPEAT_FACTOR": Items(Row((Text(empty=False), Number(above=0, most=10**6)))),
    "DATALOADER.SAMPLER_TRAIN": Choice(*SAMPLERS),
    "DATALOADER.RANDOM_SUBSET_RATIO": Number(above=0, most=1),
    "DATALOADER.REPEAT_THRESHOLD": _FRACTION,
    "DATALOADER.REPEAT_SQRT": _FLAG,
    "INPUT.FORMAT": Choice(*CHANNELS),
    "INPUT.MAX_VALUE": Number(least=0),
    "INPUT.MIN_SIZE_TRAIN": Items(_SIDE_OR_0, fewest=1),
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": Choice("choice", "range"),
    "INPUT.MAX_SIZE_TRAIN": _SIDE_OR_0,
    "INPUT.MIN_SIZE_TEST": _SIDE_OR_0,
    "INPUT.MAX_SIZE_TEST": _SIDE_OR_0,
    "INPUT.RANDOM_FLIP": Choice("horizontal", "vertical", "none"),
    "INPUT.CROP.ENABLED": _FLAG,
    "INPUT.CROP.TYPE": Choice("absolute", "absolute_range", "relative", "relative_range"),
    "INPUT.CROP.SIZE": Items(Number(above=0, most=100_000), fewest=2, most=2),
    "INPUT.CROP.MIN_SIZE_TRAIN": Items(_SIDE_OR_0, fewest=1),
    "MODEL.DEVICE": Text(empty=False),
    "MODEL.WEIGHTS": Text(),
    "MODEL.META_ARCHITECTURE": Registered(
        _architectures, f"Give a config of this package: {EXAMPLE_CONFIG}. {_IMPORT}"
    ),
    "MODEL.MASK_ON": Off(_BOXES_ONLY),
    "MODEL.KEYPOINT_ON": Off(_BOXES_ONLY),
    "MODEL.LOAD_PROPOSALS": Off("these detectors make their own proposals"),
    # Images have values up to 255, or 1.
    "MODEL.PIXEL_MEAN": Items(Number(least=-(10**6), most=10**6), fewest=1),
    "MODEL.PIXEL_STD": Items(Number(least=1e-3, most=10**6), fewest=1),
    "MODEL.BACKBONE.NAME": Registered(_backbones, _IMPORT),
    "MODEL.BACKBONE.FREEZE_AT": Integer(0, 5),
    "MODEL.RESNETS.DEPTH": Choice(18, 34, 50, 101, 152),
    "MODEL.RESNETS.OUT_FEATURES": Items(Choice(*RESNET_STAGES), fewest=1, distinct=True),
    "MODEL.RESNETS.NORM": _NORM,
    "MODEL.RESNETS.NUM_GROUPS": Integer(1, 1024),
    "MODEL.RESNETS.WIDTH_PER_GROUP": Integer(1, 4096),
    "MODEL.RESNETS.STRIDE_IN_1X1": _FLAG,
    "MODEL.RESNETS.RES5_DILATION": Choice(1, 2),
    "MODEL.RESNETS.RES2_OUT_CHANNELS": Integer(1, 4096),
    "MODEL.RESNETS.STEM_OUT_CHANNELS": Integer(1, 4096),
    "MODEL.RESNETS.DEFORM_ON_PER_STAGE": Items(_FLAG, fewest=4, most=4),
    "MODEL.RESNETS.DEFORM_MODULATED": _FLAG,
    "MODEL.RESNETS.DEFORM_NUM_GROUPS": Integer(1, 1024),
    "MODEL.SWIN.EMBED_DIM": Integer(1, 4096),
    "MODEL.SWIN.DEPTHS": Items(Integer(1, 100), fewest=1, most=6),
    "MODEL.SWIN.NUM_HEADS": Items(Integer(1, 1024), fewest=1, most=6),
    "MODEL.SWIN.WINDOW_SIZE": Integer(1, 64),
    "MODEL.SWIN.DROP_PATH_RATE": _BELOW_ONE,
    "MODEL.SWIN.OUT_INDICES": Items(Integer(0, 5), fewest=1, distinct=True),
    "MODEL.TIMM.NAME": Text(),
    "MODEL.TIMM.OUT_INDICES": Items(Integer(0, 1000), distinct=True),
    "MODEL.TIMM.PRETRAINED": _FLAG,
    "MODEL.TIMM.NORM": Choice("BN", "FrozenBN"),
    "MODEL.TIMM.DROP_PATH_RATE": _BELOW_ONE,
    "MODEL.LITE_DETR.INIT": Text(),
    "MODEL.LITE_DETR.CLASS_ROWS": Choice("names", "ids"),
    "MODEL.LITE_DETR.NUM_CLASSES": Integer(1, 10**6),
    "MODEL.LITE_DETR.CLASS_NAMES": Items(Text()),
    "MODEL.LITE_DETR.NUM_QUERIES": Integer(1, _QUERIES),
    "MODEL.LITE_DETR.IN_FEATURES": Items(Text(empty=False), fewest=1),
    "MODEL.LITE_DETR.NUM_LEVELS": Integer(1, 16),
    "MODEL.LITE_DETR.HIDDEN_DIM": _WIDTH,
    "MODEL.LITE_DETR.NUM_HEADS": Integer(1, 1024),
    "MODEL.LITE_DETR.DROPOUT": _BELOW_ONE,
    "MODEL.LITE_DETR.POSITION_TEMPERATURE": Integer(1, 10**9),
    "MODEL.LITE_DETR.BOX_REFINEMENT": _FLAG,
    "MODEL.LITE_DETR.LOOK_FORWARD_TWICE": _FLAG,
    "MODEL.LITE_DETR.TWO_STAGE": _FLAG,
    "MODEL.LITE_DETR.MIXED_SELECTION": _FLAG,
    "MODEL.LITE_DETR.CLASS_SPECIFIC_PROPOSALS": _FLAG,
    "MODEL.LITE_DETR.CONTENT_FROM_MEMORY": _FLAG,
    "MODEL.LITE_DETR.ENCODER.NAME": Registered(_encoders, _IMPORT),
    "MODEL.LITE_DETR.ENCODER.NUM_LAYERS": _LAYERS,
    "MODEL.LITE_DETR.ENCODER.RHO": Number(above=0, most=1),
    "MODEL.LITE_DETR.ENCODER.AUXILIARY_LOSS": _FLAG,
    "MODEL.LITE_DETR.ENCODER.SPEC": Text(empty=False),
    "MODEL.LITE_DETR.ENCODER.FUSION": Choice(*FUSIONS),
    "MODEL.LITE_DETR.ENCODER.KEY_AWARE": _FLAG,
    "MODEL.LITE_DETR.ENCODER.KEY_PROJ": _FLAG,
    "MODEL.LITE_DETR.ENCODER.DIM_FEEDFORWARD": _WIDTH,
    "MODEL.LITE_DETR.ENCODER.LOW_LEVEL_FFN_RATIO": Integer(0, 2**16),
    "MODEL.LITE_DETR.ENCODER.NUM_POINTS": Integer(1, 1000),
    "MODEL.LITE_DETR.DECODER.NUM_LAYERS": _LAYERS,
    "MODEL.LITE_DETR.DECODER.DIM_FEEDFORWARD": _WIDTH,
    "MODEL.LITE_DETR.DECODER.NUM_POINTS": Integer(1, 1000),
    "MODEL.LITE_DETR.DENOISING.NUM_QUERIES": Integer(0, _QUERIES),
    "MODEL.LITE_DETR.DENOISING.LABEL_NOISE": _FRACTION,
    "MODEL.LITE_DETR.DENOISING.BOX_NOISE": Number(least=0, most=10),
    "MODEL.LITE_DETR.ONE_TO_MANY.NUM_QUERIES": Integer(0, _QUERIES),
    "MODEL.LITE_DETR.ONE_TO_MANY.REPEATS": Integer(1, 1000),
    "MODEL.LITE_DETR.ONE_TO_MANY.WEIGHT": _WEIGHT,
    "MODEL.LITE_DETR.MATCHER.CLASS_COST": _WEIGHT,
    "MODEL.LITE_DETR.MATCHER.L1_COST": _WEIGHT,
    "MODEL.LITE_DETR.MATCHER.GIOU_COST": _WEIGHT,
    "MODEL.LITE_DETR.LOSS.CLASS_WEIGHT": _WEIGHT,
    "MODEL.LITE_DETR.LOSS.L1_WEIGHT": _WEIGHT,
    "MODEL.LITE_DETR.LOSS.GIOU_WEIGHT": _WEIGHT,
    "MODEL.LITE_DETR.LOSS.FOCAL_ALPHA": _FRACTION,
    "MODEL.LITE_DETR.LOSS.FOCAL_GAMMA": Number(least=0, most=100),
    "SOLVER.OPTIMIZER": Choice("ADAMW", "SGD"),
    "SOLVER.FREEZE": _NAMES,
    "SOLVER.IMS_PER_BATCH": Integer(1, 100_000),
    "SOLVER.REFERENCE_BATCH": Integer(0, 100_000),
    "SOLVER.REFERENCE_WORLD_SIZE": Integer(0, 100_000),
    "SOLVER.REFERENCE_NUM_IMAGES": Integer(0, 10**12),
    "SOLVER.MAX_ITER": Integer(1, _ITERATIONS),
    "SOLVER.CHECKPOINT_PERIOD": Integer(1, _EVER),
    "SOLVER.KEEP_LAST": Integer(0, _ITERATIONS),
    "SOLVER.RECOMPUTE": Items(Choice("backbone", "encoder"), distinct=True),
    "SOLVER.COMPILE": _FLAG,
    "SOLVER.DETERMINISTIC": _FLAG,
    "SOLVER.EARLY_STOP.PATIENCE": Integer(0, _ITERATIONS),
    "SOLVER.EMA.ENABLED": _FLAG,
    "SOLVER.EMA.DECAY": _BELOW_ONE,
    # detectron2's third, WarmupStepWithFixedGammaLR, fails after the last iteration.
    "SOLVER.LR_SCHEDULER_NAME": Choice("WarmupMultiStepLR", "WarmupCosineLR"),
    "SOLVER.STEPS": Items(Integer(1, _EVER)),
    "SOLVER.GAMMA": Number(above=0, most=1),
    "SOLVER.BASE_LR": Number(least=0, most=1e30),  # too large a one diverges, and is named then; beyond, it overflows
    "SOLVER.BASE_LR_END": Number(least=0),
    "SOLVER.WARMUP_FACTOR": _FRACTION,
    "SOLVER.WARMUP_ITERS": Integer(0, _ITERATIONS),
    "SOLVER.WARMUP_METHOD": Choice("linear", "constant"),
    "SOLVER.RESCALE_INTERVAL": _FLAG,
    "SOLVER.BACKBONE_MULTIPLIER": _FACTOR,
    "SOLVER.OFFSET_MULTIPLIER": _FACTOR,
    "SOLVER.BIAS_LR_FACTOR": _FACTOR,
    "SOLVER.MOMENTUM": _BELOW_ONE,
    "SOLVER.NESTEROV": _FLAG,
    "SOLVER.WEIGHT_DECAY": _DECAY,
    "SOLVER.WEIGHT_DECAY_NORM": OrNull(_DECAY),  # null: as WEIGHT_DECAY
    "SOLVER.WEIGHT_DECAY_BIAS": OrNull(_DECAY),
    "SOLVER.CLIP_GRADIENTS.ENABLED": _FLAG,
    "SOLVER.CLIP_GRADIENTS.FULL_MODEL": _FLAG,
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": Choice("value", "norm"),
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": Number(above=0),
    "SOLVER.CLIP_GRADIENTS.NORM_TYPE": Number(above=0, infinite=True),
    "SOLVER.AMP.ENABLED": _FLAG,
    "SOLVER.AMP.DTYPE": Choice("float16", "bfloat16"),
    "SOLVER.ACCUMULATE": Integer(1, 100_000),
    "SOLVER.MAX_SKIPPED_STEPS": Integer(0, _ITERATIONS),
    "TEST.DETECTIONS_PER_IMAGE": Integer(1, _QUERIES),
    "TEST.EVAL_PERIOD": Integer(0, _EVER),
    "TEST.PICTURES": Integer(0, 100),
    "TEST.EXPECTED_RESULTS": Items(Row((Text(), Text(), Number(), Number(least=0)))),
    "TEST.AUG.ENABLED": Off("there is no test-time augmentation for these detectors"),
    "TEST.PRECISE_BN.ENABLED": _FLAG,
    "TEST.PRECISE_BN.NUM_ITER": Integer(1, _ITERATIONS),
}


def is_detector(cfg: CfgNode) -> bool:
    """Whether a config is of one of this package's detectors, or of one that was registered beside them."""
    return SCHEMA["MODEL.META_ARCHITECTURE"].accepts(cfg.MODEL.META_ARCHITECTURE)


def check_values(cfg: CfgNode) -> None:
    """Check every value of ``cfg`` that the schema knows on its own.

    Raises:
        InputError: naming the first key that is wrong, its value and what is expected.
    """
    for key, value in leaves(cfg):
        check_value(key, value)


def check_value(key: str, value: object) -> None:
    """Check one value; of keys that the schema does not know, any is right.

    Raises:
        InputError: naming the key, its value and what is expected.
    """
    if key in SCHEMA:
        SCHEMA[key].check(key, value)


def leaves(node: CfgNode, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Every key of a config that has a value, with the keys above it, such as "SOLVER.MAX_ITER"; and the value."""
    for name, value in node.items():
        if isinstance(value, CfgNode):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
