"""The configs that come with the project: where they are, what a name says, and how to make one small."""

from pathlib import Path

from detectron2.config import CfgNode, get_cfg

from lite_detr_d2 import add_lite_detr_config
from lite_detr_d2.encoder_spec import EncoderSpec

from .conftest import CONFIGS

LEAVES = sorted(path for path in CONFIGS.rglob("*.yaml") if "_base_" not in path.parts)
NAMED = [path for path in LEAVES if path.parent.name != "demo"]
# A tiny one has sizes and a schedule of its own; all others are the paper's models and recipes.
FOR_COCO = [path for path in NAMED if not path.stem.endswith("_tiny")]
COCO_IMAGES = 120000  # 118287, rounded up to whole thousands of iterations as the published schedules are
PUBLISHED_WIDTH = 256  # of all of them
DETECTORS = {"DINO": "dino", "DeformableDETR": "deformable_detr", "HDETR": "h_detr"}
FOLDERS = (*DETECTORS.values(), "sparse_detr", "efficient_detr")


def read(path: Path) -> CfgNode:
    cfg = get_cfg()
    add_lite_detr_config(cfg)
    cfg.merge_from_file(str(path))
    cfg.MODEL.DEVICE = "cpu"
    return cfg


def distinct_models(paths: list[Path]) -> list[Path]:
    """Those of ``paths`` whose model no earlier one has: a schedule makes no new model."""
    first = {read(path).MODEL.dump(): path for path in reversed(paths)}
    return sorted(first.values())


def detector_of(cfg: CfgNode) -> str:
    """What a detector is called: some of Deformable DETR's kind have a name of their own."""
    model = cfg.MODEL.LITE_DETR
    if model.ENCODER.NAME == "SparseEncoder":
        return "sparse_detr"
    if model.CONTENT_FROM_MEMORY and model.DECODER.NUM_LAYERS == 1:
        return "efficient_detr"
    return DETECTORS[cfg.MODEL.META_ARCHITECTURE]


def name_of(cfg: CfgNode) -> str:
    """What the file of ``cfg`` should be called: ``{detector}_{encoder}_{overlays}_{backbone}_{schedule}``.

    Or ``{detector}_tiny``, if it is narrower than the published ones: there is one of each.
    """
    encoder = cfg.MODEL.LITE_DETR.ENCODER
    lite = encoder.NAME == "InterleavedEncoder"
    parts = ["lite"] if lite else []
    parts.append(detector_of(cfg))
    if cfg.MODEL.LITE_DETR.HIDDEN_DIM < PUBLISHED_WIDTH:
        return "_".join([*parts, "tiny"])
    if lite:
        spec = EncoderSpec.parse(encoder.SPEC)
        parts.append(f"h{spec.high_levels}l{spec.low_levels}_a{spec.refinements}b{spec.blocks}")
    if encoder.NAME == "SparseEncoder":
        parts.append(f"rho{encoder.RHO:.1f}".replace(".", ""))
    parts += _overlays(cfg, lite)
    backbone = {"build_swin_backbone": "swint", "build_resnet_backbone": f"r{cfg.MODEL.RESNETS.DEPTH}"}
    parts.append(backbone[cfg.MODEL.BACKBONE.NAME])
    epochs = cfg.SOLVER.MAX_ITER * cfg.SOLVER.IMS_PER_BATCH / COCO_IMAGES
    return "_".join([*parts, f"{epochs:g}ep"])


def _overlays(cfg: CfgNode, lite: bool) -> list[str]:
    model = cfg.MODEL.LITE_DETR
    found = []
    if not model.TWO_STAGE:
        found.append("refined" if model.BOX_REFINEMENT else "single_stage")
    if model.NUM_LEVELS != 4:
        found.append(f"{model.NUM_LEVELS}scale")
    if lite and model.ENCODER.FUSION != "joint":
        found.append(model.ENCODER.FUSION)
    if lite != model.ENCODER.KEY_AWARE:
        found.append("kda" if model.ENCODER.KEY_AWARE else "nokda")
    return found


def shrink(cfg: CfgNode) -> None:
    """Make the model as narrow as it goes, and leave what the config is about: its parts, levels and layers."""
    model = cfg.MODEL.LITE_DETR
    model.HIDDEN_DIM, model.NUM_HEADS = 64, 4
    model.ENCODER.DIM_FEEDFORWARD = model.DECODER.DIM_FEEDFORWARD = 64
    model.NUM_QUERIES = 20
    model.ONE_TO_MANY.NUM_QUERIES = 2 * model.ONE_TO_MANY.REPEATS
    model.DENOISING.NUM_QUERIES = 50
    if cfg.MODEL.BACKBONE.NAME == "build_swin_backbone":
        cfg.MODEL.SWIN.EMBED_DIM, cfg.MODEL.SWIN.DEPTHS = 24, [1, 1, 1, 1]
    elif cfg.MODEL.RESNETS.DEPTH >= 50:  # detectron2's smaller ones have one width only
        cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 8
        cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 8
        cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 16
