"""OpenVINO's files in int8, by nncf: small, checked, scored, and made without a word of its own."""

import sys
from pathlib import Path

import openvino
import pytest
from detectron2.config import CfgNode

from lite_detr_d2.deploy import precision
from lite_detr_d2.deploy.bounds import fixed
from lite_detr_d2.deploy.comparison import LIMITS, Limits
from lite_detr_d2.deploy.export import export, verify
from lite_detr_d2.deploy.formats import Settings
from lite_detr_d2.deploy.manifest import Manifest
from lite_detr_d2.deploy.predictor import load as load_predictor
from lite_detr_d2.deploy.run import TrainedModel
from lite_detr_d2.deploy.self_check import CheckFailed
from lite_detr_d2.errors import InputError
from tests.deploy.annotated import write_dataset
from tests.deploy.exports import load, write_run
from tests.deploy.faults import FAULTS, Fault, assert_fault_is_seen

BOUNDS = fixed(1, 96, 128)
SETTINGS = Settings(BOUNDS, "int8")


@pytest.fixture
def trained(small_cfg: CfgNode, tmp_path: Path) -> TrainedModel:
    model = load(write_run(small_cfg, tmp_path / "run"))
    write_dataset(model, BOUNDS, tmp_path / "data", number=8)
    return model


@pytest.fixture
def _any_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a detector whose weights are random, rounding leaves little."""
    monkeypatch.setitem(LIMITS, "int8", Limits(10.0, "rms", selected=0.0, matched=0.0, iou=0.5, score_difference=0.1))
    monkeypatch.setattr(precision, "KEPT", 0.0)


@pytest.mark.usefixtures("_any_loss")
def test_a_file_of_int8(trained: TrainedModel, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    manifest = export(trained, "openvino", folder / "model.xml", SETTINGS)
    assert capfd.readouterr().out == ""
    assert Manifest.read(folder / "model.xml") == manifest
    assert {path.name for path in folder.iterdir()} == {"model.xml", "model.bin", "model.xml.json"}
    cost = manifest.check.precision
    assert cost is not None
    assert cost.images == 7
    assert cost.before > 50
    assert manifest.check.token_difference > 1e-3
    assert "nncf" in manifest.versions
    assert manifest.requires["OPTIMIZATION_CAPABILITIES"] == "INT8"

    exact = export(trained, "openvino", folder / "exact.xml", Settings(BOUNDS))
    assert exact.check.precision is None
    assert (folder / "model.bin").stat().st_size < 0.5 * (folder / "exact.bin").stat().st_size
    model = openvino.Core().read_model(folder / "model.xml")
    assert len(model.outputs) == 3
    assert sum(node.get_type_name() == "FakeQuantize" for node in model.get_ops()) > 20

    again = verify(folder / "model.xml")  # of a twin that is quantised anew: the same, as calibration is
    assert again == manifest.check
    predictor = load_predictor(folder / "model.xml")
    assert len(predictor(next((folder.parent / "data" / "images").iterdir()))["instances"]) == 30


def test_too_large_a_loss_is_seen(trained: TrainedModel, folder: Path) -> None:
    with pytest.raises(CheckFailed):
        export(trained, "openvino", folder / "model.xml", SETTINGS)
    assert not list(folder.iterdir())


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen_and_nothing_is_left(trained: TrainedModel, folder: Path, fault: Fault) -> None:
    assert_fault_is_seen(fault, "openvino", trained, folder / "model.xml", SETTINGS)


def test_nncf_is_named_where_it_is_missing(
    trained: TrainedModel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(InputError, match=r"nncf is needed, but .* pip install 'lite_detr_d2\[int8\]' brings it"):
        export(trained, "openvino", folder / "model.xml", SETTINGS)
    assert not list(folder.iterdir())
