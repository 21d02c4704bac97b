"""What the configs train with is what was published, key by key.

Sources: of Deformable DETR, H-DETR and Sparse DETR, the defaults and scripts of their repositories
(fundamentalvision/Deformable-DETR, HDETR/H-Deformable-DETR, kakaobrain/sparse-detr: ``main.py``); of DINO,
``config/DINO/DINO_4scale.py`` and ``DINO_4scale_swinT.py`` of IDEA-Research/Lite-DETR, whose names are given below. Of
Efficient DETR there is no code: its recipe is Deformable DETR's.
"""

from pathlib import Path
from typing import Any

import pytest
from detectron2.config import CfgNode, get_cfg

from lite_detr_d2 import add_lite_detr_config

from .conftest import CONFIGS
from .shipped_configs import FOR_COCO, read

MODEL = "MODEL.LITE_DETR."
# Of all: AdamW, DETR's augmentation, and what COCO and the released Lite-DETR models have in common.
EVERYWHERE: dict[str, Any] = {
    "SOLVER.OPTIMIZER": "ADAMW",
    "SOLVER.WEIGHT_DECAY": 1e-4,  # weight_decay, of norms and biases, too
    "SOLVER.WEIGHT_DECAY_NORM": 1e-4,
    "SOLVER.WEIGHT_DECAY_BIAS": None,
    "SOLVER.BIAS_LR_FACTOR": 1.0,
    "SOLVER.LR_SCHEDULER_NAME": "WarmupMultiStepLR",
    "SOLVER.GAMMA": 0.1,
    "SOLVER.WARMUP_ITERS": 0,
    "SOLVER.REFERENCE_NUM_IMAGES": 118287,  # of COCO's train2017
    "SOLVER.REFERENCE_BATCH": 0,
    "SOLVER.ACCUMULATE": 1,
    "SOLVER.FREEZE": [],
    "SOLVER.EARLY_STOP.PATIENCE": 0,
    "SOLVER.EMA.ENABLED": False,  # use_ema
    "SOLVER.AMP.ENABLED": False,
    "SOLVER.CLIP_GRADIENTS.ENABLED": True,
    "SOLVER.CLIP_GRADIENTS.FULL_MODEL": True,
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "norm",
    "SOLVER.CLIP_GRADIENTS.NORM_TYPE": 2.0,
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": 0.1,  # clip_max_norm
    "DATASETS.TRAIN": ("coco_2017_train",),
    "DATASETS.TEST": ("coco_2017_val",),
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS": False,
    "INPUT.FORMAT": "RGB",
    "INPUT.MIN_SIZE_TRAIN": (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800),
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": "choice",
    "INPUT.MAX_SIZE_TRAIN": 1333,
    "INPUT.MIN_SIZE_TEST": 800,
    "INPUT.MAX_SIZE_TEST": 1333,
    "INPUT.RANDOM_FLIP": "horizontal",
    "INPUT.CROP.ENABLED": True,
    "INPUT.CROP.TYPE": "absolute_range",
    "INPUT.CROP.SIZE": (384, 600),
    "INPUT.CROP.MIN_SIZE_TRAIN": (400, 500, 600),
    "MODEL.PIXEL_MEAN": (123.675, 116.28, 103.53),  # 255 times 0.485, 0.456, 0.406, of ImageNet
    "MODEL.PIXEL_STD": (58.395, 57.12, 57.375),  # 255 times 0.229, 0.224, 0.225
    f"{MODEL}NUM_CLASSES": 80,
    f"{MODEL}HIDDEN_DIM": 256,  # hidden_dim
    f"{MODEL}NUM_HEADS": 8,  # nheads
    f"{MODEL}ENCODER.NUM_POINTS": 4,  # enc_n_points
    f"{MODEL}DECODER.NUM_POINTS": 4,  # dec_n_points
    f"{MODEL}ENCODER.LOW_LEVEL_FFN_RATIO": 8,  # lambda of the Lite DETR paper, Sec. 4.1
    f"{MODEL}ENCODER.KEY_PROJ": False,  # of the released models
    f"{MODEL}MATCHER.CLASS_COST": 2.0,  # set_cost_class
    f"{MODEL}MATCHER.L1_COST": 5.0,  # set_cost_bbox
    f"{MODEL}MATCHER.GIOU_COST": 2.0,  # set_cost_giou
    f"{MODEL}LOSS.L1_WEIGHT": 5.0,  # bbox_loss_coef
    f"{MODEL}LOSS.GIOU_WEIGHT": 2.0,  # giou_loss_coef
    f"{MODEL}LOSS.FOCAL_ALPHA": 0.25,  # focal_alpha
    f"{MODEL}LOSS.FOCAL_GAMMA": 2.0,  # of sigmoid_focal_loss, and of the matcher
}
_DEFORMABLE_DETR: dict[str, Any] = {
    "MODEL.META_ARCHITECTURE": "DeformableDETR",
    "SOLVER.IMS_PER_BATCH": 32,  # 16 GPUs with batch_size 2
    "SOLVER.BASE_LR": 2e-4,  # lr
    "SOLVER.OFFSET_MULTIPLIER": 0.1,  # lr_linear_proj_mult
    f"{MODEL}NUM_QUERIES": 300,  # num_queries
    f"{MODEL}DROPOUT": 0.1,  # dropout
    f"{MODEL}ENCODER.DIM_FEEDFORWARD": 1024,  # dim_feedforward
    f"{MODEL}DECODER.DIM_FEEDFORWARD": 1024,
    f"{MODEL}DECODER.NUM_LAYERS": 6,  # dec_layers
    f"{MODEL}LOSS.CLASS_WEIGHT": 2.0,  # cls_loss_coef
    f"{MODEL}POSITION_TEMPERATURE": 10000,
    f"{MODEL}CLASS_SPECIFIC_PROPOSALS": False,
    f"{MODEL}CONTENT_FROM_MEMORY": False,
    "TEST.DETECTIONS_PER_IMAGE": 100,
}
_FROM_MEMORY = {f"{MODEL}CLASS_SPECIFIC_PROPOSALS": True, f"{MODEL}CONTENT_FROM_MEMORY": True}
RECIPES: dict[str, dict[str, Any]] = {
    "dino": {
        "MODEL.META_ARCHITECTURE": "DINO",
        "SOLVER.IMS_PER_BATCH": 16,
        "SOLVER.BASE_LR": 1e-4,
        "SOLVER.OFFSET_MULTIPLIER": 1.0,  # ddetr_lr_param is off
        f"{MODEL}NUM_QUERIES": 900,
        f"{MODEL}DROPOUT": 0.0,
        f"{MODEL}ENCODER.DIM_FEEDFORWARD": 2048,
        f"{MODEL}DECODER.DIM_FEEDFORWARD": 2048,
        f"{MODEL}DECODER.NUM_LAYERS": 6,
        f"{MODEL}LOSS.CLASS_WEIGHT": 1.0,
        f"{MODEL}POSITION_TEMPERATURE": 20,  # pe_temperatureH and W
        f"{MODEL}CLASS_SPECIFIC_PROPOSALS": False,
        f"{MODEL}CONTENT_FROM_MEMORY": False,
        f"{MODEL}DENOISING.NUM_QUERIES": 100,  # dn_number
        f"{MODEL}DENOISING.LABEL_NOISE": 0.5,  # dn_label_noise_ratio
        "TEST.DETECTIONS_PER_IMAGE": 300,  # num_select
    },
    "deformable_detr": _DEFORMABLE_DETR,
    "h_detr": _DEFORMABLE_DETR
    | {
        "MODEL.META_ARCHITECTURE": "HDETR",
        "SOLVER.IMS_PER_BATCH": 16,
        f"{MODEL}DROPOUT": 0.0,
        f"{MODEL}ENCODER.DIM_FEEDFORWARD": 2048,
        f"{MODEL}DECODER.DIM_FEEDFORWARD": 2048,
        f"{MODEL}ONE_TO_MANY.NUM_QUERIES": 1500,  # num_queries_one2many
        f"{MODEL}ONE_TO_MANY.REPEATS": 6,  # k_one2many
        f"{MODEL}ONE_TO_MANY.WEIGHT": 1.0,  # lambda_one2many
    },
    "sparse_detr": _DEFORMABLE_DETR
    | _FROM_MEMORY  # eff_query_init and eff_specific_head
    | {"SOLVER.IMS_PER_BATCH": 16, f"{MODEL}ENCODER.AUXILIARY_LOSS": True},  # use_enc_aux_loss
    "efficient_detr": _DEFORMABLE_DETR | _FROM_MEMORY | {f"{MODEL}NUM_QUERIES": 100, f"{MODEL}DECODER.NUM_LAYERS": 1},
}
STAGES = ("BOX_REFINEMENT", "LOOK_FORWARD_TWICE", "TWO_STAGE", "MIXED_SELECTION")
# By what a name starts with: box refinement, looking forward twice, two stages, mixed selection.
OPTIONS = {
    "dino": (True, True, True, True),
    "deformable_detr_single_stage": (False, False, False, False),
    "deformable_detr_refined": (True, False, False, False),
    "deformable_detr": (True, False, True, False),
    "h_detr": (True, True, True, True),
    "sparse_detr": (True, False, True, False),
    "efficient_detr": (True, False, True, False),
}
_RESNET = {
    "MODEL.BACKBONE.NAME": "build_resnet_backbone",
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.STRIDE_IN_1X1": False,  # as torchvision's, whose weights it starts from
    "MODEL.RESNETS.NORM": "FrozenBN",  # batch_norm_type
    "MODEL.BACKBONE.FREEZE_AT": 2,
    "MODEL.WEIGHTS": "detectron2://ImageNetPretrained/torchvision/R-50.pkl",
    "SOLVER.BACKBONE_MULTIPLIER": 0.1,  # lr_backbone
}
_SWIN_T = {  # Liu et al., arXiv 2103.14030, Sec. 3.3 and Appendix A2.2
    "MODEL.BACKBONE.NAME": "build_swin_backbone",
    "MODEL.SWIN.EMBED_DIM": 96,
    "MODEL.SWIN.DEPTHS": [2, 2, 6, 2],
    "MODEL.SWIN.NUM_HEADS": [3, 6, 12, 24],
    "MODEL.SWIN.WINDOW_SIZE": 7,
    "MODEL.SWIN.DROP_PATH_RATE": 0.2,
    "SOLVER.BACKBONE_MULTIPLIER": 0.1,
}
BACKBONES: dict[str, dict[str, Any]] = {
    "r50": _RESNET,
    "swint": _SWIN_T,
    "swinl": _SWIN_T
    | {
        "MODEL.SWIN.EMBED_DIM": 192,
        "MODEL.SWIN.DEPTHS": [2, 2, 18, 2],
        "MODEL.SWIN.NUM_HEADS": [6, 12, 24, 48],
        "MODEL.SWIN.WINDOW_SIZE": 12,
    },
    "convnextt": {"SOLVER.BACKBONE_MULTIPLIER": 0.1, "MODEL.TIMM.PRETRAINED": True},
    "efflite0": {  # trained by TensorFlow on pixels from -1 to 1
        "SOLVER.BACKBONE_MULTIPLIER": 0.1,
        "MODEL.PIXEL_MEAN": (127.5, 127.5, 127.5),
        "MODEL.PIXEL_STD": (127.5, 127.5, 127.5),
    },
    # No published model has it: from scratch.
    "r18": {"MODEL.RESNETS.DEPTH": 18, "MODEL.WEIGHTS": "", "SOLVER.BACKBONE_MULTIPLIER": 1.0},
}
DROPS = {12: 11, 36: 30, 50: 40}


def look_up(cfg: CfgNode, key: str) -> Any:
    value: Any = cfg
    for part in key.split("."):
        value = value[part]
    return listed(value)


def listed(value: Any) -> Any:
    """detectron2 keeps some sequences as lists."""
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("path", FOR_COCO, ids=lambda path: path.stem)
def test_a_config_has_the_published_values(path: Path) -> None:
    cfg, backbone = read(path), path.stem.split("_")[-2]
    wanted = EVERYWHERE | RECIPES[path.parent.name] | BACKBONES[backbone]
    if path.parent.name == "dino":  # dn_box_noise_scale
        wanted[f"{MODEL}DENOISING.BOX_NOISE"] = 0.4 if backbone == "swint" else 1.0
    assert {key: look_up(cfg, key) for key in wanted} == {key: listed(value) for key, value in wanted.items()}


@pytest.mark.parametrize("path", FOR_COCO, ids=lambda path: path.stem)
def test_a_config_has_the_stages_of_its_name(path: Path) -> None:
    model, name = read(path).MODEL.LITE_DETR, path.stem.removeprefix("lite_")
    stages = next(stages for start, stages in OPTIONS.items() if name.startswith(start))
    assert tuple(model[stage] for stage in STAGES) == stages


@pytest.mark.parametrize(
    "path", [path for path in FOR_COCO if not path.stem.startswith("lite_")], ids=lambda path: path.stem
)
def test_plain_encoders_have_six_layers(path: Path) -> None:
    """enc_layers of all; three of Efficient DETR (arXiv 2104.01318)."""
    encoder, detector = read(path).MODEL.LITE_DETR.ENCODER, path.parent.name
    wanted = {"sparse_detr": ("SparseEncoder", 6), "efficient_detr": ("DeformableEncoder", 3)}
    assert wanted.get(detector, ("DeformableEncoder", 6)) == (encoder.NAME, encoder.NUM_LAYERS)


@pytest.mark.parametrize("path", FOR_COCO, ids=lambda path: path.stem)
def test_learning_rate_falls_when_it_should(path: Path) -> None:
    solver = read(path).SOLVER
    epochs = int(path.stem.rpartition("_")[2].removesuffix("ep"))
    assert (solver.MAX_ITER * DROPS[epochs] // epochs,) == solver.STEPS


def test_the_defaults_are_dinos() -> None:
    """What a config of one's own leaves out is DINO's on COCO, with a plain encoder; other parts have theirs."""
    cfg = get_cfg()
    add_lite_detr_config(cfg)
    assert cfg.MODEL.LITE_DETR == read(CONFIGS / "dino" / "dino_r50_36ep.yaml").MODEL.LITE_DETR
    wanted = {key: value for key, value in (EVERYWHERE | RECIPES["dino"]).items() if key.startswith(MODEL)}
    wanted |= {key: value for key, value in RECIPES["h_detr"].items() if "ONE_TO_MANY" in key}
    wanted |= {key: value for key, value in _SWIN_T.items() if "SWIN" in key}
    wanted |= {
        "SOLVER.OPTIMIZER": "ADAMW",
        "SOLVER.OFFSET_MULTIPLIER": 1.0,
        "SOLVER.BACKBONE_MULTIPLIER": 0.1,
        "INPUT.CROP.MIN_SIZE_TRAIN": (400, 500, 600),
        # The Lite DETR paper's H3L1-(2+1)x3, Table 1; the middle of Sparse DETR's, and its auxiliary loss.
        f"{MODEL}ENCODER.SPEC": "H3L1-(2+1)x3",
        f"{MODEL}ENCODER.FUSION": "joint",
        f"{MODEL}ENCODER.RHO": 0.3,
        f"{MODEL}ENCODER.AUXILIARY_LOSS": True,
    }
    assert {key: look_up(cfg, key) for key in wanted} == {key: listed(value) for key, value in wanted.items()}
