"""What goes to Weights & Biases and MLflow, by stand-ins for their packages; tests/interop has the real ones."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.utils.events import EventStorage

from lite_detr_d2.config.schema import check_value
from lite_detr_d2.engine import Trainer
from lite_detr_d2.engine.early_stop import TrainingEnded
from lite_detr_d2.engine.loggers import LOGGERS, RUNS, End, MLflow, WandB, build_loggers
from lite_detr_d2.engine.tensorboard import tag_of
from lite_detr_d2.errors import InputError

from .stops import Stopped, assert_same_training, stoppable_config, train


class Service:
    """A stand-in for both packages, and what it was given."""

    class MlflowException(Exception):
        error_code = "RESOURCE_DOES_NOT_EXIST"

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.config: dict[str, Any] = {}
        self.figures: list[tuple[str, int, float]] = []
        self.pictures: list[tuple[str, int, Any]] = []
        self.ends: list[object] = []
        self.known: set[str] = set()
        self.broken = False

    def begin(self, identifier: str | None = None) -> str:
        if self.broken:
            raise ConnectionError("no route to host\nat all.")
        name = identifier or f"run{len(self.known)}"
        self.known.add(name)
        self.begun.append(name)
        return name

    def wandb(self) -> SimpleNamespace:
        def init(*, id: str | None = None, **options: Any) -> SimpleNamespace:
            name = self.begin(id)
            self.options = options
            return SimpleNamespace(
                id=name,
                offline=False,
                url="https://example.org",
                config=SimpleNamespace(update=lambda config, **_: self.config.update(config)),
                define_metric=lambda *_, **__: None,
                log=self.log,
                finish=self.finish,
            )

        return SimpleNamespace(init=init, Settings=lambda **_: None, Image=lambda pixels: pixels)

    def finish(self, exit_code: int) -> None:
        self.ends.append(exit_code)

    def log(self, row: dict[str, Any]) -> None:
        iteration = row["iteration"]
        for tag, value in row.items():
            if isinstance(value, np.ndarray):
                self.pictures.append((tag, iteration, value))
            elif tag != "iteration":
                self.figures.append((tag, iteration, value))

    def mlflow(self) -> SimpleNamespace:
        entities = SimpleNamespace(Metric=lambda *values: values, Param=lambda key, value: (key, value))
        return SimpleNamespace(
            MlflowClient=lambda: self,
            entities=entities,
            exceptions=SimpleNamespace(MlflowException=self.MlflowException),
            get_tracking_uri=lambda: "nowhere",
        )

    # MLflow's client.
    def get_experiment_by_name(self, name: str) -> None:
        return None

    def create_experiment(self, name: str) -> str:
        self.options = {"project": name}
        return "1"

    def create_run(self, experiment: str, run_name: str) -> Any:
        self.options["name"] = run_name
        return SimpleNamespace(info=SimpleNamespace(run_id=self.begin()))

    def update_run(self, run: str, status: str) -> None:
        if run not in self.known:
            raise self.MlflowException
        self.begin(run)

    def log_batch(self, run: str, metrics: Any = (), params: Any = ()) -> None:
        assert len(metrics) <= 1000
        assert len(params) <= 100
        self.config.update(params)
        self.figures += [(name, step, value) for name, value, _, step in metrics]

    def log_text(self, run: str, text: str, file: str) -> None:
        self.config[file] = text

    def log_image(self, run: str, pixels: Any, key: str, step: int) -> None:
        self.pictures.append((key, step, pixels))

    def set_terminated(self, run: str, status: str) -> None:
        self.ends.append(status)


@pytest.fixture(params=sorted(LOGGERS))
def package(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def service(package: str, monkeypatch: pytest.MonkeyPatch) -> Service:
    found = Service()
    monkeypatch.setitem(sys.modules, package, getattr(found, package)())
    monkeypatch.setattr("lite_detr_d2.engine.loggers.check_extra", lambda *_, **__: None)
    for name in ("WANDB_PROJECT", "WANDB_NAME", "WANDB_DIR", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    return found


@pytest.fixture
def cfg(tmp_path: Path, package: str) -> CfgNode:
    cfg = stoppable_config(tmp_path / "data")
    cfg.DATASETS.TEST = cfg.DATASETS.TRAIN
    cfg.LOGGERS, cfg.TEST.PICTURES = [package], 2
    return cfg


def runs_in(folder: Path) -> Any:
    return json.loads((folder / RUNS).read_text())


def test_a_training_is_a_run(service: Service, cfg: CfgNode, package: str, tmp_path: Path) -> None:
    train(cfg, tmp_path / "mine", TEST__EVAL_PERIOD=3)
    assert runs_in(tmp_path / "mine") == {package: service.begun[0]}
    assert len(service.begun) == 1
    assert (service.options["project"], service.options["name"]) == ("lite_detr_d2", "mine")
    steps = service.config["SOLVER"]["MAX_ITER"] if package == "wandb" else int(service.config["SOLVER.MAX_ITER"])
    assert steps == 6
    records = [json.loads(line) for line in (tmp_path / "mine" / "metrics.json").read_text().splitlines()]
    expected = {
        (tag_of(name), record["iteration"], value)
        for record in records
        for name, value in record.items()
        if name not in ("iteration", "eta_seconds") and value == value  # noqa: PLR0124  (NaN is not)
    }
    assert expected <= set(service.figures)
    assert len(expected) > 30
    shown = [(tag, step) for tag, step, _ in service.pictures]
    assert sorted(shown) == [(f"predictions/{cfg.DATASETS.TEST[0]}/{n}", step) for n in (1, 2) for step in (2, 6)]
    assert all(picture.shape == (48, 128, 3) and picture.dtype == np.uint8 for _, _, picture in service.pictures)
    assert service.ends == [0 if package == "wandb" else "FINISHED"]


def test_a_resume_goes_on_with_the_run(service: Service, cfg: CfgNode, tmp_path: Path) -> None:
    train(cfg, tmp_path, stops=(1, 3))
    assert service.begun == ["run0"] * 3
    assert service.ends[:2] in ([1, 1], ["FAILED", "FAILED"])
    assert service.ends[2] in (0, "FINISHED")


def test_a_new_training_has_a_new_run(service: Service, cfg: CfgNode, tmp_path: Path) -> None:
    cfg.OUTPUT_DIR = str(tmp_path / "run")
    for _ in range(2):
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=False)
        trainer.train()
    assert service.begun == ["run0", "run1"]


@pytest.mark.parametrize("content", ["{", "[]", '{"mlflow": "gone"}'])
def test_what_is_not_known_begins_anew(
    service: Service, cfg: CfgNode, package: str, tmp_path: Path, content: str, said: list[str]
) -> None:
    (tmp_path / RUNS).write_text(content)
    train(cfg, tmp_path)
    assert service.begun == ["run0"]
    assert runs_in(tmp_path)[package] == "run0"
    warned = [message for message in said if "other runs begin" in message or "does not know the run gone" in message]
    assert bool(warned) == (package == "mlflow" or "gone" not in content)


def test_the_users_own_names_stay(service: Service, cfg: CfgNode, tmp_path: Path, monkeypatch: Any) -> None:
    for name in ("WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.setenv(name, "mine")
    train(cfg, tmp_path)
    assert service.options.get("project", "mine") == "mine"


def test_a_service_that_fails_ends_nothing(service: Service, cfg: CfgNode, tmp_path: Path, said: list[str]) -> None:
    expected = train(cfg, tmp_path / "whole", LOGGERS=[])
    service.broken = True
    assert_same_training(train(cfg, tmp_path / "broken"), expected)
    warned = [message for message in said if "no route to host" in message]
    assert len(warned) == 1
    assert "cannot be written: no route to host at all. The training goes on, and writes it again where it" in warned[0]
    assert "WANDB_MODE=offline" in warned[0] or "MLFLOW_TRACKING_URI" in warned[0]
    assert not (tmp_path / "broken" / RUNS).exists()


def test_what_fails_once_is_written_later(service: Service, cfg: CfgNode, tmp_path: Path) -> None:
    (writer,) = build_loggers(cfg)
    cfg.OUTPUT_DIR = str(tmp_path)
    service.broken = True
    with EventStorage() as storage:
        storage.put_scalar("total_loss", 2.0)
        writer.write()
        service.broken, writer._not_before = False, 0.0
        writer.write()
        writer.write()
    assert service.figures == [("loss/total", 0, 2.0)]


def test_pictures_of_floating_point(service: Service, cfg: CfgNode, package: str, tmp_path: Path) -> None:
    cfg.OUTPUT_DIR = str(tmp_path)
    with EventStorage() as storage:
        storage.put_image("mine", torch.tensor([0.0, 0.5, 2.0]).reshape(3, 1, 1).expand(3, 2, 4))
        LOGGERS[package](cfg).write()
    ((_, _, pixels),) = service.pictures
    assert pixels.shape == (2, 4, 3)
    assert pixels[0, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (None, End.FINISHED),
        (TrainingEnded(), End.FINISHED),
        (SystemExit(143), End.KILLED),
        (KeyboardInterrupt(), End.KILLED),
        (Stopped(), End.FAILED),
    ],
)
def test_how_it_ends(service: Service, cfg: CfgNode, package: str, tmp_path: Path, error: Any, end: End) -> None:
    cfg.OUTPUT_DIR = str(tmp_path)
    writer = LOGGERS[package](cfg)
    with EventStorage():
        writer.write()
    try:
        try:
            if error is not None:
                raise error
        finally:
            writer.close()
    except BaseException as raised:
        assert raised is error
    assert service.ends == [int(end is not End.FINISHED) if package == "wandb" else end.name]


@pytest.mark.parametrize("package", ["mlflow"], indirect=True)
@pytest.mark.parametrize(
    ("tag", "name"),
    [
        ("bbox/AP-stop sign", "bbox/AP-stop sign"),
        ("bbox/AP-a(b)", "bbox/AP-a_28b_29"),
        ("bbox/AP-猫", "bbox/AP-猫"),
        ("bbox//AP", "bbox/_/AP"),
        ("a/../b/", "a/_/b/_"),
        ("x" * 300, "x" * 250),
    ],
)
def test_names_that_mlflow_takes(service: Service, cfg: CfgNode, tag: str, name: str) -> None:
    assert MLflow(cfg)._name(tag, r"[^\w\-. :]") == name


@pytest.mark.parametrize("package", ["mlflow"], indirect=True)
def test_many_classes_are_several_requests(service: Service, cfg: CfgNode, tmp_path: Path) -> None:
    cfg.OUTPUT_DIR = str(tmp_path)
    with EventStorage() as storage:
        storage.put_scalars(**{f"bbox/AP-{number}": 1.0 for number in range(1203)})
        MLflow(cfg).write()
    assert len(service.figures) == 1203


@pytest.mark.parametrize("name", sorted(LOGGERS))
def test_a_package_that_is_missing_is_named(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    cfg = stoppable_config(tmp_path / "data")
    cfg.LOGGERS, cfg.OUTPUT_DIR = [name], str(tmp_path)
    monkeypatch.setitem(sys.modules, name, None)  # as where it is not installed
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InputError, match=rf"{name} is needed, but is not installed. pip install 'lite_detr_d2\[{name}"):
        Trainer(cfg)


def test_unknown_loggers_are_refused() -> None:
    for wrong in (["tensorboard"], ["wandb", "wandb"], "wandb"):
        with pytest.raises(InputError, match="LOGGERS"):
            check_value("LOGGERS", wrong)
    assert {WandB.package, MLflow.package} == set(LOGGERS)
