"""The check of a dataset from the command line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.data.folders import coco_content, photograph, write_coco_folder, write_single_file_folder

from .scripts import PROJECT, TINY, load_script

check_dataset = load_script("check_dataset")


def run(*arguments: object) -> int:
    code: int = check_dataset.main([str(argument) for argument in arguments])
    return code


def findings_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[tuple[str, str], Any]]:
    """The exit code, and by half and id what was found."""
    capsys.readouterr()
    code = run(*arguments, "--json")
    result = json.loads(capsys.readouterr().out)
    assert result.keys() == {"counts", "findings"}
    for finding in result["findings"]:
        assert finding.keys() == {"id", "severity", "half", "count", "message", "cure", "places"}
    for severity, count in result["counts"].items():
        assert count == sum(finding["severity"] == severity for finding in result["findings"])
    return code, {(finding["half"], finding["id"]): finding for finding in result["findings"]}


def photographs(root: Path, train: int = 4, val: int = 2) -> Path:
    """A dataset without a fault, but for its size."""
    for name, numbers in (("train", range(train)), ("val", range(train, train + val))):
        content = coco_content(len(numbers))
        for image, number in zip(content["images"], numbers, strict=True):
            image["file_name"] = f"{number}.png"
            (root / "images").mkdir(parents=True, exist_ok=True)
            photograph(number, (image["width"], image["height"])).save(root / "images" / image["file_name"])
        (root / f"{name}.json").write_text(json.dumps(content))
    return root


def change(file: Path, list_name: str, index: int, **values: Any) -> None:
    content = json.loads(file.read_text())
    content[list_name][index].update(values)
    file.write_text(json.dumps(content))


def test_a_dataset_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = photographs(tmp_path)
    assert run(root) == 0
    text = capsys.readouterr().out
    assert f"dataset {root}" in text
    assert "3 classes: ant, cat, dog" in text
    assert "train         4 images          8 boxes" in text
    assert "It can be trained on" in text
    assert len(text.splitlines()) <= 30
    code, found = findings_of(capsys, root, "--images")
    assert code == 0
    # There are but few boxes.
    assert {key for key, finding in found.items() if finding["severity"] != "INFO"} == {("train", "class-rare")}
    assert run(root, "--strict") == 1
    assert run(root, "--strict", "--skip", "class-rare") == 0


def test_a_dataset_by_the_name_of_the_other_tools(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = photographs(tmp_path / "mine")
    assert findings_of(capsys, "--dataset", root) == findings_of(capsys, root)
    assert run("--dataset", root, "--fix", tmp_path / "out") == 0
    assert (tmp_path / "out" / "train.json").exists()


def test_what_normalising_finds_and_what_inspection_finds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = photographs(tmp_path)
    (root / "images" / "4.png").write_bytes((root / "images" / "0.png").read_bytes())
    photograph(1).resize((64, 48)).save(root / "images" / "5.png")
    change(root / "train.json", "annotations", 0, bbox=[900, 900, 10, 10])
    code, found = findings_of(capsys, root)
    assert code == 1
    assert found["train", "box-outside"]["severity"] == "ERROR"
    assert found["val", "leakage"]["places"] == ["4.png (as 0.png of train)"]
    assert findings_of(capsys, root, "--only", "leakage")[1].keys() == {("val", "leakage")}
    assert ("val", "leakage-near") in findings_of(capsys, root, "--images")[1]
    assert run(root, "--only", "leakage") == 0
    assert run(root, "--only", "leakage", "--strict") == 1


def test_sizes_of_a_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its images are small, and its queries few."""
    root = photographs(tmp_path)
    change(root / "train.json", "annotations", 0, bbox=[1, 1, 2, 2], area=4)
    assert ("train", "box-tiny") not in findings_of(capsys, root)[1]
    config = tmp_path / "config.yaml"
    config.write_text(
        f"_BASE_: {TINY}\nINPUT: {{MIN_SIZE_TRAIN: [48], MAX_SIZE_TRAIN: 64}}\n"
        "MODEL: {LITE_DETR: {NUM_QUERIES: 1}}\n"
    )
    found = findings_of(capsys, root, "--config-file", config)[1]
    assert found["train", "box-tiny"]["places"] == ["annotation 10 of 0.png"]
    assert found["train", "image-crowded"]["count"] == 4


def test_files_that_lie_anywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = photographs(tmp_path / "mine")
    files = ("--train-json", root / "train.json", "--val-json", root / "val.json", "--image-folder", root / "images")
    assert findings_of(capsys, *files)[1] == findings_of(capsys, root)[1]
    assert run(*files, "--fix", root / "out") == 2
    assert run(*files, "--fix", tmp_path / "out") == 0
    assert (tmp_path / "out" / "val.json").exists()


def test_a_single_half(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_single_file_folder(tmp_path / "mine")
    code, found = findings_of(capsys, root, "--images")
    assert code == 0
    assert {half for half, _ in found} <= {"train", ""}
    assert run(root, "--fix", tmp_path / "out") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["images", "train.json"]


def test_a_dataset_that_is_written_in_order_is_clean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = photographs(tmp_path / "mine", train=5)
    change(root / "train.json", "annotations", 0, bbox=[900, 900, 10, 10])
    change(root / "train.json", "annotations", 2, segmentation=[[]], area=-1, id="twelve")
    change(root / "train.json", "annotations", 5, bbox=[50, 20, 40, 20])
    change(root / "train.json", "images", 3, width="64")
    content = (root / "images" / "4.png").read_bytes()
    (root / "images" / "4.png").write_bytes(content[: len(content) // 2])
    options = (root, "--images", "--fix", tmp_path / "out")
    assert run(*options) == 1
    assert not (tmp_path / "out").exists()
    assert "out is not written: there are errors" in capsys.readouterr().err
    assert run(*options, "--on-bad", "drop") == 0
    code, found = findings_of(capsys, tmp_path / "out", "--images")
    assert code == 0
    assert {identifier for (_, identifier), f in found.items() if f["severity"] != "INFO"} <= {"class-rare"}
    train = json.loads((tmp_path / "out" / "train.json").read_text())
    assert len(train["images"]) == 4
    assert len(train["annotations"]) == 7
    assert run(*options, "--on-bad", "drop") == 2  # it is there now
    assert run(tmp_path / "out", "--fix", tmp_path / "again") == 0
    for name in ("train.json", "val.json"):
        contents = [json.loads((tmp_path / folder / name).read_text()) for folder in ("out", "again")]
        assert contents[0] == contents[1]


def test_json_and_nothing_else(tmp_path: Path) -> None:
    """Whatever the libraries say, and the progress bar, goes to standard error."""
    root = photographs(tmp_path)
    command = [sys.executable, str(PROJECT / "check_dataset.py"), str(root), "--images", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT.parents[1])}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0
    assert json.loads(result.stdout)["counts"]["ERROR"] == 0
    assert "6/6" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name either FOLDER, or --train-json FILE"),
        (["gone"], "gone"),
        (["FOLDER", "--only", "typo"], "there is no check typo. The checks are annotation-id, "),
        (["FOLDER", "--only", "leakage-near"], "add --images"),
        (["FOLDER", "--unknown"], "--unknown"),
        (["FOLDER", "--workers", "0"], "--workers is 0"),
        (["FOLDER", "--config-file", "gone.yaml"], "gone.yaml"),
        (["FOLDER", "--train-json", "a.json"], "name either FOLDER"),
        (["--train-json", "gone.json"], "gone.json"),
        (["FOLDER", "--val-json", "a.json"], "name either FOLDER"),
        (["--dataset", "FOLDER", "--val-json", "a.json"], "name either FOLDER"),
        (["--dataset", ""], "name either FOLDER"),
        (["--dataset", "gone"], "gone"),
        (["a", "--dataset", "b"], "a and --dataset b: give one of the two"),
        (["FOLDER", "--image-folder", "images"], "--image-folder goes with --train-json"),
        (["FOLDER", "--on-bad", "drop"], "--on-bad drop is for --fix"),
        (["FOLDER", "--fix", "FOLDER"], "is there already"),
    ],
)
def test_what_cannot_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    root = write_coco_folder(tmp_path)
    try:
        code = run(*(root if argument == "FOLDER" else argument for argument in arguments))
    except SystemExit as stop:  # argparse's
        code = stop.code
    captured = capsys.readouterr()
    assert code == 2
    (line,) = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert message in line


def test_halves_that_share_their_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_coco_folder(tmp_path / "mine")
    found = findings_of(capsys, root)[1]
    assert found["val", "leakage"]["count"] == 4
    assert run(root, "--fix", tmp_path / "out") == 0
    assert len(list((tmp_path / "out" / "images").iterdir())) == 4


def test_an_archive_is_checked_and_written_beside_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = photographs(tmp_path / "mine")
    archive = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", root))
    assert findings_of(capsys, archive, "--images") == findings_of(capsys, root, "--images")
    assert run(archive, "--fix", tmp_path / "out") == 0
    assert len(list((tmp_path / "out" / "images").iterdir())) == 6


def test_names_that_the_locale_cannot_say(tmp_path: Path) -> None:
    root = photographs(tmp_path)
    for name in ("train", "val"):
        change(root / f"{name}.json", "categories", 0, name="\N{CJK UNIFIED IDEOGRAPH-732B}")
    command = [sys.executable, str(PROJECT / "check_dataset.py"), str(root)]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT.parents[1]), "PYTHONIOENCODING": "latin-1"}
    result = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert result.returncode == 0
    assert rb"\u732b" in result.stdout
