"""What a training left, or a config and weights, is all that a detector needs to predict."""

import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model

from lite_detr_d2.checkpoint import published_class_names
from lite_detr_d2.deploy.run import TrainedModel, format_of_exported, load_trained
from lite_detr_d2.detector import DetrDetector
from lite_detr_d2.errors import InputError
from tests.checkpoint.published import as_published, of_kind
from tests.checkpoint.test_pickles import Calls

from .manifests import manifest_of
from .runs import NAMES, write_config, write_run

UNKNOWN = [str(number) for number in range(10)]


@pytest.fixture(autouse=True)
def _catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten."""
    monkeypatch.setattr(DatasetCatalog, "data", dict(DatasetCatalog.data))
    monkeypatch.setattr(MetadataCatalog, "data", dict(MetadataCatalog.data))


def assert_same(trained: TrainedModel, detector: DetrDetector) -> None:
    found, expected = trained.detector.state_dict(), detector.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_run_is_enough(small_cfg: CfgNode, tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    """Also moved, and without its dataset."""
    small_cfg.DATASETS.TRAIN = ("gone_train",)
    small_cfg.OUTPUT_DIR = "/nowhere"
    small_cfg.MODEL.DEVICE = "cuda"
    detector = write_run(small_cfg, tmp_path / "run")
    log.clear()
    trained = load_trained(tmp_path / "run", device="cpu")
    assert_same(trained, detector)
    assert not trained.detector.training
    assert trained.class_names == NAMES == trained.cfg.MODEL.LITE_DETR.CLASS_NAMES
    assert trained.cfg.is_frozen()
    model = trained.cfg.MODEL
    assert trained.detector.device.type == model.DEVICE
    assert str(tmp_path / "run" / "model_final.pth") == model.WEIGHTS
    assert MetadataCatalog.get("gone_train").thing_classes == NAMES
    assert "gone_train" not in DatasetCatalog
    said = [message for message in log.messages if message.startswith("The detector is of")]
    assert len(said) == 1
    assert "model_final.pth" in said[0]


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def only_damage_the_last(folder: Path) -> None:
    damage(folder / "model_0000003.pth")
    os.utime(folder / "model_0000001.pth", (1, 1))


@pytest.mark.parametrize(
    ("change", "taken"),
    [
        (lambda folder: (folder / "model_final.pth").unlink(), "model_0000003"),
        (lambda folder: damage(folder / "model_final.pth"), "model_0000003"),
        (lambda folder: [(folder / "model_final.pth").unlink(), only_damage_the_last(folder)], "model_0000002"),
        (lambda folder: flip(folder / "model_final.pth"), "model_0000003"),
        (lambda folder: damage(folder / "model_0000003.pth"), "model_final"),
        (lambda folder: (folder / "last_checkpoint").unlink(), "model_final"),
    ],
)
def test_the_final_checkpoint_is_taken_or_else_the_last_intact_one(
    small_cfg: CfgNode, tmp_path: Path, log: pytest.LogCaptureFixture, change: Callable[[Path], object], taken: str
) -> None:
    names = ["model_final", "model_0000001", "model_0000002", "model_0000003"]
    detectors = {name: write_run(small_cfg, tmp_path, None, name, seed) for seed, name in enumerate(names)}
    change(tmp_path)
    trained = load_trained(tmp_path, device="cpu")
    assert_same(trained, detectors[taken])
    assert str(tmp_path / f"{taken}.pth") == trained.cfg.MODEL.WEIGHTS
    assert f"its weights of {tmp_path / taken}.pth" in log.text
    is_passed_over = (tmp_path / "model_final.pth").is_file() and taken != "model_final"
    warning = f"{tmp_path / 'model_final.pth'} is damaged: the weights are of {tmp_path / taken}.pth."
    assert (warning in log.messages) == is_passed_over


def test_another_checkpoint_of_a_run(small_cfg: CfgNode, tmp_path: Path) -> None:
    last, best = (
        write_run(small_cfg, tmp_path, checkpoint=f"model_{name}", seed=seed)
        for seed, name in enumerate(("final", "best"))
    )
    name = "decoder.layers.0.feed_forward.linear1.weight"
    for weights, expected in ((None, last), (tmp_path / "model_best.pth", best)):
        trained = load_trained(tmp_path, weights=weights, device="cpu")
        assert torch.equal(trained.detector.state_dict()[name], expected.state_dict()[name])
        assert trained.class_names == NAMES


def test_weights_from_elsewhere_beside_a_run(small_cfg: CfgNode, tmp_path: Path) -> None:
    """The run keeps its dataset; rows go by the names of the classes, whatever their order there."""
    small_cfg.MODEL.LITE_DETR.CLASS_NAMES = NAMES
    write_run(small_cfg, tmp_path / "run")
    other = write_run(small_cfg, tmp_path / "other", NAMES[::-1], seed=1)
    weights = tmp_path / "other" / "model_final.pth"
    trained = load_trained(tmp_path / "run", weights=weights, device="cpu")
    assert str(tmp_path / "run") == trained.cfg.OUTPUT_DIR
    assert trained.class_names == NAMES
    bias = "decoder.heads.0.class_embed.bias"
    assert torch.equal(trained.detector.state_dict()[bias], other.state_dict()[bias].flip(0))
    alone = load_trained(config_file=tmp_path / "run" / "config.yaml", weights=weights, device="cpu")
    assert str(tmp_path / "other") == alone.cfg.OUTPUT_DIR


def test_a_pickle_that_says_more_than_arrays_has_to_be_trusted(small_cfg: CfgNode, tmp_path: Path) -> None:
    detector = write_run(small_cfg, tmp_path)
    state = {name: value.numpy() for name, value in detector.state_dict().items()}
    files = {"config_file": tmp_path / "config.yaml", "weights": tmp_path / "model.pkl", "device": "cpu"}
    content = {"model": state, "__author__": "somebody"}
    files["weights"].write_bytes(pickle.dumps(content))
    assert_same(load_trained(**files), detector)
    canary = tmp_path / "canary"
    files["weights"].write_bytes(pickle.dumps({**content, "extra": Calls(os.mkdir, str(canary))}))
    with pytest.raises(InputError, match=r"holds \w+\.mkdir, .*--trust-pickle"):
        load_trained(**files)
    assert not canary.exists()
    assert_same(load_trained(**files, trust_pickle=True), detector)
    assert canary.exists()


def test_weights_with_a_flipped_bit_are_refused(small_cfg: CfgNode, tmp_path: Path) -> None:
    write_run(small_cfg, tmp_path)
    weights = tmp_path / "model_final.pth"
    flip(weights)
    with pytest.raises(InputError, match=rf"{weights} cannot be read: it is damaged: its content does not fit"):
        load_trained(config_file=tmp_path / "config.yaml", weights=weights, device="cpu")


def test_a_final_checkpoint_that_a_training_has_gone_beyond_is_said(
    small_cfg: CfgNode, tmp_path: Path, said: list[str]
) -> None:
    write_run(small_cfg, tmp_path)
    os.utime(tmp_path / "model_final.pth", (1, 1))
    write_run(small_cfg, tmp_path, checkpoint="model_0000009")
    load_trained(tmp_path, device="cpu")
    assert [message for message in said if "DENOISING" not in message] == [
        f"{tmp_path / 'model_final.pth'} is older than {tmp_path / 'model_0000009.pth'}, of a training that went on."
    ]


def registered(name: str, classes: list[str]) -> tuple[str]:
    DatasetCatalog.register(name, list)
    MetadataCatalog.get(name).thing_classes = classes
    return (name,)


@pytest.mark.parametrize("from_run", [True, False])
@pytest.mark.parametrize(
    ("configured", "kept", "of_dataset", "expected"),
    [
        (NAMES, None, None, NAMES),
        (NAMES, NAMES, UNKNOWN, NAMES),
        ([], NAMES, None, NAMES),
        ([], NAMES, UNKNOWN, NAMES),
        ([], None, NAMES, NAMES),
        ([], None, NAMES[:3], UNKNOWN),
        ([], None, None, UNKNOWN),
    ],
)
def test_class_names_come_from_what_knows_them(
    small_cfg: CfgNode,
    tmp_path: Path,
    said: list[str],
    configured: list[str],
    kept: list[str] | None,
    of_dataset: list[str] | None,
    expected: list[str],
    from_run: bool,
) -> None:
    if of_dataset is not None:
        small_cfg.DATASETS.TRAIN = registered("known_train", of_dataset)
    small_cfg.MODEL.LITE_DETR.CLASS_NAMES = configured
    detector = write_run(small_cfg, tmp_path, kept)
    files = {"config_file": tmp_path / "config.yaml", "weights": tmp_path / "model_final.pth"}
    trained = load_trained(tmp_path, device="cpu") if from_run else load_trained(**files, device="cpu")
    assert trained.class_names == expected
    assert_same(trained, detector)
    assert len([message for message in said if "names of the classes are not known" in message]) == (
        expected == UNKNOWN
    )


def test_classes_that_were_renamed_keep_their_rows(small_cfg: CfgNode, tmp_path: Path, said: list[str]) -> None:
    small_cfg.MODEL.LITE_DETR.CLASS_NAMES = UNKNOWN
    detector = write_run(small_cfg, tmp_path)
    trained = load_trained(tmp_path, device="cpu")
    assert trained.class_names == UNKNOWN
    assert_same(trained, detector)
    (message,) = (message for message in said if "DENOISING" not in message)
    assert message.startswith("The config calls the classes 0, 1, 2, ")


def test_weights_of_a_config_that_names_its_classes_go_by_these(small_cfg: CfgNode, tmp_path: Path) -> None:
    detector = write_run(small_cfg, tmp_path)
    weights = tmp_path / "model_final.pth"
    small_cfg.MODEL.LITE_DETR.CLASS_NAMES = NAMES[::-1]
    config = write_config(small_cfg, tmp_path / "reversed")
    trained = load_trained(config_file=config, weights=weights, device="cpu")
    assert trained.class_names == NAMES[::-1]
    bias = "decoder.heads.0.class_embed.bias"
    assert torch.equal(trained.detector.state_dict()[bias], detector.state_dict()[bias].flip(0))
    small_cfg.MODEL.LITE_DETR.CLASS_NAMES = [*NAMES[:-1], "owl"]
    config = write_config(small_cfg, tmp_path / "other")
    with pytest.raises(InputError, match=r"model_final\.pth does not know the classes 'owl'"):
        load_trained(config_file=config, weights=weights, device="cpu")


@pytest.mark.parametrize("rows", [9, 12])
def test_a_checkpoint_that_was_put_into_a_run_gives_the_rows_of_its_classes(
    small_cfg: CfgNode, tmp_path: Path, rows: int
) -> None:
    """A published one, say, that was converted, beside the config that someone wrote for it."""
    names = [*NAMES[:rows], *(f"other {number}" for number in range(rows - len(NAMES)))][::-1]
    small_cfg.MODEL.LITE_DETR.NUM_CLASSES = rows
    detector = write_run(small_cfg, tmp_path, names)
    taken = NAMES[2:8]
    small_cfg.MODEL.LITE_DETR.update(NUM_CLASSES=len(taken), CLASS_NAMES=taken)
    write_config(small_cfg, tmp_path)
    trained = load_trained(tmp_path, device="cpu")
    assert trained.class_names == taken
    bias = "decoder.heads.0.class_embed.bias"
    expected = detector.state_dict()[bias][[names.index(name) for name in taken]]
    assert torch.equal(trained.detector.state_dict()[bias], expected)


def test_overrides_of_a_config(small_cfg: CfgNode, tmp_path: Path) -> None:
    detector = write_run(small_cfg, tmp_path)
    weights = tmp_path / "model_final.pth"
    small_cfg.MODEL.LITE_DETR.DECODER.NUM_LAYERS += 1
    config = write_config(small_cfg, tmp_path / "other")
    layers = ["MODEL.LITE_DETR.DECODER.NUM_LAYERS", len(detector.decoder.layers)]
    assert_same(load_trained(config_file=config, weights=weights, device="cpu", opts=layers), detector)
    with pytest.raises(InputError, match="opts are overrides of a config file"):
        load_trained(tmp_path, device="cpu", opts=layers)
    with pytest.raises(InputError, match=r"MODEL\.LITE_DETR\.LAYERS is not a key"):
        load_trained(config_file=config, weights=weights, device="cpu", opts=["MODEL.LITE_DETR.LAYERS", "2"])


@pytest.mark.parametrize(("key", "argument"), [("MODEL.WEIGHTS", "weights"), ("MODEL.DEVICE", "device")])
def test_an_override_of_what_has_an_argument_is_refused(
    small_cfg: CfgNode, tmp_path: Path, key: str, argument: str
) -> None:
    write_run(small_cfg, tmp_path)
    files = {"config_file": tmp_path / "config.yaml", "weights": tmp_path / "model_final.pth"}
    opts = ["MODEL.LITE_DETR.CLASS_NAMES", NAMES, key, "cuda"]
    with pytest.raises(InputError, match=rf"opts has {key}, .* an argument of its own: {argument}\."):
        load_trained(**files, device="cpu", opts=opts)


@pytest.mark.parametrize("classes", [80, 91])
@pytest.mark.parametrize("of_dataset", [(), ("coco_2017_train",), ("gone_train",)])
def test_a_published_checkpoint_is_converted(
    small_cfg: CfgNode, tmp_path: Path, classes: int, of_dataset: tuple[str, ...]
) -> None:
    """Of its heads of 91 rows those of COCO's classes are taken, or all."""
    cfg = of_kind(small_cfg, "dino_4scale_r50")
    cfg.MODEL.LITE_DETR.NUM_CLASSES = 91
    cfg.MODEL.LITE_DETR.NUM_LEVELS = 4
    detector = build_model(cfg)
    state = detector.state_dict()
    published = as_published(state, "dino_4scale_r50")
    torch.save({"model": published}, tmp_path / "published.pth")
    cfg.MODEL.LITE_DETR.NUM_CLASSES = classes
    cfg.DATASETS.TRAIN = of_dataset
    config = write_config(cfg, tmp_path)
    trained = load_trained(config_file=config, weights=tmp_path / "published.pth", device="cpu")
    by_id = published_class_names(state)
    assert by_id is not None
    rows = [row for row, name in enumerate(by_id) if classes == 91 or name is not None]
    assert trained.class_names == [by_id[row] or str(row) for row in rows]
    assert len(rows) == classes
    weight = "query_selection.head.class_embed.weight"
    assert torch.equal(trained.detector.state_dict()[weight], state[weight][rows])


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ((), r"Which detector\? Give a run"),
        (("run", "config_file", "weights"), r"Which detector\?"),
        (("config_file",), r"Which detector\?"),
        (("weights",), r"Which detector\?"),
        (("gone",), r"gone: there is no such run\. Name the OUTPUT_DIR"),
        (("file",), r"config\.yaml is a file, not the OUTPUT_DIR of a training: give that folder alone, \S+run; or"),
        (("exported",), r"model\.onnx is an exported file: name the OUTPUT_DIR of a training"),
        (("empty",), r"empty has no config\.yaml"),
        (("untrained",), r"untrained has neither model_final\.pth nor a last checkpoint"),
        (("damaged",), r"last checkpoint, \S*damaged/model_final\.pth, is damaged, and \S+ has no intact one"),
        (("stranger",), r"MODEL\.META_ARCHITECTURE is 'GeneralizedRCNN': expected one of"),
        (("no_yaml",), r"no_yaml/config\.yaml"),
        (("config_file", "no_weights"), r"no_weights\.pth"),
        (("no_config", "weights"), r"Config \S+no_config\.yaml: there is no such file\. Name a config file"),
        (("folder", "weights"), r"Config \S+empty: it is a folder\. Name a config file"),
        (("wide", "weights"), r"model_final\.pth is a checkpoint of another architecture"),
        (("fewer", "weights"), r"model_final\.pth is of other classes: .*It has 10, .* 7 \(MODEL\.LITE_DETR\.NUM_CL"),
    ],
)
def test_what_cannot_be_loaded_is_named(
    small_cfg: CfgNode, tmp_path: Path, sources: tuple[str, ...], message: str
) -> None:
    write_run(small_cfg, tmp_path / "run")
    config, weights = tmp_path / "run" / "config.yaml", tmp_path / "run" / "model_final.pth"
    (tmp_path / "empty").mkdir()
    (tmp_path / "model.onnx").touch()
    write_config(small_cfg, tmp_path / "untrained")
    write_run(small_cfg, tmp_path / "damaged")
    damage(tmp_path / "damaged" / "model_final.pth")
    write_config(small_cfg, tmp_path / "no_yaml").write_text("MODEL: [")
    other = small_cfg.clone()
    other.MODEL.LITE_DETR.HIDDEN_DIM = 96
    wide = write_config(other, tmp_path / "wide")
    other = small_cfg.clone()
    other.MODEL.LITE_DETR.NUM_CLASSES = 7
    fewer = write_config(other, tmp_path / "fewer")
    other.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    write_config(other, tmp_path / "stranger")
    known = {
        "run": ("run", tmp_path / "run"),
        "config_file": ("config_file", config),
        "weights": ("weights", weights),
        "file": ("run", config),
        "exported": ("run", tmp_path / "model.onnx"),
        "no_weights": ("weights", tmp_path / "no_weights.pth"),
        "no_config": ("config_file", tmp_path / "no_config.yaml"),
        "folder": ("config_file", tmp_path / "empty"),
        "wide": ("config_file", wide),
        "fewer": ("config_file", fewer),
    }
    arguments = dict(known.get(source, ("run", tmp_path / source)) for source in sources)
    with pytest.raises(InputError, match=message) as error:
        load_trained(**arguments, device="cpu")
    assert "\n" not in str(error.value) or "no_yaml" in sources


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda", r"The device is 'cuda', and there is no CUDA device here"),
        ("cuda:3", r"The device is 'cuda:3', and there is no CUDA device here"),
        (torch.device("cuda"), r"The device is 'cuda', and there is no CUDA device here"),
        ("gpu", r"'gpu': expected cuda"),
        ("meta", r"'meta', on which nothing can be computed"),
    ],
)
def test_a_device_that_is_not_there_is_refused(
    small_cfg: CfgNode,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    device: str | torch.device,
    message: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    write_config(small_cfg, tmp_path)
    with pytest.raises(InputError, match=message):
        load_trained(tmp_path, device=device)


def test_without_a_device_it_is_the_one_that_is_there(
    small_cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_cfg.MODEL.DEVICE = "cuda"
    write_run(small_cfg, tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert load_trained(tmp_path).detector.device == torch.device("cpu")


SAID = {"torch": "2.14.1+cpu", "library": "ops.so"}


@pytest.mark.parametrize(
    ("changes", "unsaid"),
    [
        ({}, ""),
        ({"library": None}, "library"),
        ({"library": "../ops.so"}, "library"),
        ({"library": "other.so"}, "library"),
        ({"torch": "2"}, "torch"),
        ({"torch": 2.14}, "torch"),
        ({"torch": "", "library": ""}, "torch, library"),
    ],
)
def test_what_a_runtime_needs_has_to_be_said(tmp_path: Path, changes: dict[str, Any], unsaid: str) -> None:
    files = [tmp_path / "model.pt2", tmp_path / "ops.so"]
    for file in files:
        file.write_bytes(b"")
    manifest = replace(manifest_of(*files), format="torch", requires={**SAID, **changes})
    if not unsaid:
        assert format_of_exported(manifest, files[0]).name == "torch"
        return
    with pytest.raises(InputError, match=f"model.pt2.json cannot be used: .* has no usable {unsaid}, which the format"):
        format_of_exported(manifest, files[0])
