"""detectron2's own trainer, loaders and evaluation loop on our configs and models, with nothing of ours between."""

import argparse
from pathlib import Path

import pytest
import torch
import torchvision
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from detectron2.engine import DefaultPredictor, DefaultTrainer
from detectron2.evaluation import COCOEvaluator, inference_on_dataset
from detectron2.modeling import build_model

from lite_detr_d2.data import register_coco_folder
from lite_detr_d2.engine import read_config
from lite_detr_d2.errors import InputError
from tests.checkpoint.published import KINDS, as_published, of_kind
from tests.data.folders import write_coco_folder
from tests.helpers import choose_detector

TINY = Path(__file__).parent / "tiny.yaml"


@pytest.mark.parametrize("name", ["dino", "deformable_detr", "deformable_detr_two_stage", "h_detr"])
def test_default_trainer_trains_and_inference_on_dataset_evaluates(tmp_path: Path, name: str) -> None:
    cfg = read_config(argparse.Namespace(config_file=str(TINY), opts=["OUTPUT_DIR", str(tmp_path / "output")]))
    choose_detector(cfg, name)
    folder = register_coco_folder(write_coco_folder(tmp_path))
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.LITE_DETR.NUM_CLASSES = 3
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (folder.train,), ()
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS = 2, ()
    trainer = DefaultTrainer(cfg)
    before = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
    trainer.train()
    assert trainer.iter == cfg.SOLVER.MAX_ITER
    moved = [name for name, parameter in trainer.model.named_parameters() if bool((parameter != before[name]).any())]
    assert any(name.startswith("encoder.") for name in moved) and any(name.startswith("decoder.") for name in moved)

    loader = build_detection_test_loader(cfg, folder.val)
    evaluator = COCOEvaluator(folder.val, tasks=("bbox",), output_dir=str(tmp_path / "inference"))
    metrics = inference_on_dataset(trainer.model, loader, evaluator)
    assert {"AP", "AP50", "APs", "APm", "APl"} <= metrics["bbox"].keys()


@pytest.mark.parametrize("fixture", [kind for kind in KINDS if not kind.endswith("swint")])
def test_published_weights_are_converted_whatever_loads_them(small_cfg: CfgNode, tmp_path: Path, fixture: str) -> None:
    cfg = of_kind(small_cfg, fixture)
    source = build_model(cfg)
    published = as_published(source.state_dict(), fixture)
    torch.save({"model": published}, tmp_path / "published.pth")
    cfg.MODEL.WEIGHTS = str(tmp_path / "published.pth")
    predictor, checkpointed, plain = DefaultPredictor(cfg).model, build_model(cfg), build_model(cfg)
    DetectionCheckpointer(checkpointed).load(cfg.MODEL.WEIGHTS)
    assert not plain.load_state_dict(published).missing_keys
    for model in (predictor, checkpointed, plain):
        torch.testing.assert_close(model.state_dict(), source.state_dict(), rtol=0, atol=0)
    assert not plain.load_state_dict({}, strict=False).unexpected_keys


def test_rows_of_heads_for_category_ids_become_cocos_classes(small_cfg: CfgNode) -> None:
    cfg = of_kind(small_cfg, "dino_4scale_r50")
    cfg.MODEL.LITE_DETR.NUM_CLASSES = 91
    source = build_model(cfg)
    torch.nn.init.normal_(source.decoder.heads[0].class_embed.bias)
    published = as_published(source.state_dict(), "dino_4scale_r50")
    cfg.MODEL.LITE_DETR.NUM_CLASSES = 80
    model = build_model(cfg)
    model.load_state_dict(published)
    ids = sorted(each["id"] for each in COCO_CATEGORIES if each["isthing"])
    rows = (each.decoder.heads[0].class_embed.bias for each in (model, source))
    assert torch.equal(next(rows), next(rows)[ids])
    cfg.MODEL.LITE_DETR.NUM_CLASSES = 5
    message = r"^These published weights tell 91 classes apart, and the detector 5 \(MODEL\.LITE_DETR\.NUM_CLASSES\)"
    with pytest.raises(InputError, match=message):
        build_model(cfg).load_state_dict(published, strict=False)


RESNET18 = torchvision.models.resnet18


@pytest.mark.parametrize(
    ("names", "message"),
    [
        # DINO's of MMDetection has a name in common with ours, and detectron2's own detectors have a whole backbone.
        (
            ("decoder.norm.weight", "bbox_head.cls_branches.0.weight"),
            "It looks like a checkpoint of MMDetection, which",
        ),
        (("backbone.stem.conv1.weight", "roi_heads.box_predictor.cls_score.weight"), "another detector of detectron2"),
        (
            ("transformer.level_embed", "transformer.enc_output.weight", "query_embed.weight", "extra.bias"),
            r"Of its 4 names, so many are those of: H-Deformable-DETR \(3\), ",
        ),
        (tuple(RESNET18().state_dict()), r"of ImageNet ResNet \(torchvision\), a backbone alone, and all else would"),
        (("conv.weight", "bias"), "have none of this detector's tensors, but conv.weight, bias"),
    ],
)
def test_no_weights_leave_a_detector_at_random(
    small_cfg: CfgNode, tmp_path: Path, names: tuple[str, ...], message: str
) -> None:
    foreign = {name: torch.zeros(2) for name in names}
    torch.save({"model": foreign}, tmp_path / "foreign.pth")
    small_cfg.MODEL.WEIGHTS = str(tmp_path / "foreign.pth")
    model = build_model(small_cfg)
    for load in (
        lambda: DefaultPredictor(small_cfg),
        lambda: DetectionCheckpointer(model).load(small_cfg.MODEL.WEIGHTS),
        lambda: model.load_state_dict(foreign, strict=False),
    ):
        with pytest.raises(InputError, match=message) as error:
            load()
        assert "\n" not in str(error.value)


def test_another_architecture_is_told(small_cfg: CfgNode) -> None:
    published = as_published(build_model(of_kind(small_cfg, "dino_4scale_r50")).state_dict(), "dino_4scale_r50")
    with pytest.raises(InputError, match=r"another architecture: MODEL\.META_ARCHITECTURE is DINO in the file, Def"):
        build_model(of_kind(small_cfg, "deformable_detr_r50")).load_state_dict(published, strict=False)
