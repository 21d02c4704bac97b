"""The formats that run in torch: values, what each refuses, and that it runs without this package."""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import detectron2
import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor, nn

import lite_detr_d2
from lite_detr_d2.deploy.bounds import Bounds, Range, fixed
from lite_detr_d2.deploy.export import export
from lite_detr_d2.deploy.formats import FORMATS, Runtime, Settings, aoti, op_library
from lite_detr_d2.deploy.formats.capture import capture
from lite_detr_d2.deploy.formats.op_library import checked_model
from lite_detr_d2.deploy.inference import InferenceModel, InspectedModel
from lite_detr_d2.deploy.manifest import Manifest
from lite_detr_d2.deploy.predictor import load as load_predictor
from lite_detr_d2.deploy.run import TrainedModel
from lite_detr_d2.deploy.sizing import choose_bounds
from lite_detr_d2.errors import InputError
from tests.conftest import make_small_cfg
from tests.helpers import DETECTORS, choose_detector
from tests.ops.test_errors import needs_compiled_ops
from tests.projects.scripts import PROJECT

from .exports import certain, load, write_images, write_run

Array = np.ndarray[Any, Any]

pytestmark = needs_compiled_ops

ONE_SIZE = Settings(fixed(1, 96, 128))
SIZES = Settings(Bounds(Range(1, 3), Range(64, 128), Range(64, 160)))
# What is exported once for all tests of this file. Of AOTInductor's, the C++ compiler takes most of a minute.
CASES = {
    "torch": ("torch", SIZES),
    "aoti": ("aoti", ONE_SIZE),
    "torchscript": ("torchscript", ONE_SIZE),
}


@dataclass
class Exported:
    file: Path
    settings: Settings
    trained: TrainedModel
    manifest: Manifest
    runtime: Runtime


def smallest_cfg() -> CfgNode:
    """With all parts of a Lite-DINO, one of each."""
    cfg = make_small_cfg()
    cfg.MODEL.LITE_DETR.ENCODER.SPEC = "H2L1-(1+1)x1"
    cfg.MODEL.LITE_DETR.DECODER.NUM_LAYERS = 2
    return cfg


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("torch_formats")


@pytest.fixture(scope="module")
def trained(folder: Path) -> TrainedModel:
    torch.manual_seed(0)
    return load(write_run(smallest_cfg(), folder / "run"))


@pytest.fixture(scope="module")
def images(folder: Path) -> Path:
    return write_images(folder / "images")


@pytest.fixture(scope="module", params=CASES)
def exported(request: pytest.FixtureRequest, trained: TrainedModel, folder: Path, images: Path) -> Exported:
    name, settings = CASES[request.param]
    output = folder / request.param.replace(", ", "_") / f"model{FORMATS[name].suffix}"
    output.parent.mkdir()
    manifest = export(trained, name, output, settings, images)
    runtime = FORMATS[name].load(output, manifest.requires)
    return Exported(output, settings, trained, manifest, runtime)


def noise(batch: int, height: int, width: int) -> tuple[Array, Array]:
    """Images, the last of which is padded."""
    random = np.random.default_rng(0)
    sizes = np.array([[height, width]] * batch)
    sizes[-1] -= [height // 4, width // 5]
    pixels = random.integers(0, 256, (batch, 3, height, width), dtype=np.uint8)
    for image, (bottom, right) in zip(pixels, sizes, strict=True):
        image[:, bottom:], image[:, :, right:] = 0, 0
    return pixels, sizes


@torch.no_grad()
def eager(model: nn.Module, inputs: tuple[Array, Array]) -> list[Array]:
    return [output.numpy() for output in model(*map(torch.from_numpy, inputs))]


def assert_same(actual: tuple[Array, ...], expected: list[Array], tolerance: float = 1e-4) -> None:
    for got, wanted in zip(actual, expected, strict=True):
        assert got.dtype == wanted.dtype
        np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance)


def corners(bounds: Bounds) -> set[tuple[int, int, int]]:
    sides = zip(bounds.smallest, bounds.largest, strict=True)
    batches, heights, widths = (sorted({smallest, (smallest + largest) // 2, largest}) for smallest, largest in sides)
    return {(batch, height, width) for batch in batches for height in heights[::2] or heights for width in widths}


def test_no_paths_of_sources_go_out(exported: Exported) -> None:
    if exported.manifest.format != "torch":
        pytest.skip("TorchScript and AOTInductor keep paths, as docs/deploy.md says")
    roots = [str(Path(package.__file__ or "").parent).encode() for package in (lite_detr_d2, detectron2, torch)]
    with zipfile.ZipFile(exported.file) as archive:
        for name in archive.namelist():
            content = archive.read(name)
            assert [root for root in (*roots, b"lite_detr_d2/") if root in content] == [], name


# --- Values.


def test_a_file_computes_what_the_detector_does(exported: Exported) -> None:
    model = InferenceModel(exported.trained.detector).eval()
    for shape in corners(exported.settings.bounds):
        inputs = noise(*shape)
        assert_same(exported.runtime(*inputs), eager(model, inputs))


def test_arrays_of_any_layout(exported: Exported) -> None:
    images, sizes = noise(*exported.settings.bounds.largest)
    expected = exported.runtime(images, sizes)
    columns = np.asfortranarray(images), np.asfortranarray(sizes)
    for array in columns:
        array.flags.writeable = False
    assert_same(exported.runtime(*columns), list(expected), tolerance=0.0)


def test_threads_may_call_it_at_once(exported: Exported) -> None:
    inputs = [noise(*exported.settings.bounds.largest) for _ in range(8)]
    for index, (images, _) in enumerate(inputs):
        images[:, :, : 8 * index] = 0
    expected = [exported.runtime(*each) for each in inputs]
    assert not np.array_equal(expected[0][0], expected[-1][0])
    with ThreadPoolExecutor(4) as pool:
        for got, wanted in zip(pool.map(lambda each: exported.runtime(*each), 2 * inputs), 2 * expected, strict=True):
            assert_same(got, list(wanted), tolerance=0.0)


@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector(small_cfg: CfgNode, tmp_path: Path, name: str) -> None:
    """By TorchScript, the fastest to write; programs of some are in test_inference.py."""
    choose_detector(small_cfg, name)
    detector = certain(build_model(small_cfg)).eval()
    inputs = noise(1, 96, 128)
    expected = eager(InspectedModel(InferenceModel(detector)), inputs)
    file, inspected = tmp_path / "model.ts", tmp_path / "inspected.ts"
    written = FORMATS["torchscript"].write(detector, ONE_SIZE, file, inspected)
    assert_same(FORMATS["torchscript"].load(inspected, written.requires)(*inputs), expected)


def test_plain_attention(small_cfg: CfgNode) -> None:
    small_cfg.MODEL.LITE_DETR.ENCODER.KEY_AWARE = False
    detector = certain(build_model(small_cfg)).eval()
    program = capture(checked_model(detector, ONE_SIZE), detector, ONE_SIZE.bounds)
    inputs = noise(1, 96, 128)
    assert_same(tuple(eager(program.module(), inputs)), eager(InferenceModel(detector), inputs))


def test_attention_is_one_node(trained: TrainedModel) -> None:
    program = capture(checked_model(trained.detector, ONE_SIZE), trained.detector, ONE_SIZE.bounds)
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    attention = [name for name in called if name.startswith("lite_detr.")]
    assert attention[0] == "lite_detr.check_images.default"
    layers = len(trained.detector.encoder.layers) + len(trained.detector.decoder.layers)
    assert attention[1:] == ["lite_detr.key_aware_deform_attn.default"] * layers
    assert not any("grid_sample" in name for name in called)


def test_bfloat16_is_kept_in_a_file(trained: TrainedModel, tmp_path: Path) -> None:
    settings = Settings(ONE_SIZE.bounds, "bfloat16")
    format, inputs = FORMATS["torch"], noise(1, 96, 128)
    written = format.write(trained.detector, settings, tmp_path / "model.pt2", tmp_path / "inspected.pt2")
    found = format.load(tmp_path / "model.pt2", written.requires)(*inputs)
    assert_same(found, eager(InferenceModel(trained.detector, dtype="bfloat16"), inputs))
    assert not np.array_equal(found[1], eager(InferenceModel(trained.detector), inputs)[1])


# --- What a file refuses.


def swapped(sizes: Array) -> Array:
    return sizes[:, ::-1].copy()


def resized(batch: int, height: int, width: int) -> Callable[[Array, Array], tuple[Array, Array]]:
    return lambda images, sizes: noise(*np.add(np.array(images.shape)[[0, 2, 3]], (batch, height, width)))


REFUSED: dict[str, Callable[[Array, Array], tuple[Array, Array]]] = {
    "higher": resized(0, 200, 0),
    "wider": resized(0, 0, 200),
    "a pixel higher": resized(0, 1, 0),
    "a pixel wider": resized(0, 0, 1),
    "much larger": resized(0, 3000, 4000),
    "more": resized(1, 0, 0),
    "lower": lambda images, sizes: noise(1, 63, 64),
    "narrower": lambda images, sizes: noise(1, 64, 63),
    "tiny": lambda images, sizes: noise(1, 8, 8),
    "no pixels": lambda images, sizes: (images[..., :0], sizes),
    "none": lambda images, sizes: (images[:0], sizes[:0]),
    "float images": lambda images, sizes: (images.astype(np.float32), sizes),
    "signed images": lambda images, sizes: (images.astype(np.int8), sizes),
    "gray images": lambda images, sizes: (images[:, :1], sizes),
    "channels last": lambda images, sizes: (images.transpose(0, 2, 3, 1), sizes),
    "one image": lambda images, sizes: (images[0], sizes[0]),
    "int32 sizes": lambda images, sizes: (images, sizes.astype(np.int32)),
    "float sizes": lambda images, sizes: (images, sizes.astype(np.float64)),
    "width before height": lambda images, sizes: (images, swapped(sizes)),
    "empty sizes": lambda images, sizes: (images, 0 * sizes),
    "sizes of more images": lambda images, sizes: (images, sizes.repeat(2, axis=0)),
    "sizes of none": lambda images, sizes: (images, sizes[:0]),
    "sizes of three numbers": lambda images, sizes: (images, sizes[:, [0, 1, 1]]),
}


@pytest.mark.parametrize("change", REFUSED.values(), ids=REFUSED)
def test_other_inputs_are_refused(
    exported: Exported, change: Callable[[Array, Array], tuple[Array, Array]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AOTI_RUNTIME_CHECK_INPUTS", raising=False)
    batch, height, width = exported.settings.bounds.largest
    good = noise(batch, height, width)
    good[1][:] = height, width
    with pytest.raises(InputError, match=rf"{exported.file.name}.*\b(images|sizes)\b"):
        exported.runtime(*change(*good))
    assert len(exported.runtime(*good)) == 3  # it goes on


# --- Without this package.

RUN_EXAMPLE = """
import runpy, sys
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
assert not {"lite_detr_d2", "detectron2"} & set(sys.modules)
"""


def test_the_example_runs_without_this_package(exported: Exported, images: Path, tmp_path: Path) -> None:
    copy = tmp_path / exported.file.parent.name
    shutil.copytree(exported.file.parent, copy)
    without = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "LITE_DETR_PURE_TORCH")}
    photo = images / "0.png"  # upright: the model of one size has to make it smaller
    command = [str(PROJECT / "deploy_examples" / "pytorch.py"), str(copy / exported.file.name), str(photo), "0.3"]
    result = subprocess.run(
        [sys.executable, "-c", RUN_EXAMPLE, *command],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=without,
    )
    assert result.returncode == 0, result.stderr
    found = load_predictor(exported.file)(photo, threshold=0.3)["instances"]
    lines = [line.rsplit(maxsplit=5) for line in result.stdout.splitlines()]
    assert len(lines) == len(found) > 0
    assert [line[0] for line in lines] == [exported.manifest.class_names[label] for label in found.pred_classes]
    numbers = torch.tensor([[float(part) for part in line[1:]] for line in lines])
    torch.testing.assert_close(numbers[:, 0], found.scores, atol=1e-3, rtol=0)
    torch.testing.assert_close(numbers[:, 1:], found.pred_boxes.tensor, atol=0.1, rtol=0)


def test_what_is_required_is_said(exported: Exported) -> None:
    requires = exported.manifest.requires
    assert requires["torch"] == torch.__version__
    assert list(exported.manifest.files) == [exported.file.name, requires["library"]]
    library = exported.file.with_name(requires["library"])
    assert library.read_bytes() == op_library.LIBRARY.read_bytes()


# --- What cannot be exported or loaded.


def test_the_compiled_ops_are_needed(trained: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(op_library, "compiled_ops_status", lambda: (False, "they have not been built (`make`)"))
    for name in ("torch", "aoti", "torchscript"):
        with pytest.raises(InputError, match="need the compiled ops .* not been built"):
            FORMATS[name].write(trained.detector, ONE_SIZE, tmp_path / "model", tmp_path / "inspected")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "height", "width"), [("height", 32, 64), ("width", 64, 20)])
def test_the_smallest_size_is_named(trained: TrainedModel, name: str, height: int, width: int) -> None:
    bounds = Bounds(Range(1, 2), Range(height, 128), Range(width, 128))
    with pytest.raises(InputError, match=rf"smallest {name} is {min(height, width)}.* at least 33"):
        capture(InferenceModel(trained.detector), trained.detector, bounds)


def test_one_side_may_vary_alone(trained: TrainedModel) -> None:
    settings = Settings(Bounds(Range(1, 2), Range(128, 128), Range(128, 160)))
    program = capture(checked_model(trained.detector, settings), trained.detector, settings.bounds).module()
    for inputs in (noise(1, 128, 133), noise(2, 128, 160)):
        assert_same(tuple(eager(program, inputs)), eager(InferenceModel(trained.detector), inputs))
    with pytest.raises(Exception, match="128"):
        eager(program, noise(1, 129, 160))


def test_dynamic_bounds_start_where_they_can(trained: TrainedModel) -> None:
    bounds = choose_bounds(trained.cfg, trained.detector, size=(128, 160), batch=2, dynamic=True)
    assert bounds.smallest == [1, 64, 64]


def test_a_backbone_of_one_size_is_named(small_cfg: CfgNode, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = build_model(small_cfg).eval()
    backbone = detector.backbone
    forward = backbone.forward

    def at_one_size(images: Tensor) -> dict[str, Tensor]:
        maps: dict[str, Tensor] = forward(images * torch.ones(int(images.shape[2]), 1))
        return maps

    monkeypatch.setattr(backbone, "forward", at_one_size)
    with pytest.raises(InputError, match="its backbone, ResNet, may take one size .* leave --dynamic out"):
        capture(InferenceModel(detector), detector, SIZES.bounds)


@pytest.mark.parametrize("name", ["torch", "torchscript"])
def test_an_older_torch_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"written by PyTorch 99\.1\.0, and this is"):
        FORMATS[name].load(tmp_path / "model", {"torch": "99.1.0", "library": "_C.so"})


@pytest.mark.parametrize(
    ("requires", "message"),
    [
        ({"torch": "2.9.1"}, r"compiled for PyTorch 2\.9\.1"),
        ({"torch": "99.0.0"}, r"compiled for PyTorch 99\.0\.0"),
        ({"machine": "s390x"}, "compiled for s390x"),
        ({"instructions": "AVX1024"}, "needs a processor with AVX1024"),
    ],
)
def test_another_machine_is_refused(requires: dict[str, str], message: str, tmp_path: Path) -> None:
    machine, instructions, _ = aoti._target()
    here = {"torch": str(torch.__version__), "machine": machine, "instructions": instructions}
    with pytest.raises(InputError, match=message):
        FORMATS["aoti"].load(tmp_path / "model.pt2", {**here, **requires})


def test_a_processor_with_less_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine, instructions, _ = aoti._target()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "LESS")
    here = {"torch": str(torch.__version__), "machine": machine, "instructions": instructions}
    with pytest.raises(InputError, match=f"needs a processor with {instructions}; PyTorch finds LESS"):
        FORMATS["aoti"].load(tmp_path / "model.pt2", here)


@pytest.mark.parametrize("name", ["torch", "aoti", "torchscript"])
def test_a_broken_file_is_named(name: str, tmp_path: Path) -> None:
    machine, instructions, _ = aoti._target()
    file = tmp_path / f"model{FORMATS[name].suffix}"
    file.write_bytes(b"no model")
    here = {"torch": str(torch.__version__), "machine": machine, "instructions": instructions}
    here["library"] = "lite_detr_ops_00000000.so"
    with pytest.raises(InputError, match=rf"{file.name} cannot be loaded by PyTorch \d[^\n]+\Z"):
        FORMATS[name].load(file, here)


@pytest.mark.parametrize("loaded", ["installed", "other"])
@pytest.mark.parametrize("needed", ["installed", "other"])
def test_kernels_of_another_build_are_said(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch, loaded: str, needed: str
) -> None:
    """Where the installed ones do not load, a process has those of the first file."""
    installed = op_library.with_library(tmp_path / "model.ts", {}).requires["library"]
    libraries = {"installed": installed, "other": "lite_detr_ops_00000000.so"}
    if loaded == "other":
        monkeypatch.setattr(torch.ops, "loaded_libraries", {str(tmp_path / libraries["other"])})
    op_library.load_library(tmp_path / "model.ts", {"library": libraries[needed]})
    warned = [message for message in said if "is run with the kernels that are loaded already" in message]
    assert len(warned) == (loaded != needed)
    assert all("model.ts is run" in each and f"than its own, {libraries[needed]}." in each for each in warned)


def test_without_a_compiler(trained: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import exc  # noqa: PLC0415

    def fail(*_: object, **__: object) -> None:
        raise exc.InvalidCxxCompiler

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", fail)
    with pytest.raises(InputError, match=r"needs a C\+\+ compiler: install g\+\+"):
        FORMATS["aoti"].write(trained.detector, ONE_SIZE, tmp_path / "model.pt2", tmp_path / "inspected.pt2")
