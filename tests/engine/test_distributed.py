"""Two processes train as one would on both their batches."""

import argparse
import os
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from torch import Tensor, distributed, nn
from torch.multiprocessing import start_processes
from torch.nn.parallel import DistributedDataParallel

from lite_detr_d2.engine import read_config

from ..helpers import choose_detector

TINY = Path(__file__).parent / "tiny.yaml"
SIZE = 128  # the coarsest map has several pixels: with one, normalisation leaves of its gradient rounding errors alone
# Of the one image of each process, step by step.
BOX_COUNTS = ((2, 0), (0, 0), (3, 5))
# Detectors, and their denoising queries. Denoising draws at random, as much as the batch has boxes: one process cannot
# repeat what two did.
RANDOM = ("dino", 10)
REPEATABLE = (
    ("dino", 0),
    ("deformable_detr", 0),
    ("deformable_detr_refined", 0),
    ("h_detr_two_stage", 0),
    ("h_detr", 0),
)
DETECTORS = (RANDOM, *REPEATABLE)
ROUNDING = 1e-4  # of a tensor's largest gradient, in float32


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


def build(name: str, denoising_queries: int) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = build_model(tiny_config(name, denoising_queries))
    return model.train()


def gradients(model: nn.Module, batch: list[dict[str, Any]]) -> dict[str, Tensor | None]:
    model.zero_grad()
    torch.stack(list(model(batch).values())).sum().backward()
    found = {name.removeprefix("module."): value.grad for name, value in model.named_parameters()}
    return {name: None if value is None else value.clone() for name, value in found.items()}


def train_in_process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    found = {}
    for detector in DETECTORS:
        # Without a search for unused parameters: one that a step left out would be an error in the next step.
        model = DistributedDataParallel(build(*detector), find_unused_parameters=False)
        found[detector] = [gradients(model, [make_input(counts[rank], seed=rank)]) for counts in BOX_COUNTS]
    torch.save(found, os.path.join(folder, f"{rank}.pth"))
    distributed.destroy_process_group()


def test_two_processes_make_the_gradients_of_one(tmp_path: Path) -> None:
    start_processes(train_in_process, args=(str(tmp_path),), nprocs=2, start_method="spawn")
    first, second = (torch.load(tmp_path / f"{rank}.pth") for rank in (0, 1))
    assert first.keys() == set(DETECTORS)
    for detector, steps in first.items():
        for step in steps:
            for name, value in step.items():
                assert value is not None and bool(value.isfinite().all()), (detector, name)
    torch.testing.assert_close(second, first, rtol=0, atol=0)
    for detector in REPEATABLE:
        model = build(*detector)
        for step, counts in zip(first[detector], BOX_COUNTS, strict=True):
            if sum(counts) > 0:  # without boxes both divide by 1, and then two processes by 2
                batch = [make_input(count, seed=rank) for rank, count in enumerate(counts)]
                for name, value in gradients(model, batch).items():
                    # Rounding goes with what is summed up, not with the element that comes of it.
                    rounding = ROUNDING * float(value.abs().max())
                    torch.testing.assert_close(step[name], value, rtol=0, atol=rounding, msg=f"{detector} {name}")
