"""Checkpoints with other classes, of other publishers and of other architectures."""

import re
from pathlib import Path

import pytest
import torch
import torchvision
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn

from lite_detr_d2.checkpoint import differences, published_class_names, rows_by_name
from lite_detr_d2.engine import SafeCheckpointer
from lite_detr_d2.errors import InputError
from tests.checkpoint.published import KINDS, as_published, of_kind

PLAIN, LITE = "dino_4scale_r50", "lite_dino_h3l1_a2b3_r50"
RESNET_KINDS = [name for name in KINDS if name.endswith("r50")]
HEAD = "decoder.heads.0.class_embed.weight"


def model(cfg: CfgNode, classes: int = 3) -> nn.Module:
    cfg = cfg.clone()
    cfg.MODEL.LITE_DETR.NUM_CLASSES = classes
    return build_model(cfg)


def save_ours(path: Path, saved: nn.Module, class_names: list[str] | None = None) -> str:
    content = {"model": saved.state_dict()} | ({} if class_names is None else {"class_names": class_names})
    torch.save(content, path)
    return str(path)


def save_published(path: Path, saved: nn.Module, fixture: str) -> str:
    torch.save({"model": as_published(saved.state_dict(), fixture), "epoch": 3}, path)
    return str(path)


def assert_same_weights(loaded: nn.Module, saved: nn.Module) -> None:
    for name, tensor in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


@pytest.mark.parametrize("fixture", RESNET_KINDS)
def test_published_checkpoints_are_loaded_as_they_are(
    tmp_path: Path, small_cfg: CfgNode, log: pytest.LogCaptureFixture, fixture: str
) -> None:
    cfg = of_kind(small_cfg, fixture)
    saved, evaluated, trained = (model(cfg) for _ in range(3))
    path = save_published(tmp_path / "published.pth", saved, fixture)
    SafeCheckpointer(evaluated).load(path)
    assert_same_weights(evaluated, saved)
    assert f"Converted {path}: {KINDS[fixture]}: " in log.text
    SafeCheckpointer(trained).resume_or_load(path, resume=False)
    assert_same_weights(trained, saved)


def test_a_published_checkpoint_of_another_detector_is_refused(tmp_path: Path, small_cfg: CfgNode) -> None:
    path = save_published(tmp_path / "plain.pth", model(of_kind(small_cfg, PLAIN)), PLAIN)
    lite = model(of_kind(small_cfg, LITE))
    with pytest.raises(InputError, match=r"ENCODER\.KEY_AWARE is False.*MODEL\.LITE_DETR\.INIT to take") as error:
        SafeCheckpointer(lite).resume_or_load(path, resume=False)
    node = "MODEL.LITE_DETR.ENCODER"
    assert (
        f"plain.pth is a checkpoint of another architecture: {node}.NAME is DeformableEncoder (or one of "
        f"LOW_LEVEL_FFN_RATIO 0) in the file, InterleavedEncoder in the config; {node}.NUM_LAYERS is 2 in the file; "
        f"{node}.KEY_AWARE is False in the file, True in the config. Give MODEL.WEIGHTS"
    ) in str(error.value)


@pytest.mark.parametrize("is_published", [True, False])
def test_a_sparse_checkpoint_in_a_plain_config_and_back(tmp_path: Path, small_cfg: CfgNode, is_published: bool) -> None:
    node = "MODEL.LITE_DETR"
    kinds = ["sparse_detr_rho03_r50", "deformable_detr_two_stage_r50"]
    sparse, plain = (model(of_kind(small_cfg, kind)) for kind in kinds)
    of_both = {
        f"{node}.CONTENT_FROM_MEMORY": ("True", "False"),
        f"{node}.ENCODER.NAME": ("SparseEncoder", "Deformable"),
    }
    for saved, kind, loaded, step in ((sparse, kinds[0], plain, 1), (plain, kinds[1], sparse, -1)):
        path = tmp_path / f"{kind}.pth"
        file = save_published(path, saved, kind) if is_published else save_ours(path, saved)
        with pytest.raises(InputError, match=r"is a checkpoint of another architecture: ") as error:
            SafeCheckpointer(loaded).resume_or_load(file, resume=False)
        message = str(error.value)
        assert "\n" not in message
        for key, values in of_both.items():
            there, here = values[::step]
            assert re.search(rf"{re.escape(key)} is {there}[^;]* in the file, {here}[^;]* in the config", message), (
                message
            )


def test_a_sparse_checkpoint_without_auxiliary_losses_says_so(tmp_path: Path, small_cfg: CfgNode) -> None:
    cfg = of_kind(small_cfg, "sparse_detr_rho03_r50")
    file = save_ours(tmp_path / "with.pth", model(cfg))
    cfg.MODEL.LITE_DETR.ENCODER.AUXILIARY_LOSS = False
    with pytest.raises(InputError, match=r"ENCODER\.AUXILIARY_LOSS is True in the file, False in the config\. Give"):
        SafeCheckpointer(model(cfg)).resume_or_load(file, resume=False)


def of(cfg: CfgNode, *overrides: object) -> CfgNode:
    changed = cfg.clone()
    changed.merge_from_list(list(overrides))
    return changed


NODE = "MODEL.LITE_DETR"
CHANGES: dict[str, tuple[tuple[object, ...], str]] = {
    "queries": ((f"{NODE}.NUM_QUERIES", 10), f"{NODE}.NUM_QUERIES is 10 in the file, 20 in the config"),
    "classes": ((f"{NODE}.NUM_CLASSES", 7), f"{NODE}.NUM_CLASSES is 7 in the file, 10 in the config"),
    "width": (
        (f"{NODE}.HIDDEN_DIM", 96),
        f"{NODE}.HIDDEN_DIM is 96 in the file, 64 in the config",
    ),
    "levels": (
        (f"{NODE}.NUM_LEVELS", 4, f"{NODE}.ENCODER.SPEC", "H3L1-(2+1)x1"),
        f"{NODE}.NUM_LEVELS is 4 in the file, 3 in the config",
    ),
    "spec": (
        (f"{NODE}.ENCODER.SPEC", "H1L2-(4+1)x3"),
        f"{NODE}.ENCODER.SPEC is HxLy-(4+1)x3 in the file, HxLy-(2+1)x1 in the config",
    ),
    "fusion": (
        (f"{NODE}.ENCODER.FUSION", "sequential"),
        f"{NODE}.ENCODER.FUSION is sequential in the file, joint in the config",
    ),
    "narrowing": (
        (f"{NODE}.ENCODER.LOW_LEVEL_FFN_RATIO", 4),
        f"{NODE}.ENCODER.LOW_LEVEL_FFN_RATIO is 4 in the file, 8 in the config",
    ),
    "plain attention": (
        (f"{NODE}.ENCODER.KEY_AWARE", False),
        f"{NODE}.ENCODER.KEY_AWARE is False in the file, True in the config",
    ),
    "key projection": (
        (f"{NODE}.ENCODER.KEY_PROJ", True),
        f"{NODE}.ENCODER.KEY_PROJ is True in the file, False in the config",
    ),
    "conventions": (
        (f"{NODE}.CONVENTIONS", "detrex", f"{NODE}.POSITION_TEMPERATURE", 10000),
        f"{NODE}.CONVENTIONS is detrex in the file, published in the config",
    ),
    "points": (
        (f"{NODE}.DECODER.NUM_POINTS", 2),
        f"{NODE}.NUM_HEADS x DECODER.NUM_POINTS is 8 in the file, 16 in the config",
    ),
    "decoder": ((f"{NODE}.DECODER.NUM_LAYERS", 3), f"{NODE}.DECODER.NUM_LAYERS is 3 in the file, 2 in the config"),
    "feed-forward": (
        (f"{NODE}.ENCODER.DIM_FEEDFORWARD", 128),
        f"{NODE}.ENCODER.DIM_FEEDFORWARD is 128 in the file, 64 in the config",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_differs_is_said_by_its_key_and_nothing_else(tmp_path: Path, small_cfg: CfgNode, change: str) -> None:
    overrides, expected = CHANGES[change]
    saved, loaded = build_model(of(small_cfg, *overrides)), build_model(small_cfg)
    assert differences(saved.state_dict(), loaded.state_dict()) == [expected]
    assert not differences(saved.state_dict(), saved.state_dict())
    path = save_ours(tmp_path / "other.pth", saved)
    with pytest.raises(InputError) as error:
        SafeCheckpointer(loaded).load(path)
    assert ("is of other classes" if change == "classes" else f"another architecture: {expected}. Give") in str(
        error.value
    )


@pytest.mark.parametrize("fixture", KINDS)
def test_what_differs_from_every_detector_is_said(small_cfg: CfgNode, fixture: str) -> None:
    cfg, other = of_kind(small_cfg, fixture), of_kind(small_cfg, PLAIN)
    told = differences(build_model(cfg).state_dict(), build_model(other).state_dict())
    for key in ("MODEL.META_ARCHITECTURE", f"{NODE}.TWO_STAGE", f"{NODE}.BOX_REFINEMENT", f"{NODE}.ENCODER.KEY_AWARE"):
        values = []
        for each in (cfg, other):
            value: object = each
            for part in key.split("."):
                value = getattr(value, part)
            values.append(value)
        expected = f"{key} is {values[0]} in the file, {values[1]} in the config"
        assert (expected in told) == (values[0] != values[1]), told


def test_what_training_learns_anew_is_not_said(tmp_path: Path, small_cfg: CfgNode) -> None:
    other = of(small_cfg, f"{NODE}.NUM_QUERIES", 10, f"{NODE}.NUM_CLASSES", 7, f"{NODE}.DECODER.NUM_LAYERS", 3)
    path = save_ours(tmp_path / "other.pth", build_model(other))
    with pytest.raises(InputError, match=rf"another architecture: {CHANGES['decoder'][1]}\. Give MODEL\.WEIGHTS that"):
        SafeCheckpointer(build_model(small_cfg)).resume_or_load(path, resume=False)


def test_tensors_are_listed_where_no_key_differs(tmp_path: Path, small_cfg: CfgNode) -> None:
    state = build_model(small_cfg).state_dict()
    whole, part = dict(state), {"flatten.level_embed": torch.zeros(4)}
    assert differences(part, whole) == differences(whole, part) == differences({"weight": torch.zeros(4)}, whole) == []
    del state["decoder.norm.bias"]
    torch.save({"model": state}, tmp_path / "cut.pth")
    with pytest.raises(InputError, match=r"architecture: 1 tensor does not fit \(decoder\.norm\.bias is missing\)\. "):
        SafeCheckpointer(build_model(small_cfg)).load(str(tmp_path / "cut.pth"))


def test_what_a_published_checkpoint_lacks_is_logged(
    tmp_path: Path, small_cfg: CfgNode, log: pytest.LogCaptureFixture
) -> None:
    lite = model(of_kind(small_cfg, LITE))
    state = as_published(lite.state_dict(), LITE)
    del state["transformer.encoder.layers.1.linear22.bias"]
    torch.save(state, tmp_path / "half.pth")
    with pytest.raises(InputError, match=r"low_feed_forward\.linear2\.bias is missing"):
        SafeCheckpointer(lite).load(str(tmp_path / "half.pth"))
    assert "  missing: encoder.layers.*.low_feed_forward.linear2.bias (1)" in log.text


def test_a_relative_of_a_published_detector_is_a_beginning_alone(
    tmp_path: Path, small_cfg: CfgNode, log: pytest.LogCaptureFixture
) -> None:
    saved, evaluated, started = (model(of_kind(small_cfg, LITE)) for _ in range(3))
    state = as_published(saved.state_dict(), LITE) | {"transformer.novelty.weight": torch.zeros(1)}
    torch.save(state, path := tmp_path / "relative.pth")
    with pytest.raises(InputError, match=r"of another model: that has no transformer\.novelty \(1\)\. .*INIT starts"):
        SafeCheckpointer(evaluated).load(str(path))
    assert SafeCheckpointer(started).initialize(str(path)).new == []
    assert_same_weights(started, saved)
    assert "skipped, no counterpart: transformer.novelty (1)" in log.text


@pytest.mark.parametrize("suffix", ["", "?matching_heuristics=True"])
def test_a_torchvision_backbone_starts_a_training(tmp_path: Path, small_cfg: CfgNode, suffix: str) -> None:
    small_cfg.merge_from_list(["MODEL.BACKBONE.NAME", "build_resnet_backbone", "MODEL.RESNETS.DEPTH", 18])
    small_cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = small_cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 64
    imagenet, detector = torchvision.models.resnet18(), build_model(small_cfg)
    torch.save(imagenet.state_dict(), tmp_path / "resnet18.pth")
    path = f"{tmp_path / 'resnet18.pth'}{suffix}"
    SafeCheckpointer(detector).resume_or_load(path, resume=False)
    assert torch.equal(detector.backbone.res4[1].conv2.weight, imagenet.layer3[1].conv2.weight)
    assert torch.equal(detector.backbone.stem.conv1.norm.bias, imagenet.bn1.bias)
    with pytest.raises(InputError, match=r"resnet18\.pth is a checkpoint of another architecture"):
        SafeCheckpointer(detector).load(path)


def test_classes_are_matched_by_name_to_train(
    tmp_path: Path, small_cfg: CfgNode, log: pytest.LogCaptureFixture
) -> None:
    saved, started = model(small_cfg, 3), model(small_cfg, 2)
    path = save_ours(tmp_path / "saved.pth", saved, ["cat", "dog", "owl"])
    fresh = {name: tensor.clone() for name, tensor in started.state_dict().items()}
    SafeCheckpointer(started, class_names=["owl", "bee"]).resume_or_load(path, resume=False)
    for name in (HEAD, "query_selection.head.class_embed.bias", "denoising.label_embed.weight"):
        learnt = started.state_dict()[name]
        assert torch.equal(learnt[0], saved.state_dict()[name][2])
        assert torch.equal(learnt[1], fresh[name][1])
    no_class = started.denoising.label_embed.weight[2]
    assert torch.equal(no_class, saved.denoising.label_embed.weight[3])
    assert "1 class keeps what was learnt ('owl'), 1 starts anew ('bee')" in log.text


def test_classes_are_matched_by_name_to_evaluate(tmp_path: Path, small_cfg: CfgNode) -> None:
    saved, evaluated = model(small_cfg, 3), model(small_cfg, 2)
    path = save_ours(tmp_path / "saved.pth", saved, ["cat", "dog", "owl"])
    SafeCheckpointer(evaluated, class_names=["owl", "cat"]).load(path)
    assert torch.equal(evaluated.state_dict()[HEAD], saved.state_dict()[HEAD][[2, 0]])
    with pytest.raises(InputError, match=r"saved\.pth does not know the classes 'bee',.* It knows 'cat', 'dog', 'owl'"):
        SafeCheckpointer(evaluated, class_names=["owl", "bee"]).load(path)


def test_nothing_is_matched_to_resume(tmp_path: Path, small_cfg: CfgNode, log: pytest.LogCaptureFixture) -> None:
    saved, resumed = model(small_cfg), model(small_cfg)
    optimizer = torch.optim.SGD(saved.parameters(), lr=0.5)
    SafeCheckpointer(saved, str(tmp_path), class_names=["cat", "dog", "owl"], optimizer=optimizer).save("model")
    checkpointer = SafeCheckpointer(
        resumed,
        str(tmp_path),
        class_names=["dog", "cat", "owl"],
        optimizer=torch.optim.SGD(resumed.parameters(), lr=0.1),
    )
    checkpointer.resume_or_load("", resume=True)
    assert_same_weights(resumed, saved)
    assert "was trained on the classes 'cat', 'dog', 'owl', and the dataset now has 'dog', 'cat', 'owl'" in log.text
    log.clear()
    checkpointer.class_names = ["cat", "dog", "owl"]
    checkpointer.resume_or_load("", resume=True)
    assert "was trained on" not in log.text


@pytest.mark.parametrize("names", [None, ["cat", "dog"]])
def test_unknown_classes(
    tmp_path: Path, small_cfg: CfgNode, log: pytest.LogCaptureFixture, names: list[str] | None
) -> None:
    """As many as the model's are taken for these; of others nothing is known."""
    saved, same, fewer = model(small_cfg), model(small_cfg), model(small_cfg, 2)
    path = save_ours(tmp_path / "saved.pth", saved)
    SafeCheckpointer(same, class_names=names and [*names, "owl"]).load(path)
    assert_same_weights(same, saved)
    fresh = fewer.state_dict()[HEAD].clone()
    SafeCheckpointer(fewer, class_names=names).resume_or_load(path, resume=False)
    assert torch.equal(fewer.state_dict()[HEAD], fresh)
    assert "it has 3 classes, the model has 2, and the checkpoint's names are not known: none is matched" in log.text
    with pytest.raises(InputError, match=r"class_embed\.bias is \(3,\), not \(2,\).*NUM_CLASSES"):
        SafeCheckpointer(fewer, class_names=names).load(path)


@pytest.mark.parametrize("fixture", [LITE, "h_detr_r50"])
def test_a_published_checkpoint_knows_coco(tmp_path: Path, small_cfg: CfgNode, fixture: str) -> None:
    cfg = of_kind(small_cfg, fixture)
    saved, evaluated = model(cfg, 91), model(cfg, 2)
    path = save_published(tmp_path / "published.pth", saved, fixture)
    SafeCheckpointer(evaluated, class_names=["toothbrush", "person"]).load(path)
    rows = rows_by_name(published_class_names(saved.state_dict()), ["toothbrush", "person"])
    assert rows == [90, 1]
    assert torch.equal(evaluated.state_dict()[HEAD], saved.state_dict()[HEAD][rows])
    proposals = "query_selection.head.class_embed.weight"
    first = 0 if fixture == "h_detr_r50" else 90
    assert torch.equal(evaluated.state_dict()[proposals][0], saved.state_dict()[proposals][first])


@pytest.mark.parametrize("publish", [False, True])
def test_init_takes_what_fits(tmp_path: Path, small_cfg: CfgNode, log: pytest.LogCaptureFixture, publish: bool) -> None:
    """From plain DINO to Lite-DINO, whose attention compares keys, and whose fine tokens have networks of their own."""
    plain, lite = model(of_kind(small_cfg, PLAIN)), model(of_kind(small_cfg, LITE))
    save = (lambda path: save_published(path, plain, PLAIN)) if publish else (lambda path: save_ours(path, plain))
    fresh = {name: tensor.clone() for name, tensor in lite.state_dict().items()}
    report = SafeCheckpointer(lite).initialize(save(tmp_path / "plain.pth"))
    learnt = lite.state_dict()
    for name, tensor in plain.state_dict().items():
        if "attention_weights" not in name and not name.endswith("num_batches_tracked"):
            assert name in report.taken
            assert torch.equal(learnt[name], tensor), name
    assert all(torch.equal(learnt[name], fresh[name]) for name in report.new)
    assert {name.split(".")[-2] for name in report.new} == {"query_proj", "linear1", "linear2", "norm"}
    assert all("query_proj" in name or "low_feed_forward" in name for name in report.new)
    assert report.unused and all("attention_weights" in name for name in report.unused)
    assert not report.reshaped
    assert "encoder.layers.*.low_feed_forward (6)" in log.text
    assert "unused: encoder.layers.*.attention.attention_weights (4), " in log.text
    assert f"{len(report.taken)} tensors are taken" in log.text


def test_init_matches_classes_and_reports_other_shapes(
    tmp_path: Path, small_cfg: CfgNode, log: pytest.LogCaptureFixture
) -> None:
    saved = model(small_cfg)
    small_cfg.MODEL.LITE_DETR.NUM_QUERIES += 1
    started = model(small_cfg, 2)
    path = save_ours(tmp_path / "saved.pth", saved, ["cat", "dog", "owl"])
    report = SafeCheckpointer(started, class_names=["owl", "bee"]).initialize(path)
    assert torch.equal(started.state_dict()[HEAD][0], saved.state_dict()[HEAD][2])
    assert report.reshaped == {"query_selection.content.weight": "(20, 64), not (21, 64)"}
    assert "of another shape: query_selection.content (1)" in log.text


def test_init_needs_more_than_a_backbone(tmp_path: Path, small_cfg: CfgNode) -> None:
    started = model(small_cfg)
    before = {name: tensor.clone() for name, tensor in started.state_dict().items()}
    backbone = {name: tensor + 1 for name, tensor in before.items() if name.startswith("backbone.")}
    torch.save(backbone, tmp_path / "backbone.pth")
    with pytest.raises(
        InputError, match=r"MODEL\.LITE_DETR\.INIT: nothing of \S+ but a backbone.*\n.*tensors are taken"
    ):
        SafeCheckpointer(started).initialize(str(tmp_path / "backbone.pth"))
    assert all(torch.equal(started.state_dict()[name], tensor) for name, tensor in before.items())


def test_init_from_another_backbone_takes_the_rest(
    tmp_path: Path, small_cfg: CfgNode, log: pytest.LogCaptureFixture
) -> None:
    saved = model(small_cfg)
    path = save_ours(tmp_path / "saved.pth", saved)
    SafeCheckpointer(model(small_cfg)).initialize(path)
    assert "has another backbone" not in log.text
    small_cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = small_cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 16
    SafeCheckpointer(model(small_cfg)).initialize(path)
    assert (
        f"INIT: {path} has another backbone, and most of the model's keeps what it starts from: random weights"
        in log.text
    )
    started, other = model(small_cfg), model(small_cfg)
    weights = {name.removeprefix("backbone."): tensor for name, tensor in other.backbone.state_dict().items()}
    torch.save({"model": weights, "matching_heuristics": True}, tmp_path / "backbone.pth")
    SafeCheckpointer(started).initialize(path, backbone=str(tmp_path / "backbone.pth"))
    for name, tensor in started.state_dict().items():
        if name.startswith("backbone."):
            assert torch.equal(tensor, other.state_dict()[name])
        elif name.startswith("decoder."):
            assert torch.equal(tensor, saved.state_dict()[name])


def test_a_part_of_a_deeper_backbone_is_another_one(tmp_path: Path, small_cfg: CfgNode) -> None:
    """As ResNet-50 is of ResNet-101, with as many names in common."""
    started = model(small_cfg)
    state = started.state_dict()
    names = [name for name in state if name.startswith("backbone.")]
    part = {name: state[name] for name in names if not name.startswith("backbone.res5.")}
    assert 0.1 < 1 - len(part) / len(names) < 0.5
    torch.save({"model": part, "matching_heuristics": True}, tmp_path / "part.pth")
    with pytest.raises(InputError, match="is a checkpoint of another architecture"):
        SafeCheckpointer(started).resume_or_load(str(tmp_path / "part.pth"), resume=False)


def test_init_needs_more_than_biases(tmp_path: Path, small_cfg: CfgNode) -> None:
    """Those of boxes, classes and sampling offsets have the same shape whatever the width."""
    path = save_ours(tmp_path / "saved.pth", model(small_cfg))
    small_cfg.MODEL.LITE_DETR.HIDDEN_DIM = 96
    with pytest.raises(InputError, match=r"nothing of \S+ but a backbone.*compare MODEL\.LITE_DETR\.HIDDEN_DIM"):
        SafeCheckpointer(model(small_cfg)).initialize(path)


def test_init_errors_name_the_key(tmp_path: Path, small_cfg: CfgNode) -> None:
    checkpointer = SafeCheckpointer(model(small_cfg))
    with pytest.raises(InputError, match=r"^MODEL\.LITE_DETR\.INIT: there is no file gone\.pth"):
        checkpointer.initialize("gone.pth")
    (tmp_path / "bad.pth").write_bytes(b"bad")
    with pytest.raises(InputError, match=r"^MODEL\.LITE_DETR\.INIT: \S+bad\.pth cannot be read: it is damaged"):
        checkpointer.initialize(str(tmp_path / "bad.pth"))
