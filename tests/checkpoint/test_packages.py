"""Weights that are found in an installed package."""

from pathlib import Path

import pytest
from detectron2.utils.file_io import PathManager

from lite_detr_d2.checkpoint import check_there
from lite_detr_d2.errors import InputError


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with weights, which fails when it is imported."""
    folder = tmp_path / "shipping_weights"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError\n")
    (folder / "models" / "some.pth").write_bytes(b"weights")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_the_file_of_a_package(package: Path) -> None:
    address = "package://shipping_weights/models/some.pth"
    check_there("MODEL.WEIGHTS", address)
    assert PathManager.get_local_path(address) == str(package / "models" / "some.pth")
    assert PathManager.isfile(address) and PathManager.exists(address)
    with PathManager.open(address, "rb") as file:
        assert file.read() == b"weights"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("not_installed/a.pth", "there is no package 'not_installed' installed: pip install not_installed"),
        ("shipping_weights/b.pth", "the package shipping_weights has no file 'b.pth': install another version of it"),
        ("shipping_weights/models", "the package shipping_weights has no file 'models': install another version of it"),
        ("json/decoder", "the package json has no file 'decoder': install another version of it"),
        ("../a.pth", "there is no package '..' installed: write package://NAME/FILE"),
    ],
)
def test_what_is_not_there(package: Path, address: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        check_there("MODEL.WEIGHTS", f"package://{address}")
    assert str(error.value) == f"MODEL.WEIGHTS: package://{address}: {message}."
    assert not PathManager.isfile(f"package://{address}")
