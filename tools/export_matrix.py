"""Export every detector in every format, and print a table of how the files compare with their detectors.

    python tools/export_matrix.py [--size 256 320] [--images DIR] [--models r18] [--formats onnx openvino]

Each cell runs projects/LiteDETR/export.py in a process of its own, with a time limit; its outcome is a line of
output/export_matrix.jsonl. A cell that is there is not run again, unless its config, weights, settings or images, the
package with its compiled ops, or those that it is built on have changed since; --again tries those that failed.
Detectors are exported with dynamic sizes and batches where the format can, but those on detectron2's Swin-T, which
have one size. The backbones of timm need the extra "timm".

There are no trained weights of these detectors: theirs are random, of one seed, with class heads so wide that scores
differ, and with one learned content for all queries. With random contents, two of 900 tokens that swap ranks change
40 % of the detections of Lite-DINO by more than the limits, in PyTorch's own kernels, too. Such weights tell whether a
file computes what its detector does, not what it is worth, nor whether contents are in their order. int8 is left out:
it is calibrated and scored on the dataset of a training.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

import torch
from detectron2.modeling import build_model
from torch import nn

from lite_detr_d2.checkpoint import write_checkpoint
from lite_detr_d2.deploy.formats import FORMATS
from lite_detr_d2.deploy.manifest import Manifest, digest_of_file
from lite_detr_d2.detector import DetrDetector
from lite_detr_d2.engine import on_available_device, read_config
from lite_detr_d2.modeling.query_selection import QuerySelection
from lite_detr_d2.ops.deform_attn import LIBRARY

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "projects" / "LiteDETR" / "export.py"
CONFIGS = ROOT / "configs"
MODELS = {
    "Lite-DINO": "dino/lite_dino_h3l1_a2b3_r18_12ep.yaml",
    "Lite-Deformable-DETR": "deformable_detr/lite_deformable_detr_h3l1_a2b3_r18_50ep.yaml",
    "Lite-H-DETR": "h_detr/lite_h_detr_h3l1_a2b3_r18_12ep.yaml",
    "Sparse-DETR": "sparse_detr/sparse_detr_rho03_r18_50ep.yaml",
}
# The fragment that a detector's config gets; "" for its own backbone.
BACKBONES = {"R-18": "", "Swin-T": "swint", "EfficientNet-Lite0": "efflite0", "ConvNeXt-T": "convnextt"}
DTYPES = ("float32", "bfloat16")
PHOTOGRAPHS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "rocket.jpg",
)
PACKAGES = ("detectron2", "numpy", "torch", "torchvision", "timm", "onnx", "onnxscript", "onnxruntime", "openvino")
COLUMNS = (
    *("detector", "format", "type", "sizes", "s", "MB"),
    *("tokens", "predictions", "selected", "detections", "matched", "scores"),
)


@dataclass(frozen=True)
class Cell:
    """What is exported: the detector on a backbone, the format, and how."""

    detector: str
    backbone: str
    format: str
    dtype: str
    size: tuple[int, int]
    dynamic: bool

    @property
    def arguments(self) -> list[str]:
        words = ["--format", self.format, "--dtype", self.dtype, "--size", *map(str, self.size)]
        return [*words, "--dynamic", "--batch", "2"] if self.dynamic else words


def cells(args: argparse.Namespace) -> Iterator[Cell]:
    for backbone in BACKBONES:
        for detector in MODELS:
            if not any(word.lower() in f"{detector} {backbone}".lower() for word in args.models):
                continue
            for name in args.formats or FORMATS:
                for dtype in (dtype for dtype in FORMATS[name].dtypes if dtype in args.dtypes):
                    dynamic = FORMATS[name].dynamic and backbone != "Swin-T"
                    yield Cell(detector, backbone, name, dtype, tuple(args.size), dynamic)


def write_model(cell: Cell, folder: Path) -> tuple[Path, Path]:
    """Write the config and the weights of a cell's detector, if those of this config and tool are not there."""
    config = folder / f"{cell.detector}_{cell.backbone}.yaml"
    bases, fragment = [CONFIGS / MODELS[cell.detector]], BACKBONES[cell.backbone]
    if fragment:
        bases.append(CONFIGS / "_base_" / "backbone" / f"{fragment}.yaml")
    config.write_text("_BASE_:\n" + "".join(f"  - {base}\n" for base in bases))
    opts = ["MODEL.DEVICE", "cpu", "MODEL.TIMM.PRETRAINED", "False"]
    cfg = on_available_device(read_config(argparse.Namespace(config_file=str(config), opts=opts)))
    digest = hashlib.sha256(cfg.dump().encode() + Path(__file__).read_bytes()).hexdigest()
    weights = folder / f"{config.stem}_{digest[:8]}.pth"
    if not weights.is_file():
        for outdated in folder.glob(f"{config.stem}*.pth"):
            outdated.unlink()
        torch.manual_seed(0)
        write_checkpoint(weights, randomised(build_model(cfg)).state_dict())
    return config, weights


def randomised(model: DetrDetector) -> DetrDetector:
    """Give weights to what starts training at zero, wider ones to class heads, and one content to all queries."""
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and ("class_embed" in name or not parameter.any()):
            # Wide offsets make sampling so steep that rounding grows from layer to layer, as in no trained detector.
            nn.init.normal_(parameter, std=0.1 if "class_embed" in name else 0.01)
    selection = model.query_selection
    if isinstance(selection, QuerySelection) and selection.content is not None:
        selection.content.weight.data[:] = selection.content.weight.data[:1].clone()
    return model


def digest_of(cell: Cell, config: Path, weights: Path, images: Path) -> str:
    """Of all that a cell's outcome depends on."""
    installed = packages_distributions()  # detectron2 comes under several names
    versions = {name: sorted(map(version, set(installed[name]))) for name in PACKAGES if name in installed}
    digest = hashlib.sha256(json.dumps([asdict(cell), versions]).encode())
    digest.update(read_config(argparse.Namespace(config_file=str(config), opts=[])).dump().encode())
    library = [LIBRARY] if LIBRARY.is_file() else []  # of csrc
    sources = sorted((ROOT / "lite_detr_d2").rglob("*.py"))
    for file in [SCRIPT, *sources, *library, weights, *sorted(images.iterdir())]:
        digest.update(digest_of_file(file).encode())
    return digest.hexdigest()


def run(cell: Cell, config: Path, weights: Path, images: Path, folder: Path, limit: float) -> dict[str, Any]:
    """Export in a process of its own; what it has written is removed again."""
    with_files = folder / "files"
    shutil.rmtree(with_files, ignore_errors=True)
    with_files.mkdir()
    output = with_files / f"model{FORMATS[cell.format].suffix}"
    command = [sys.executable, str(SCRIPT), "--config-file", str(config), "--weights", str(weights)]
    command += [*cell.arguments, "--output", str(output), "--images", str(images)]
    start = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
        outcome = {} if done.returncode == 0 else {"error": last_line(done.stderr) or f"exit code {done.returncode}"}
    except subprocess.TimeoutExpired:
        outcome = {"error": f"not done after {limit:.0f} s"}
    outcome["seconds"] = round(time.monotonic() - start, 1)
    if "error" not in outcome:
        manifest = Manifest.read(output)
        outcome["megabytes"] = sum((with_files / name).stat().st_size for name in manifest.files) / 1e6
        outcome["check"] = asdict(manifest.check)
        outcome["versions"] = dict(manifest.versions)
    shutil.rmtree(with_files)
    return outcome


def last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return next((line for line in reversed(lines) if line.startswith("error: ")), lines[-1] if lines else "")


def known(file: Path) -> dict[str, dict[str, Any]]:
    """Outcomes by digest; a line that a killed run did not finish is none."""
    outcomes = {}
    for line in file.read_text().splitlines() if file.is_file() else ():
        try:
            outcome = json.loads(line)
        except ValueError:
            continue
        outcomes[outcome["digest"]] = outcome
    return outcomes


def row(cell: Cell, outcome: dict[str, Any]) -> list[str]:
    sizes = "x".join(map(str, cell.size))
    first = [f"{cell.detector}, {cell.backbone}", cell.format, cell.dtype, f"up to {sizes}" if cell.dynamic else sizes]
    first.append(f"{outcome['seconds']:.0f}")
    if "error" in outcome:
        return [*first, "", f"**failed**: {outcome['error'].removeprefix('error: ')}", *[""] * 5]
    check = outcome["check"]
    differences = (check["token_difference"], check["prediction_difference"])
    return [
        *first,
        f"{outcome['megabytes']:.0f}",
        *(f"{value:.1e}" for value in differences),
        f"{check['selected']:.1%}",
        str(check["compared"]),
        f"{check['matched']:.1%}",
        f"{check['max_score_difference']:.1e}",
    ]


def line(words: Sequence[str]) -> str:
    return f"| {' | '.join(words)} |"


def photographs(folder: Path) -> Path:
    """Copy those that come with scikit-image."""
    import skimage.data  # noqa: PLC0415  (of the extra "demo"; not needed with --images)

    folder.mkdir(exist_ok=True)
    for name in PHOTOGRAPHS:
        shutil.copy(Path(skimage.data.__file__).parent / name, folder / name)
    return folder


def main() -> int:
    """Fill the table; 0 if no cell failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs=2, type=int, default=(256, 320), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--images", type=Path, metavar="DIR", help="photographs; scikit-image's, if not given")
    parser.add_argument("--models", nargs="+", default=[""], metavar="WORD", help="those with one of these in the name")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, metavar="F", help="all, if not given")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES, metavar="D", help="both, if not given")
    parser.add_argument("--minutes", type=float, default=20, help="the limit of a cell (default: 20)")
    parser.add_argument("--folder", type=Path, default=ROOT / "output", help="of export_matrix.jsonl (default: output)")
    parser.add_argument("--again", action="store_true", help="run cells that failed again")
    args = parser.parse_args()
    if not any(cells(args)):
        parser.error(f"there is no cell with --models {' '.join(args.models)} and these formats and types")
    folder = args.folder / "export_matrix"
    folder.mkdir(parents=True, exist_ok=True)
    images = args.images or photographs(folder / "images")
    file = args.folder / "export_matrix.jsonl"
    outcomes, rows, failed = known(file), [], False
    for cell in cells(args):
        config, weights = write_model(cell, folder)
        digest = digest_of(cell, config, weights, images)
        outcome = outcomes.get(digest)
        if outcome is None or (args.again and "error" in outcome):
            outcome = {
                "digest": digest,
                **asdict(cell),
                **run(cell, config, weights, images, folder, args.minutes * 60),
            }
            with file.open("a") as stream:
                stream.write(json.dumps(outcome) + "\n")
        rows.append(row(cell, outcome))
        failed |= "error" in outcome
        print(line(rows[-1]), file=sys.stderr)
    print("\n".join([line(COLUMNS), "|---" * len(COLUMNS) + "|", *map(line, rows)]))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
