"""Time models in several forms side by side: eager, prepared, compiled, in other runtimes, and their floor.

Each form of each model is a process of its own. A round times one batch of each, at each size, one after the other, in
an order that rotates; the first calls of a size are not counted. A ratio is the median of the rounds' ratios to the
first form that is asked for. Weights are random, with offsets that scatter by about 2 pixels around their initial
values; images are noise, of one size.

"floor" is every matrix product and convolution of the model alone, each in the fastest of NCHW, NHWC and weights that
oneDNN has packed. Parts are of the forms in PyTorch; the rest is neck, query selection, and pre- and postprocessing.
The peak of the memory is that of the process so far, with Python and all libraries; on a GPU, of its tensors.

The first call of a size is timed by the clock, and by itself: what is compiled is compiled there. Of a compiled form
only the whole is measured.

A training step is one of the trainer's, with the config's optimizer and ten boxes an image. On a GPU only the forms in
PyTorch are measured.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from common import (
    Parser,
    add_common_options,
    add_processor_time,
    check_common_options,
    check_processor_time,
    describe_machine,
    machine_lines,
    positive,
    progress,
    ratio,
    say,
    summary,
    table,
    write_json,
)
from form_worker import EXPORTED, FORMS
from model import CONFIGS, DINO, LITE_DINO
from model_worker import PARTS
from worker import Worker

Cell = tuple[str, str, tuple[int, int]]
"""A model, a form and a size."""
Measured = dict[Cell, list[dict[str, float]]]

# Time over that of another form, at most: of one thread, 800 x 1066; training steps of two images of 480 x 640.
GOALS = {
    ("compiled", "OpenVINO"): 0.65,
    ("compiled bfloat16", "OpenVINO bfloat16"): 0.50,
    ("compiled training step", "training step"): 0.80,
    ("compiled training step bfloat16", "training step"): 0.48,
    ("prepared", "OpenVINO"): 0.80,
    ("prepared bfloat16", "OpenVINO bfloat16"): 0.62,
    ("prepared", "floor"): 1.25,
    ("prepared bfloat16", "floor bfloat16"): 1.25,
}


def parse_options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser(__doc__)
    add_common_options(parser)
    parser.add_argument("--threads", type=positive, default=1, metavar="N", help="of the CPU (default: 1)")
    parser.add_argument("--rounds", type=positive, default=7, metavar="N", help="(default: 7)")
    parser.add_argument("--batch", type=positive, default=1, metavar="N", help="images at a time (default: 1)")
    parser.add_argument(
        "--size",
        type=positive,
        nargs=2,
        action="append",
        metavar=("HEIGHT", "WIDTH"),
        help="of the images; can be given several times (default: 800 1066)",
    )
    parser.add_argument(
        "--models",
        nargs="+",
        choices=CONFIGS,
        default=[LITE_DINO, DINO],
        metavar="CONFIG",
        help=f"names of files in configs (default: {LITE_DINO} and {DINO})",
    )
    parser.add_argument(
        "--forms",
        nargs="+",
        choices=FORMS,
        metavar="FORM",
        help=f"of {', '.join(FORMS)}; the others are compared with the first (default: all whose packages are "
        "installed)",
    )
    parser.add_argument(
        "--exported",
        metavar="DIR",
        help="a folder that keeps the exported files, for other runs of the same models; else they are made anew",
    )
    add_processor_time(parser)
    options = parser.parse_args(arguments)
    check_common_options(parser, options, [options.threads])
    check_processor_time(parser, options)
    options.size = [tuple(size) for size in options.size or [(800, 1066)]]
    on_gpu = torch.device(options.device).type == "cuda"
    for form in options.forms or ():
        if on_gpu and not FORMS[form].on_gpu:
            parser.error(f"--forms: {form} is measured on the CPU alone")
        if not find_spec(FORMS[form].package):
            parser.error(f"--forms: {form} needs the package {FORMS[form].package}, which is not installed")
    options.forms = options.forms or [
        name for name, form in FORMS.items() if find_spec(form.package) and (form.on_gpu or not on_gpu)
    ]
    if options.exported:
        try:
            Path(options.exported).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            parser.error(f"--exported: {options.exported} cannot be made a folder: {error.strerror}")
    return options


def main(arguments: Sequence[str]) -> int:
    options = parse_options(arguments)
    machine = describe_machine(options.device) | {"threads": options.threads, "batch": options.batch}
    say(machine_lines(machine))
    with tempfile.TemporaryDirectory() as folder:
        try:
            measured = measure(options, options.exported or folder)
        except RuntimeError as error:
            sys.stderr.write(f"forms.py: {error}\n")
            return 1
    for size in options.size:
        say(f"\n### {options.batch} x {size[0]} x {size[1]}\n\n{times_table(options, measured, size)}")
        goals = list(goal_rows(options, measured, size))
        if goals:
            say(f"\n{table(['model', 'ratio', 'measured', 'goal', ''], goals)}")
    cells = [
        {"model": model, "form": form, "size": size, "rounds": rounds}
        for (model, form, size), rounds in measured.items()
    ]
    write_json(options.json, {"machine": machine, "options": vars(options), "cells": cells})
    return 0


def measure(options: argparse.Namespace, exported: str) -> Measured:
    """Time every cell in rounds."""
    workers: dict[tuple[str, str], Worker] = {}
    cells = [(model, form, size) for size in options.size for model in options.models for form in options.forms]
    step = progress(len(cells) * (1 + options.rounds))
    rounds: Measured = {cell: [] for cell in cells}
    try:
        for cell in cells:
            if cell[1] in EXPORTED:
                export(options, cell, exported)
        for cell in cells:
            if cell[:2] not in workers:
                workers[cell[:2]] = make_worker(options, *cell[:2], exported, exports=False)
        for number in range(options.rounds):
            first = number % len(cells)
            for cell in cells[first:] + cells[:first]:
                step(f"{cell[1]}, {cell[0]}")
                rounds[cell].append(workers[cell[:2]].ask(cell[2]))
    finally:
        for worker in workers.values():
            worker.close()
    return rounds


def make_worker(options: argparse.Namespace, model: str, form: str, exported: str, *, exports: bool) -> Worker:
    names = ("device", "threads", "batch", "processor_time")
    setup = {name: getattr(options, name) for name in names}
    setup |= {"model": model, "form": form, "exported": exported, "exports": exports}
    # Else the first call of what is compiled would time what is left of another run.
    return Worker(f"{model} as {form}", "form_worker.py", setup, {"TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"})


def export(options: argparse.Namespace, cell: Cell, exported: str) -> None:
    """Have a file made, by a process whose memory is not counted."""
    worker = make_worker(options, *cell[:2], exported, exports=True)
    try:
        worker.ask(cell[2])
    finally:
        worker.close()


def times_table(options: argparse.Namespace, measured: Measured, size: tuple[int, int]) -> str:
    head = ["model", "form", "median, s", "p90, s", "images/s", f"/ {options.forms[0]}", *PARTS, "rest"]
    lines = []
    for model in options.models:
        first = _series(measured[model, options.forms[0], size], "whole")
        for form in options.forms:
            rounds = measured[model, form, size]
            whole = _series(rounds, "whole")
            median = summary(whole).median
            lines.append([
                f"`{model}`",
                form + _speed(rounds),
                f"{median:.3f}",
                f"{_ninetieth(whole):.3f}",
                "" if "floor" in form else f"{options.batch / median:.2f}",
                ratio(whole, first).text(),
                *(_share(rounds, part, median) for part in (*PARTS, "rest")),
                _per_token(rounds, options.batch),
                "" if "floor" in form else f"{max(_series(rounds, 'peak MiB')):,.0f}",
                f"{rounds[0]['first call']:.1f}",
            ])  # fmt: skip
    return table([*head, "encoder, µs a token", "peak MiB", "first call, s"], lines)


def goal_rows(options: argparse.Namespace, measured: Measured, size: tuple[int, int]) -> Iterator[list[str]]:
    for model in options.models:
        for (above, below), goal in GOALS.items():
            if above in options.forms and below in options.forms:
                found = ratio(*(_series(measured[model, form, size], "whole") for form in (above, below)))
                verdict = "met" if found.median <= goal else "**missed**"
                yield [f"`{model}`", f"{above} / {below}", found.text(), f"<= {goal}", verdict]


def _series(rounds: list[dict[str, float]], name: str) -> list[float]:
    return [each[name] for each in rounds]


def _ninetieth(values: list[float]) -> float:
    return statistics.quantiles(values, n=10, method="inclusive")[-1] if len(values) > 1 else values[0]


def _share(rounds: list[dict[str, Any]], part: str, whole: float) -> str:
    if part not in rounds[0]:
        return ""
    median = summary(_series(rounds, part)).median
    return f"{median:.3f} ({median / whole:.0%})"


def _per_token(rounds: list[dict[str, float]], batch: int) -> str:
    if "encoder" not in rounds[0]:
        return ""
    return f"{1e6 * summary(_series(rounds, 'encoder')).median / (batch * rounds[0]['tokens']):.1f}"


def _speed(rounds: list[dict[str, float]]) -> str:
    if "GFLOP" not in rounds[0]:
        return ""
    return f" ({rounds[0]['GFLOP']:,.0f} GFLOP, {summary(_series(rounds, 'GFLOP/s')).median:,.0f} GFLOP/s)"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
