"""The inference form: it computes what the detector does, by the comparisons that exported files must pass."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_model
from torch import nn

import lite_detr_d2
from lite_detr_d2.deploy import PreparedDetector, prepare
from lite_detr_d2.deploy.bounds import Range
from lite_detr_d2.deploy.formats import Runtime
from lite_detr_d2.deploy.fused import FusedBlock, FusedConv2d, FusedLinear
from lite_detr_d2.deploy.inference import DTYPES, InferenceModel, InspectedModel
from lite_detr_d2.deploy.manifest import SelfCheck, TensorSpec
from lite_detr_d2.deploy.predictor import Predictor
from lite_detr_d2.deploy.probes import Batch
from lite_detr_d2.deploy.self_check import CheckFailed, Exported, check
from lite_detr_d2.detector import DetrDetector
from lite_detr_d2.errors import InputError
from tests.helpers import batched_input

from .exports import certain
from .runs import write_run

DETECTORS: dict[str, list[Any]] = {
    "Lite-DINO": [],
    "DINO, plain attention": [
        *("MODEL.LITE_DETR.ENCODER.NAME", "DeformableEncoder", "MODEL.LITE_DETR.ENCODER.KEY_AWARE", False)
    ],
    "H-DETR": ["MODEL.META_ARCHITECTURE", "HDETR"],
    "Deformable DETR, learned queries": [
        *("MODEL.META_ARCHITECTURE", "DeformableDETR", "MODEL.LITE_DETR.TWO_STAGE", False),
        *("MODEL.LITE_DETR.MIXED_SELECTION", False, "MODEL.LITE_DETR.LOOK_FORWARD_TWICE", False),
    ],
}
BACKBONES: dict[str, list[Any]] = {
    "narrow ResNet": [],
    "ResNet-50": [
        *("MODEL.BACKBONE.NAME", "build_resnet_backbone", "MODEL.RESNETS.DEPTH", 50, "MODEL.RESNETS.NORM", "FrozenBN"),
        *("MODEL.RESNETS.STEM_OUT_CHANNELS", 16, "MODEL.RESNETS.RES2_OUT_CHANNELS", 32),
        *("MODEL.RESNETS.WIDTH_PER_GROUP", 8),
    ],
    "ResNet of group norms": ["MODEL.RESNETS.NORM", "GN", "MODEL.RESNETS.STEM_OUT_CHANNELS", 32],
    "Swin": [
        *("MODEL.BACKBONE.NAME", "build_swin_backbone", "MODEL.LITE_DETR.IN_FEATURES", ["p1", "p2", "p3"]),
        *("MODEL.SWIN.EMBED_DIM", 12, "MODEL.SWIN.DEPTHS", [2, 2, 2, 2]),
    ],
}
BATCHES = [((96, 128),), ((96, 128), (80, 100)), ((65, 203),)]


def build(cfg: CfgNode, changes: list[Any] | None = None) -> DetrDetector:
    cfg.merge_from_list(changes or [])
    torch.manual_seed(0)
    detector = certain(build_model(cfg))
    assert isinstance(detector, DetrDetector)
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d | FrozenBatchNorm2d):
            nn.init.uniform_(module.weight, 0.7, 1.0)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 1.0, 1.5)  # type: ignore[arg-type]
    for name, parameter in detector.named_parameters():
        if "box_embed.layers.2" in name:
            parameter.data *= 0.1  # of larger ones, the thin boxes of a detector without training have no stable IoU
    return detector.eval()


def batches() -> Iterator[Batch]:
    """Noise, of one image, of two of which one is padded, and of a size that nothing divides."""
    random = np.random.default_rng(0)
    for sizes in BATCHES:
        height, width = (max(side) for side in zip(*sizes, strict=True))
        images = random.integers(0, 256, (len(sizes), 3, height, width), dtype=np.uint8)
        for image, (rows, columns) in zip(images, sizes, strict=True):
            image[:, rows:], image[:, :, columns:] = 0, 0
        yield Batch(images, np.array(sizes, dtype=np.int64))


def runtime(model: nn.Module) -> Runtime:
    @torch.no_grad()
    def run(images: Any, sizes: Any) -> tuple[Any, ...]:
        return tuple(output.numpy() for output in model(torch.from_numpy(images), torch.from_numpy(sizes)))

    return run


def assert_equal(prepared: PreparedDetector, detector: DetrDetector) -> SelfCheck:
    """Both comparisons with the detector in float32, within the limits of the prepared one's type."""
    model = prepared.model
    kept = min(detector.max_detections, detector.query_selection.num_queries * detector.num_classes)
    sizes = Range(1, 2)
    outputs = [
        TensorSpec("boxes", "float32", (sizes, kept, 4)),
        TensorSpec("scores", "float32", (sizes, kept)),
        TensorSpec("labels", "int64", (sizes, kept)),
    ]
    exported = Exported(runtime(model), runtime(InspectedModel(model)), outputs)
    result = check(exported, InferenceModel(detector), list(batches()), num_images=4, dtype=model.dtype)
    assert result.compared > 100
    return result


def inputs() -> list[dict[str, Any]]:
    return [batched_input(96, 128, 3), batched_input(80, 100, 2, seed=1) | {"height": 160, "width": 200}]


@pytest.mark.parametrize("dtype", DTYPES.values())
@pytest.mark.parametrize("changes", DETECTORS.values(), ids=DETECTORS)
def test_each_detector(small_cfg: CfgNode, changes: list[Any], dtype: torch.dtype) -> None:
    detector = build(small_cfg, changes)
    assert_equal(prepare(detector, dtype=dtype), detector)


@pytest.mark.parametrize("changes", BACKBONES.values(), ids=BACKBONES)
def test_each_backbone(small_cfg: CfgNode, changes: list[Any]) -> None:
    detector = build(small_cfg, changes)
    assert_equal(prepare(detector), detector)


@pytest.mark.parametrize("backbone", ["ResNet-50", "Swin"])  # group norms without training are beyond bfloat16's limits
def test_backbones_in_bfloat16(small_cfg: CfgNode, backbone: str) -> None:
    detector = build(small_cfg, BACKBONES[backbone])
    assert_equal(prepare(detector, dtype=torch.bfloat16), detector)


def test_the_comparisons_see_another_detector(small_cfg: CfgNode) -> None:
    detector = build(small_cfg)
    prepared = prepare(detector)
    with torch.no_grad():
        next(detector.backbone.parameters()).mul_(1.01)
    with pytest.raises(CheckFailed):
        assert_equal(prepared, detector)


@pytest.mark.parametrize("dtype", DTYPES.values())
def test_it_takes_what_the_detector_takes(small_cfg: CfgNode, dtype: torch.dtype) -> None:
    detector = build(small_cfg)
    prepared = prepare(detector, dtype=dtype)
    found = prepared(inputs())
    assert [each["instances"].image_size for each in found] == [(96, 128), (160, 200)]
    assert all(each["instances"].pred_boxes.tensor.dtype == torch.float32 for each in found)
    assert all(not each["instances"].scores.requires_grad for each in found)
    if dtype == torch.float32:
        with torch.no_grad():
            expected = detector(inputs())
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours["instances"].scores, theirs["instances"].scores, rtol=0, atol=1e-5)


def test_batch_norms_are_folded_and_weights_are_of_the_type(small_cfg: CfgNode) -> None:
    prepared = prepare(build(small_cfg, BACKBONES["ResNet-50"]), dtype=torch.bfloat16)
    kinds = [type(module) for module in prepared.modules()]
    assert not {FrozenBatchNorm2d, nn.BatchNorm2d, nn.Conv2d, nn.Linear} & set(kinds)
    assert kinds.count(FusedBlock) == 16
    products = [module for module in prepared.modules() if isinstance(module, FusedConv2d | FusedLinear)]
    assert {module.weight.dtype for module in products} == {torch.bfloat16}
    assert not any(parameter.requires_grad for parameter in prepared.parameters())


def test_without_onednn_it_computes_the_same(small_cfg: CfgNode) -> None:
    detector = build(small_cfg, BACKBONES["ResNet-50"])
    prepared = prepare(detector)
    with torch.backends.mkldnn.flags(enabled=False), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
        assert_equal(prepared, detector)


@pytest.mark.parametrize("is_training", [True, False])
def test_the_detector_stays_as_it_is(small_cfg: CfgNode, is_training: bool) -> None:
    detector = build(small_cfg).train(is_training)
    modes = [module.training for module in detector.modules()]
    needed = [parameter.requires_grad for parameter in detector.parameters()]
    state = {name: value.clone() for name, value in detector.state_dict().items()}
    prepare(detector, dtype=torch.bfloat16)(inputs())
    assert [module.training for module in detector.modules()] == modes
    assert [parameter.requires_grad for parameter in detector.parameters()] == needed
    after = detector.state_dict()
    assert list(after) == list(state)
    assert all(torch.equal(after[name], value) for name, value in state.items())


def test_nothing_of_training_is_in_it(small_cfg: CfgNode) -> None:
    for changes in (DETECTORS["Lite-DINO"], DETECTORS["H-DETR"]):
        detector = build(small_cfg, changes)
        assert detector.denoising is not None or detector.one_to_many is not None
        prepared = prepare(detector)
        assert prepared.model.detector.denoising is prepared.model.detector.one_to_many is None
    with pytest.raises(InputError, match="for inference alone"):
        prepared.train()
    assert not any(module.training for module in prepared.eval().modules())


def test_after_a_training_step(small_cfg: CfgNode) -> None:
    detector = build(small_cfg, DETECTORS["H-DETR"]).train()
    optimizer = torch.optim.SGD([each for each in detector.parameters() if each.requires_grad], lr=1e-3)
    losses: dict[str, torch.Tensor] = detector(inputs())
    torch.stack(list(losses.values())).sum().backward()
    optimizer.step()
    prepared = prepare(detector)
    assert all(parameter.grad is None for parameter in prepared.parameters())
    assert_equal(prepared, detector.eval())


@pytest.mark.parametrize("dtype", DTYPES.values())
def test_it_is_pickled(small_cfg: CfgNode, dtype: torch.dtype) -> None:
    prepared = prepare(build(small_cfg), dtype=dtype)
    first = prepared(inputs())
    file = io.BytesIO()
    torch.save(prepared, file)
    file.seek(0)
    for ours, theirs in zip(torch.load(file, weights_only=False)(inputs()), first, strict=True):
        assert torch.equal(ours["instances"].scores, theirs["instances"].scores)
        assert torch.equal(ours["instances"].pred_boxes.tensor, theirs["instances"].pred_boxes.tensor)


@pytest.mark.parametrize("dtype", [torch.float16, "bfloat16", None])
def test_other_types_are_refused(small_cfg: CfgNode, dtype: Any) -> None:
    with pytest.raises(InputError, match=r"dtype is .*: expected one of torch.float32, torch.bfloat16"):
        prepare(build_model(small_cfg), dtype=dtype)


def test_other_models_are_refused(small_cfg: CfgNode) -> None:
    with pytest.raises(InputError, match="The model is a Linear: expected a detector"):
        prepare(nn.Linear(1, 1))
    with pytest.raises(InputError, match="prepared already"):
        prepare(prepare(build_model(small_cfg)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_predictor_of_it(small_cfg: CfgNode, tmp_path: Path, dtype: str) -> None:
    write_run(small_cfg, tmp_path / "run")
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    predictors = [
        lite_detr_d2.load(tmp_path / "run", device="cpu", dtype=dtype, prepared=prepared) for prepared in (True, False)
    ]
    assert isinstance(predictors[0].model, PreparedDetector)
    assert predictors[0].model.model.dtype == dtype
    found, expected = (each(image)["instances"].scores for each in predictors)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 if dtype == "float32" else 2e-2)


def test_a_predictor_of_another_type_is_refused(small_cfg: CfgNode) -> None:
    prepared = prepare(build_model(small_cfg))
    with pytest.raises(InputError, match="the model was prepared in float32: leave it out"):
        Predictor(small_cfg, [], prepared, dtype="bfloat16")


def test_what_is_no_flag_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="prepared is 'yes': expected True or False"):
        lite_detr_d2.load(tmp_path, prepared="yes")  # type: ignore[arg-type]
