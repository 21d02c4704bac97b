"""Training where the locale's encoding is ASCII, on classes whose names are not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.folders import coco_content, write_coco_folder

from .scripts import PROJECT, TINY

ASCII = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONWARNINGS": "ignore"}
CLASSES = {"cat": "Käfer", "dog": "犬"}


@pytest.mark.parametrize("escaped", [True, False], ids=["escaped", "utf-8"])
def test_class_names_may_have_any_character(tmp_path: Path, escaped: bool) -> None:
    content = coco_content()
    for category in content["categories"]:
        category["name"] = CLASSES.get(category["name"], category["name"])
    dataset = write_coco_folder(tmp_path / f"{tmp_path.name}_größer", train=content, val=content)
    for half in ("train", "val"):
        text = json.dumps(content, ensure_ascii=escaped)
        (dataset / f"{half}.json").write_text(text, encoding="utf-8")
    output = tmp_path / "output"
    result = train(dataset, output)
    errors = result.stderr.decode("ascii")
    assert result.returncode == 0, errors
    assert "Error" not in errors  # such as one of logging, which goes on
    assert "K\\xe4fer" in result.stdout.decode("ascii")
    assert "Käfer" in (output / "log.txt").read_text("utf-8")
    metrics = json.loads((output / "eval_metrics.json").read_text("ascii"))
    assert {"AP-Käfer", "AP-犬", "AP-ant"} <= set(metrics["bbox"])


def test_a_folder_that_the_locale_does_not_have_is_explained(tmp_path: Path) -> None:
    result = train(write_coco_folder(tmp_path), tmp_path / "Ausgänge")
    assert result.returncode == 1
    message = result.stderr.decode("ascii").splitlines()[-1]
    assert message.startswith("error: OUTPUT_DIR is ")
    assert "PYTHONUTF8=1" in message


def train(dataset: Path, output: Path) -> "subprocess.CompletedProcess[bytes]":
    command = [
        *(sys.executable, str(PROJECT / "train_net.py"), "--config-file", str(TINY)),
        *("--dataset", str(dataset), "OUTPUT_DIR", str(output), "SOLVER.MAX_ITER", "2", "SOLVER.STEPS", "()"),
    ]
    environment = {**os.environ, **ASCII, "PYTHONPATH": str(PROJECT.parents[1])}
    return subprocess.run(command, env=environment, cwd=output.parent, capture_output=True, check=False)
