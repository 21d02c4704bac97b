"""``--import``: what a config names may be of the user's own, in whatever program reads it."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from lite_detr_d2.engine import add_import, import_modules
from lite_detr_d2.errors import InputError
from tests.projects.scripts import PROJECT, TINY

ENCODER = """
from lite_detr_d2.modeling.encoder import ENCODER_REGISTRY, DeformableEncoder


@ENCODER_REGISTRY.register()
class MyEncoder(DeformableEncoder):
    pass
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current one, of which no module stays imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_import(parser)
    return parser.parse_args(words)


def test_modules_of_the_current_folder_and_of_packages_in_it(folder: Path) -> None:
    (folder / "mine").mkdir()
    for name in ("one", "mine/__init__", "mine/two"):
        (folder / f"{name}.py").write_text("")
    assert parsed("--import", "one", "--import", "mine.two").modules == ["one", "mine.two"]
    assert {"one", "mine", "mine.two"} <= sys.modules.keys()
    assert parsed().modules == []
    import_modules(["one"])


@pytest.mark.parametrize("name", ["none", "none.such", "mine.none"])
def test_one_that_is_not_there(name: str, folder: Path) -> None:
    (folder / "mine.py").write_text("")
    with pytest.raises(
        InputError, match=rf"^--import {name}: there is no such module\. It is looked for in {folder} and"
    ):
        parsed("--import", name)


@pytest.mark.parametrize("name", ["mine.py", "./mine", "folder/mine.py", "../mine"])
def test_the_name_of_a_file_is_explained(name: str, folder: Path) -> None:
    (folder / "mine.py").write_text("")
    with pytest.raises(InputError, match=r"no folders and no \.py: name those that lead to it with dots"):
        parsed("--import", name)


def test_what_a_module_raises_is_passed_on(folder: Path) -> None:
    (folder / "mine.py").write_text("import missing_one")
    with pytest.raises(ModuleNotFoundError, match="missing_one"):
        parsed("--import", "mine")


@pytest.mark.parametrize(
    ("program", "options", "found"),
    [
        ("analyze_model.py", ["mine.yaml", "--image-size", "64", "96"], "GFLOPs at 3 x 64 x 96"),
        ("train_net.py", ["--config-file", "mine.yaml", "DATASETS.TRAIN", "()"], "DATASETS.TRAIN is empty"),
    ],
)
def test_programs_know_what_it_registers(program: str, options: list[str], found: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(ENCODER)
    (tmp_path / "mine.yaml").write_text(f"_BASE_: {TINY}\nMODEL: {{LITE_DETR: {{ENCODER: {{NAME: MyEncoder}}}}}}")
    for imported in ([], ["--import", "mine"]):
        command = [sys.executable, str(PROJECT / program), *imported, *options]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (found in done.stdout + done.stderr) == bool(imported)
        if not imported:
            assert "MODEL.LITE_DETR.ENCODER.NAME is 'MyEncoder': expected one of" in done.stderr
            assert "imported first, by the module that registers it: --import MODULE" in done.stderr
