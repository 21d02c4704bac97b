"""Check a dataset before training: what it would refuse, repair or leave out, and what makes it hard to learn.

Examples:
    check:              check_dataset.py FOLDER            (or a .zip of it, or an annotation file)
    open every image:   check_dataset.py FOLDER --images
    for a script:       check_dataset.py FOLDER --json --strict
    only leakage:       check_dataset.py FOLDER --images --only leakage,leakage-near
    write it in order:  check_dataset.py FOLDER --images --fix OUT --on-bad drop

Exit code: 0 clean, 1 an ERROR (with --strict, or a WARNING), 2 the check could not run.
The checks by their ids, and what to do about each: docs/checking_datasets.md.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

from lite_detr_d2.data import ON_BAD
from lite_detr_d2.data.findings import Report
from lite_detr_d2.data.inspection import (
    TrainingSizes,
    check_out,
    chosen,
    exit_code,
    inspect_content,
    inspect_pictures,
    look_at_images,
    screen,
    without_problems,
    write_folder,
)
from lite_detr_d2.data.normalise import Normalised, normalise
from lite_detr_d2.data.source import Source
from lite_detr_d2.data.sources import find_source, source_of_files
from lite_detr_d2.engine import add_import, read_config
from lite_detr_d2.errors import InputError

COULD_NOT_RUN = 2


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(COULD_NOT_RUN, f"error: {message}\n")


def parser() -> argparse.ArgumentParser:
    result = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    data = result.add_argument_group("dataset")
    data.add_argument("folder", metavar="FOLDER", nargs="?", help="as train_net.py --dataset takes it")
    data.add_argument("--dataset", metavar="FOLDER", help="the same, by the name that it has in the other tools")
    data.add_argument("--train-json", metavar="FILE", help="instead of FOLDER: COCO's annotations to train on")
    data.add_argument("--val-json", metavar="FILE", help="and those to evaluate on")
    data.add_argument("--image-folder", metavar="DIR", help="and the folder that both files' images are in")
    checks = result.add_argument_group("checks")
    checks.add_argument("--images", action="store_true", help="open every image in full, and look for near duplicates")
    checks.add_argument("--workers", metavar="N", type=int, default=os.cpu_count() or 1, help="images opened at a time")
    checks.add_argument("--config-file", metavar="FILE", help="whose image sizes and number of queries count")
    add_import(checks)
    checks.add_argument("--only", metavar="ID[,ID]", help="run the checks of these ids alone")
    checks.add_argument("--skip", metavar="ID[,ID]", help="leave out the checks of these ids")
    checks.add_argument("--strict", action="store_true", help="exit with 1 for a WARNING, too")
    output = result.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="print the findings as JSON, and nothing else")
    output.add_argument("--verbose", action="store_true", help="print all findings with all their places")
    output.add_argument("--fix", metavar="OUT", type=Path, help="write the dataset in order, images and all, to OUT")
    output.add_argument(
        "--on-bad",
        choices=ON_BAD,
        default="error",
        help="with --fix: what becomes of images and boxes that cannot be used; error (the default) writes nothing",
    )
    return result


def main(arguments: Sequence[str]) -> int:
    """Check, say what was found, and return the exit code."""
    args = parser().parse_args(arguments)
    try:
        with TemporaryDirectory(prefix="lite_detr_d2_") as workspace:
            return check(args, Path(workspace))
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return COULD_NOT_RUN


def check(args: argparse.Namespace, workspace: Path) -> int:
    check_arguments(args)
    choice = chosen(args.only, args.skip, images=args.images)
    sizes = TrainingSizes()
    if args.config_file:
        sizes = TrainingSizes.from_config(read_config(argparse.Namespace(config_file=args.config_file, opts=[])))
    source = find(args, workspace)
    normalised = normalise(source)
    if args.fix:  # before what takes long
        check_out(normalised, args.fix, source.root)
    findings = inspect_content(normalised, sizes=sizes)
    usable = normalised
    if args.images:
        pictures = look_at_images(normalised, workers=args.workers, progress=True)
        findings += inspect_pictures(normalised, pictures)
        usable = without_problems(normalised, pictures)
    report = Report.of(normalised.report.findings, findings)
    if args.on_bad == "drop":
        report = report.dropped()
    say(args, source, normalised, choice(report))
    if args.fix and not report.errors:
        write_folder(usable, args.fix, source.root, progress=True)
        print(f"{args.fix} is written.", file=sys.stderr)
    elif args.fix:
        print(f"{args.fix} is not written: there are errors.", file=sys.stderr)
        return 1
    return exit_code(choice(report), strict=args.strict)


def check_arguments(args: argparse.Namespace) -> None:
    """Refuse arguments that contradict each other, or that would do nothing."""
    files = bool(args.train_json or args.val_json)
    if args.folder and args.dataset:
        raise InputError(f"{args.folder} and --dataset {args.dataset}: give one of the two")
    if bool(args.folder or args.dataset) == files:
        raise InputError(
            "name either FOLDER, or --train-json FILE and --val-json FILE, whose images are in --image-folder DIR"
        )
    if args.image_folder and not files:
        raise InputError("--image-folder goes with --train-json and --val-json; FOLDER is searched for its images")
    if args.on_bad == "drop" and not args.fix:
        raise InputError("--on-bad drop is for --fix OUT, which writes what is left")
    if args.workers < 1:
        raise InputError(f"--workers is {args.workers}: expected 1 at least")


def find(args: argparse.Namespace, workspace: Path) -> Source:
    named = args.folder or args.dataset
    if not named:
        return source_of_files(train_json=args.train_json, val_json=args.val_json, images=args.image_folder)
    return find_source(named, workspace)


def say(args: argparse.Namespace, source: Source, normalised: Normalised, report: Report) -> None:
    if args.json:
        print(json.dumps({"counts": report.counts(), "findings": [finding.to_json() for finding in report.findings]}))
        return
    print(
        screen(
            source.root,
            source.kind,
            normalised.halves,
            report,
            opened=args.images,
            verbose=args.verbose,
            colour=sys.stdout.isatty() and not os.environ.get("NO_COLOR"),
        )
    )


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # names that the locale's encoding does not have
    sys.exit(main(sys.argv[1:]))
