"""What a detector gets right and wrong: AP by class, best thresholds, kinds of errors, confusions, worst images.

Examples:
    on what the training evaluated on:  evaluate.py output/mine
    on its test half, at the end:       evaluate.py output/mine --split test
    on other data:                      evaluate.py output/mine --dataset more --output found
    a checkpoint:                       evaluate.py --config-file FILE --weights dino.pth --dataset more --output found

DIR gets eval_report.json, and the pictures confusion.png, errors.png and worst.png; what is there from an earlier
evaluation is written over. See docs/evaluating.md for what they say.
"""

import argparse
import itertools
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from lite_detr_d2.data import ON_BAD
from lite_detr_d2.deploy.arguments import DetectorParser, check_config, detector_arguments, name, path, score
from lite_detr_d2.deploy.run import load_trained
from lite_detr_d2.engine import one_line_errors, open_console
from lite_detr_d2.evaluation.dataset import EvaluationSet, named_dataset, own_dataset
from lite_detr_d2.evaluation.inference import detect
from lite_detr_d2.evaluation.report import check_folder, has_no_other_report, report_on, summary, write_report

logger = logging.getLogger("lite_detr_d2.evaluate")


def parser() -> argparse.ArgumentParser:
    result = DetectorParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    model = detector_arguments(result, "model", "RUN, or --config-file with --weights.")
    model.add_argument("--device", metavar="D", help="such as cpu or cuda:1; CUDA where there is some, if not given")
    data = result.add_argument_group("data", "Without --dataset, it is what the training evaluated on.")
    data.add_argument(
        "--dataset", metavar="PATH", type=name, help="a folder in COCO, YOLO or Pascal VOC format, a .zip of one, or a "
        "COCO file; its classes are matched with the detector's by their names"
    )  # fmt: skip
    data.add_argument(
        "--split", choices=("val", "test"), default="val", help="of the dataset, its half for validation, or for tests"
    )
    data.add_argument(
        "--on-bad",
        choices=ON_BAD,
        default="error",
        help="with --dataset: what becomes of images and boxes that cannot be used: stop (default), or drop them",
    )
    result.add_argument(
        "--output",
        metavar="DIR",
        type=path,
        help="the folder of the report (default: RUN/evaluation, whose name goes on with those of --weights and "
        "--dataset, 'test' of --split, and a number where there is a report of others)",
    )
    result.add_argument(
        "--threshold",
        metavar="S",
        type=score,
        help="of the confusions and the worst images: leave out what scores below S (default: the best for all "
        "classes)",
    )
    return result


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    commands = parser()
    args = commands.parse_args(arguments)
    if (args.run is not None) == (args.config_file is not None):
        commands.error("give one of RUN, and --config-file FILE with --weights FILE")
    check_config(commands, args)
    if args.output is None and args.run is None:
        commands.error("give --output DIR for the report")
    if args.dataset is None and args.on_bad != "error":
        commands.error("--on-bad needs --dataset")
    return args


def default_folder(args: argparse.Namespace, dataset: EvaluationSet, weights: str) -> Path:
    """Where the report of a run goes: those of different weights or data beside each other."""
    sources = [Path(source).resolve() for source in (args.weights, args.dataset) if source is not None]
    words = ["evaluation", *(source.stem if source.is_file() else source.name for source in sources)]
    name = "_".join([*words, *(["test"] if args.split == "test" else [])])
    folders = (Path(args.run, name + (f"_{number}" if number > 1 else "")) for number in itertools.count(1))
    return next(folder for folder in folders if has_no_other_report(folder, dataset.origin, weights))


def main(arguments: Sequence[str]) -> None:
    """Evaluate, and write the report."""
    args = parse(arguments)
    open_console()
    trained = load_trained(
        args.run,
        config_file=args.config_file,
        weights=args.weights,
        device=args.device,
        opts=args.opts,
        trust_pickle=args.trust_pickle,
    )
    if args.dataset is None:
        dataset = own_dataset(trained, split=args.split)
    else:
        dataset = named_dataset(trained, args.dataset, split=args.split, on_bad=args.on_bad)
    output = args.output or default_folder(args, dataset, trained.cfg.MODEL.WEIGHTS)
    check_folder(output)
    records = detect(trained, dataset)
    report = report_on(dataset, records, args.threshold)
    logger.info("%s", summary(report))
    logger.info("Drawing the pictures")
    files = write_report(report, dataset, records, output, trained.cfg.MODEL.WEIGHTS)
    logger.info("The report is in %s: %s", output, ", ".join(file.name for file in files))


if __name__ == "__main__":
    with one_line_errors():
        sys.stdout.reconfigure(errors="backslashreplace")  # names that the locale's encoding does not have
        main(sys.argv[1:])
