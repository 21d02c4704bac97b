"""Two processes train as one would on both their batches."""

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from torch import Tensor, distributed, nn
from torch.multiprocessing import start_processes
from torch.nn.parallel import DistributedDataParallel

from lite_detr_d2.engine import read_config

from ..helpers import choose_detector

Gradients = dict[str, Tensor | None]
TINY = Path(__file__).parent / "tiny.yaml"
SIZE = 128  # the coarsest map has several pixels: with one, normalisation leaves of its gradient rounding errors alone
# Of the one image of each process, step by step.
BOX_COUNTS = ((2, 0), (1, 0), (0, 0), (3, 5))
# Detectors, and their denoising queries: few, in groups whose number is fixed, and as many as the largest image allows.
DETECTORS = (
    ("dino", 0),
    ("dino", 10),
    ("dino", 60),
    ("deformable_detr", 0),
    ("deformable_detr_refined", 0),
    ("h_detr_two_stage", 0),
    ("h_detr", 0),
    ("sparse_detr", 0),
)
TRIED = (
    *((detector, torch.float64) for detector in DETECTORS),
    (("deformable_detr", 0), torch.float32),  # where tokens are selected, rounding may choose others
)
# Of a tensor's largest gradient. In float32 one image and two are rounded otherwise, and that may be to either side of
# a ReLU's zero: with AVX2, one activation of -5e-7 (in float64 7e-7, of 10 at most) is 4 % of the gradient before it.
ROUNDING = {torch.float32: 0.1, torch.float64: 1e-9}


def tiny_config(name: str, denoising_queries: int) -> CfgNode:
    cfg = read_config(argparse.Namespace(config_file=str(TINY), opts=[]))
    choose_detector(cfg, name)
    cfg.MODEL.RESNETS.NORM = "FrozenBN"  # else a process normalises by the statistics of its own batch
    cfg.MODEL.LITE_DETR.DENOISING.NUM_QUERIES = denoising_queries
    return cfg


def make_input(count: int, seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * SIZE / 2
    instances = Instances((SIZE, SIZE))
    instances.gt_boxes = Boxes(torch.cat((corners, corners + SIZE / 4), dim=1))
    instances.gt_classes = torch.randint(80, (count,), generator=generator)
    return {"image": torch.rand(3, SIZE, SIZE, generator=generator) * 255, "instances": instances}


def build(name: str, denoising_queries: int, dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = build_model(tiny_config(name, denoising_queries))
    return model.to(dtype).train()


@contextmanager
def fixed_noise() -> Iterator[None]:
    """Denoising's noise, which one process draws in another order than two."""

    def labels(like: Tensor, high: int) -> Tensor:
        return torch.ones_like(like)

    with (
        patch.object(torch, "rand", lambda shape, device: torch.full(shape, 0.1, device=device)),
        patch.object(torch, "rand_like", lambda like: torch.full_like(like, 0.3)),
        patch.object(torch, "randint_like", labels),
    ):
        yield


def gradients(model: nn.Module, batch: list[dict[str, Any]]) -> Gradients:
    model.zero_grad()
    torch.stack(list(model(batch).values())).sum().backward()
    found = {name.removeprefix("module."): value.grad for name, value in model.named_parameters()}
    return {name: None if value is None else value.clone() for name, value in found.items()}


def all_gradients(detector: tuple[str, int], dtype: torch.dtype, rank: int | None = None) -> list[Gradients]:
    """Of each step: those of a process's share, or of the whole batch in one."""
    model = build(*detector, dtype)
    if rank is not None:
        # Without a search for unused parameters: one that a step left out would be an error in the next step.
        model = DistributedDataParallel(model, find_unused_parameters=False)
    batches = [[make_input(count, seed=number) for number, count in enumerate(counts)] for counts in BOX_COUNTS]
    with fixed_noise():
        return [gradients(model, batch if rank is None else batch[rank : rank + 1]) for batch in batches]


def train_in_process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    found = {tried: all_gradients(*tried, rank) for tried in TRIED}
    torch.save(found, os.path.join(folder, f"{rank}.pth"))
    distributed.destroy_process_group()


def test_two_processes_make_the_gradients_of_one(tmp_path: Path) -> None:
    start_processes(train_in_process, args=(str(tmp_path),), nprocs=2, start_method="spawn")
    first, second = (torch.load(tmp_path / f"{rank}.pth") for rank in (0, 1))
    torch.testing.assert_close(second, first, rtol=0, atol=0)
    for detector, dtype in TRIED:
        expected = all_gradients(detector, dtype)
        for counts, step, whole in zip(BOX_COUNTS, first[detector, dtype], expected, strict=True):
            for name, value in whole.items():
                assert value is not None and bool(value.isfinite().all()), (detector, name)
                # Rounding goes with what is summed up, not with the element that comes of it.
                close = ROUNDING[dtype] * float(value.abs().max())
                said = f"{detector} {dtype} {counts} {name}: {{}}".format
                torch.testing.assert_close(step[name], value, rtol=0, atol=close, msg=said)
