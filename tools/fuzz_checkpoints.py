"""Flip bits in checkpoint files, and see that none is used as if nothing had happened.

    python tools/fuzz_checkpoints.py [--cases 1000] [--seed 0] [--checkpoint FILE]

A case is a checkpoint with one flipped bit. Of each kind of file, as many are tried: as this package writes them, .pth
and .safetensors, and .pth as torch.save does. A flip is "found" if the file is refused with a message, "harmless" if
what is read is what was written, and "silent" if it is not: then this exits with 1, as it does if the whole file is not
read.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lite_detr_d2.checkpoint import is_intact, read_checkpoint, write_checkpoint
from lite_detr_d2.errors import InputError

KINDS = ("ours.pth", "ours.safetensors", "torch.pth")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000, help="flips in a file of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", metavar="FILE", type=Path, help="a real one; if not given, a small one is made")
    args = parser.parse_args()
    silent = 0
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            path = write(Path(folder), kind, args.checkpoint)
            started = time.perf_counter()
            counts = fuzz(path, args.cases, args.seed)
            rate = args.cases * path.stat().st_size / 1e6 / (time.perf_counter() - started)
            told = ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("found", "harmless", "silent"))
            print(
                f"{kind}: {path.stat().st_size} bytes, {args.cases} flips: {told} ({rate:.0f} MB/s, read and checked)"
            )
            silent += counts["silent"]
    return int(silent > 0)


def write(folder: Path, kind: str, source: Path | None = None) -> Path:
    """Write a checkpoint of a kind, with the content of another file or a small one."""
    path = folder / kind
    content = read_checkpoint(source) if source else small_checkpoint()
    if kind == "torch.pth":
        torch.save(content, path)
    elif kind == "ours.pth":
        write_checkpoint(path, content["model"], **{key: value for key, value in content.items() if key != "model"})
    else:
        write_checkpoint(path, content["model"], class_names=["ant", "cat"])
    return path


def small_checkpoint() -> dict[str, Any]:
    """With what a training saves: weights, whole numbers, the state of an optimizer, text."""
    generator = torch.Generator().manual_seed(0)
    state = {f"layer.{number}.weight": torch.randn(20, 30, generator=generator) for number in range(6)}
    moments = {number: {"step": torch.tensor(5.0), "exp_avg": torch.zeros(20, 30)} for number in range(2)}
    trainer = {"iteration": 5, "_trainer": {"optimizer": {"state": moments}}, "config": "SOLVER: {MAX_ITER: 9}\n"}
    return {"model": {**state, "norm.num_batches": torch.tensor(7)}, "iteration": 5, "trainer": trainer}


def fuzz(path: Path, cases: int, seed: int) -> Counter[str]:
    """Flip so many bits of a file, each on its own; the file is as before at the end."""
    expected = read_checkpoint(path)
    if path.suffix == ".pth" and not is_intact(path):
        raise AssertionError(f"{path} is intact, and not said to be")
    whole, chosen, counts = path.read_bytes(), random.Random(seed), Counter[str]()
    for _ in range(cases):
        place = chosen.randrange(8 * len(whole))
        flip(path, place)
        outcome = outcome_of(path, expected)
        if outcome == "silent":
            print(f"{path.name}: bit {place % 8} of byte {place // 8} is not found")
        counts[outcome] += 1
        flip(path, place)
    if path.read_bytes() != whole or not is_same(read_checkpoint(path), expected):
        raise AssertionError(f"{path} is not what it was")
    return counts


def flip(path: Path, place: int) -> None:
    with open(path, "r+b") as file:
        file.seek(place // 8)
        byte = file.read(1)[0]
        file.seek(place // 8)
        file.write(bytes([byte ^ 1 << place % 8]))


def outcome_of(path: Path, expected: Mapping[str, Any]) -> str:
    try:
        found = read_checkpoint(path)
    except InputError:
        return "found"
    return "harmless" if is_same(found, expected) else "silent"


def is_same(value: Any, other: Any) -> bool:
    """Whether two contents are the same, to the last bit."""
    if isinstance(value, torch.Tensor) and isinstance(other, torch.Tensor):
        same_kind = value.dtype == other.dtype and value.shape == other.shape
        return same_kind and torch.equal(value.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))
    if isinstance(value, Mapping) and isinstance(other, Mapping):
        return value.keys() == other.keys() and all(is_same(value[key], other[key]) for key in value)
    if isinstance(value, list | tuple) and isinstance(other, list | tuple):
        return len(value) == len(other) and all(is_same(*pair) for pair in zip(value, other, strict=True))
    return type(value) is type(other) and bool(value == other)


if __name__ == "__main__":
    sys.exit(main())
