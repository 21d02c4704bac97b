"""Count a detector's parameters and operations (fvcore; one multiply-add is one operation).

Examples:
    one config:     analyze_model.py --config-file configs/dino/lite_dino_h3l1_a2b3_r50_36ep.yaml
    another image:  analyze_model.py --config-file FILE --image-size 480 640 MODEL.LITE_DETR.NUM_QUERIES 300
    the model zoo:  analyze_model.py --zoo    (minutes; writes the table of README.md, and prints it)
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import build_model
from fvcore.nn import flop_count_table

from lite_detr_d2.analysis import IMAGE_SIZE, Cost, cost_of, cost_of_config, count_operations
from lite_detr_d2.engine import add_import, on_available_device, one_line_errors, read_config
from lite_detr_d2.errors import InputError

FOLDER = Path(__file__).resolve().parent
README = FOLDER / "README.md"
BEGIN, END = "<!-- begin: analyze_model.py --zoo -->\n", "<!-- end -->\n"
ZOO = [FOLDER.parents[1] / "configs" / name for name in ("dino", "deformable_detr", "h_detr")]
BACKBONES = ("r50", "swint", "r18")
COLUMNS = "config", "AP (paper)", "params (M)", "GFLOPs", "backbone", "encoder", "decoder"
PAPER_COLUMNS = "paper", "paper, encoder", "reference", "notes"


@dataclass(frozen=True)
class Figures:
    """What the table states of a model: millions of parameters; GFLOPs in all, and of its main parts."""

    parameters: float
    total: float
    backbone: float
    encoder: float
    decoder: float

    @classmethod
    def of(cls, cost: Cost) -> "Figures":
        parts = (cost.parts[name] / 1e9 for name in ("backbone", "encoder", "decoder"))
        return cls(cost.parameters / 1e6, cost.multiply_adds / 1e9, *parts)

    def cells(self) -> list[str]:
        return [f"{value:.1f}" for value in (self.parameters, self.total, self.backbone, self.encoder, self.decoder)]


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config-file", metavar="FILE", help="count one config")
    what.add_argument("--zoo", action="store_true", help="count all configs, and write the table")
    parser.add_argument(
        "--image-size",
        metavar=("HEIGHT", "WIDTH"),
        nargs=2,
        type=int,
        default=IMAGE_SIZE,
        help=f"in pixels; {IMAGE_SIZE[0]} {IMAGE_SIZE[1]} if not given, as in the table",
    )
    add_import(parser)
    parser.add_argument("opts", metavar="KEY VALUE", nargs=argparse.REMAINDER, help="overrides of the config")
    args = parser.parse_args(arguments)
    if not args.zoo:
        analyze(on_available_device(read_config(args)), tuple(args.image_size))
        return
    if args.opts or tuple(args.image_size) != IMAGE_SIZE:
        raise InputError("--zoo counts the configs as they are: leave out --image-size and KEY VALUE.")
    print(write_table({models[0].stem: count(models[0]) for models in zoo()}))


def analyze(cfg: CfgNode, image_size: tuple[int, int]) -> None:
    """Print what the model of ``cfg`` costs."""
    if min(image_size) < 1:
        raise InputError(f"--image-size is {image_size}: expected a height and a width in pixels.")
    model = build_model(cfg)
    counted = count_operations(model, image_size)
    cost = cost_of(model, counted)
    print(flop_count_table(counted, max_depth=2))
    parts = ", ".join(f"{name} {operations / 1e9:.2f}" for name, operations in cost.parts.items())
    print(f"Parameters: {cost.parameters / 1e6:.2f} M")
    print(f"GFLOPs at 3 x {image_size[0]} x {image_size[1]}: {cost.multiply_adds / 1e9:.2f} ({parts})")


def read(path: Path) -> CfgNode:
    return on_available_device(read_config(argparse.Namespace(config_file=str(path), opts=[])))


def count(path: Path) -> Figures:
    return Figures.of(cost_of_config(read(path)))


def zoo() -> list[list[Path]]:
    """The shipped configs for COCO, those of one model together, longest schedule first."""
    models: dict[str, list[Path]] = {}
    for folder in ZOO:
        for path in sorted(folder.glob("*ep.yaml"), key=_rank):
            models.setdefault(read(path).MODEL.dump(), []).append(path)
    return list(models.values())


def _rank(path: Path) -> tuple[int, bool, str, int]:
    model, backbone, schedule = path.stem.rsplit("_", 2)
    return BACKBONES.index(backbone), model.startswith("lite_"), model, -int(schedule.removesuffix("ep"))


def write_table(figures: Mapping[str, Figures]) -> str:
    """Put the table of ``figures``, by config, between the marks of the README; return it."""
    before, begin, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise InputError(
            f"{README} has no line {(END if begin else BEGIN).strip()}: the table goes between the two marks."
        )
    table = "\n".join(table_lines(figures)) + "\n"
    README.write_text(before + BEGIN + table + END + after, encoding="utf-8")
    return table


def table_lines(figures: Mapping[str, Figures]) -> Iterator[str]:
    """Lines of the table: ``figures``, by config, beside the paper's; and its notes."""
    paper = json.loads((FOLDER / "paper.json").read_text(encoding="utf-8"))
    columns = [*COLUMNS, *PAPER_COLUMNS]
    yield _line(columns)
    yield "|---" * len(columns) + "|"
    for models in zoo():
        name, *twins = (path.stem for path in models)
        known = paper["models"].get(name, {})
        also = [f"`{twin.rpartition('_')[2]}`" for twin in twins]
        ap, *counts = _number(known.get("AP")), *figures[name].cells()
        yield _line([", ".join([f"`{name}`", *also]), ap, *counts, *_published(known, figures[name])])
    yield ""
    for letter, text in paper["notes"].items():
        yield f"- {letter}: {text}"


def _published(known: Mapping[str, Any], ours: Figures) -> list[str]:
    cells = []
    for key, counted in (("gflops", ours.total), ("encoder", ours.encoder)):
        cells.append(f"{known[key]} ({percent(counted, known[key]):+.1f} %)" if key in known else "")
    reference = known.get("reference", {}).get("total")
    return [*cells, _number(reference), ", ".join(known.get("notes", ""))]


def percent(counted: float, stated: float) -> float:
    """How far ``counted``, to the decimal that the table shows, is above what the paper states."""
    return (round(counted, 1) / stated - 1) * 100


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _line(cells: Sequence[str]) -> str:
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])
