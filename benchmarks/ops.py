"""Time the attention ops against their pure-PyTorch formulation, and against every rival that is installed.

A call is measured whole, from reference points and raw offsets to the output, location arithmetic and softmax included.
The samples of a cell (op, pass, size, images) are taken in rounds: each implementation once per round, in rotating
order. A sample is the mean of as many calls as take 20 ms. Times are medians and quartiles over the rounds, a ratio is
the median of the rounds' ratios. Before anything is timed, every implementation is compared with the reference.

Sizes are numbers of queries over the levels of an 800 x 1066 image (17,821 tokens; 8 heads of 32 channels, 4 points):
  17821, 4421   encoder queries: the tokens of all levels, or of the three coarse ones, in raster order, fine to coarse;
                2-d reference points at their centres, offsets of 2.5 pixels standard deviation
  others        decoder queries: 4-d reference points, boxes anywhere of 3 to 60 percent of the image's sides, points in
                and around them
--locations random is the hard case instead: every point anywhere on its level. --locations cached is the limit: all
queries look at the same place, so that what they sample is always in the nearest cache.

Implementations: ours (compiled), baseline (baseline.py: grid_sample, formulated as published code is), fallback
(lite_detr_d2.ops.reference), and where they are installed torch-ms-deform-attn, transformers (its pure-PyTorch MSDA),
and on CUDA classic (classic_msda.py: the kernel design of 2020).
"""

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import product
from typing import Any

# The compiled ops or an error; detectron2 is not needed.
os.environ["LITE_DETR_PURE_TORCH"] = "0"
os.environ.setdefault("LITE_DETR_OPS_ONLY", "1")

import torch
from cases import CASES, DTYPES, LOCATIONS, PASSES, Call, Setting, make_arguments, pass_of
from common import (
    CpuClock,
    CudaClock,
    Parser,
    add_common_options,
    check_common_options,
    describe_machine,
    interleave,
    machine_lines,
    positive,
    progress,
    say,
    seconds,
    set_threads,
    write_json,
)
from goals import cpu_checks, cuda_checks, goals_table
from memory import measure_extra_peak
from report import Report
from results import Cell, Results, Variant, cells_of
from rivals import IMPLEMENTATIONS

SIZES = (17821, 4421, 900, 300)
ESSENTIAL = ("ours", "baseline", "fallback")  # the others are left out where they do not work


def parse_options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser(__doc__)
    add_common_options(parser)
    counts: dict[str, Any] = {"type": positive, "nargs": "+", "metavar": "N"}
    parser.add_argument("--threads", default=[1], help="of the CPU, one count or more (default: 1)", **counts)
    parser.add_argument("--images", default=[1], help="per call, one count or more (default: 1)", **counts)
    parser.add_argument(
        "--sizes", default=list(SIZES), help="numbers of queries (default: as above, 900, 300)", **counts
    )
    parser.add_argument(
        "--dtype", nargs="+", choices=DTYPES, default=["float32"], help="of maps and queries (default: float32)"
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="(default: all)")
    parser.add_argument(
        "--passes", nargs="+", choices=PASSES, default=list(PASSES), help="backward is with forward (default: both)"
    )
    names = list(IMPLEMENTATIONS)
    parser.add_argument("--implementations", nargs="+", choices=names, default=names, help="(default: all)")
    parser.add_argument("--locations", choices=LOCATIONS, default="model", help="see above (default: model)")
    parser.add_argument("--rounds", type=positive, default=7, metavar="N", help="at least (default: 7)")
    parser.add_argument(
        "--seconds", type=seconds, default=2.0, metavar="S", help="go on for so long in each cell (default: 2)"
    )
    parser.add_argument("--flush-l2", action="store_true", help="CUDA: overwrite the L2 cache before each call")
    parser.add_argument("--memory", action="store_true", help="measure extra peak memory, too, at the largest size")
    parser.add_argument("--goals", action="store_true", help="print the project's goals, and whether they are met")
    options = parser.parse_args(arguments)
    check_common_options(parser, options, options.threads)
    for name in ("threads", "images", "sizes", "dtype", "cases", "passes", "implementations"):
        setattr(options, name, list(dict.fromkeys(getattr(options, name))))
    cuda = torch.device(options.device).type == "cuda"
    if cuda and options.threads != [1]:
        parser.error("--threads is for --device cpu")
    if options.flush_l2 and not cuda:
        parser.error("--flush-l2 is for --device cuda")
    if options.memory and not cuda and not sys.platform.startswith("linux"):
        parser.error("--memory on the CPU needs Linux")
    return options


def main(arguments: Sequence[str]) -> int:
    options = parse_options(arguments)
    usable, notes = find_usable(options)
    broken = [f"{name} {why_not}" for name, why_not in notes.items() if name in ESSENTIAL]
    if broken:
        sys.stderr.write(f"ops.py: {broken[0]}\n")
        return 1
    machine = describe_machine(options.device)
    say(machine_lines(machine))
    for name, why_not in notes.items():
        say(f"- not measured: {name}, which {why_not}")
    results = measure(options, usable)
    cuda = torch.device(options.device).type == "cuda"
    checks = list((cuda_checks if cuda else cpu_checks)(results)) if options.locations == "model" else []
    for section in Report(options, results).sections():
        say(f"\n{section}")
    if options.goals:
        say(f"\n### Goals\n\n{goals_table(checks) if checks else 'None is set for what was measured.'}")
    measured = {
        "times": [
            asdict(cell) | asdict(variant) | {"seconds": times}
            for cell, variants in results.times.items()
            for variant, times in variants.items()
        ],
        "peaks": [
            asdict(cell) | asdict(variant) | {"bytes": peak}
            for cell, variants in results.peaks.items()
            for variant, peak in variants.items()
        ],
        "goals": [check.as_json() for check in checks],
    }
    write_json(options.json, {"machine": machine, "options": vars(options), "not measured": notes} | measured)
    return 0


def find_usable(options: argparse.Namespace) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Which implementations can be measured, by case; and of the others, why not."""
    usable: dict[str, list[str]] = {}
    notes: dict[str, str] = {}
    for name in options.cases:
        fit = [one for one in options.implementations if CASES[name].function in IMPLEMENTATIONS[one].functions]
        for one, dtype in product(fit, options.dtype):
            why_not = IMPLEMENTATIONS[one].why_not(CASES[name], dtype, options.device)
            if why_not:
                notes.setdefault(one, why_not)
        usable[name] = [one for one in fit if one not in notes]
    return usable, notes


def measure(options: argparse.Namespace, usable: dict[str, list[str]]) -> Results:
    device = torch.device(options.device)
    clock = CudaClock(device, options.flush_l2) if device.type == "cuda" else CpuClock()
    cells = cells_of(options.cases, options.passes, options.sizes, options.images)
    step = progress(len(cells))
    times = {}
    for cell in cells:
        step(cell.title())
        variants = [Variant(*key) for key in product(usable[cell.case], options.dtype, options.threads)]
        times[cell] = interleave(
            make_calls(options, cell, variants),
            clock,
            rounds=options.rounds,
            at_least=options.seconds,
            prepare=lambda variant: set_threads(variant.threads),
        )
    return Results(times, measure_peaks(options, usable) if options.memory else {})


def make_calls(options: argparse.Namespace, cell: Cell, variants: Iterable[Variant]) -> dict[Variant, Call]:
    """What is timed. Variants of one data type share their arguments."""
    case, calls, arguments = CASES[cell.case], {}, {}
    for variant in variants:
        setting = Setting(cell.queries, cell.images, variant.dtype, options.device, options.locations)
        if variant.dtype not in arguments:
            arguments[variant.dtype] = make_arguments(case, setting)
        bound = IMPLEMENTATIONS[variant.implementation].bind(case, arguments[variant.dtype])
        calls[variant] = pass_of(bound, arguments[variant.dtype], setting, backward=cell.which == "backward")
    return calls


def measure_peaks(options: argparse.Namespace, usable: dict[str, list[str]]) -> dict[Cell, dict[Variant, int]]:
    peaks: dict[Cell, dict[Variant, int]] = {}
    for cell in cells_of(options.cases, ["backward"], [max(options.sizes)], options.images):
        peaks[cell] = {}
        for dtype, name in product(options.dtype, usable[cell.case]):
            setting = Setting(cell.queries, cell.images, dtype, options.device, options.locations)
            variant = Variant(name, dtype, options.threads[0])
            peaks[cell][variant] = measure_extra_peak(CASES[cell.case], name, setting, variant.threads)
    return peaks


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
