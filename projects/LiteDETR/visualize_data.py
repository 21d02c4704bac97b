"""Draw what a detector is trained on: images as the model gets them, with their boxes; and what the dataset is made of.

Examples:
    a training:   visualize_data.py output/mine --output samples.png
    images:       visualize_data.py --config-file FILE --dataset DIR --output samples.png
    statistics:   visualize_data.py --config-file FILE --dataset DIR --statistics statistics.png
    both:         visualize_data.py --config-file FILE --dataset DIR --output samples.png --statistics statistics.png
    other sizes:  visualize_data.py --config-file FILE --dataset DIR --output samples.png INPUT.MIN_SIZE_TRAIN "(480,)"

Of a training, the images are the first that it saw, resized, cropped and flipped; of a config, the first that
train_net.py with this dataset and SEED trains on. Where that is -1, each training draws a seed of its own, and the
images are typical. Without --dataset, a config's are those of DATASETS.TRAIN. KEY VALUE pairs come last.

Exit code: 0 done, 1 error, 2 wrong arguments.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from lite_detr_d2.data import ON_BAD
from lite_detr_d2.data.statistics import Statistics
from lite_detr_d2.deploy.arguments import from_zero, name, path, positive
from lite_detr_d2.deploy.run import config_of_run
from lite_detr_d2.engine import add_import, class_names, one_line_errors, open_console, seed_of_run, setup_data
from lite_detr_d2.engine.training_data import first_samples, load_images, usable_images
from lite_detr_d2.visualization.figure_files import check_figure_file, save_figure
from lite_detr_d2.visualization.statistics import draw_statistics
from lite_detr_d2.visualization.training_images import TrainingImage, draw_training_images, losses

MOST_IMAGES = 100

logger = logging.getLogger("lite_detr_d2.visualize_data")


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        usage="%(prog)s [-h] (RUN | --config-file FILE) [--dataset PATH] [--output FILE] [--statistics FILE] "
        "[KEY VALUE ...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    result.add_argument(
        "words",
        metavar="[RUN] [KEY VALUE ...]",
        nargs="*",
        help="OUTPUT_DIR of a training: its config, dataset and seed; and overrides of the config",
    )
    data = result.add_argument_group("data", "RUN, or --config-file with --dataset.")
    data.add_argument("--config-file", metavar="FILE", type=name, help="a config of this package")
    data.add_argument("--dataset", metavar="PATH", type=name, help="as train_net.py takes it; instead of RUN's, too")
    data.add_argument(
        "--on-bad",
        choices=ON_BAD,
        default="error",
        help="with --dataset: what becomes of images and boxes that cannot be used: stop (default), or drop them",
    )
    add_import(data)
    pictures = result.add_argument_group("pictures", "Give one of --output and --statistics, or both.")
    pictures.add_argument("--output", metavar="FILE", type=path, help="the sheet of images, such as .png or .pdf")
    pictures.add_argument(
        "--images", metavar="N", type=sheet, default=12, help=f"on the sheet, up to {MOST_IMAGES} (default: 12)"
    )
    pictures.add_argument(
        "--seed",
        metavar="S",
        type=from_zero,
        help="of which images, and how they are augmented (default: the config's SEED; where that is -1, the one that "
        "RUN drew, or else 0)",
    )
    pictures.add_argument("--statistics", metavar="FILE", type=path, help="the picture of what the dataset is made of")
    return result


def sheet(text: str) -> int:
    number = positive(text)
    if number > MOST_IMAGES:
        raise argparse.ArgumentTypeError(f"'{text}': expected {MOST_IMAGES} images at most")
    return number


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    commands = parser()
    args = commands.parse_intermixed_args(arguments)
    # Overrides are pairs: an odd number of words begins with a run.
    args.run, args.opts = (args.words[0], args.words[1:]) if len(args.words) % 2 else (None, args.words)
    if args.run == "" or (args.run is None) == (args.config_file is None):
        commands.error("give one of RUN, and --config-file FILE; after it, each KEY has its VALUE")
    if args.output is None and args.statistics is None:
        commands.error("give --output FILE for a sheet of images, or --statistics FILE, or both")
    return args


def main(arguments: Sequence[str]) -> None:
    args = parse(arguments)
    open_console()
    for file in filter(None, (args.output, args.statistics)):
        check_figure_file(file)
    if args.run is not None:
        args.config_file = str(config_of_run(Path(args.run)))
    cfg = setup_data(args)
    images = load_images(cfg)
    names = class_names(cfg.DATASETS.TRAIN[0]) or []
    if args.statistics is not None:
        save_figure(draw_statistics(Statistics.of(images, names), ", ".join(cfg.DATASETS.TRAIN)), args.statistics)
        logger.info("The statistics are in %s", args.statistics)
    if args.output is not None:
        draw_samples(cfg, images, names, args)


def draw_samples(cfg: CfgNode, images: Any, names: Sequence[str], args: argparse.Namespace) -> None:
    """Draw the first images of the training, and say what of them is not there any more."""
    seed = seed_for(cfg, args)
    samples = first_samples(cfg, usable_images(cfg, images), args.images, seed)
    drawn = [TrainingImage.of(sample, record, cfg.INPUT.FORMAT) for sample, record in samples]
    save_figure(draw_training_images(drawn, names), args.output)
    logger.info("%s has %d images, of seed %d, with %s", args.output, len(drawn), seed, losses(drawn))


def seed_for(cfg: CfgNode, args: argparse.Namespace) -> int:
    """The seed to draw by: what is given, the config's, the one that the training drew, or 0, which is said."""
    if args.seed is not None:
        return int(args.seed)
    if cfg.SEED >= 0:
        return int(cfg.SEED)
    drawn = None if args.run is None else seed_of_run(Path(args.run))
    if drawn is None:
        whose = "each training draws its own" if args.run is None else f"no checkpoint in {args.run} has the one drawn"
        logger.info("SEED is -1, and %s: these images, of seed 0, are typical, not the first of a training.", whose)
    return drawn or 0


if __name__ == "__main__":
    with one_line_errors():
        sys.stdout.reconfigure(errors="backslashreplace")  # names that the locale's encoding does not have
        main(sys.argv[1:])
