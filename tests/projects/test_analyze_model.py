"""Counting from the command line; what it writes about the shipped configs is checked in tests/test_gflops.py."""

from pathlib import Path
from typing import Any

import pytest

from lite_detr_d2.errors import InputError

from .scripts import TINY, load_script

analyze_model = load_script("analyze_model")


def output_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    analyze_model.main([str(argument) for argument in arguments])
    return capsys.readouterr().out


def test_one_config(capsys: pytest.CaptureFixture[str]) -> None:
    lines = output_of(capsys, "--config-file", TINY, "--image-size", 64, 96).splitlines()
    assert {"backbone", "encoder.layers.0", "decoder.layers"} <= {line.strip("| ").split(" ")[0] for line in lines[:-2]}
    assert lines[-2].startswith("Parameters: 0.")
    assert lines[-1].startswith("GFLOPs at 3 x 64 x 96: 0.")
    assert all(part in lines[-1] for part in ("backbone", "neck", "encoder", "query_selection", "decoder"))


def test_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    command = ("--config-file", TINY, "--image-size", 64, 96)
    plain, deeper = (
        output_of(capsys, *command, "MODEL.LITE_DETR.DECODER.NUM_LAYERS", layers).splitlines()[-2] for layers in (2, 10)
    )
    assert float(deeper.split()[1]) > float(plain.split()[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config-file", str(TINY), "--image-size", "0", "96"], r"--image-size is \(0, 96\)"),
        (["--config-file", "gone.yaml"], "gone.yaml"),
        (["--zoo", "MODEL.DEVICE", "cpu"], "leave out --image-size and KEY VALUE"),
        (["--zoo", "--image-size", "64", "96"], "leave out --image-size and KEY VALUE"),
    ],
)
def test_what_cannot_be_counted(arguments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        analyze_model.main(arguments)


def test_the_zoo_is_counted_and_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{analyze_model.BEGIN}old\n{analyze_model.END}after\n")
    counted: list[str] = []

    def count(path: Path) -> Any:
        counted.append(path.stem)
        return analyze_model.Figures(parameters=47.68, total=234.56, backbone=70.0, encoder=130.0, decoder=20.0)

    monkeypatch.setattr(analyze_model, "README", readme)
    monkeypatch.setattr(analyze_model, "count", count)
    table = output_of(capsys, "--zoo").removesuffix("\n")
    assert readme.read_text() == f"before\n{analyze_model.BEGIN}{table}{analyze_model.END}after\n"
    assert len(counted) == len(set(counted)) == len([line for line in table.splitlines() if line.startswith("| `")])
    row = "| 50.7 | 47.7 | 234.6 | 70.0 | 130.0 | 20.0 | 235 (-0.2 %) | 137 (-5.1 %) | 234.6 | |"
    assert f"| `dino_r50_36ep`, `12ep` {row}" in table.splitlines()


def test_a_readme_without_marks_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("nothing\n")
    monkeypatch.setattr(analyze_model, "README", readme)
    with pytest.raises(InputError, match="has no line <!-- begin"):
        analyze_model.write_table({})
    assert readme.read_text() == "nothing\n"
