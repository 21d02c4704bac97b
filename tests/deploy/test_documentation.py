"""The commands of docs/deploy.md are what the entry points take, and its Python is what the package has."""

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.config import CfgNode
from PIL import Image

from lite_detr_d2.deploy.formats import FORMATS
from tests.projects.scripts import PROJECT, load_script

from .runs import write_run

PAGE = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text()
COMMANDS = [
    shlex.split(line)
    for block in re.findall(r"^```sh\n(.*?)^```$", PAGE, flags=re.M | re.S)
    for line in block.replace("\\\n", "").splitlines()
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[1:4]))
def test_a_command_is_taken(command: list[str]) -> None:
    """What the commands do is tested with the formats: test_torch_formats.py, tests/export."""
    python, script, *arguments = command
    path = PROJECT / Path(script).relative_to("projects/LiteDETR")
    assert python == "python"
    assert path.is_file()
    if path.parent == PROJECT:
        args = load_script(path.stem).parse(arguments)
        name = getattr(args, "format", None)
        assert name is None or args.output.suffix == FORMATS[name].suffix
    else:
        assert 2 <= len(arguments) <= 3


def test_each_format_has_a_recipe() -> None:
    assert {command[command.index("--format") + 1] for command in COMMANDS if "--format" in command} == set(FORMATS)
    assert set(re.findall(r"^\| `(\w[\w-]*)` \|", PAGE, flags=re.M)) == set(FORMATS)


def test_the_code_runs(
    small_cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"^From Python, the same detector:\n\n```python\n(.*?)^```$", PAGE, flags=re.M | re.S)
    monkeypatch.chdir(tmp_path)
    write_run(small_cfg, tmp_path / "output" / "mine")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)).save("photo.jpg")
    names: dict[str, Any] = {}
    exec(compile(code.replace("threshold=0.5", "threshold=0.0"), "docs/deploy.md", "exec"), names)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(names["found"]) > 0
    assert lines[0].startswith(names["detector"].class_names[names["found"].pred_classes[0]])
