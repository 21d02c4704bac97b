"""Find objects in images and videos: pictures with the boxes drawn, and JSON.

Examples:
    a training's model:   predict.py output/mine --input photos --output found
    a checkpoint:         predict.py --config-file FILE --weights dino.pth --input 'photos/**/*.jpg' --output found
    an exported model:    predict.py --model model.onnx --input clip.mp4 --output found
    a webcam:             predict.py output/mine --input webcam --output found    (until Ctrl-C)
    results to score:     predict.py output/mine --input images --threshold 0 --json results.json \\
                              --annotations val.json

Pictures keep the names that the inputs have below their folder, and the format if it is a usual one (else .png);
videos become .mp4. What is in DIR from an earlier prediction is written over, the inputs and the model never are. DIR
is made if it is not there; the folder of --json FILE has to be there.

Exit code: 0 done, 1 error, 2 wrong arguments, 3 done, but some inputs could not be read: each is named. If none could
be read, that is an error, and what FILE had before stays.
"""

import argparse
import logging
import sys
from collections.abc import Sequence

from lite_detr_d2.deploy.annotate import Outcome, annotate
from lite_detr_d2.deploy.arguments import DetectorParser, check_config, detector_arguments, name, path, positive, score
from lite_detr_d2.deploy.inference import DTYPES
from lite_detr_d2.deploy.media import find_media, plan_outputs
from lite_detr_d2.deploy.predictor import load
from lite_detr_d2.engine import one_line_errors, open_console
from lite_detr_d2.errors import InputError
from lite_detr_d2.files import check_output
from lite_detr_d2.wording import counted, shown

SOME_UNREADABLE, STOPPED = 3, 130

logger = logging.getLogger("lite_detr_d2.predict")


def parser() -> argparse.ArgumentParser:
    result = DetectorParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    model = detector_arguments(result, "model", "One of RUN, --config-file with --weights, and --model.")
    model.add_argument("--model", metavar="FILE", type=name, help="an exported model, whose .json lies beside it")
    model.add_argument("--device", metavar="D", help="such as cpu or cuda:1; CUDA where there is some, if not given")
    model.add_argument("--dtype", choices=DTYPES, default="float32", help="of the model's products (default: float32)")
    model.add_argument(
        "--prepared", action="store_true", help="take the detector's inference form, which is faster, above all on CPUs"
    )
    model.add_argument(
        "--compile",
        action="store_true",
        help="with --prepared: compile it, which takes minutes before the first image: for many images",
    )
    result.add_argument(
        "--input",
        metavar="INPUT",
        nargs="+",
        type=name,
        required=True,
        help="images, videos, folders (with those below them), patterns in quotes; or webcam, or webcam:1 for the next",
    )
    result.add_argument(
        "--output", metavar="DIR", type=path, help="the folder of the pictures; with --json, none are drawn without it"
    )
    result.add_argument("--json", metavar="FILE", type=path, help="write all detections to FILE; not without")
    result.add_argument(
        "--annotations",
        metavar="FILE",
        type=path,
        help="with --json: take image_id and category_id from these annotations in COCO's format, by file_name and by "
        "the names of the classes; else images count from 1 in the order of their names, and classes from 1",
    )
    result.add_argument(
        "--threshold", metavar="S", type=score, default=0.5, help="leave out what scores below S (default: 0.5)"
    )
    result.add_argument(
        "--batch",
        metavar="N",
        type=positive,
        default=1,
        help="images, or frames of a video, at a time (default: 1); an exported model has its own bounds of it",
    )
    return result


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    commands = parser()
    args = commands.parse_args(arguments)
    if [args.run is not None, args.config_file is not None, args.model is not None].count(True) != 1:
        commands.error("give one of RUN, --config-file FILE with --weights FILE, and --model FILE")
    check_config(commands, args)
    if (args.prepared or args.compile) and args.model is not None:
        commands.error("--prepared and --compile are for a RUN or --config-file: an exported model is ready as it is")
    if args.compile and not args.prepared:
        commands.error("--compile is of the inference form: give --prepared, too")
    if args.output is None and args.json is None:
        commands.error("give --output DIR for pictures, or --json FILE for detections, or both")
    if args.annotations and not args.json:
        commands.error("--annotations needs --json FILE, which gets their ids")
    return args


def main(arguments: Sequence[str]) -> int:
    """Predict, and return the exit code."""
    args = parse(arguments)
    open_console()
    if args.json:
        check_output(args.json)
    if args.annotations and not args.annotations.is_file():
        what = "is a folder" if args.annotations.is_dir() else "is not there"
        raise InputError(f"{shown(args.annotations)} {what}: name a file of annotations in COCO's format.")
    outputs = plan_outputs(find_media(args.input, args.output), args.output)
    predictor = load(
        args.model or args.run,
        config_file=args.config_file,
        weights=args.weights,
        device=args.device,
        opts=args.opts,
        dtype=args.dtype,
        prepared=args.prepared,
        compile=args.compile,
        trust_pickle=args.trust_pickle,
    )
    outcome = annotate(
        predictor,
        outputs,
        threshold=args.threshold,
        batch=args.batch,
        json_file=args.json,
        annotations=args.annotations,
    )
    return say(outcome, len(outputs), args)


def say(outcome: Outcome, total: int, args: argparse.Namespace) -> int:
    """Sum up, and return the exit code."""
    see = f": see {args.output}" if args.output else ""
    found = f"{counted(outcome.found, 'detection')} from a score of {args.threshold:g} on"
    logger.info("%d of %d inputs are done, with %s%s", outcome.done, total, found, see)
    if outcome.done and not outcome.found and args.threshold:
        logger.info(
            "A lower --threshold takes what scores less: evaluate.py, and the end of a training, say which suits"
        )
    if outcome.stopped:
        logger.warning("Stopped before the end%s", f": {args.json} is not written" if args.json else "")
        return STOPPED
    if args.json:
        logger.info("%d detections are in %s", outcome.detections, args.json)
    if outcome.failed:
        logger.warning("%d of %d inputs could not be read to their end: each is named above", outcome.failed, total)
        return SOME_UNREADABLE
    return 0


if __name__ == "__main__":
    with one_line_errors():
        sys.stdout.reconfigure(errors="backslashreplace")  # names that the locale's encoding does not have
        sys.exit(main(sys.argv[1:]))
