"""The process in which forms.py measures: one model in one form.

Its one argument is a JSON object; then it answers each line of its input, a size as JSON, with a line of JSON: the
seconds of a batch and of its parts, and what is known besides.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import time_source
from detectron2.utils.events import EventStorage
from floor import Floor
from model_worker import PartClock, Subject, batched_input
from torch import nn

from lite_detr_d2.deploy import prepare
from lite_detr_d2.deploy.bounds import fixed
from lite_detr_d2.deploy.formats import FORMATS, Settings
from lite_detr_d2.deploy.inference import DTYPES, InferenceModel
from lite_detr_d2.deploy.sizing import num_tokens
from lite_detr_d2.engine import Trainer
from lite_detr_d2.engine.compilation import compile_training
from lite_detr_d2.engine.step import Step

Size = tuple[int, int]
Timed = Callable[[], dict[str, float]]
WARM_UPS = 2  # the first call of a size pays for more than itself


@dataclass(frozen=True)
class Form:
    """A form of a model.

    Attributes:
        make: of a worker and a size, what times one batch.
        package: what has to be installed for it.
        on_gpu: whether it is measured there, too.
    """

    make: Callable[["FormWorker", Size], Timed]
    package: str = "torch"
    on_gpu: bool = False


class FormWorker:
    """One model in one form, at the sizes that are asked for."""

    def __init__(self, setup: dict[str, Any]) -> None:
        self.setup = setup
        self.now = time_source(setup["processor_time"])
        self.subject = Subject(setup["model"], setup["device"], (64, 64), (64, 64), self.now)
        self.timed: dict[Size, Timed] = {}
        self.first: dict[Size, float] = {}
        self.built: dict[str, nn.Module] = {}

    def __call__(self, size: Size) -> dict[str, float]:
        if size not in self.timed:
            self.timed[size] = FORMS[self.setup["form"]].make(self, size)
            start = time.perf_counter()
            self.timed[size]()
            self.first[size] = time.perf_counter() - start
            for _ in range(WARM_UPS - 1):
                self.timed[size]()
        seconds = self.timed[size]()
        if self.subject.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.subject.device) / 2**20
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        others = {"first call": self.first[size], "tokens": num_tokens(self.subject.model, *size)}
        return seconds | {"peak MiB": peak} | others

    def images(self, size: Size) -> torch.Tensor:
        """Noise, (N, 3, H, W) uint8."""
        generator = torch.Generator().manual_seed(0)
        return torch.randint(256, (self.setup["batch"], 3, *size), generator=generator, dtype=torch.uint8)

    def inputs(self, size: Size) -> list[dict[str, Any]]:
        return [{"image": image} for image in self.images(size)]

    def file(self, format: str, dtype: str, size: Size) -> Path:
        """Of the exported model, in a folder that keeps them."""
        name = f"{self.setup['model']}_{dtype}_{self.setup['batch']}x{size[0]}x{size[1]}"
        return Path(self.setup["exported"], name).with_suffix(FORMATS[format].suffix)

    def whole(self, call: Callable[[], Any]) -> Timed:
        return lambda: {"whole": self.subject.clock(call)["whole"]}


def _eager(dtype: str) -> Form:
    def make(worker: FormWorker, size: Size) -> Timed:
        model, inputs = worker.subject.model, worker.inputs(size)
        context = InferenceModel(model, dtype=dtype)

        @torch.no_grad()
        def call() -> None:
            with context.precision(model.device):
                model(inputs)

        return lambda: worker.subject.clock(call)

    return Form(make, on_gpu=True)


def _step(precision: torch.dtype | None, *, compiled: bool = False) -> Form:
    def make(worker: FormWorker, size: Size) -> Timed:
        model = worker.subject.model
        if compiled and not worker.timed:
            worker.subject.clock.leave_parts()
            compile_training(model)
        batch = [example for _ in range(worker.setup["batch"]) for example in batched_input(*size)]
        step = Step(model, repeat(batch), Trainer.build_optimizer(worker.subject.cfg, model), precision=precision)
        step.iter = 0

        def call() -> None:
            model.train()
            with EventStorage():
                step.run_step()

        return worker.whole(call) if compiled else lambda: worker.subject.clock(call)

    return Form(make, on_gpu=True)


def _prepared(dtype: str) -> Form:
    def make(worker: FormWorker, size: Size) -> Timed:
        inputs = worker.inputs(size)
        if not worker.built:
            worker.built["prepared"] = prepare(worker.subject.model, dtype=DTYPES[dtype])
        model = worker.built["prepared"]
        clock = PartClock(model.model.detector, worker.subject.device, worker.now)
        return lambda: clock(lambda: model(inputs))

    return Form(make, on_gpu=True)


def _compiled(dtype: str) -> Form:
    def make(worker: FormWorker, size: Size) -> Timed:
        inputs = worker.inputs(size)
        if not worker.built:
            worker.subject.clock.leave_parts()
            worker.built["compiled"] = prepare(worker.subject.model, dtype=DTYPES[dtype], compile=True)
        return worker.whole(lambda: worker.built["compiled"](inputs))

    return Form(make, on_gpu=True)


def _exported(format: str, dtype: str, package: str) -> Form:
    def make(worker: FormWorker, size: Size) -> Timed:
        images = worker.images(size).numpy()
        sizes = np.array([size] * len(images), dtype=np.int64)
        file = worker.file(format, dtype, size)
        runtime = FORMATS[format].load(file, json.loads(_beside(file).read_text()))
        return worker.whole(lambda: runtime(images, sizes))

    return Form(make, package)


def _floor(dtype: str) -> Form:
    def make(worker: FormWorker, size: Size) -> Timed:
        model = worker.subject.model
        floor = Floor(lambda: model(worker.inputs(size)), DTYPES[dtype], worker.now)
        return floor

    return Form(make)


# A further form is one line. Names with "floor" are no form of a model, but what its products alone take.
FORMS = {
    "eager": _eager("float32"),
    "eager bfloat16": _eager("bfloat16"),
    "prepared": _prepared("float32"),
    "prepared bfloat16": _prepared("bfloat16"),
    "compiled": _compiled("float32"),
    "compiled bfloat16": _compiled("bfloat16"),
    "training step": _step(None),
    "training step bfloat16": _step(torch.bfloat16),
    "compiled training step": _step(None, compiled=True),
    "compiled training step bfloat16": _step(torch.bfloat16, compiled=True),
    "floor": _floor("float32"),
    "floor bfloat16": _floor("bfloat16"),
    "ONNX Runtime": _exported("onnx", "float32", "onnxruntime"),
    "OpenVINO": _exported("openvino", "float32", "openvino"),
    "OpenVINO bfloat16": _exported("openvino", "bfloat16", "openvino"),
}
EXPORTED = {
    "ONNX Runtime": ("onnx", "float32"),
    "OpenVINO": ("openvino", "float32"),
    "OpenVINO bfloat16": ("openvino", "bfloat16"),
}


def export(worker: FormWorker, size: Size) -> None:
    """Write the form's file for a size, if it is not there: in a process of its own, whose memory is not counted."""
    format, dtype = EXPORTED[worker.setup["form"]]
    file = worker.file(format, dtype, size)
    if not _beside(file).is_file():
        bounds = fixed(worker.setup["batch"], *size)
        twin = file.with_name(f"twin_{file.name}")
        written = FORMATS[format].write(worker.subject.model, Settings(bounds, dtype), file, twin)
        for other in file.parent.glob(f"{twin.stem}*"):
            other.unlink()
        _beside(file).write_text(json.dumps(written.requires))


def _beside(file: Path) -> Path:
    """What a file requires; written last, so that it is whole where this is there."""
    return file.with_name(f"{file.name}.json")


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is not an answer
    setup = json.loads(sys.argv[1])
    torch.set_num_threads(setup["threads"])
    worker = FormWorker(setup)
    for line in sys.stdin:
        size = tuple(json.loads(line))
        answer = (export(worker, size) or {}) if setup["exports"] else worker(size)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
