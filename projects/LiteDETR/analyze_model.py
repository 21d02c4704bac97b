"""Count a detector's parameters and operations (fvcore; one multiply-add is one operation), or compare two.

Examples:
    a config:        analyze_model.py configs/dino/lite_dino_h3l1_a2b3_r50_36ep.yaml
    a training:      analyze_model.py output/mine
    another image:   analyze_model.py CONFIG --image-size 480 640 MODEL.LITE_DETR.NUM_QUERIES 300
    as detectron2:   analyze_model.py --config-file CONFIG
    two models:      analyze_model.py configs/dino/dino_r50_36ep.yaml configs/dino/lite_dino_h3l1_a2b3_r50_36ep.yaml

KEY VALUE pairs set keys of both models. What the shipped configs cost, beside the Lite DETR paper: paper_tables.py.

Exit code: 0 done, 1 error, 2 wrong arguments.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager

from lite_detr_d2.analysis import IMAGE_SIZE, compare, cost_of_config, describe
from lite_detr_d2.config import validate_config
from lite_detr_d2.deploy.arguments import name, positive
from lite_detr_d2.deploy.run import config_of_run
from lite_detr_d2.engine import add_import, on_available_device, one_line_errors, read_config
from lite_detr_d2.errors import InputError
from lite_detr_d2.wording import in_short, shown

ROOT = Path(__file__).resolve().parents[2]


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        usage="%(prog)s [-h] [--image-size HEIGHT WIDTH] [--import MODULE] A [B] [KEY VALUE ...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "words",
        metavar="A [B] [KEY VALUE ...]",
        nargs="*",
        type=name,
        help="a config or the OUTPUT_DIR of a training, perhaps another, and overrides of their configs",
    )
    parser.add_argument("--config-file", metavar="FILE", type=name, help="a config, as another way to name A")
    parser.add_argument(
        "--image-size",
        metavar=("HEIGHT", "WIDTH"),
        nargs=2,
        type=positive,
        default=IMAGE_SIZE,
        help="in pixels, as the model gets it: after INPUT.MIN_SIZE_TEST and MAX_SIZE_TEST; "
        f"{IMAGE_SIZE[0]} {IMAGE_SIZE[1]}, that of published figures, if not given",
    )
    add_import(parser)
    args = parser.parse_intermixed_args(arguments)
    words = [*filter(None, [args.config_file]), *args.words]
    if not words:
        parser.error("name a config, or the OUTPUT_DIR of a training")
    # Overrides are pairs: an even number of words has a second model.
    number = 2 - len(words) % 2
    args.models, args.opts = words[:number], words[number:]
    return args


def main(arguments: Sequence[str]) -> None:
    args = parse(arguments)
    image_size = tuple(args.image_size)
    configs = [read(model, args.opts) for model in args.models]
    if len(configs) == 1:
        print(describe(configs[0], image_size))
        return
    first, second = (cost_of_config(cfg, image_size) for cfg in configs)
    print(f"An image of 3 x {image_size[0]} x {image_size[1]}:")
    print(compare(first, second, names_of(*args.models)))


def read(model: str, opts: Sequence[str]) -> CfgNode:
    """Return the valid config of a model, which is a config's file or a training's folder."""
    if not PathManager.exists(model):
        shipped = [str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob(f"{Path(model).stem}.yaml")]
        meant = f" Did you mean {in_short(shipped)}?" if shipped else ""
        raise InputError(
            f"{shown(model)}: there is no such config or training.{meant} After them, each KEY has its VALUE."
        )
    file = str(config_of_run(Path(model))) if PathManager.isdir(model) else model
    cfg = read_config(argparse.Namespace(config_file=file, opts=opts))
    try:
        validate_config(cfg)
    except InputError as error:
        raise InputError(f"Config {shown(file)}: {error}") from error
    return on_available_device(cfg)


def names_of(first: str, second: str) -> tuple[str, str]:
    """What two models are called: the names of their files or folders, or if these are the same all of their paths."""
    names = [Path(model).name.removesuffix(".yaml") for model in (first, second)]
    return (names[0], names[1]) if names[0] != names[1] else (os.path.normpath(first), os.path.normpath(second))


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])
