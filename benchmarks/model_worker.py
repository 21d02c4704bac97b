"""The process in which model.py measures: one choice of ops, made by LITE_DETR_PURE_TORCH when they are imported.

Its one argument is a JSON object; then it answers each line of its input, the JSON name of a task, with a line of JSON.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import time_source
from detectron2.config import get_cfg
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from lite_detr_d2 import add_lite_detr_config
from lite_detr_d2.analysis import random_detector

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
PARTS = ("backbone", "encoder", "decoder")
OFFSETS_STD = 0.1  # of the weights, for offsets of about 2 pixels from normalised tokens and positions of 256 channels
NUM_BOXES = 10

BatchedInputs = list[dict[str, Any]]


class PartClock:
    """Adds up the seconds that a model spends in its parts; asked for the device's time, it waits for the device."""

    def __init__(self, model: nn.Module, device: torch.device, now: Callable[[], float]) -> None:
        self.device, self.now = device, now
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._hooks = []
        for part in PARTS:
            module = getattr(model, part)
            self._hooks.append(module.register_forward_pre_hook(lambda *_, part=part: self._count(part, -1)))
            self._hooks.append(module.register_forward_hook(lambda *_, part=part: self._count(part, 1)))

    def __call__(self, call: Callable[[], Any]) -> dict[str, float]:
        """Seconds of the whole ``call``, of the model's parts, and of the rest."""
        self.seconds = dict.fromkeys(PARTS, 0.0)
        start = self._now()
        call()
        whole = self._now() - start
        return {"whole": whole, **self.seconds, "rest": whole - sum(self.seconds.values())}

    def leave_parts(self) -> None:
        """Count the whole alone from now on: torch.compile has no graph of what looks at a clock."""
        for hook in self._hooks:
            hook.remove()

    def _count(self, part: str, sign: int) -> None:
        self.seconds[part] += sign * self._now()

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return self.now()


class Subject:
    """A model of a shipped config, with random weights, and an image."""

    def __init__(
        self,
        name: str,
        device: str,
        size: tuple[int, int],
        training_size: tuple[int, int],
        now: Callable[[], float],
    ) -> None:
        self.cfg = get_cfg()
        add_lite_detr_config(self.cfg)
        (file,) = CONFIGS.glob(f"*/{name}.yaml")
        self.cfg.merge_from_file(str(file))
        self.cfg.MODEL.DEVICE = device
        torch.manual_seed(0)
        self.model = random_detector(self.cfg).eval()
        _scatter_offsets(self.model)
        self.device = torch.device(device)
        self.clock = PartClock(self.model, self.device, now)
        self.image, self.training_image = batched_input(*size), batched_input(*training_size)

    @torch.no_grad()
    def time_image(self) -> dict[str, float]:
        return self.clock(lambda: self.model(self.image))

    @torch.no_grad()
    def profile_encoder(self) -> list[dict[str, Any]]:
        given: list[Any] = []
        hook = self.model.encoder.register_forward_pre_hook(lambda _, arguments: given.extend(arguments))
        self.model(self.image)
        hook.remove()
        return self._profile(lambda: self.model.encoder(*given))

    def profile_training_step(self) -> list[dict[str, Any]]:
        self.model.train()

        def step() -> None:
            self.model.zero_grad()
            losses: dict[str, Tensor] = self.model(self.training_image)
            torch.stack(list(losses.values())).sum().backward()

        step()
        rows = self._profile(step)
        self.model.zero_grad()
        self.model.eval()
        return rows

    def _profile(self, call: Callable[[], Any]) -> list[dict[str, Any]]:
        """Every operator's calls and own milliseconds, most first."""
        activities = [torch.profiler.ProfilerActivity.CPU]
        own_time = "self_cpu_time_total"
        if self.device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
            own_time = "self_device_time_total"
        with torch.profiler.profile(activities=activities) as profiler:
            call()
        rows = [
            {"operator": event.key, "calls": event.count, "ms": getattr(event, own_time) / 1e3}
            for event in profiler.key_averages()
        ]
        return sorted(rows, key=lambda row: -row["ms"])


def _scatter_offsets(model: nn.Module) -> None:
    """Let offsets depend on the query, as in a trained model; in a new one, all queries look the same way."""
    for name, module in model.named_modules():
        if name.endswith("sampling_offsets"):
            nn.init.normal_(module.weight, std=OFFSETS_STD)


def batched_input(height: int, width: int) -> BatchedInputs:
    """One image in detectron2's format: random pixels, random boxes."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(NUM_BOXES, 4, generator=generator) * 0.5
    boxes = torch.cat((corners[:, :2], corners[:, :2] + 0.1 + 0.8 * corners[:, 2:]), dim=1)
    instances = Instances((height, width))
    instances.gt_boxes = Boxes(boxes * torch.tensor([width, height, width, height]))
    instances.gt_classes = torch.randint(80, (NUM_BOXES,), generator=generator)
    image = torch.randint(256, (3, height, width), generator=generator, dtype=torch.uint8)
    return [{"image": image, "instances": instances, "height": height, "width": width}]


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is not an answer
    setup = json.loads(sys.argv[1])
    torch.set_num_threads(setup["threads"])
    size, training_size = tuple(setup["size"]), tuple(setup["training_size"])
    now = time_source(setup["processor_time"])
    subjects = {name: Subject(name, setup["device"], size, training_size, now) for name in setup["models"]}
    for line in sys.stdin:
        task = json.loads(line)
        answer = {name: getattr(subject, task)() for name, subject in subjects.items()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
