"""What each key may be: nothing of the config is left out, and a wrong value is one line that says what is allowed."""

import math
from typing import Any

import numpy as np
import pytest
from detectron2.config import CfgNode, get_cfg

from lite_detr_d2 import add_lite_detr_config
from lite_detr_d2.config import validate_config
from lite_detr_d2.config.idle import FOR_USERS, NOT_READ
from lite_detr_d2.config.kinds import Choice, Flag, Integer, Items, Kind, Number, Off, OrNull, Registered, Row, Text
from lite_detr_d2.config.schema import SCHEMA, leaves
from lite_detr_d2.errors import InputError

NAN, INFINITE, HUGE = math.nan, math.inf, 10**400
NO_NUMBERS = [None, True, "1", "", [], [1], {}, NAN]


def test_every_key_has_its_place() -> None:
    """A new key, of this package or of detectron2, is to be described, or named as one that nothing reads."""
    cfg = get_cfg()
    add_lite_detr_config(cfg)
    keys = {key for key, _ in leaves(cfg)}
    unread = {key for key in keys if key.startswith((*NOT_READ, *FOR_USERS))}
    assert keys - set(SCHEMA) - unread == set()
    assert set(SCHEMA) - keys == set()
    assert set(SCHEMA) & unread == set()
    assert [start for start in NOT_READ if not any(key.startswith(start) for key in keys)] == []


def test_the_defaults_are_allowed() -> None:
    cfg = get_cfg()
    add_lite_detr_config(cfg)
    wrong = [key for key, value in leaves(cfg) if key in SCHEMA and not SCHEMA[key].accepts(value)]
    assert wrong == ["MODEL.META_ARCHITECTURE"]  # detectron2's own is another detector


@pytest.mark.parametrize(
    ("kind", "right", "wrong", "words"),
    [
        (Integer(), [0, -5, HUGE], [*NO_NUMBERS, 1.0, INFINITE], "an integer"),
        (Integer(1), [1, 2, HUGE], [0, -1], "an integer of at least 1"),
        (Integer(1, 3), [1, 3], [0, 4], "an integer from 1 to 3"),
        (Integer(most=3), [-9, 3], [4], "an integer of at most 3"),
        (Number(), [0, 1.5, -2, 1e308], [*NO_NUMBERS, INFINITE, -INFINITE, HUGE, 1j], "a number"),
        (Number(least=0), [0, 0.0, 9], [-1e-9], "a number of at least 0"),
        (Number(least=0, most=1), [0, 1.0], [-0.1, 1.1], "a number from 0 to 1"),
        (Number(least=0, below=1), [0, 0.99], [1, 1.0], "a number from 0 to below 1"),
        (Number(above=0), [1e-300, 5], [0, 0.0, -1], "a number above 0"),
        (Number(above=0, most=1), [0.1, 1], [0, 1.1], "a number above 0 and at most 1"),
        (Number(above=0, infinite=True), [2.0, INFINITE], [-INFINITE, NAN], "a number above 0, or .inf"),
        (Flag(), [True, False], [0, 1, None, "True", []], "True or False"),
        (Off("it is not there"), [False], [True, 0, None, ""], "False: it is not there"),
        (Text(), ["", "a"], [None, 1, True, [], "a\0"], "a text, in quotes"),
        (Text(empty=False), ["a"], ["", None, "\0"], "a text that is not empty, in quotes"),
        (Choice("a", "b"), ["a"], ["A", "", None, ["a"], {}], "one of a, b"),
        (Choice(1, 2), [1, 2], [True, 1.0, "1", 3], "one of 1, 2"),
        (Registered(lambda: ["a"]), ["a"], ["b", None], "one of a"),
        (Items(Integer(1)), [[], (1,), [1, 2]], [None, 1, "12", {1: 1}], "a list, each an integer of at least 1"),
        (Items(Flag(), fewest=2, most=2), [[True, False]], [[], [True], [True] * 3], "a list of 2, each True or False"),
        (Items(Text(), fewest=1), [["a"]], [[], ()], "a list of at least 1, each a text, in quotes"),
        (Items(Integer(), distinct=True), [[1, 2]], [[1, 1]], "a list, each there once, and an integer"),
        (Row((Text(), Integer())), [["a", 1], ("", 2)], [["a"], [1, "a"], [], None], "[a text, in quotes, an integer]"),
        (OrNull(Flag()), [None, True], [0, "None"], "True or False, or null"),
    ],
)
def test_kinds(kind: Kind, right: list[Any], wrong: list[Any], words: str) -> None:
    for value in right:
        kind.check("KEY", value)
    for value in wrong:
        with pytest.raises(InputError) as error:
            kind.check("KEY", value)
        assert str(error.value).startswith("KEY is ") and f": expected {words}" in str(error.value)


def test_of_a_list_the_wrong_item_is_named() -> None:
    with pytest.raises(InputError, match=r"^KEY\[2\] is -3: expected an integer of at least 1\.$"):
        Items(Integer(1)).check("KEY", [1, 2, -3, "x", *range(10_000)])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("SOLVER.CHECKPOINT_PERIOD", 0, "expected an integer from 1 to"),
        ("SOLVER.CHECKPOINT_PERIOD", None, "SOLVER.CHECKPOINT_PERIOD is None: expected an integer"),
        ("SOLVER.LR_SCHEDULER_NAME", "WarmupCosinusLR", "Did you mean 'WarmupCosineLR'?"),
        ("SOLVER.LR_SCHEDULER_NAME", "WarmupStepWithFixedGammaLR", "expected one of WarmupMultiStepLR, WarmupCosineLR"),
        ("SOLVER.OPTIMIZER", "adamw", "is 'adamw': expected one of ADAMW, SGD. Did you mean 'ADAMW'?"),
        ("INPUT.FORMAT", "RBG", "Did you mean 'RGB'?"),
        ("INPUT.FORMAT", "YUV-BT.601", "expected one of RGB, BGR, L"),
        ("MODEL.RESNETS.NORM", "FrozenBatchNorm", "expected one of '', BN, SyncBN, FrozenBN"),
        ("DATALOADER.SAMPLER_TRAIN", "TrainSampler", "Did you mean 'TrainingSampler'?"),
        ("MODEL.META_ARCHITECTURE", "DINOO", "Did you mean 'DINO'?"),
        ("MODEL.BACKBONE.NAME", "build_swim_backbone", "Did you mean 'build_swin_backbone'?"),
        ("MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone", "expected one of build_narrow_resnet_backbone"),
        ("MODEL.BACKBONE.FREEZE_AT", 6, "expected an integer from 0 to 5"),
        ("MODEL.RESNETS.OUT_FEATURES", ["res3", "res6"], r"OUT_FEATURES[1] is 'res6': expected one of stem, res2"),
        ("MODEL.PIXEL_STD", [1.0, 0.0, 1.0], "MODEL.PIXEL_STD[1] is 0.0: expected a number from 0.001 to"),
        ("MODEL.PIXEL_STD", [1.0], "expected a number for each channel of RGB (3)"),
        ("MODEL.PIXEL_MEAN", [0.0, 0.0], "expected a number for each channel of RGB (3)"),
        ("MODEL.MASK_ON", True, "MODEL.MASK_ON is True: expected False: these detectors find boxes."),
        ("TEST.AUG.ENABLED", True, "expected False: there is no test-time augmentation"),
        ("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", -1.0, "expected a number above 0."),
        ("SOLVER.BACKBONE_MULTIPLIER", -1.0, "expected a number from 0 to 1000"),
        ("SOLVER.OFFSET_MULTIPLIER", -1.0, "expected a number from 0 to 1000"),
        ("SOLVER.WEIGHT_DECAY", -1.0, "expected a number from 0 to 1."),
        ("SOLVER.WEIGHT_DECAY_NORM", -1.0, "expected a number from 0 to 1, or null."),
        ("SOLVER.BASE_LR", NAN, "SOLVER.BASE_LR is nan: expected a number from 0 to 1e+30"),
        ("SOLVER.BASE_LR", -0.1, "expected a number from 0 to 1e+30"),
        ("SOLVER.BASE_LR", 1e300, "expected a number from 0 to 1e+30"),
        ("SOLVER.STEPS", [0], "SOLVER.STEPS[0] is 0: expected an integer from 1 to"),
        ("SOLVER.STEPS", [9, 3], "SOLVER.STEPS is [9, 3]: expected iterations in their order, each once"),
        ("SOLVER.STEPS", [3, 3], "expected iterations in their order, each once"),
        ("SOLVER.STEPS", [3, 1500], "expected iterations before SOLVER.MAX_ITER (1500)"),
        ("SOLVER.REFERENCE_WORLD_SIZE", 5, "expected 0, or a divisor of SOLVER.IMS_PER_BATCH (16)"),
        ("INPUT.MIN_SIZE_TRAIN", [], "expected a list of at least 1"),
        ("INPUT.MIN_SIZE_TRAIN", (64.0,), "INPUT.MIN_SIZE_TRAIN[0] is 64.0: expected an integer"),
        (
            "INPUT.MIN_SIZE_TRAIN_SAMPLING",
            "range",
            "expected the smallest and the largest, as INPUT.MIN_SIZE_TRAIN_SAMPLING is",
        ),
        ("INPUT.MAX_SIZE_TRAIN", 0, "expected at least 1, as INPUT.MIN_SIZE_TRAIN is"),
        ("INPUT.MAX_SIZE_TEST", 0, "expected at least 1, as INPUT.MIN_SIZE_TEST is 128"),
        ("INPUT.RANDOM_FLIP", "horisontal", "Did you mean 'horizontal'?"),
        ("DATASETS.TRAIN", ("a", 3), "DATASETS.TRAIN[1] is 3: expected a text"),
        ("DATASETS.TEST", "coco", "DATASETS.TEST is 'coco': expected a list"),
        ("OUTPUT_DIR", "", "OUTPUT_DIR is '': expected a text that is not empty"),
        ("SEED", 2**32, "expected an integer from -2147483648 to"),
        ("CUDNN_BENCHMARK", 1, "CUDNN_BENCHMARK is 1: expected True or False"),
        ("MODEL.LITE_DETR.LOSS.FOCAL_ALPHA", 1.5, "expected a number from 0 to 1"),
        ("MODEL.LITE_DETR.NUM_QUERIES", True, "NUM_QUERIES is True: expected an integer"),
        ("MODEL.LITE_DETR.NUM_QUERIES", 10**20, "expected an integer from 1 to 100000"),
        ("MODEL.LITE_DETR.ENCODER.SPEC", "H2L1-(2+1)x999999", "expected at most 1000 layers"),
        ("VERSION", 1, "VERSION is 1: expected one of 2"),
    ],
)
def test_a_wrong_value_is_one_line(small_cfg: CfgNode, key: str, value: Any, message: str) -> None:
    put(small_cfg, key, value)
    with pytest.raises(InputError) as error:
        validate_config(small_cfg)
    assert message in str(error.value) and key.rpartition(".")[2] in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"TYPE": "relative", "SIZE": [0.5, 1.5]}, "with INPUT.CROP.TYPE 'relative', numbers above 0, to 1"),
        (
            {"TYPE": "relative_range", "SIZE": [384, 600]},
            "with INPUT.CROP.TYPE 'relative_range', numbers above 0, to 1",
        ),
        ({"TYPE": "absolute", "SIZE": [0.5, 0.5]}, "with INPUT.CROP.TYPE 'absolute', integers, in pixels"),
        ({"TYPE": "absolute_range", "SIZE": [600, 384]}, "the smallest and the largest"),
        ({"SIZE": [384]}, "INPUT.CROP.SIZE is [384]: expected a list of 2"),
        ({"SIZE": [0, 384]}, "INPUT.CROP.SIZE[0] is 0: expected a number above 0"),
        ({"TYPE": "relativ"}, "INPUT.CROP.TYPE is 'relativ'"),
        ({"MIN_SIZE_TRAIN": []}, "INPUT.CROP.MIN_SIZE_TRAIN is []"),
    ],
)
def test_crops(small_cfg: CfgNode, settings: dict[str, Any], message: str) -> None:
    small_cfg.INPUT.CROP.ENABLED = True
    validate_config(small_cfg)
    small_cfg.INPUT.CROP.update(settings)
    with pytest.raises(InputError) as error:
        validate_config(small_cfg)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("DEPTHS", [], "expected a list from 1 to 6"),
        ("DEPTHS", [2, 0, 2, 2], r"DEPTHS[1] is 0"),
        ("DEPTHS", [2, 2, 2], "MODEL.SWIN.NUM_HEADS is [3, 6, 12, 24]: expected as many as MODEL.SWIN.DEPTHS (3)"),
        ("NUM_HEADS", [3, 6, 12, 25], r"NUM_HEADS[3] is 25: expected a divisor of the stage's width (768)"),
        ("EMBED_DIM", 50, r"MODEL.SWIN.NUM_HEADS[0] is 3: expected a divisor of the stage's width (50)"),
        ("WINDOW_SIZE", 0, "WINDOW_SIZE is 0"),
        ("DROP_PATH_RATE", 1.0, "expected a number from 0 to below 1"),
        ("OUT_INDICES", [1, 2, 4], "expected stages from 0 to 3"),
        ("OUT_INDICES", [1, 1], "each there once"),
        ("OUT_INDICES", [0, 1], "IN_FEATURES names ['p2', 'p3'], which the backbone does not put out"),
    ],
)
def test_swin(small_cfg: CfgNode, key: str, value: Any, message: str) -> None:
    small_cfg.MODEL.BACKBONE.NAME, small_cfg.MODEL.LITE_DETR.IN_FEATURES = "build_swin_backbone", ["p1", "p2", "p3"]
    validate_config(small_cfg)
    small_cfg.MODEL.SWIN[key] = value
    with pytest.raises(InputError) as error:
        validate_config(small_cfg)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"DEPTH": 51}, "MODEL.RESNETS.DEPTH is 51: expected one of 18, 34, 50, 101, 152"),
        ({"DEPTH": 18}, "MODEL.RESNETS.RES2_OUT_CHANNELS is 32: expected 64, as DEPTH is 18"),
        ({"DEPTH": 34, "RES2_OUT_CHANNELS": 64, "RES5_DILATION": 2}, "RES5_DILATION is 2: expected 1, as DEPTH is 34"),
        (
            {"NORM": "GN", "STEM_OUT_CHANNELS": 40},
            "STEM_OUT_CHANNELS is 40: expected a multiple of 32, as NORM is 'GN'",
        ),
        ({"NORM": "GN", "WIDTH_PER_GROUP": 8}, "NUM_GROUPS * WIDTH_PER_GROUP is 8: expected a multiple of 32"),
        ({"RES5_DILATION": 3}, "expected one of 1, 2"),
        ({"OUT_FEATURES": ["res3"]}, "IN_FEATURES names ['res4', 'res5'], which the backbone does not put out"),
        ({"DEFORM_ON_PER_STAGE": [True]}, "DEFORM_ON_PER_STAGE is [True]: expected a list of 4"),
    ],
)
def test_resnets(small_cfg: CfgNode, settings: dict[str, Any], message: str) -> None:
    small_cfg.MODEL.BACKBONE.NAME, small_cfg.MODEL.RESNETS.DEPTH = "build_resnet_backbone", 50
    validate_config(small_cfg)
    small_cfg.MODEL.RESNETS.update(settings)
    with pytest.raises(InputError) as error:
        validate_config(small_cfg)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"LR_SCHEDULER_NAME": "WarmupCosineLR", "BASE_LR": 0.0}, "BASE_LR is 0.0: expected more than 0 with Warmup"),
        (
            {"LR_SCHEDULER_NAME": "WarmupCosineLR", "BASE_LR_END": 1.0},
            "BASE_LR_END is 1.0: expected at most SOLVER.BASE",
        ),
        (
            {"OPTIMIZER": "SGD", "NESTEROV": True, "MOMENTUM": 0.0},
            "MOMENTUM is 0.0: expected more than 0, as SOLVER.NEST",
        ),
    ],
)
def test_solver(small_cfg: CfgNode, settings: dict[str, Any], message: str) -> None:
    small_cfg.SOLVER.update(settings)
    with pytest.raises(InputError) as error:
        validate_config(small_cfg)
    assert message in str(error.value)


def test_whole_model_clipping_needs_a_norm(small_cfg: CfgNode) -> None:
    small_cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "value"
    with pytest.raises(InputError, match=r"SOLVER\.CLIP_GRADIENTS\.CLIP_TYPE is 'value'"):
        validate_config(small_cfg)
    small_cfg.SOLVER.CLIP_GRADIENTS.FULL_MODEL = False
    validate_config(small_cfg)


@pytest.mark.parametrize("half", ["TRAIN", "TEST"])
def test_the_long_side_may_be_what_limits_all_images(small_cfg: CfgNode, half: str) -> None:
    """As in detectron2: it is how images are made smaller without a list of new short sides."""
    small_cfg.INPUT[f"MAX_SIZE_{half}"] = 32
    assert np.max(small_cfg.INPUT[f"MIN_SIZE_{half}"]) > 32
    assert refusal(small_cfg) == ""
    small_cfg.INPUT[f"MAX_SIZE_{half}"] = 0
    assert f"INPUT.MAX_SIZE_{half} is 0" in refusal(small_cfg)


@pytest.mark.parametrize("key", ["MODEL.RESNETS.NORM", "SOLVER.WEIGHT_DECAY_NORM", "SOLVER.WEIGHT_DECAY_BIAS"])
def test_null_is_right_where_detectron2_means_something_by_it(small_cfg: CfgNode, key: str) -> None:
    put(small_cfg, key, None)
    assert refusal(small_cfg) == ""
    put(small_cfg, key, [])
    assert f"{key} is []" in refusal(small_cfg)


def test_keys_of_a_users_own_are_left_alone(small_cfg: CfgNode) -> None:
    small_cfg.MODEL.MINE = CfgNode({"ANYTHING": None, "ELSE": [1, "a"]})
    assert refusal(small_cfg) == ""
    assert small_cfg.MODEL.MINE == {"ANYTHING": None, "ELSE": [1, "a"]}


def refusal(cfg: CfgNode) -> str:
    """What is wrong with a config; nothing if it is accepted."""
    try:
        validate_config(cfg)
    except InputError as error:
        return str(error)
    return ""


def put(cfg: CfgNode, key: str, value: Any) -> None:
    """Set a key as Python code does, past detectron2's own check of types."""
    *above, name = key.split(".")
    for part in above:
        cfg = cfg[part]
    cfg[name] = value
