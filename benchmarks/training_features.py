"""What features of training cost or save: the peak memory and the time of a step, each in a process of its own.

A step of Lite-DINO R-18 with random weights and frozen norms, on two random images of 480 x 640 with ten boxes each, on
the CPU.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
from detectron2.config import get_cfg
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from lite_detr_d2 import add_lite_detr_config
from lite_detr_d2.engine import Trainer
from lite_detr_d2.engine.ema import WeightAverage
from lite_detr_d2.engine.step import Step
from lite_detr_d2.randomness import deterministic_algorithms

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "dino" / "lite_dino_h3l1_a2b3_r18_12ep.yaml"
SIZE = (480, 640)
NUM_BOXES = 10
VARIANTS: dict[str, list[Any]] = {
    "as it is": [],
    "ACCUMULATE 2": ["SOLVER.ACCUMULATE", 2],
    "RECOMPUTE backbone": ["SOLVER.RECOMPUTE", ["backbone"]],
    "RECOMPUTE encoder": ["SOLVER.RECOMPUTE", ["encoder"]],
    "RECOMPUTE both": ["SOLVER.RECOMPUTE", ["backbone", "encoder"]],
    "FREEZE backbone.*": ["SOLVER.FREEZE", ["backbone.*"]],
    "EMA": ["SOLVER.EMA.ENABLED", True],
    "DETERMINISTIC": ["SOLVER.DETERMINISTIC", True],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3, help="that are timed in a process; another comes first")
    parser.add_argument("--rounds", type=int, default=5, help="of all variants in turns")
    parser.add_argument("--variant", choices=VARIANTS, help="measure this one in this process, and print JSON")
    args = parser.parse_args()
    if args.variant:
        sys.stdout.write(json.dumps(measure(VARIANTS[args.variant], args.steps)))
        return
    results: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    for _ in range(args.rounds):
        for name, measured in results.items():
            command = [sys.executable, __file__, "--variant", name, "--steps", str(args.steps)]
            output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            measured.append(json.loads(output.splitlines()[-1]))
    first = results["as it is"]
    sys.stdout.write(
        "| variant | peak memory, MB | time of a step, to that of the first in the same round |\n|---|---|---|\n"
    )
    for name, measured in results.items():
        peak = statistics.median(result["peak"] for result in measured)
        ratios = [result["seconds"] / base["seconds"] for result, base in zip(measured, first, strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        sys.stdout.write(f"| {name} | {peak:,.0f} | {spread} |\n")
    seconds = [result["seconds"] for result in first]
    sys.stdout.write(f"The first took {statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f}).\n")


def measure(options: list[Any], steps: int) -> dict[str, float]:
    cfg = get_cfg()
    add_lite_detr_config(cfg)
    cfg.merge_from_file(str(CONFIG))
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.RESNETS.NORM", "FrozenBN", *options])
    torch.manual_seed(0)
    model = Trainer.build_model(cfg)
    step = Step(
        model, repeat([image() for _ in range(2)]), Trainer.build_optimizer(cfg, model), parts=cfg.SOLVER.ACCUMULATE
    )
    average = WeightAverage(model, cfg.SOLVER.EMA.DECAY) if cfg.SOLVER.EMA.ENABLED else None
    times = []
    with EventStorage(), deterministic_algorithms(cfg.SOLVER.DETERMINISTIC):
        for step.iter in range(steps + 1):
            start = time.perf_counter()
            step.run_step()
            if average is not None:
                average.update(model)
            times.append(time.perf_counter() - start)
    return {
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "seconds": statistics.median(times[1:] or times),
    }


def image() -> dict[str, Any]:
    corners = torch.rand(NUM_BOXES, 2) * 0.5
    boxes = torch.cat((corners, corners + 0.1 + 0.4 * torch.rand(NUM_BOXES, 2)), dim=1)
    instances = Instances(SIZE)
    instances.gt_boxes = Boxes(boxes * torch.tensor([SIZE[1], SIZE[0]] * 2))
    instances.gt_classes = torch.randint(80, (NUM_BOXES,))
    return {"image": torch.randint(256, (3, *SIZE), dtype=torch.uint8), "instances": instances}


if __name__ == "__main__":
    main()
