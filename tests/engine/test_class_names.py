"""The names of a model's classes go with its config, from training to whatever predicts with it."""

import argparse
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model

from lite_detr_d2.data import register_coco_folder
from lite_detr_d2.engine import SafeCheckpointer, Trainer, argument_parser, read_config, setup
from lite_detr_d2.errors import InputError
from tests.data.folders import CLASSES, coco_content, write_coco_folder
from tests.projects.scripts import TINY, load_script

NAMES = [CLASSES[identifier] for identifier in sorted(CLASSES)]
KEY = "MODEL.LITE_DETR.CLASS_NAMES"


@pytest.fixture(autouse=True)
def _catalog(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers is forgotten."""
    monkeypatch.setattr(DatasetCatalog, "data", dict(DatasetCatalog.data))
    monkeypatch.setattr(MetadataCatalog, "data", dict(MetadataCatalog.data))
    yield


def parse(*arguments: object) -> argparse.Namespace:
    return argument_parser("").parse_args([str(argument) for argument in arguments])


def written(folder: Path) -> CfgNode:
    return read_config(argparse.Namespace(config_file=str(folder / "config.yaml"), opts=[]))


def registered(root: Path, name: str, **metadata: object) -> tuple[object, ...]:
    """Overrides for a dataset of our classes that is registered as detectron2's own are."""
    folder = write_coco_folder(root)
    register_coco_instances(name, metadata, str(folder / "train.json"), str(folder / "images"))
    return ("DATASETS.TRAIN", f"('{name}',)", "DATASETS.TEST", f"('{name}',)", "MODEL.LITE_DETR.NUM_CLASSES", 3)


def test_a_dataset_names_the_classes(tmp_path: Path) -> None:
    output = tmp_path / "output"
    cfg = setup(parse("--config-file", TINY, "--dataset", write_coco_folder(tmp_path), "OUTPUT_DIR", output))
    assert cfg.MODEL.LITE_DETR.CLASS_NAMES == written(output).MODEL.LITE_DETR.CLASS_NAMES == NAMES


def test_a_registered_dataset_names_the_classes(tmp_path: Path) -> None:
    cfg = setup(parse("--config-file", TINY, "OUTPUT_DIR", tmp_path / "output", *registered(tmp_path, "mine")))
    assert cfg.MODEL.LITE_DETR.CLASS_NAMES == NAMES


def test_names_of_any_characters_are_kept(tmp_path: Path) -> None:
    names = ["Käfer: 'ein' \"zwei\"", "no", "1", "", "\udcff", "猫\n"]
    cfg = read_config(argparse.Namespace(config_file=str(TINY), opts=[]))
    cfg.MODEL.LITE_DETR.CLASS_NAMES = names
    (tmp_path / "config.yaml").write_text(cfg.dump())
    assert names == written(tmp_path).MODEL.LITE_DETR.CLASS_NAMES


def test_overrides_name_the_classes(tmp_path: Path, said: list[str]) -> None:
    names = ["x", "y", "z"]
    overrides = ("OUTPUT_DIR", tmp_path / "output", KEY, names)
    cfg = setup(parse("--config-file", TINY, "--dataset", write_coco_folder(tmp_path), *overrides))
    assert names == cfg.MODEL.LITE_DETR.CLASS_NAMES
    Trainer(cfg)
    (message,) = (message for message in said if KEY in message)
    assert f"{KEY} calls the classes x, y, z, and dataset '{tmp_path.name}_train' ant, cat, dog" in message
    with pytest.raises(InputError, match=rf"{KEY} has 2 names \(x, y\): expected one for each of .*NUM_CLASSES \(3\)"):
        setup(parse("--config-file", TINY, "--dataset", tmp_path, *overrides[:-1], names[:2]))


@pytest.mark.parametrize("number", [2, 3])
def test_those_of_a_config_file_give_way_to_the_dataset(tmp_path: Path, number: int) -> None:
    """Training on a new dataset starts from the config.yaml of another one."""
    cfg = read_config(argparse.Namespace(config_file=str(TINY), opts=[]))
    cfg.MODEL.LITE_DETR.NUM_CLASSES, cfg.MODEL.LITE_DETR.CLASS_NAMES = number, ["owl", "bee", "fox"][:number]
    (tmp_path / "config.yaml").write_text(cfg.dump())
    given = ("--config-file", tmp_path / "config.yaml")
    for data in (("--dataset", write_coco_folder(tmp_path)), ()):
        rest = () if data else registered(tmp_path, f"other_{number}")
        new = setup(parse(*given, *data, "OUTPUT_DIR", tmp_path / "output", *rest))
        assert new.MODEL.LITE_DETR.CLASS_NAMES == NAMES


def test_a_trainer_says_where_a_config_names_other_classes(tmp_path: Path, said: list[str]) -> None:
    cfg = read_config(argparse.Namespace(config_file=str(TINY), opts=["OUTPUT_DIR", str(tmp_path / "output")]))
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (register_coco_folder(write_coco_folder(tmp_path)).train,), ()
    cfg.MODEL.LITE_DETR.NUM_CLASSES = 3
    for names, count in ((NAMES, 0), ([], 0), (NAMES[::-1], 1), (NAMES[::-1], 1)):
        cfg.MODEL.LITE_DETR.CLASS_NAMES = names
        Trainer(cfg)
        assert len([message for message in said if KEY in message]) == count


def train(tmp_path: Path, *arguments: object) -> Path:
    output = tmp_path / "output"
    options = ("OUTPUT_DIR", output, "SOLVER.MAX_ITER", 1, "SOLVER.STEPS", "()", "TEST.EVAL_PERIOD", 0)
    load_script("train_net").main(parse("--config-file", TINY, *arguments, *options))
    return output


def test_resuming_what_has_no_names_says_nothing(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    """As of an earlier version, which did not know the key."""
    arguments = ("--dataset", write_coco_folder(tmp_path))
    output = train(tmp_path, *arguments)
    path = output / "config.yaml"
    lines = path.read_text().splitlines(keepends=True)
    start = next(number for number, line in enumerate(lines) if "CLASS_NAMES:" in line)
    assert [line.strip() for line in lines[start + 1 : start + 4]] == [f"- {name}" for name in NAMES]
    path.write_text("".join(lines[:start] + lines[start + 4 :]))
    log.clear()
    train(tmp_path, *arguments, "--resume")
    assert not [message for message in log.messages if "CLASS_NAMES" in message or "the config is another" in message]
    assert written(output).MODEL.LITE_DETR.CLASS_NAMES == NAMES


def test_an_evaluation_leaves_the_config_of_a_training(tmp_path: Path) -> None:
    """That of a set with fewer classes, whose rows alone are then evaluated."""
    output = train(tmp_path, "--dataset", write_coco_folder(tmp_path / "all"))
    before = (output / "config.yaml").read_bytes()
    content = coco_content()
    content["categories"] = [category for category in content["categories"] if category["name"] != "cat"]
    content["annotations"] = [box for box in content["annotations"] if box["category_id"] != 3]
    fewer = write_coco_folder(tmp_path / "fewer", content, content)
    weights = ("MODEL.WEIGHTS", output / "model_final.pth")
    for folder in (output, tmp_path / "elsewhere"):
        arguments = ("--config-file", TINY, "--eval-only", "--dataset", fewer, "OUTPUT_DIR", folder, *weights)
        load_script("train_net").main(parse(*arguments))
    assert (output / "config.yaml").read_bytes() == before
    assert (output / "eval_metrics.json").exists()
    (output / "last_checkpoint").unlink()  # as of a run of which the config and the final model alone were copied
    load_script("train_net").main(
        parse("--config-file", TINY, "--eval-only", "--dataset", fewer, "OUTPUT_DIR", output, *weights)
    )
    assert (output / "config.yaml").read_bytes() == before
    assert written(tmp_path / "elsewhere").MODEL.LITE_DETR.CLASS_NAMES == ["ant", "dog"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize(
    "checkpoint", ["last_checkpoint", "model_final.pth", "model_0000099.pth", "model_v2.pth", "best.pth"]
)
def test_an_evaluation_that_breaks_off_leaves_the_config_of_a_training(
    tmp_path: Path, checkpoint: str, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    output, dataset = tmp_path / "output", write_coco_folder(tmp_path)
    output.mkdir()
    (output / checkpoint).write_text("of the training")
    (output / "config.yaml").write_text("of the training")

    def break_off(*_: object) -> None:
        (output / "config.yaml").write_text("")
        raise error

    monkeypatch.setattr(importlib.import_module(setup.__module__), "default_setup", break_off)
    with pytest.raises(error):
        setup(parse("--config-file", TINY, "--eval-only", "--dataset", dataset, "OUTPUT_DIR", output))
    assert (output / "config.yaml").read_text() == "of the training"


# --- What looks into detectron2's catalog.


def built(cfg: CfgNode, names: list[str], *datasets: str) -> None:
    cfg = cfg.clone()
    cfg.MODEL.LITE_DETR.CLASS_NAMES, cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = names, datasets[:1], datasets[1:]
    cfg.MODEL.LITE_DETR.NUM_CLASSES = len(names) or 3
    build_model(cfg)


def names_of(dataset: str) -> list[str] | None:
    names: list[str] | None = MetadataCatalog.get(dataset).get("thing_classes")
    return names


def test_building_a_model_names_the_classes_of_datasets_that_are_not_there(small_cfg: CfgNode, tmp_path: Path) -> None:
    register_coco_instances("there", {"thing_classes": ["owl"]}, "gone.json", "gone")
    register_coco_instances("unread", {}, "gone.json", "gone")
    MetadataCatalog.get("named").thing_classes = ["bee"]
    built(small_cfg, [], "gone_train", "gone_val")
    assert names_of("gone_train") is names_of("gone_val") is None
    built(small_cfg, NAMES, "gone_train", "gone_val", "there", "unread", "named")
    assert names_of("gone_train") == names_of("gone_val") == NAMES
    assert (names_of("there"), names_of("unread"), names_of("named")) == (["owl"], None, ["bee"])
    built(small_cfg, ["owl", "bee"], "gone_train", "gone_val")
    assert names_of("gone_train") == names_of("gone_val") == ["owl", "bee"]
    root = tmp_path / "gone"
    assert register_coco_folder(write_coco_folder(root)).train == "gone_train"
    assert names_of("gone_train") == NAMES
    built(small_cfg, ["owl", "bee"], "gone_train", "gone_val")
    assert names_of("gone_train") == NAMES


def test_tools_that_know_nothing_of_the_keys_find_the_names(small_cfg: CfgNode, tmp_path: Path) -> None:
    """As SAHI does: a config file read by detectron2's own config, with new keys allowed."""
    small_cfg.DATASETS.TRAIN = small_cfg.DATASETS.TEST = ("gone_train",)
    small_cfg.MODEL.LITE_DETR.NUM_CLASSES, small_cfg.MODEL.LITE_DETR.CLASS_NAMES = 3, NAMES
    SafeCheckpointer(build_model(small_cfg), str(tmp_path)).save("model_final")
    whole = small_cfg.dump()
    earlier = small_cfg.clone()
    del earlier.MODEL.LITE_DETR["CLASS_NAMES"]
    for content, expected in ((whole, NAMES), (earlier.dump(), None)):
        MetadataCatalog.pop("gone_train", None)
        (tmp_path / "config.yaml").write_text(content)
        cfg = get_cfg()
        cfg.set_new_allowed(True)
        cfg.merge_from_file(str(tmp_path / "config.yaml"))
        cfg.MODEL.WEIGHTS = str(tmp_path / "model_final.pth")
        assert DefaultPredictor(cfg).metadata.get("thing_classes") == expected
