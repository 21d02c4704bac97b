"""Evaluate as a user does, from a training's folder to the report."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from detectron2.engine import launch

from lite_detr_d2.data import register_coco_folder
from lite_detr_d2.engine import argument_parser
from lite_detr_d2.errors import InputError
from lite_detr_d2.evaluation.report import has_no_other_report
from tests.data.folders import coco_content, write_coco_folder, write_images

from .scripts import PROJECT, TINY, load_script

evaluate, train_net = load_script("evaluate"), load_script("train_net")
LEARN = "SOLVER.MAX_ITER 60 SOLVER.STEPS () SOLVER.BASE_LR 0.001 SOLVER.CHECKPOINT_PERIOD 1000 INPUT.RANDOM_FLIP none"
PAGE = (PROJECT.parents[1] / "docs" / "evaluating.md").read_text(encoding="utf-8")
FILES = {"eval_report.json", "confusion.png", "errors.png", "worst.png"}


@dataclass(frozen=True)
class Trained:
    """A tiny detector that finds something, and its evaluation."""

    run: Path
    data: Path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Of its boxes, one is a crowd."""
    content = coco_content()
    content["annotations"][1]["iscrowd"] = 1
    data, output = write_coco_folder(tmp_path_factory.mktemp("data"), content, content), tmp_path_factory.mktemp("run")
    train("--dataset", data, "OUTPUT_DIR", output, *LEARN.split())
    return Trained(output, data)


def train(*arguments: object) -> None:
    command = ["--config-file", str(TINY), *map(str, arguments)]
    launch(train_net.main, 1, args=(argument_parser("").parse_args(command),))


def run(*arguments: object) -> None:
    evaluate.main([str(argument) for argument in arguments])


def report_in(folder: Path) -> dict[str, Any]:
    assert {path.name for path in folder.iterdir()} == FILES
    content: dict[str, Any] = json.loads((folder / "eval_report.json").read_text())
    return content


def assert_same(report: dict[str, Any], metrics: dict[str, float]) -> None:
    """What the evaluation of a training measured is in the report."""
    for name in ("AP", "AP50", "AP75", "APs", "APm", "APl"):
        assert report["overall"][name] == pytest.approx(metrics[name], abs=1e-6), name
    for each in report["per_class"]:
        assert each["AP"] == pytest.approx(metrics[f"AP-{each['name']}"], abs=1e-6)


def test_the_report_of_a_run(trained: Trained, log: pytest.LogCaptureFixture) -> None:
    before = (trained.run / "eval_metrics.json").read_bytes()
    run(trained.run)
    report, metrics = report_in(trained.run / "evaluation"), json.loads(before)["bbox"]
    assert metrics["AP"] > 5
    assert_same(report, metrics)
    assert (trained.run / "eval_metrics.json").read_bytes() == before
    assert [each["objects"] for each in report["per_class"]] == [3, 2, 2]
    assert report["dataset"] == str(trained.run / "dataset" / "val.json")
    assert "All classes: F1 is" in log.text
    told = log.messages[-1]
    assert told.startswith(
        f"The report is in {trained.run / 'evaluation'}: eval_report.json, confusion.png, errors.png"
    )
    assert ("worst.png" in told) == (trained.run / "evaluation" / "worst.png").exists()


def test_reports_of_other_weights_and_data_lie_beside_each_other(trained: Trained) -> None:
    best = trained.run / "model_best.pth"
    shutil.copy(trained.run / "model_final.pth", best)
    run(trained.run, "--weights", best)
    run(trained.run, "--weights", best.parent / ".." / best.parent.name / best.name)
    assert report_in(trained.run / "evaluation_model_best")["weights"] == str(best)
    assert not (trained.run / "evaluation_model_best_2").exists()
    reports = {}
    for place in ("a", "b"):
        data = write_coco_folder(trained.run.parent / place / "v1.0", content := coco_content(), content)
        run(trained.run, "--dataset", data)
        reports[place] = data
    run(trained.run, "--dataset", reports["b"])
    folders = ("evaluation_v1.0", "evaluation_v1.0_2")
    found = [report_in(trained.run / folder)["dataset"] for folder in folders]
    assert found == [f"{data}, val" for data in reports.values()]
    assert not (trained.run / "evaluation_v1.0_3").exists()


def test_a_report_knows_its_weights_and_data_from_every_folder(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shutil.copy(trained.run / "model_final.pth", tmp_path / name / "mine.pth")
        monkeypatch.chdir(tmp_path / name)
        run(trained.run, "--weights", "mine.pth")
        assert report_in(trained.run / "evaluation_mine")["weights"] == str(tmp_path / "a" / "mine.pth")
    assert report_in(trained.run / "evaluation_mine_2")["weights"] == str(tmp_path / "b" / "mine.pth")
    monkeypatch.chdir(trained.run.parent)
    run(trained.run.name, "--weights", tmp_path / "b" / "mine.pth")
    assert not (trained.run / "evaluation_mine_3").exists()


def test_reports_of_other_weights_and_damaged_ones_stay(trained: Trained) -> None:
    about = {"dataset": str(trained.run / "dataset" / "val.json"), "weights": str(trained.run / "model_0000009.pth")}
    before = {"evaluation": json.dumps(about), "evaluation_2": "{"}
    for folder, text in before.items():
        shutil.rmtree(trained.run / folder, ignore_errors=True)
        (trained.run / folder).mkdir()
        (trained.run / folder / "eval_report.json").write_text(text)
    for _ in range(2):
        run(trained.run)
    assert {folder: (trained.run / folder / "eval_report.json").read_text() for folder in before} == before
    assert report_in(trained.run / "evaluation_3")["weights"] == str(trained.run / "model_final.pth")
    assert not (trained.run / "evaluation_4").exists()
    for number in ("", "_2", "_3"):
        shutil.rmtree(trained.run / f"evaluation{number}")


def test_the_training_has_said_the_best_threshold(trained: Trained) -> None:
    log = (trained.run / "log.txt").read_text()
    (best,) = re.findall(r"on average from a score of ([\d.e-]+) on\n", log)
    assert f"predict.py {trained.run} --input IMAGES --output FOUND --threshold {best}\n" in log


def test_an_address_of_weights_is_no_path(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "eval_report.json").write_text(json.dumps({"dataset": "d", "weights": "https://a.b/c.pth"}))
    for folder in (tmp_path, trained.run):
        monkeypatch.chdir(folder)
        assert has_no_other_report(tmp_path, "d", "https://a.b/c.pth")
    assert not has_no_other_report(tmp_path, "d", "c.pth")


def test_a_name_that_no_folder_can_have_is_an_error(trained: Trained, tmp_path: Path) -> None:
    weights = shutil.copy(trained.run / "model_final.pth", tmp_path / f"{'w' * 130}.pth")
    data = shutil.copytree(trained.data, tmp_path / ("d" * 130))
    with pytest.raises(InputError, match="File name too long"):
        run(trained.run, "--weights", weights, "--dataset", data)


def test_the_test_half_of_what_it_was_trained_on(trained: Trained, tmp_path: Path) -> None:
    """It is in the run: the dataset itself need not be there."""
    data = shutil.copytree(trained.data, tmp_path / "data")
    test = coco_content(images=3)
    (data / "test.json").write_text(json.dumps(test))
    own = shutil.copytree(trained.run, tmp_path / "run", ignore=shutil.ignore_patterns("dataset", "evaluation"))
    register_coco_folder(data, split_folder=own / "dataset")
    for file in data.glob("*.json"):
        file.unlink()
    run(own, "--split", "test")
    report = report_in(own / "evaluation_test")
    assert not (own / "evaluation").exists()
    assert report["dataset"] == str(own / "dataset" / "test.json")
    assert report["images"] == 3
    model = ("--config-file", own / "config.yaml", "--weights", own / "model_final.pth")
    run(*model, "--split", "test", "--output", tmp_path / "of_weights")
    assert report_in(tmp_path / "of_weights")["images"] == 3


def test_a_named_dataset_is_evaluated_as_by_training(trained: Trained, tmp_path: Path) -> None:
    """Whatever the order of its classes; a checkpoint of its own as well as a run."""
    content = coco_content(images=6)
    content["categories"] = [{"id": 10 - each["id"], "name": each["name"]} for each in content["categories"]]
    for box in content["annotations"]:
        box["category_id"] = 10 - box["category_id"]
    data = write_coco_folder(tmp_path / "data", content, content)
    weights = trained.run / "model_final.pth"
    train("--eval-only", "--dataset", data, "MODEL.WEIGHTS", weights, "OUTPUT_DIR", tmp_path / "eval")
    metrics = json.loads((tmp_path / "eval" / "eval_metrics.json").read_text())["bbox"]
    own = shutil.copytree(trained.run, tmp_path / "run")
    run(own, "--dataset", data)
    model = ("--config-file", trained.run / "config.yaml", "--weights", weights)
    run(*model, "--dataset", data, "--output", tmp_path / "two", "--device", "cpu")
    one, two = report_in(own / "evaluation_data"), report_in(tmp_path / "two")
    assert one["images"] == 6
    assert_same(one, metrics)
    assert one["dataset"] == f"{data}, val"
    assert {**one, "weights": ""} == {**two, "weights": ""}


def test_more_boxes_than_coco_counts(trained: Trained, tmp_path: Path) -> None:
    content = coco_content(images=2)
    for number in range(120):
        box = {**content["annotations"][0], "id": 1000 + number, "bbox": [number % 40, number // 40, 16, 12]}
        content["annotations"].append(box)
    data = write_coco_folder(tmp_path / "data", content, content)
    weights = trained.run / "model_final.pth"
    train("--eval-only", "--dataset", data, "MODEL.WEIGHTS", weights, "OUTPUT_DIR", tmp_path / "eval")
    run(trained.run, "--dataset", data, "--output", tmp_path / "report")
    metrics = json.loads((tmp_path / "eval" / "eval_metrics.json").read_text())["bbox"]
    assert metrics["AP"] > 0
    assert_same(report_in(tmp_path / "report"), metrics)


def test_an_image_that_cannot_be_read(trained: Trained, tmp_path: Path) -> None:
    content = coco_content()
    data = write_coco_folder(tmp_path / "data", content, content)
    (data / "images" / "1.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"1\.png"):
        run(trained.run, "--dataset", data, "--output", tmp_path / "report")
    run(trained.run, "--dataset", data, "--on-bad", "drop", "--output", tmp_path / "report")
    assert report_in(tmp_path / "report")["images"] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give one of RUN, and --config-file FILE with --weights FILE"),
        (("run", "--config-file", "a.yaml", "--weights", "model.pth"), "give one of RUN"),
        (("--weights", "model.pth"), "give one of RUN, and --config-file FILE with --weights FILE"),
        (("--config-file", "a.yaml"), "--config-file needs --weights FILE"),
        (("run", "MODEL.DEVICE", "cpu"), "MODEL.DEVICE cpu (KEY VALUE overrides of a config go behind --opts)"),
        (("--config-file", "a.yaml", "--weights", "model.pth"), "give --output DIR for the report"),
        (("run", "--split", "train"), "invalid choice: 'train'"),
        (("run", "--on-bad", "drop"), "--on-bad needs --dataset"),
        (("run", "--threshold", "1.5"), "expected a score from 0 to 1"),
        (("run", "--output", ""), "the name is empty"),
    ],
)
def test_wrong_arguments(arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        run(*arguments)
    assert error.value.code == 2
    assert message in capsys.readouterr().err


def test_bad_input_is_one_line(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    other = coco_content()
    other["categories"] = [{**each, "name": f"{each['name']}fish"} for each in other["categories"]]
    write_images(tmp_path / "other" / "images", other)
    (tmp_path / "other" / "val.json").write_text(json.dumps(other))
    cases = {
        (tmp_path / "none",): "there is no such run. Name the OUTPUT_DIR of a training",
        (tmp_path / "empty",): "has no config.yaml, and is not the OUTPUT_DIR of a training: name one.",
        (trained.run, "--dataset", tmp_path / "empty"): "empty",
        (trained.run, "--dataset", tmp_path / "other"): "has none of the model's classes (ant, cat, dog), but antfish",
        (trained.run, "--output", tmp_path / "file"): "is a file",
        (trained.run, "--split", "test"): f"--split test: {trained.run}/dataset has no half of that name, but train "
        "and val.",
    }
    for arguments, message in cases.items():
        with pytest.raises(InputError) as error:
            run(*arguments)
        assert message in str(error.value)
    command = [sys.executable, str(PROJECT / "evaluate.py"), str(tmp_path / "none")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1


class TestPage:
    """docs/evaluating.md."""

    def test_its_keys_are_the_report_s(self, trained: Trained, tmp_path: Path) -> None:
        run(trained.run, "--output", tmp_path)
        report = report_in(tmp_path)
        table = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE, flags=re.M))
        assert report.keys() - {"weights", "dataset", "images"} <= table.keys()
        one = {
            **report,
            "per_class": report["per_class"][0],
            "errors": report["errors"]["both"],
            "worst": report["worst"][0],
        }
        for key in ("overall", "per_class", "errors", "confusion", "worst"):
            assert set(re.findall(r"`(\w+)`", table[key])) == one[key].keys(), key
        assert report["errors"].keys() <= table.keys()

    def test_its_code_runs(
        self, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.M | re.S)
        (tmp_path / "output").mkdir()
        (tmp_path / "output" / "mine").symlink_to(trained.run)
        monkeypatch.chdir(tmp_path)
        exec(compile(code, "docs/evaluating.md", "exec"), {})
        assert "best F1" in capsys.readouterr().out
