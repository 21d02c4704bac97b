"""A run of a training: what users' tools are given."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.data.folders import write_coco_folder
from tests.projects.scripts import PROJECT, TINY


@dataclass(frozen=True)
class Run:
    """The ``OUTPUT_DIR`` of a training, and an image. Nothing of its dataset is registered in this process."""

    output: Path
    image: Path


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    dataset = write_coco_folder(folder / "dataset")
    command = [sys.executable, str(PROJECT / "train_net.py"), "--config-file", str(TINY), "--dataset", str(dataset)]
    settings = ["SOLVER.MAX_ITER", "2", "TEST.EVAL_PERIOD", "0", "OUTPUT_DIR", str(folder / "output")]
    result = subprocess.run([*command, *settings], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return Run(folder / "output", dataset / "images" / "0.png")
