"""Models of timm as backbones: what they put out, what is frozen, and what is refused."""

import argparse
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_backbone, build_model
from detectron2.modeling.backbone import Backbone
from timm.layers import DropPath
from torch import Tensor, nn
from torch.export import Dim
from torch.nn.modules.batchnorm import _BatchNorm

from lite_detr_d2.analysis import count_configs, describe, models_of
from lite_detr_d2.config import with_random_weights
from lite_detr_d2.data import register_coco_folder
from lite_detr_d2.deploy import prepare
from lite_detr_d2.deploy.bounds import Bounds, Range, fixed
from lite_detr_d2.deploy.run import load_trained
from lite_detr_d2.deploy.sizing import check_bounds
from lite_detr_d2.engine import Trainer, read_config
from lite_detr_d2.engine.checkpointer import SafeCheckpointer
from lite_detr_d2.engine.compilation import compile_training
from lite_detr_d2.errors import InputError
from tests.compiled import CompileCounter
from tests.conftest import CONFIGS, make_small_cfg
from tests.data.folders import write_coco_folder
from tests.deploy.runs import write_config, write_run
from tests.helpers import batched_input
from tests.projects.scripts import TINY, load_script
from tests.shipped_configs import (
    LEAVES,
    assert_training_of_the_whole_model,
    assert_trains_a_step_and_evaluates,
    distinct_models,
    needs_timm,
    read,
)
from tests.test_gflops import STATED

SWIN, VIT, CONVNEXT, RESNET = "swin_tiny_patch4_window7_224", "vit_tiny_patch16_224", "convnext_atto", "resnet18"


def config(name: str, **options: Any) -> CfgNode:
    cfg = make_small_cfg()
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.TIMM.NAME = "build_timm_backbone", name
    for key, value in options.items():
        cfg.merge_from_list([f"MODEL.{key.replace('__', '.')}", value])
    return cfg


def build(name: str, **options: Any) -> Backbone:
    return build_backbone(config(name, **options))


def frozen(backbone: nn.Module) -> set[str]:
    """The modules, two levels deep, that have a frozen parameter and none that is trained."""
    parts: dict[str, set[bool]] = {}
    for name, parameter in backbone.body.model.named_parameters():  # type: ignore[union-attr,operator]
        parts.setdefault(".".join(name.split(".")[:2]), set()).add(parameter.requires_grad)
    return {name for name, trained in parts.items() if trained == {False}}


@pytest.mark.parametrize("size", [(97, 131), (64, 96), (5, 33)])
@pytest.mark.parametrize("name", [SWIN, CONVNEXT, RESNET, "tf_efficientnet_lite0", "mobilenetv3_small_050", VIT])
def test_any_size(name: str, size: tuple[int, int]) -> None:
    """A map has a token for each begun square of its stride, whatever layout and image size the model is made for."""
    backbone = build(name).eval()
    shapes = backbone.output_shape()
    assert [shape.stride for shape in shapes.values()] == [8, 16, 32]
    with torch.no_grad():
        maps = backbone(torch.randn(2, 3, *size))
    expected = {key: (2, shape.channels, *(-(-side // shape.stride) for side in size)) for key, shape in shapes.items()}
    assert {key: tuple(value.shape) for key, value in maps.items()} == expected


@pytest.mark.parametrize("name", [CONVNEXT, RESNET, "tf_efficientnet_lite0", VIT])
def test_one_program_takes_any_size(name: str) -> None:
    backbone = build(name).eval()
    number, height, width = Dim("n", min=1, max=2), Dim("h", min=64, max=160), Dim("w", min=64, max=224)
    with torch.no_grad():
        program = torch.export.export(
            backbone,
            (torch.rand(2, 3, 160, 224),),
            dynamic_shapes=({0: number, 2: height, 3: width},),
            strict=False,
        ).module()
        for size in ((2, 3, 160, 224), (1, 3, 64, 64), (1, 3, 97, 131)):
            images = torch.rand(size)
            expected, found = backbone(images), program(images)
            assert found.keys() == expected.keys()
            for key, value in expected.items():
                torch.testing.assert_close(found[key], value)


@pytest.mark.parametrize("size", [(64, 96), (97, 131)])
def test_same_padding_is_timms(size: tuple[int, int]) -> None:
    backbone = build("tf_efficientnet_lite0", TIMM__NORM="BN", BACKBONE__FREEZE_AT=0).eval()
    model = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=[2, 3, 4]).eval()
    model.load_state_dict(backbone.body.model.state_dict(), strict=False)
    images = torch.randn(1, 3, *size)
    padded = nn.functional.pad(images, (0, -size[1] % 32, 0, -size[0] % 32))
    with torch.no_grad():
        theirs, ours = model(padded), backbone(images)
    for stage, value in zip(theirs, ours.values(), strict=True):
        torch.testing.assert_close(value, stage[..., : value.shape[2], : value.shape[3]])


def test_swin_transformers_are_exported_at_one_size() -> None:
    detector = build_model(config(SWIN, LITE_DETR__IN_FEATURES=["stage1", "stage2", "stage3"])).eval()
    check_bounds(detector, fixed(1, 64, 96))
    with pytest.raises(InputError, match="timm's, can be exported at one size and batch only: leave --dynamic out"):
        check_bounds(detector, Bounds(Range(1, 1), Range(64, 64), Range(64, 96)))


def test_swin_transformers_are_compiled_size_by_size(counter: CompileCounter) -> None:
    detector = build_model(config(SWIN, LITE_DETR__IN_FEATURES=["stage1", "stage2", "stage3"])).eval()
    with pytest.raises(InputError, match="^SOLVER.COMPILE is True, and the backbone is a Swin Transformer"):
        compile_training(detector)
    found, expected = (prepare(detector, compile=compile) for compile in (True, False))
    for size in ((64, 96), (96, 64), (64, 96)):
        scores = [each([batched_input(*size, 0)])[0]["instances"].scores for each in (found, expected)]
        torch.testing.assert_close(*scores, rtol=0, atol=1e-4)
    assert counter.graphs == 2


def test_outputs_are_called_by_their_index() -> None:
    assert {name: shape.channels for name, shape in build(CONVNEXT).output_shape().items()} == {
        "stage1": 80,
        "stage2": 160,
        "stage3": 320,
    }
    chosen = build(CONVNEXT, TIMM__OUT_INDICES=[3, 0]).output_shape()
    assert {name: (shape.channels, shape.stride) for name, shape in chosen.items()} == {
        "stage0": (40, 4),
        "stage3": (320, 32),
    }


def test_channels_last_models_are_turned() -> None:
    """Swin's own maps have channels last."""
    backbone = build(SWIN, BACKBONE__FREEZE_AT=0).eval()
    images = torch.randn(1, 3, 224, 224)
    model = timm.create_model(SWIN, features_only=True, out_indices=[2]).eval()
    model.load_state_dict(
        {name.replace("layers.", "layers_"): value for name, value in backbone.body.model.state_dict().items()},
        strict=False,
    )
    with torch.no_grad():
        (theirs,) = model(images)
        ours = backbone(images)["stage2"]
    assert theirs.shape == (1, 14, 14, 384)
    torch.testing.assert_close(ours, theirs.permute(0, 3, 1, 2))


def test_what_is_padded_is_zero() -> None:
    """So an image is seen as one that somebody else has padded."""
    backbone = build(RESNET).eval()
    images = torch.randn(1, 3, 64, 96)
    images[..., 60:, :] = images[..., 70:] = 0
    with torch.no_grad():
        whole, cut = backbone(images), backbone(images[..., :60, :70])
    for name, value in cut.items():
        torch.testing.assert_close(value, whole[name][..., : value.shape[2], : value.shape[3]])


def test_plain_vision_transformers_get_a_pyramid() -> None:
    backbone = build(VIT, LITE_DETR__HIDDEN_DIM=64, BACKBONE__FREEZE_AT=0)
    assert {name: (shape.stride, shape.channels) for name, shape in backbone.output_shape().items()} == {
        "p3": (8, 64),
        "p4": (16, 64),
        "p5": (32, 64),
    }
    maps = backbone(torch.randn(1, 3, 64, 64))
    torch.stack([value.square().mean() for value in maps.values()]).sum().backward()
    assert [name for name, value in backbone.named_parameters() if value.grad is None] == []


@pytest.mark.parametrize(
    ("freeze_at", "expected"),
    [
        (0, set()),
        (1, {"conv1.weight"}),
        (2, {"conv1.weight", "layer1.0", "layer1.1"}),
        (3, {"conv1.weight", "layer1.0", "layer1.1", "layer2.0", "layer2.1"}),
    ],
)
@pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
def test_stages_freeze_with_their_norms(freeze_at: int, expected: set[str], norm: str) -> None:
    """As detectron2's: 1 is the stem, 2 the stage of stride 4, too."""
    backbone = build(RESNET, BACKBONE__FREEZE_AT=freeze_at, TIMM__NORM=norm)
    names = frozen(backbone)
    assert names == expected
    trained = {
        ".".join(name.split(".")[:2]) for name, module in backbone.body.model.named_modules() if is_trained_norm(module)
    }
    if norm == "FrozenBN":
        assert trained == set()
        return
    stages = {f"layer{stage}.{block}" for stage in range(1, 5) for block in range(2)}
    assert trained == (stages - expected) | ({"bn1"} if freeze_at == 0 else set())


def is_trained_norm(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm)


def test_the_stem_is_what_comes_before_the_first_output() -> None:
    backbone = build(CONVNEXT, BACKBONE__FREEZE_AT=1)
    assert frozen(backbone) == {"stem.0", "stem.1"}


def test_frozen_norms_keep_their_activation() -> None:
    """timm's are one module."""
    trained, fixed = (build("tf_efficientnet_lite0", TIMM__NORM=norm).eval() for norm in ("BN", "FrozenBN"))
    assert any(is_trained_norm(module) for module in trained.modules())
    fixed.load_state_dict(trained.state_dict(), strict=False)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(fixed(images).values(), trained(images).values(), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_drop_path() -> None:
    backbone = build(CONVNEXT, TIMM__DROP_PATH_RATE=0.3)
    rates = [module.drop_prob for module in backbone.modules() if isinstance(module, DropPath)]
    assert rates == sorted(rates) and rates[-1] == pytest.approx(0.3)
    images = torch.randn(1, 3, 64, 64)
    assert not torch.equal(backbone(images)["stage3"], backbone(images)["stage3"])


def test_without_a_rate_there_is_no_drop_path() -> None:
    """Whatever timm's own default is: of Swin it is 0.1."""
    backbone = build(SWIN)
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(backbone(images)["stage3"], backbone(images)["stage3"])


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", CONVNEXT, SWIN, VIT])
def test_recomputing_saves_memory_and_changes_nothing(name: str) -> None:
    backbone = build(name, BACKBONE__FREEZE_AT=0)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    def run() -> tuple[dict[str, Tensor], int]:
        kept.clear()
        backbone.zero_grad()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            maps = backbone(images)
        size = sum(kept.values())
        torch.stack([value.square().mean() for value in maps.values()]).sum().backward()
        return {key: value.grad.clone() for key, value in backbone.named_parameters() if value.grad is not None}, size

    images = torch.randn(1, 3, 64, 96)
    expected, before = run()
    backbone.recompute_activations()
    found, after = run()
    assert after < before / 2
    assert found.keys() == expected.keys()
    for key, gradient in found.items():
        torch.testing.assert_close(gradient, expected[key])


def test_weights_of_a_file_with_timms_names(tmp_path: Path) -> None:
    cfg = config(CONVNEXT, LITE_DETR__IN_FEATURES=["stage1", "stage2", "stage3"])
    theirs = timm.create_model(CONVNEXT)
    torch.save(theirs.state_dict(), tmp_path / "convnext.pth")
    model = build_model(cfg)
    SafeCheckpointer(model).load(f"{tmp_path / 'convnext.pth'}?matching_heuristics=True", checkpointables=[])
    for name, value in model.backbone.body.model.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[name]), name


def test_weights_are_not_asked_for_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """With MODEL.WEIGHTS, as those of a training, timm's are not fetched."""
    asked = []
    create = timm.create_model

    def note(name: str, pretrained: bool = False, **options: Any) -> nn.Module:
        asked.append(pretrained)
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", note)
    build(RESNET, TIMM__PRETRAINED=True, WEIGHTS="model_final.pth")
    assert not any(asked)
    build(RESNET, TIMM__PRETRAINED=True, WEIGHTS="")
    assert asked[-1]


@pytest.fixture
def no_fetching(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where there is no network."""
    create = timm.create_model

    def refuse(name: str, pretrained: bool = False, **options: Any) -> nn.Module:
        if pretrained:
            raise OSError("no network")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", refuse)


def pretrained_config() -> CfgNode:
    return config(CONVNEXT, TIMM__PRETRAINED=True, LITE_DETR__IN_FEATURES=["stage1", "stage2", "stage3"])


@pytest.mark.usefixtures("no_fetching")
def test_a_trained_model_has_all_its_weights(tmp_path: Path) -> None:
    cfg = pretrained_config()
    detector = write_run(with_random_weights(cfg), tmp_path)
    write_config(cfg, tmp_path)
    trained = load_trained(tmp_path, device="cpu")
    assert trained.cfg.MODEL.TIMM.PRETRAINED
    for name, value in trained.detector.state_dict().items():
        assert torch.equal(value, detector.state_dict()[name]), name


@pytest.mark.usefixtures("no_fetching")
def test_counting_needs_no_weights() -> None:
    assert "Parameters: " in describe(pretrained_config(), (64, 96))


@pytest.fixture
def training(tmp_path: Path) -> CfgNode:
    """A config with a dataset, to train for one iteration from timm's weights."""
    cfg = read_config(argparse.Namespace(config_file=str(TINY), opts=["OUTPUT_DIR", str(tmp_path / "output")]))
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (register_coco_folder(write_coco_folder(tmp_path)).train,), ()
    cfg.MODEL.LITE_DETR.NUM_CLASSES = 3
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.TIMM.NAME = "build_timm_backbone", CONVNEXT
    cfg.MODEL.LITE_DETR.IN_FEATURES = ["stage1", "stage2", "stage3"]
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS = 1, ()
    Trainer(cfg).train()
    cfg.MODEL.TIMM.PRETRAINED = True
    return cfg


@pytest.mark.usefixtures("no_fetching")
def test_a_training_that_goes_on_has_all_its_weights(training: CfgNode) -> None:
    trainer = Trainer(training, resume=True)
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 1
    state = torch.load(Path(training.OUTPUT_DIR, "model_final.pth"))["model"]
    for name, value in trainer.checkpointer.model.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert trainer.cfg.MODEL.TIMM.PRETRAINED


@pytest.mark.usefixtures("no_fetching")
def test_a_training_that_starts_fetches_them(training: CfgNode, tmp_path: Path) -> None:
    """Also with ``resume``, where there is nothing to go on from."""
    with pytest.raises(InputError, match=r"resume=True, .* make another one, without resume\.$"):
        Trainer(training, resume=True).resume_or_load(resume=False)
    with pytest.raises(InputError, match=r"^MODEL\.TIMM\.PRETRAINED: .* cannot be had \(no network\)"):
        Trainer(training)
    training.OUTPUT_DIR = str(tmp_path / "new")
    with pytest.raises(InputError, match=r"^MODEL\.TIMM\.PRETRAINED: .* cannot be had \(no network\)"):
        Trainer(training, resume=True)


@pytest.mark.usefixtures("no_fetching")
def test_the_last_checkpoint_is_evaluated_without_others(training: CfgNode) -> None:
    training.DATASETS.TEST = training.DATASETS.TRAIN
    load_script("train_net").evaluate(training, resume=True, trust_pickle=False)
    assert Path(training.OUTPUT_DIR, "eval_metrics.json").is_file()


def test_weights_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "nowhere")
    message = (
        r"^MODEL\.TIMM\.PRETRAINED: the weights of resnet18 cannot be had \([^\n]+\)\. Set it to False, and give a"
    )
    with pytest.raises(InputError, match=message):
        build(RESNET, TIMM__PRETRAINED=True)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "convnextt",
            {},
            r"^MODEL\.TIMM\.NAME is 'convnextt', which timm .* Like it are convnext_tiny, .*lists all\.$",
        ),
        ("?", {}, r"^MODEL\.TIMM\.NAME is '\?', which timm [\d.]+ does not have\. timm\.list_models\(\) lists all\.$"),
        ("resnet18.mine", {}, r"which timm cannot build: Invalid pretrained tag \(mine\) for resnet18"),
        ("vgg11", {"TIMM__DROP_PATH_RATE": 0.1}, "DROP_PATH_RATE is 0.1, and vgg11 has no drop path: set it to 0"),
        (CONVNEXT, {"TIMM__OUT_INDICES": [1, 4]}, r"OUT_INDICES is \[1, 4\]: .* 3 \(stride 32, 320 channels\)\.$"),
        (VIT, {"TIMM__OUT_INDICES": [3, 7]}, r"all outputs of vit_tiny_patch16_224 have stride 16, .* or \[\] for the"),
        ("vit_small_patch14_dinov2", {}, "whose patches have 14 pixels a side: a pyramid needs a power of two"),
        ("maxvit_rmlp_pico_rw_256", {}, "which this timm does not run on images of any size .*: choose another"),
        ("halonet26t", {}, r"^MODEL\.TIMM\.NAME is 'halonet26t', which this timm does not run .*: choose another\.$"),
        ("hrnet_w18_small", {}, r"FREEZE_AT is 2, and the outputs of HighResolutionNet are not .*: set it to 0"),
    ],
)
def test_what_cannot_be(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(name, **({"BACKBONE__FREEZE_AT": 2} | options))


def test_a_model_that_fails_when_it_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, **options: Any) -> nn.Module:
        raise TypeError("unsupported operand\nwith more lines")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(InputError) as error:
        build(RESNET)
    assert str(error.value) == "MODEL.TIMM.NAME is 'resnet18', which timm cannot build: unsupported operand."


@pytest.mark.parametrize(
    ("name", "strides"),
    [("selecsls42", [16, 32, 64]), ("xcit_nano_12_p8_224", [4, 8, 16]), ("vit_tiny_patch16_224", [8, 16, 32])],
)
def test_strides_are_the_models(name: str, strides: list[int]) -> None:
    shapes = build(name, BACKBONE__FREEZE_AT=0).output_shape()
    assert [shape.stride for shape in shapes.values()] == strides
    if "stage4" not in shapes:
        assert list(shapes) == [f"p{stride.bit_length() - 1}" for stride in strides]


def test_outputs_that_the_neck_needs() -> None:
    with pytest.raises(
        InputError, match=r"IN_FEATURES names \['res3'\], .* It puts out: stage1, stage2, stage3 \(.*TIMM"
    ):
        build_model(config(CONVNEXT, LITE_DETR__IN_FEATURES=["res3", "stage2", "stage3"]))


@pytest.mark.parametrize("name", ["vgg11", "hrnet_w18_small"])
def test_models_that_cannot_be_recomputed(name: str) -> None:
    with pytest.raises(
        InputError, match=r"^SOLVER\.RECOMPUTE has 'backbone', which timm does not offer for .*leave it"
    ):
        build(name, BACKBONE__FREEZE_AT=0).recompute_activations()


WITH_TIMM = [path for path in distinct_models(LEAVES) if needs_timm(read(path))]


@pytest.mark.parametrize("path", WITH_TIMM, ids=lambda path: path.stem)
def test_leaf_trains_a_step_and_evaluates(path: Path) -> None:
    assert_trains_a_step_and_evaluates(read(path))


@pytest.mark.parametrize("path", WITH_TIMM, ids=lambda path: path.stem)
def test_the_whole_model_trains_a_step_and_evaluates(path: Path, tmp_path: Path) -> None:
    assert_training_of_the_whole_model(path, tmp_path)


def test_counts_are_those_of_the_model_zoo() -> None:
    names = [paths[0].stem for paths in models_of(CONFIGS) if needs_timm(read(paths[0]))]
    assert len(names) == 2
    for name, figures in count_configs(CONFIGS, names).items():
        for part in ("parameters", "total", "backbone", "encoder", "decoder"):
            assert figures.stated(part) == STATED[name].stated(part), (name, part)
