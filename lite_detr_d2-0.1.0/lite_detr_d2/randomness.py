"""Random numbers that are a function of what they are for, not of what was drawn before."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

# What they are for, the first part of a key.
SAMPLE = 1
STEP = 2


def seed_generators(*key: int) -> None:
    """Seed the generators of Python, numpy and torch, on all devices, by whole numbers that are not negative."""
    python, numpy, torch_ = _seeds(key)
    random.seed(python)
    np.random.seed(numpy)
    torch.manual_seed(torch_)


@contextmanager
def own_randomness(*key: int) -> Iterator[None]:
    """Seed the generators of the CPU by ``key`` for as long as the context lasts; they go on as before it."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    python, numpy, torch_ = _seeds(key)
    random.seed(python)
    np.random.seed(numpy)
    torch.default_generator.manual_seed(torch_)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


@contextmanager
def deterministic_algorithms(on: bool) -> Iterator[None]:
    """With ``on``, let PyTorch compute everything in one order for as long as the context lasts, or refuse to.

    To be entered before anything is computed on a GPU, or with CUBLAS_WORKSPACE_CONFIG set.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    if on:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS is refused
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _seeds(key: tuple[int, ...]) -> tuple[int, int, int]:
    python, numpy, *torch_ = np.random.SeedSequence(key).generate_state(4).tolist()
    return python, numpy, torch_[0] << 32 | torch_[1]
