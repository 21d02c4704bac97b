"""Time whole models, compiled ops against the pure-PyTorch fallback: DINO and Lite-DINO H3L1-(2+1)x3 on R-50, or any.

Each choice of ops runs in a process of its own. A round times one image per model and process, one process after the
other. Times are medians and quartiles over the rounds, a ratio is the median of the rounds' ratios. Models are in
evaluation mode; weights are random, with offsets that scatter by about 2 pixels around their initial values.

--profile shows instead which operators take most of the time of an encoder's forward pass, and of a training step:
forward, losses and backward.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

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
from worker import Worker

DINO, LITE_DINO = "dino_r50_12ep", "lite_dino_h3l1_a2b3_r50_12ep"
CONFIGS = {path.stem for path in Path(__file__).resolve().parent.parent.glob("configs/*/*.yaml")}
OPS = {"compiled": "0", "fallback": "1"}  # values of LITE_DETR_PURE_TORCH
GOAL_OF_ENCODERS = 0.45
PROFILED = {"profile_encoder": "encoder, forward", "profile_training_step": "training step"}
TOP = 10

Round = dict[str, dict[str, dict[str, float]]]
"""Seconds by ops, model and part of the model."""


def make_worker(ops: str, options: argparse.Namespace) -> Worker:
    """A process that measures with one choice of ops."""
    names = ("device", "threads", "size", "training_size", "processor_time", "models")
    setup = {name: getattr(options, name) for name in names}
    return Worker(ops, "model_worker.py", setup, {"LITE_DETR_PURE_TORCH": OPS[ops]})


def parse_options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser(__doc__)
    add_common_options(parser)
    size: dict[str, Any] = {"type": positive, "nargs": 2, "metavar": ("HEIGHT", "WIDTH")}
    parser.add_argument("--threads", type=positive, default=1, metavar="N", help="of the CPU (default: 1)")
    parser.add_argument("--rounds", type=positive, default=5, metavar="N", help="(default: 5)")
    parser.add_argument("--size", default=[800, 1066], help="of the image (default: 800 1066)", **size)
    parser.add_argument(
        "--models",
        nargs="+",
        choices=CONFIGS,
        metavar="CONFIG",
        help="names of files in configs, of which the first is what the others are compared with (default: "
        f"{DINO} and {LITE_DINO}; with --profile the latter alone)",
    )
    parser.add_argument("--ops", nargs="+", choices=OPS, default=list(OPS), help="(default: both)")
    add_processor_time(parser)
    parser.add_argument("--profile", action="store_true", help="the operators that take most of the time")
    parser.add_argument(
        "--training-size", default=[480, 640], help="of the image of the training step (default: 480 640)", **size
    )
    options = parser.parse_args(arguments)
    check_common_options(parser, options, [options.threads])
    check_processor_time(parser, options)
    options.models = list(dict.fromkeys(options.models or ([LITE_DINO] if options.profile else [DINO, LITE_DINO])))
    options.ops = list(dict.fromkeys(options.ops))
    return options


def main(arguments: Sequence[str]) -> int:
    options = parse_options(arguments)
    machine = describe_machine(options.device) | {"threads": options.threads}
    say(machine_lines(machine))
    workers = []
    try:
        for ops in options.ops:
            workers.append(make_worker(ops, options))
        measured, sections = (profile if options.profile else compare)(options, workers)
    except RuntimeError as error:
        sys.stderr.write(f"model.py: {error}\n")
        return 1
    finally:
        for worker in workers:
            worker.close()
    for section in sections:
        say(f"\n{section}")
    write_json(options.json, {"machine": machine, "options": vars(options), **measured})
    return 0


def compare(options: argparse.Namespace, workers: list[Worker]) -> tuple[dict[str, Any], list[str]]:
    """Time every model with every choice of ops, in rounds."""
    step = progress((options.rounds + 1) * len(workers))
    rounds: list[Round] = []
    for number in range(-1, options.rounds):  # the first is a warm-up
        first = number % len(workers)
        rounds.append({})
        for worker in workers[first:] + workers[:first]:
            step(worker.name)
            rounds[-1][worker.name] = worker.ask("time_image")
    del rounds[0]
    sections = [f"### Seconds per image of {_size(options.size)}\n\n{_seconds(options, rounds)}"]
    rows = list(_ratios(options, rounds))
    if rows:
        sections.append(f"### Ratios\n\n{table(['of', 'ratio', ''], rows)}")
    return {"rounds": rounds}, sections


def profile(options: argparse.Namespace, workers: list[Worker]) -> tuple[dict[str, Any], list[str]]:
    """Profile every model with every choice of ops."""
    step = progress(len(PROFILED) * len(workers))
    profiles: dict[str, dict[str, Any]] = {worker.name: {} for worker in workers}
    sections = []
    for (task, title), worker in ((item, worker) for item in PROFILED.items() for worker in workers):
        step(f"{title}, {worker.name}")
        profiles[worker.name][task] = worker.ask(task)
        size = _size(options.training_size if task == "profile_training_step" else options.size)
        for model, operators in profiles[worker.name][task].items():
            whole = sum(row["ms"] for row in operators)
            heading = f"### {title.capitalize()}: {model}, {worker.name} ops, {size}, {whole:,.0f} ms"
            sections.append(f"{heading}\n\n{_operators(operators[:TOP], whole)}")
    return {"profiles": profiles}, sections


def _seconds(options: argparse.Namespace, rounds: list[Round]) -> str:
    lines = []
    for model in options.models:
        for ops in options.ops:
            parts = {part: summary(_series(rounds, ops, model, part)) for part in rounds[0][ops][model]}
            whole = parts.pop("whole")
            shares = [f"{part.median:.2f} ({part.median / whole.median:.0%})" for part in parts.values()]
            lines.append([f"`{model}`", ops, whole.text(), *shares])
    return table(["model", "ops", "whole", *parts], lines)


def _ratios(options: argparse.Namespace, rounds: list[Round]) -> Iterator[list[str]]:
    if len(options.ops) == len(OPS):
        for model in options.models:
            for part in ("whole", "encoder"):
                slow, fast = (_series(rounds, ops, model, part) for ops in ("fallback", "compiled"))
                yield [f"fallback / compiled ops: `{model}`, {part}", ratio(slow, fast).text(), ""]
    first, *others = options.models
    for model in others:
        for ops in options.ops:
            for part in ("whole", "encoder"):
                quotient = ratio(*(_series(rounds, ops, name, part) for name in (model, first)))
                goal = ""
                if (model, first, ops, part) == (LITE_DINO, DINO, "compiled", "encoder"):
                    verdict = "met" if quotient.median <= GOAL_OF_ENCODERS else "**missed**"
                    goal = f"goal <= {GOAL_OF_ENCODERS}: {verdict}"
                yield [f"`{model}` / `{first}`: {ops} ops, {part}", quotient.text(), goal]


def _series(rounds: list[Round], ops: str, model: str, part: str) -> list[float]:
    return [measured[ops][model][part] for measured in rounds]


def _operators(operators: list[dict[str, Any]], whole: float) -> str:
    lines = [
        [f"`{row['operator']}`", str(row["calls"]), f"{row['ms']:,.1f}", f"{row['ms'] / whole:.0%}"]
        for row in operators
    ]
    return table(["operator", "calls", "own time, ms", "share"], lines)


def _size(size: Sequence[int]) -> str:
    return f"{size[0]} x {size[1]}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
