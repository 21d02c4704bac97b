"""Export from the command line."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lite_detr_d2.deploy.manifest import Manifest, manifest_path
from lite_detr_d2.engine import one_line_errors

from .scripts import PROJECT, load_script

script = load_script("export")

pytestmark = pytest.mark.usefixtures("pickled")


def code_of(*arguments: object) -> int | str | None:
    with pytest.raises(SystemExit) as caught, one_line_errors():
        script.main([str(argument) for argument in arguments])
    return caught.value.code


def export(run: Path, output: Path, *arguments: object) -> Manifest:
    script.main([str(argument) for argument in (run, "--format", "pickled", "--output", output, *arguments)])
    return Manifest.read(output)


def test_one_size(run: Path, images: Path, tmp_path: Path) -> None:
    manifest = export(run, tmp_path / "model.bin", "--images", images, "--size", 96, 128)
    assert (manifest.bounds.smallest, manifest.bounds.largest) == ([1, 96, 128], [1, 96, 128])
    assert {size[1:] for size in manifest.check.sizes} == {(96, 128)}


def test_the_size_that_is_not_given_holds_all_images(run: Path, images: Path, tmp_path: Path) -> None:
    manifest = export(run, tmp_path / "model.bin", "--images", images, "--batch", 2, "--dtype", "bfloat16")
    assert (manifest.bounds.smallest, manifest.bounds.largest) == ([2, 128, 128], [2, 128, 128])
    assert manifest.dtype == "bfloat16"


def test_any_size_up_to_the_largest(run: Path, images: Path, tmp_path: Path) -> None:
    manifest = export(run, tmp_path / "model.bin", "--images", images, "--dynamic", "--batch", 2, "--size", 120, 160)
    assert (manifest.bounds.smallest, manifest.bounds.largest) == ([1, 64, 64], [2, 120, 160])


def test_a_config_and_weights(run: Path, images: Path, tmp_path: Path) -> None:
    arguments = ["--config-file", run / "config.yaml", "--weights", run / "model_final.pth", "--images", images]
    arguments += ["--format", "pickled", "--output", tmp_path / "model.bin"]
    script.main([str(argument) for argument in arguments])
    assert Manifest.read(tmp_path / "model.bin").class_names[3] == "digit 3"


def test_int8_is_a_type() -> None:
    arguments = ["run", "--format", "openvino", "--output", "mine.xml"]
    assert script.parse([*arguments, "--int8"]) == script.parse([*arguments, "--dtype", "int8"])
    assert script.parse([*arguments, "--int8"]).dtype == "int8"


def test_a_file_is_checked_again(run: Path, images: Path, tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "model.bin"
    export(run, file, "--images", images)
    before = manifest_path(file).read_bytes()
    log.clear()
    script.main(["--verify", str(file), "--images", str(images)])
    assert f"{file} computes what its detector does: on 3 images, of " in log.text
    assert f"The detector is of {file}, and its weights of {run / 'model_final.pth'}" in log.text
    assert manifest_path(file).read_bytes() == before


def test_weights_that_are_elsewhere_now_are_given_again(run: Path, images: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    export(run, file, "--images", images)
    moved = run / "model_final.pth"
    moved.rename(tmp_path / "moved.pth")
    assert "which are gone. Give those that were exported: --weights FILE." in str(
        code_of("--verify", file, "--images", images)
    )
    script.main(["--verify", str(file), "--images", str(images), "--weights", str(tmp_path / "moved.pth")])
    state = torch.load(tmp_path / "moved.pth")
    next(iter(state["model"].values())).add_(1e-3)
    torch.save(state, tmp_path / "moved.pth")
    message = code_of("--verify", file, "--images", images, "--weights", tmp_path / "moved.pth")
    assert f"was made of other weights than {tmp_path / 'moved.pth'} are now" in str(message)


def test_a_file_that_changed_is_not_verified(run: Path, images: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    export(run, file, "--images", images)
    file.write_bytes(file.read_bytes() + b"0")
    assert f"{file} was changed after model.bin.json was written" in str(code_of("--verify", file))


WRONG = {
    "no such run": (["nowhere"], "nowhere: there is no such run"),
    "no such format": (["--format", "onyx"], "There is no format 'onyx': choose one of"),
    "an opset": (["--opset", "18000"], "The format pickled has no operators of ONNX: leave --opset out"),
    "in a file": (["--output", "run/config.yaml/model.bin"], "run/config.yaml is a file, not a folder"),
    "a file of images": (["--images", "run/config.yaml"], "run/config.yaml is a file, not a folder: name a folder"),
    "a checkpoint": (["run/model_final.pth"], "run/model_final.pth is a file, not the OUTPUT_DIR of a training"),
    "another suffix": (["--output", "model.onnx"], "the format pickled is written to a file that ends in .bin"),
    "no such folder": (["--output", "nowhere/model.bin"], "there is no folder"),
    "a folder": (["--output", "folder.bin"], "is a folder: name a file"),
    "no images": (["--images", "folder.bin"], "has no images to check the exported file on"),
    "no folder of images": (["--images", "nowhere"], "nowhere"),
    "another dtype": (["--dtype", "float16"], "The format pickled has no float16: choose float32 or bfloat16"),
    "int8": (["--int8"], "The format pickled has no int8: choose float32 or bfloat16"),
    "too small": (["--size", "8", "8"], "Images of 8 x 8 (height x width) have 3 tokens, fewer than the 20 queries"),
}


OF_THE_DETECTOR = ("no such run", "a checkpoint", "no images", "too small")


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_exported(
    run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if name not in OF_THE_DETECTOR:
        monkeypatch.setattr(script, "load_trained", None)  # all else is known before
    (tmp_path / "folder.bin").mkdir()
    before = sorted(tmp_path.rglob("*"))
    arguments, reason = WRONG[name]
    given = {"--format": "pickled", "--output": "model.bin", "--images": str(images)}
    where: list[object] = [run]
    if arguments[0] in given:
        given[arguments[0]] = arguments[1]
    elif name in ("no such run", "a checkpoint"):
        where = list(arguments)
    else:
        where += arguments
    message = code_of(*where, *(word for pair in given.items() for word in pair))
    assert isinstance(message, str)
    assert message.startswith("error: ")
    assert len(message.splitlines()) == 1
    assert reason in message
    assert sorted(tmp_path.rglob("*")) == before


def test_without_images_there_is_no_check(run: Path, tmp_path: Path) -> None:
    message = code_of(run, "--format", "pickled", "--output", tmp_path / "model.bin")
    assert "There are no images to check the exported file on" in str(message)
    assert not (tmp_path / "model.bin").exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "give RUN, or --config-file FILE with --weights FILE; or --verify FILE"),
        (["run", "--config-file", "x"], "give RUN, or"),
        (["--config-file", "x"], "--config-file needs --weights FILE"),
        (["run", "--format", "x", "--opts", "KEY", "1"], "--opts needs --config-file: a RUN has its own config"),
        (["run", "--output", "x"], "--format is missing"),
        (["run", "--format", "x"], "--output is missing"),
        (["--verify", "x", "run"], "leave RUN out"),
        (["--verify", "x", "--opset", "18"], "leave --opset out"),
        (["--verify", "x", "--dynamic"], "leave --dynamic out"),
        (["run", "--format", "x", "--output", "x", "--batch", "0"], "'0': expected a whole number, 1 at least"),
        (["run", "--format", "x", "--output", "x", "--batch", "x"], "'x': expected a whole number, 1 at least"),
        (["run", "--format", "x", "--output", ""], "argument --output: the name is empty"),
        (["--verify", ""], "argument --verify: the name is empty"),
        (["--verify", "x", "--int8"], "leave --dtype or --int8 out"),
        (["run", "--format", "x", "--output", "x", "--int8", "--dtype", "float32"], "not allowed with argument --int8"),
        (["run", "--format", "x", "--output", "x", "--size", "5"], "expected 2 arguments"),
    ],
)
def test_wrong_arguments(capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str) -> None:
    assert code_of(*arguments) == 2
    assert reason in capsys.readouterr().err


def test_as_a_program(tmp_path: Path) -> None:
    program = [sys.executable, str(PROJECT / "export.py"), str(tmp_path / "nowhere"), "--format", "torch"]
    done = subprocess.run([*program, "--output", "x.pt2"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path / 'nowhere'}")
    assert len(done.stderr.splitlines()) == 1
