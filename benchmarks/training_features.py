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
from pathlib import Path
from typing import Any

import torch
from detectron2.config import get_cfg
from detectron2.structures import Boxes, Instances

from lite_detr_d2 import add_lite_detr_config
from lite_detr_d2.engine import Trainer
from lite_detr_d2.engine.ema import WeightAverage

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "dino" / "lite_dino_h3l1_a2b3_r18_12ep.yaml"
SIZE = (480, 640)
NUM_BOXES = 10
VARIANTS: dict[str, list[Any]] = {
    "as it is": [],
    "RECOMPUTE backbone": ["SOLVER.RECOMPUTE", ["backbone"]],
    "RECOMPUTE encoder": ["SOLVER.RECOMPUTE", ["encoder"]],
    "RECOMPUTE both": ["SOLVER.RECOMPUTE", ["backbone", "encoder"]],
    "FREEZE backbone.*": ["SOLVER.FREEZE", ["backbone.*"]],
    "EMA": ["SOLVER.EMA.ENABLED", True],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3, help="of which the median time is taken; another comes first")
    parser.add_argument("--variant", choices=VARIANTS, help="measure this one in this process, and print JSON")
    args = parser.parse_args()
    if args.variant:
        sys.stdout.write(json.dumps(measure(VARIANTS[args.variant], args.steps)))
        return
    sys.stdout.write("| variant | peak memory, MB | seconds per step |\n|---|---|---|\n")
    for name in VARIANTS:
        command = [sys.executable, __file__, "--variant", name, "--steps", str(args.steps)]
        output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        result = json.loads(output.splitlines()[-1])
        sys.stdout.write(f"| {name} | {result['peak']:,.0f} | {result['seconds']:.2f} |\n")
        sys.stdout.flush()


def measure(options: list[Any], steps: int) -> dict[str, float]:
    cfg = get_cfg()
    add_lite_detr_config(cfg)
    cfg.merge_from_file(str(CONFIG))
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.RESNETS.NORM", "FrozenBN", *options])
    torch.manual_seed(0)
    model = Trainer.build_model(cfg)
    optimizer = Trainer.build_optimizer(cfg, model)
    average = WeightAverage(model, cfg.SOLVER.EMA.DECAY) if cfg.SOLVER.EMA.ENABLED else None
    batch, times = [image() for _ in range(2)], []
    for _ in range(steps + 1):
        start = time.perf_counter()
        optimizer.zero_grad()
        torch.stack(list(model(batch).values())).sum().backward()
        optimizer.step()
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
