"""Draw what a detector is trained on: images as the model gets them, with their boxes; and what the dataset is made of.

Examples:
    images:       visualize_data.py --config-file FILE --dataset DIR --output samples.png
    statistics:   visualize_data.py --config-file FILE --dataset DIR --statistics statistics.png
    both:         visualize_data.py --config-file FILE --dataset DIR --output samples.png --statistics statistics.png
    other sizes:  visualize_data.py --config-file FILE --dataset DIR --output samples.png INPUT.MIN_SIZE_TRAIN "(480,)"

The images are the first that train_net.py with this config, dataset and SEED trains on, resized, cropped and flipped.
Without --dataset, they are those of DATASETS.TRAIN.

Exit code: 0 done, 1 error, 2 wrong arguments.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils.logger import setup_logger

from lite_detr_d2.data import ON_BAD
from lite_detr_d2.data.statistics import Statistics
from lite_detr_d2.deploy.arguments import from_zero, name, path, positive
from lite_detr_d2.engine import add_import, class_names, one_line_errors, setup_data
from lite_detr_d2.engine.training_data import first_samples, load_images, usable_images
from lite_detr_d2.visualization.figure_files import check_figure_file, save_figure
from lite_detr_d2.visualization.statistics import draw_statistics
from lite_detr_d2.visualization.training_images import TrainingImage, draw_training_images, losses

MOST_IMAGES = 100

logger = logging.getLogger("lite_detr_d2.visualize_data")


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    data = result.add_argument_group("data")
    data.add_argument("--config-file", metavar="FILE", type=name, required=True, help="of the training")
    data.add_argument("--dataset", metavar="PATH", type=name, help="as train_net.py takes it")
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
        help="of which images, and how they are augmented (default: the config's SEED, or 0 where that is -1)",
    )
    pictures.add_argument("--statistics", metavar="FILE", type=path, help="the picture of what the dataset is made of")
    result.add_argument("opts", metavar="KEY VALUE", nargs=argparse.REMAINDER, help="overrides of the config")
    return result


def sheet(text: str) -> int:
    number = positive(text)
    if number > MOST_IMAGES:
        raise argparse.ArgumentTypeError(f"'{text}': expected {MOST_IMAGES} images at most")
    return number


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    commands = parser()
    args = commands.parse_args(arguments)
    if args.output is None and args.statistics is None:
        commands.error("give --output FILE for a sheet of images, or --statistics FILE, or both")
    return args


def main(arguments: Sequence[str]) -> None:
    args = parse(arguments)
    setup_logger(name="lite_detr_d2", abbrev_name="lite_detr")
    for file in filter(None, (args.output, args.statistics)):
        check_figure_file(file)
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
    seed = max(cfg.SEED, 0) if args.seed is None else args.seed
    samples = first_samples(cfg, usable_images(cfg, images), args.images, seed)
    drawn = [TrainingImage.of(sample, record, cfg.INPUT.FORMAT) for sample, record in samples]
    save_figure(draw_training_images(drawn, names), args.output)
    logger.info("%d images, of seed %d, are in %s: %s", len(drawn), seed, args.output, losses(drawn))


if __name__ == "__main__":
    with one_line_errors():
        sys.stdout.reconfigure(errors="backslashreplace")  # names that the locale's encoding does not have
        main(sys.argv[1:])
