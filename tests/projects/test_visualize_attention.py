"""Pictures of attention, from the command line."""

import math
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from PIL import Image
from torch import Tensor, nn

from lite_detr_d2.deploy import attention
from lite_detr_d2.deploy.predictor import load
from lite_detr_d2.errors import InputError
from lite_detr_d2.modeling.encoder import ENCODER_REGISTRY
from lite_detr_d2.structures import EncoderResult, FlattenedFeatures
from lite_detr_d2.visualization import View, draw_attention
from tests.deploy.runs import write_config, write_run

from .scripts import PROJECT, load_script

script = load_script("visualize_attention")

WIDTH, HEIGHT = 120, 90


@dataclass(frozen=True)
class Case:
    """Two models, and an image."""

    key_aware: Path
    plain: Path
    image: Path

    def draw(self, *arguments: object, runs: Sequence[object] = (), output: Path | None = None) -> Path:
        output = output or self.image.with_name("attention.png")
        script.main([*map(str, runs or (self.key_aware,)), *self.words(*arguments, output=output)])
        return output

    def words(self, *arguments: object, output: Path | None = None) -> list[str]:
        """The command line behind the models."""
        output = output or self.image.with_name("attention.png")
        return [str(word) for word in ("--image", self.image, "--output", output, "--device", "cpu", *arguments)]


@pytest.fixture
def case(small_cfg: CfgNode, tmp_path: Path) -> Case:
    write_run(small_cfg, tmp_path / "kda")
    small_cfg.MODEL.LITE_DETR.ENCODER.KEY_AWARE = False
    write_run(small_cfg, tmp_path / "plain", seed=1)
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((WIDTH, HEIGHT)).save(tmp_path / "photo.png")
    return Case(tmp_path / "kda", tmp_path / "plain", tmp_path / "photo.png")


@pytest.fixture
def views(monkeypatch: pytest.MonkeyPatch) -> list[View]:
    """What is drawn."""
    drawn: list[View] = []

    def record(pixels: Any, views: Sequence[View], top: int) -> Any:
        drawn.extend(views)
        return draw_attention(pixels, views, top)

    monkeypatch.setattr(attention, "draw_attention", record)
    return drawn


def test_a_point_of_two_models(case: Case, views: list[View], log: pytest.LogCaptureFixture) -> None:
    output = case.draw("--point", 100, 20.5, runs=(case.plain, case.key_aware))
    with Image.open(output) as image:
        assert image.width > 1000
        assert image.height > 800
    assert f"The picture is {output}" in log.text
    assert [view.title for view in views] == [
        f"{case.plain}: deformable attention, encoder layer 1",
        f"{case.key_aware}: key-aware attention, encoder layer 1",
    ]
    for view in views:
        assert view.query_name == "token of level 2 nearest to the point 100, 20.5"
        assert view.sampling.shapes == ((12, 16), (6, 8), (3, 4))
        assert view.query == 192 + 48 + 3
        assert view.sampling.references[view.query].tolist() == pytest.approx([3.5 / 4, 0.5 / 3])


def test_a_config_with_weights_is_a_model_too(case: Case, views: list[View]) -> None:
    """Alone, and after the runs."""
    weights = case.plain / "model_final.pth"
    model = ("--config-file", case.plain / "config.yaml", "--weights", weights)
    script.main([*map(str, model), *case.words("--point", 100, 20.5)])
    case.draw("--point", 100, 20.5, *model)
    assert [view.title for view in views] == [
        f"{weights}: deformable attention, encoder layer 1",
        f"{case.key_aware}: key-aware attention, encoder layer 1",
        f"{weights}: deformable attention, encoder layer 1",
    ]
    assert torch.equal(views[0].sampling.locations, views[2].sampling.locations)


OF_MY_OWN = """
from lite_detr_d2.modeling.encoder import ENCODER_REGISTRY, DeformableEncoder

@ENCODER_REGISTRY.register()
class EncoderOfMyOwn(DeformableEncoder):
    pass
"""


def test_the_attention_of_an_encoder_of_ones_own(
    case: Case, small_cfg: CfgNode, views: list[View], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ENCODER_REGISTRY, "_obj_map", dict(ENCODER_REGISTRY._obj_map))
    monkeypatch.syspath_prepend(tmp_path)
    small_cfg.MODEL.LITE_DETR.ENCODER.NAME = "DeformableEncoder"
    small_cfg.MODEL.LITE_DETR.ENCODER.NUM_LAYERS = 3
    write_run(small_cfg, tmp_path / "own")
    small_cfg.MODEL.LITE_DETR.ENCODER.NAME = "EncoderOfMyOwn"
    write_config(small_cfg, tmp_path / "own")
    (tmp_path / "attention_of_mine.py").write_text(OF_MY_OWN)
    with pytest.raises(InputError, match=r"EncoderOfMyOwn.*--import MODULE"):
        case.draw("--point", 5, 5, runs=[tmp_path / "own"])
    case.draw("--point", 5, 5, "--import", "attention_of_mine", runs=[tmp_path / "own"])
    assert [view.title for view in views] == [f"{tmp_path / 'own'}: deformable attention, encoder layer 2"]


def test_layers_and_levels(case: Case, views: list[View]) -> None:
    case.draw("--point", 100, 20.5, "--level", 0)
    case.draw("--point", 100, 20.5, "--layer", 0, "--level", 1)
    case.draw("--point", WIDTH, HEIGHT, "--layer", 0)
    assert [view.query for view in views] == [2 * 16 + 13, 1 * 8 + 6, 48 + 11]
    assert [view.query_name[:16] for view in views] == ["token of level 0", "token of level 1", "token of level 2"]
    assert [list(view.sampling.levels) for view in views] == [[0, 1, 2], [1, 2], [1, 2]]


@pytest.mark.parametrize("number", [1, 4, 7])
def test_the_objects_that_prediction_finds(
    case: Case, views: list[View], log: pytest.LogCaptureFixture, number: int
) -> None:
    found = load(case.key_aware, device="cpu")(case.image)["instances"]
    box, score, label = (
        field[number - 1].tolist() for field in (found.pred_boxes.tensor, found.scores, found.pred_classes)
    )
    called = f"object {number} (class {label}, {score:.0%})"
    case.draw("--object", number)
    x, y = (box[0] + box[2]) / 2 / WIDTH, (box[1] + box[3]) / 2 / HEIGHT
    assert views[0].query_name == f"token of level 2 nearest to the centre of {called}"
    assert views[0].query == 192 + 48 + min(int(y * 3), 2) * 4 + min(int(x * 4), 3)

    assert log.text.count(f"{called} may be nothing: its score is low") == (score < 0.3)

    case.draw("--object", number, "--decoder")
    assert views[1].title == f"{case.key_aware}: key-aware attention, decoder layer 1"
    assert views[1].query_name == f"query of {called}"
    assert box_of_query(case.key_aware, case.image, views[1].query) == pytest.approx(box, abs=0.01)


def test_a_row_says_whose_object_it_looks_from(case: Case, views: list[View]) -> None:
    case.draw("--object", 1, runs=(case.key_aware, case.plain))
    assert [view.query_name.endswith("%) of the first model") for view in views] == [False, True]


def resized(image: Path) -> Tensor:
    """What evaluation makes of 120 x 90: the longer side is 128."""
    with Image.open(image) as opened:
        return torch.tensor(np.asarray(opened.resize((128, 96), Image.Resampling.BILINEAR))).permute(2, 0, 1)


def box_of_query(run: Path, image: Path, query: int) -> list[float]:
    """The box that the last layer predicts, in pixels, clipped."""
    detector: Any = load(run, device="cpu").model
    with torch.no_grad():
        batch, padding = detector.preprocess([{"image": resized(image)}])
        features = detector.encode(batch.tensor, padding)
        predictions = detector.predict(detector.query_selection(features)[0], features)
    x, y, width, height = predictions.boxes[0, query].tolist()
    corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    return [min(max(c, 0.0), 1.0) * side for c, side in zip(corners, (WIDTH, HEIGHT) * 2, strict=True)]


def test_a_decoder_looks_at_the_object_of_the_first(case: Case, views: list[View], tmp_path: Path) -> None:
    """From the other's own detection with the largest product of score and overlap."""

    def disturb(tensor: Tensor) -> None:
        tensor.add_(torch.randn_like(tensor), alpha=0.01)

    moved = changed(case.key_aware, tmp_path / "moved", "decoder.*box_embed", disturb)
    other = changed(moved, tmp_path / "other", "decoder.*class_embed", Tensor.normal_)
    first, second = (load(run, device="cpu")(case.image)["instances"] for run in (case.key_aware, other))
    boxes, scores = second.pred_boxes.tensor.tolist(), second.scores.tolist()
    for number in (1, 4, 8):
        views.clear()
        case.draw("--object", number, "--decoder", runs=(case.key_aware, other))
        wanted = first.pred_boxes.tensor[number - 1].tolist()
        fits = [overlap(wanted, box) * score for box, score in zip(boxes, scores, strict=True)]
        best = fits.index(max(fits))
        assert views[0].query_name.startswith(f"query of object {number} (")
        assert views[1].query_name.startswith(f"query of object {best + 1} (")
        assert box_of_query(other, case.image, views[1].query) == pytest.approx(boxes[best], abs=0.01)


def changed(run: Path, folder: Path, pattern: str, change: Callable[[Tensor], object]) -> Path:
    """A run with other weights in some places."""
    shutil.copytree(run, folder)
    checkpoint = torch.load(folder / "model_final.pth")
    for name, tensor in checkpoint["model"].items():
        if re.search(pattern, name):
            change(tensor)
    names = ("model", "class_names")  # not the checksums
    torch.save({name: checkpoint[name] for name in names}, folder / "model_final.pth")
    return folder


def overlap(first: Sequence[float], second: Sequence[float]) -> float:
    sides = [min(first[axis + 2], second[axis + 2]) - max(first[axis], second[axis]) for axis in (0, 1)]
    shared = max(sides[0], 0) * max(sides[1], 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return shared / (sum(areas) - shared)


@pytest.mark.parametrize("format", ["RGB", "BGR"])
def test_channels_are_those_of_the_detector(
    small_cfg: CfgNode, case: Case, views: list[View], tmp_path: Path, format: str
) -> None:
    small_cfg.INPUT.FORMAT = format
    write_run(small_cfg, tmp_path / format)
    case.draw("--object", 2, runs=[tmp_path / format])
    detector: Any = load(tmp_path / format, device="cpu").model
    pixels = resized(case.image)
    layer = detector.encoder.layers[-1].attention
    seen: list[tuple[Any, ...]] = []
    layer.register_forward_pre_hook(lambda module, args: seen.append(args))
    with torch.no_grad():
        detector([{"image": pixels if format == "RGB" else pixels.flip(0)}])
        locations, weights = layer.sampling(*seen[0])
    torch.testing.assert_close(views[0].sampling.locations, locations[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(views[0].sampling.weights, weights[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("suffix", [".jpg", ".pdf", ".svg", ".PNG"])
def test_formats(case: Case, suffix: str) -> None:
    output = case.draw("--point", 1, 1, output=case.image.with_name(f"attention{suffix}"))
    start = {".jpg": b"\xff\xd8", ".pdf": b"%PDF", ".svg": b"<?xml", ".PNG": b"\x89PNG"}[suffix]
    assert output.read_bytes().startswith(start)


class WithoutAttention(nn.Module):
    """An encoder that leaves all as it is."""

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()

    def forward(self, features: FlattenedFeatures) -> EncoderResult:
        return EncoderResult(features.tokens)


def test_bad_input_is_one_line(case: Case, small_cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        ENCODER_REGISTRY, "_obj_map", {**ENCODER_REGISTRY._obj_map, "WithoutAttention": WithoutAttention}
    )
    point = ("--point", 5, 5)
    small_cfg.MODEL.LITE_DETR.ENCODER.NAME = "WithoutAttention"
    write_run(small_cfg, tmp_path / "without")
    (tmp_path / "empty.png").touch()
    small_cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    stranger, exported = write_config(small_cfg, tmp_path / "stranger").parent, tmp_path / "model.onnx"
    exported.touch()
    none, without = tmp_path / "none", tmp_path / "without"
    bad: list[tuple[Sequence[object], dict[str, Any], str]] = [
        (point, {"runs": [none]}, r"none: there is no such run\. Name the OUTPUT_DIR"),
        (point, {"runs": [case.key_aware, none]}, r"none: there is no such run\. Name the OUTPUT_DIR"),
        (point, {"runs": [case.key_aware, case.image]}, r"photo\.png is a file, not the OUTPUT_DIR of a training"),
        (point, {"runs": [case.key_aware, exported]}, r"model\.onnx is an exported file: name the OUTPUT_DIR"),
        (point, {"runs": [case.key_aware, tmp_path]}, r"has no config\.yaml, and is not the OUTPUT_DIR of a training"),
        (point, {"runs": [case.key_aware, stranger]}, r"MODEL\.META_ARCHITECTURE is 'GeneralizedRCNN': expected one"),
        ((*point, "--image", tmp_path), {}, r"cannot be read: it is a folder, not a file\. Name a file"),
        ((*point, "--image", none), {}, r"none cannot be read: there is no such file\. Correct the name"),
        ((*point, "--image", tmp_path / "empty.png"), {}, r"empty\.png cannot be read: the file is empty"),
        (("--point", 120.5, 5), {}, r"point 120\.5, 5 is outside of .*photo\.png, which is 120 x 90 \(width x height"),
        (("--point", 5, 91), {}, r"point 5, 91 is outside of .*: choose one in it"),
        (("--point", -1, 5), {}, r"point -1, 5 is outside of"),
        ((*point, "--layer", 2), {}, r"encoder of .*kda has no layer 2 .*: choose one from 0 to 1"),
        (("--object", 1, "--decoder", "--layer", 9), {}, r"decoder of .*kda has no layer 9 .*: choose one from 0 to 1"),
        (
            (*point, "--level", 3),
            {},
            r"encoder layer 1: The layer updates no tokens of level 3, but those of the levels",
        ),
        (
            (*point, "--level", 0, "--layer", 0),
            {},
            r"updates no tokens of level 0, .* the levels 1 to 2 .*: choose one",
        ),
        (("--object", 101), {}, r"There is no object 101: .*kda detects 100 in .*photo\.png\. They count from 1"),
        (
            ("--object", 3, "--decoder"),
            {"runs": [case.key_aware, case.plain]},
            "plain detects nothing where .*kda detects",
        ),
        (point, {"runs": [without]}, r"encoder of .*without has no deformable attention, .*: look at its decoder, or"),
        (point, {"output": tmp_path}, r"is not named as a picture: let it end in \.png"),
        (point, {"output": tmp_path / "a.txt"}, r"a\.txt is not named as a picture: .* one of .*pdf"),
        (point, {"output": none / "a.png"}, r"a\.png cannot be written: there is no folder .*none\. Make it first"),
        (point, {"output": case.image / "a.png"}, r"a\.png cannot be written: .*photo\.png is a file, not a folder"),
        ((*point, "--device", "cuda:99"), {}, r"cuda:99"),
    ]
    before = sorted(tmp_path.rglob("*"))
    for arguments, options, message in bad:
        with pytest.raises(InputError, match=message) as error:
            case.draw(*arguments, **options)
        assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before
    case.draw("--object", 1, "--decoder", runs=[without])


def test_a_folder_named_as_a_picture(case: Case, tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match=r"folder\.png is a folder: name a file"):
        case.draw("--point", 5, 5, output=tmp_path / "folder.png")


def test_weights_that_have_diverged(case: Case) -> None:
    for number, part in enumerate(("encoder.layers.1.attention", "decoder.*class_embed", "decoder.*box_embed")):
        folder = case.image.with_name(f"diverged {number}")
        diverged = changed(case.key_aware, folder, part, lambda tensor: tensor.fill_(math.nan))
        for arguments in (("--object", 1), ("--object", 1, "--decoder")):
            with pytest.raises(FloatingPointError, match="the weights have diverged"):
                case.draw(*arguments, runs=[diverged])


def test_wrong_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, output, point = ("--image", "a.jpg"), ("--output", tmp_path / "a.png"), ("--point", "1", "2")
    for arguments, message in (
        ((*image, *output, *point), "give RUN, or --config-file FILE with --weights FILE"),
        (("--weights", "a.pth", *image, *output, *point), "give RUN, or --config-file FILE with --weights FILE"),
        (("run", "other", "--weights", "a.pth", *image, *output, *point), "or the one RUN that it is a checkpoint of"),
        (("run", "--config-file", "a.yaml", *image, *output, *point), "--config-file needs --weights FILE"),
        (("run", *output, *point), "--image"),
        (("run", *image, *point), "--output"),
        (("run", *image, *output), "one of the arguments --point --object is required"),
        (("run", *image, *output, *point, "--object", "1"), "not allowed with"),
        (("run", *image, *output, "--point", "1"), "expected 2 arguments"),
        (("run", *image, *output, "--point", "1", "nan"), "'nan': expected a number of pixels"),
        (("run", *image, *output, "--point", "left", "1"), "'left': expected a number of pixels"),
        (("run", *image, *output, "--object", "0"), "'0': expected a whole number, 1 at least"),
        (("run", *image, *output, *point, "--layer", "-1"), "'-1': expected a whole number, 0 at least"),
        (("run", *image, *output, *point, "--level", "x"), "'x': expected a whole number, 0 at least"),
        (("run", *image, *output, *point, "--top", "0"), "'0': expected a whole number, 1 at least"),
        (("run", *image, *output, *point, "--decoder"), "--decoder goes with --object N"),
        (("run", *image, *output, "--object", "1", "--decoder", "--level", "1"), "--level is of tokens"),
        (("", *image, *output, *point), "the name is empty"),
        (("run", "--image", "", *output, *point), "the name is empty"),
        (("run", *image, *output, *point, "--lay", "1"), "unrecognized arguments"),
    ):
        with pytest.raises(SystemExit) as stop:
            script.main([str(argument) for argument in arguments])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def commands(text: str) -> list[list[str]]:
    lines = re.findall(r"visualize_attention\.py (.*--output .*)$", text.replace("\\\n", " "), flags=re.M)
    return [shlex.split(line) for line in lines]


def test_the_examples_of_the_help_are_taken() -> None:
    examples = commands(script.__doc__ or "")
    assert len(examples) == 5
    for example in examples:
        assert script.parse(example).output.suffix == ".png"


def test_the_commands_of_the_documentation_run(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = case.image.parent
    (folder / "output").mkdir()
    for name, run in (("mine", case.key_aware), ("kda", case.key_aware), ("plain", case.plain)):
        (folder / "output" / name).symlink_to(run)
    with Image.open(case.image) as image:
        image.resize((640, 480)).save(folder / "photo.jpg")
    monkeypatch.chdir(folder)
    documented = commands((PROJECT.parents[1] / "docs" / "visualizing.md").read_text())
    documented = [command for command in documented if "photo.jpg" in command]
    assert len(documented) == 3
    for command in documented:
        script.main([*command, "--device", "cpu"])
    assert {path.name for path in folder.glob("*.png")} == {"photo.png", "attention.png", "kda.png", "query.png"}


def test_the_command_ends_with_its_error_alone(case: Case) -> None:
    command = [PROJECT / "visualize_attention.py", case.key_aware, "--image", case.image, "--point", 500, 5]
    command += ["--output", case.image.with_name("attention.png")]
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.fullmatch(r"error: The point 500, 5 is outside of .*: choose one in it\.\n", done.stderr)
