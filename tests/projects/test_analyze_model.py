"""Counting from the command line."""

import shutil
from pathlib import Path

import pytest

from lite_detr_d2.errors import InputError

from .scripts import TINY, load_script

analyze_model = load_script("analyze_model")
SIZE = ("--image-size", 64, 96)
LAYERS = "MODEL.LITE_DETR.DECODER.NUM_LAYERS"


def output_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[str]:
    analyze_model.main([str(argument) for argument in arguments])
    return capsys.readouterr().out.splitlines()


def test_one_config(capsys: pytest.CaptureFixture[str]) -> None:
    lines = output_of(capsys, TINY, *SIZE)
    assert {"backbone", "encoder.layers.0", "decoder.layers"} <= {line.strip("| ").split(" ")[0] for line in lines[:-2]}
    assert lines[-2].startswith("Parameters: 0.")
    assert lines[-1].startswith("GFLOPs at 3 x 64 x 96: 0.")
    assert all(part in lines[-1] for part in ("backbone", "neck", "encoder", "query_selection", "decoder"))


def test_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    """Before and behind other options."""
    plain, deeper = (
        float(line.split()[1])
        for line in (
            output_of(capsys, TINY, LAYERS, 2, *SIZE)[-2],
            output_of(capsys, *SIZE, TINY, LAYERS, 10)[-2],
        )
    )
    assert deeper > plain


def test_a_config_as_detectron2_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    """With overrides, and as the first of two."""
    for others in ((), (LAYERS, 2), (TINY,), (TINY, LAYERS, 2)):
        named, placed = (output_of(capsys, *given, *others, *SIZE) for given in (("--config-file", TINY), (TINY,)))
        assert named == placed


def test_two_models(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A config and a training, whose overrides they share."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(
        f"_BASE_: {TINY}\nMODEL: {{LITE_DETR: {{DIM_: 1}}}}\n".replace("DIM_", "NUM_QUERIES")
    )
    first, header, _, *lines = output_of(capsys, TINY, run, *SIZE, "MODEL.LITE_DETR.NUM_CLASSES", 3)
    assert first == "An image of 3 x 64 x 96:"
    assert header.split() == ["tiny", "run", "ratio"]
    ratios = {line.split()[0]: float(line.split()[-1].rstrip("%")) for line in lines}
    assert list(ratios) == ["backbone", "encoder", "decoder", "rest", "total", "parameters"]
    assert (ratios["backbone"], ratios["encoder"]) == (100.0, 100.0)
    assert max(ratios["decoder"], ratios["total"], ratios["parameters"]) < 100.0


def test_models_of_one_name_are_called_by_their_paths(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    other = tmp_path / TINY.name
    shutil.copy(TINY, other)
    other.write_text(f"_BASE_: {TINY}\n")
    assert output_of(capsys, TINY, other, *SIZE)[1].split() == [str(TINY), str(other), "ratio"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["lite_dino_tiny"],
            r"^lite_dino_tiny: there is no such config or training\. Did you mean configs/dino/lite_dino_tiny\.yaml\?",
        ),
        (["gone.yaml"], r"^gone\.yaml: there is no such config or training"),
        ([str(TINY), "gone"], r"^gone: there is no such config or training"),
        (
            [str(TINY), LAYERS],
            rf"^{LAYERS}: there is no such config or training\. After them, each KEY has its VALUE\.$",
        ),
        ([str(TINY.parent)], r"has no config\.yaml, and is not the OUTPUT_DIR of a training"),
        ([str(TINY), "MODEL.LITE_DETR.LAYERS", "2"], r"MODEL\.LITE_DETR\.LAYERS"),
        ([str(TINY), "MODEL.META_ARCHITECTURE", "RetinaNet"], r"MODEL\.META_ARCHITECTURE is 'RetinaNet'"),
        ([str(TINY), "MODEL.LITE_DETR.ENCODER.SPEC", "H1L1-(1+1)x1"], rf"^Config {TINY}: .*H1L1"),
    ],
)
def test_what_cannot_be_counted(arguments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        analyze_model.main(arguments)


@pytest.mark.parametrize("arguments", [[], [""], [str(TINY), "--image-size", "0", "96"], ["--zoo"]])
def test_wrong_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        analyze_model.main(arguments)
    assert "usage: " in capsys.readouterr().err
