"""What a training shows on the console, and what is in its log alone."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.folders import coco_content, write_coco_folder

from .scripts import PROJECT, TINY

MOST_LINES, MOST_COLUMNS = 40, 120
DUMPS = (
    "Environment info:",
    "Running with full config:",
    "Model:\n",
    "Distribution of instances among all 3 categories:",
    "Category ids in annotations are not in",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whose category ids have gaps, as COCO's."""
    content = coco_content()
    for each in content["categories"]:
        each["id"] *= 10
    for each in content["annotations"]:
        each["category_id"] *= 10
    return write_coco_folder(tmp_path_factory.mktemp("console"), content, content)


def shown(data: Path, output: Path, *options: str) -> str:
    """What a training writes to standard output and standard error."""
    return printed("train_net.py", data, *options, "OUTPUT_DIR", str(output))


def printed(program: str, data: Path, *options: str) -> str:
    command = [sys.executable, str(PROJECT / program), "--config-file", str(TINY), "--dataset", str(data)]
    toolkit = {"CUDA_HOME": str(data)}  # PyTorch remarks on one where there is no GPU
    environment = {**os.environ, "PYTHONPATH": str(PROJECT.parents[1]), **toolkit}
    result = subprocess.run(
        [*command, *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    return result.stdout


def test_other_programs_print_alike(data: Path, tmp_path: Path) -> None:
    text = printed("visualize_data.py", data, "--output", str(tmp_path / "samples.png"))
    assert re.search(r"^\d\d:\d\d:\d\d Dataset check: ", text, flags=re.M)
    assert not [part for part in DUMPS if part in text]


def test_a_person_can_read_it(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    text = shown(data, output)
    start = text.partition(" iteration 4 of 4, loss ")[0]
    assert 10 < start.count("\n") <= MOST_LINES
    assert not [line for line in start.splitlines() if len(line) > MOST_COLUMNS and str(tmp_path) not in line]
    words = " ".join(start.split())  # lines are broken where they are full
    for part in (
        "4 images of ",
        " boxes of 3 classes",
        "M parameters",
        " GFLOPs an image of ",
        "4 iterations of ",
        "log.txt",
    ):
        assert part in words, part
    assert "FutureWarning" not in text
    assert "CUDA_HOME" not in text
    assert ": AP " in text.partition(" iteration 4 of 4, loss ")[2]
    log = (output / "log.txt").read_text()
    for dump in DUMPS:
        assert dump not in text
        assert dump in log
    assert "Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all" in log
    assert log.count("\n") > 5 * text.count("\n")


def test_all_of_it_can_be_shown(data: Path, tmp_path: Path) -> None:
    text = shown(data, tmp_path / "run", "--verbose")
    for dump in DUMPS:
        assert dump in text
