"""The fuzzer of images: what it tries is read or refused, and it would notice if it were not."""

import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from lite_detr_d2.errors import InputError
from tests.projects.scripts import TOOLS, load_script

from .pictures import encoded, gradient, write

SCRIPT = TOOLS / "fuzz_images.py"


@pytest.fixture
def fuzzer() -> ModuleType:
    return load_script("fuzz_images", TOOLS)


def test_every_mutation_is_read_or_refused() -> None:
    command = [sys.executable, str(SCRIPT), "--cases", "100", "--seed", "7"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "100 cases" in result.stdout
    assert "0 failures" in result.stdout
    harmless, others = result.stdout.split("other mutations")
    assert "read 100 %" in harmless
    assert "refused" not in harmless
    assert "refused" in others


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_a_case_is_made_again_by_its_seed(fuzzer: ModuleType, tmp_path: Path) -> None:
    counts = [fuzzer.fuzz(30, seed, tmp_path)[0] for seed in (0, 0, 1)]
    assert counts[0] == counts[1] != counts[2]


def refuse(_: Path) -> Any:
    raise InputError("refused")


def stumble(_: Path) -> Any:
    raise KeyError("tag")


def brighter(_: Path) -> Any:
    return gradient() ^ 1


def turned(_: Path) -> Any:
    return gradient().swapaxes(0, 1)


@pytest.mark.parametrize(
    ("reader", "read", "message"),
    [
        ("read_image", stumble, "the pixels raised KeyError"),
        ("read_header", stumble, "the header raised KeyError"),
        ("read_image", refuse, "a harmless change, and refused"),
        ("read_header", refuse, "pixels are read, and the header is refused"),
        ("read_image", turned, "the header says 12 x 8, the pixels are"),
        ("read_image", brighter, "a harmless change, and other pixels"),
    ],
)
def test_a_fault_of_the_reader_is_noticed(
    fuzzer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str, read: Any, message: str
) -> None:
    path = write(tmp_path / "image.png", encoded(Image.fromarray(gradient()), "PNG"))
    assert fuzzer.outcome(path, gradient()) == ("read", "")
    monkeypatch.setattr(fuzzer, reader, read)
    assert message in fuzzer.outcome(path, gradient())[1]


def test_mutations_change_the_files_that_they_are_given(fuzzer: ModuleType) -> None:
    files = fuzzer.seeds()
    assert set(files) == {"JPEG", "PNG", "TIFF", "WEBP"}
    for mutation in (*fuzzer.HARMFUL, *fuzzer.HARMLESS):
        changed = [mutation(content, random.Random(1)) != content for kind in files.values() for content in kind]
        assert any(changed) is (mutation is not fuzzer.leave_alone)
