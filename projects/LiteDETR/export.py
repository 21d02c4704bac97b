"""Export a detector for another runtime: a file, and FILE.json beside it, which says what the file is.

Examples:
    one size:            export.py output/mine --format onnx --output mine.onnx --size 800 1333
    any that it takes:   export.py output/mine --format onnx --output mine.onnx --dynamic --batch 8
    from a checkpoint:   export.py --config-file FILE --weights FILE --format torch --output dino.pt2 --images photos
    rounded to int8:     export.py output/mine --format openvino --int8 --output mine_int8.xml --size 800 1333
    check a file again:  export.py --verify mine.onnx

The file is run in its own runtime on real images and compared with the detector. It is there only if it does the same;
else what was there before stays. Recipes, and what runs each format: docs/deploy.md.

Exit code: 0 done, 1 error, 2 wrong arguments.
"""

import argparse
import sys
from collections.abc import Sequence

from lite_detr_d2.deploy.arguments import DetectorParser, check_config, detector_arguments, path, positive
from lite_detr_d2.deploy.export import check_request, export, verify
from lite_detr_d2.deploy.formats import FORMATS, Settings
from lite_detr_d2.deploy.run import load_trained
from lite_detr_d2.deploy.sizing import choose_bounds
from lite_detr_d2.engine import one_line_errors, open_console

OPSET = Settings.opset
# Those that --verify reads in the file's description.
OF_EXPORT = ("run", "config_file", "opts", "format", "output", "size", "dynamic", "batch", "dtype", "opset")


def parser() -> argparse.ArgumentParser:
    result = DetectorParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    detector_arguments(result, "detector", "RUN, or --config-file with --weights.")
    file = result.add_argument_group("file")
    file.add_argument("--format", metavar="F", help=f"one of {', '.join(FORMATS)}")
    file.add_argument("--output", metavar="FILE", type=path, help="is written over if it is there")
    types = file.add_mutually_exclusive_group()
    types.add_argument("--dtype", metavar="D", help="float32 (default); or bfloat16 or int8 for products in it")
    types.add_argument(
        "--int8",
        dest="dtype",
        action="store_const",
        const="int8",
        help="the same as --dtype int8, which openvino has: calibrated on images that RUN was trained on; AP on those "
        "that it was evaluated on may not fall below 95 %% of what it was",
    )
    file.add_argument("--opset", metavar="N", type=positive, help=f"of ONNX's operators (default: {OPSET})")
    inputs = result.add_argument_group(
        "inputs", "Images are resized as the config says, made smaller where they do not fit, and padded to the size."
    )
    inputs.add_argument(
        "--size",
        metavar=("HEIGHT", "WIDTH"),
        nargs=2,
        type=positive,
        help="of the images, in pixels. If not given, the square of the config's INPUT.MAX_SIZE_TEST, which holds "
        "upright and lying pictures; for one kind of them alone, a size such as 800 1333 saves two fifths of the work",
    )
    inputs.add_argument(
        "--dynamic",
        action="store_true",
        default=None,
        help="take smaller sizes, too, down to what the detector's queries need, and smaller batches, down to 1",
    )
    inputs.add_argument("--batch", metavar="N", type=positive, help="so many images at once (default: 1)")
    check = result.add_argument_group("check")
    check.add_argument(
        "--images",
        metavar="DIR",
        type=path,
        help="real images of what the detector detects, to run the file on; if not given, those that RUN was evaluated "
        "on, or the registered datasets of DATASETS.TEST",
    )
    check.add_argument(
        "--verify",
        metavar="FILE",
        type=path,
        help="check an exported file again, instead; --weights, if those are no longer where they were",
    )
    return result


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    commands = parser()
    args = commands.parse_args(arguments)
    if args.verify is not None:
        strangers = [name for name in OF_EXPORT if getattr(args, name) not in (None, [])]
        if strangers:
            commands.error(f"--verify FILE knows from its .json how it was exported: leave {_option(strangers[0])} out")
        return args
    if (args.run is not None) == (args.config_file is not None):
        commands.error("give RUN, or --config-file FILE with --weights FILE; or --verify FILE")
    check_config(commands, args)
    missing = [name for name in ("format", "output") if getattr(args, name) is None]
    if missing:
        commands.error(f"{_option(missing[0])} is missing")
    return args


def _option(name: str) -> str:
    return {"run": "RUN", "dtype": "--dtype or --int8"}.get(name, f"--{name.replace('_', '-')}")


def main(arguments: Sequence[str]) -> None:
    args = parse(arguments)
    open_console()
    if args.verify is not None:
        verify(args.verify, weights=args.weights, images=args.images, trust_pickle=args.trust_pickle)
        return
    dtype, opset, dynamic = args.dtype or Settings.dtype, args.opset or OPSET, bool(args.dynamic)
    check_request(args.format, args.output, dtype=dtype, opset=opset, dynamic=dynamic, images=args.images)
    source = {"config_file": args.config_file, "weights": args.weights, "opts": args.opts}
    trained = load_trained(args.run, **source, device="cpu", trust_pickle=args.trust_pickle)
    bounds = choose_bounds(trained.cfg, trained.detector, size=args.size, batch=args.batch or 1, dynamic=dynamic)
    export(trained, args.format, args.output, Settings(bounds, dtype, opset), args.images)


if __name__ == "__main__":
    with one_line_errors():
        sys.stdout.reconfigure(errors="backslashreplace")  # names that the locale's encoding does not have
        main(sys.argv[1:])
