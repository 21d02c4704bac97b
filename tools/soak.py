"""Trainings that are killed and go on, and one that is long: what the tests try in small, for as long as it takes.

    python tools/soak.py kills [--kills 30] [--seed 0] [--work DIR]
    python tools/soak.py long [--iterations 2000] [--work DIR]

"kills" trains a small detector once in one go, and once with as many SIGKILLs, at random moments and while a file is
being written; with 0, 1 or 2 data-loading processes. It exits with 1 if the two end with other weights, or if anything
half-written is left. "long" trains the demo's detector on its data, and prints how memory and time per iteration
change; it exits with 1 if either is not flat: if the last quarter takes 10 % more of it than the second one.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
from detectron2.engine import HookBase

ROOT = Path(__file__).parents[1]
TRAIN_NET = ROOT / "projects" / "LiteDETR" / "train_net.py"
SMALL = ROOT / "tests" / "engine" / "tiny.yaml"
DEMO = ROOT / "configs" / "demo" / "lite_dino_digits.yaml"
UNFINISHED = "*.unfinished"
FLAT = 1.1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("kills", "long"))
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--iterations", type=int, default=2000, help="of the long training")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--work", type=Path, help="an empty folder that stays; if not given, one that does not")
    args = parser.parse_args()
    with folder_for(args.work) as folder:
        if args.what == "kills":
            return int(not kills(folder, args.kills, random.Random(args.seed)))
        return int(not long(folder, args.iterations))


@contextmanager
def folder_for(work: Path | None) -> Iterator[Path]:
    if work is None:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
        return
    work.mkdir(parents=True, exist_ok=True)
    yield work


# --- Kills.


def kills(folder: Path, number: int, chosen: random.Random) -> bool:
    """Whether a training that is killed so often ends as one that is not."""
    write_dataset(folder / "data")
    started = time.monotonic()
    whole = start(folder, "whole", workers=0)
    while not (folder / "whole" / "last_checkpoint").is_file():
        if whole.poll() is not None:
            raise SystemExit(f"The training has ended with exit code {whole.returncode}.")
        time.sleep(0.05)
    first = time.monotonic() - started
    ended(whole)
    rest = time.monotonic() - started - first
    print(f"undisturbed: first checkpoint after {first:.1f} s, the rest took {rest:.1f} s", flush=True)
    in_writes, unfinished = 0, 0
    for kill in range(1, number + 1):
        training = start(folder, "killed", workers=chosen.choice((0, 1, 2)))
        time.sleep(chosen.uniform(0.5 * first, first + rest / number))
        if chosen.random() < 0.5:
            in_writes += wait_for_write(training, folder / "killed")
        if training.poll() is not None:
            raise SystemExit(f"It has ended before kill {kill}: more --kills than a training of its length can have.")
        os.killpg(training.pid, signal.SIGKILL)
        training.wait()
        unfinished += any((folder / "killed").rglob(UNFINISHED))
    ended(start(folder, "killed", workers=0))
    left = list((folder / "killed").rglob(UNFINISHED))
    same = is_same(*(torch.load(folder / name / "model_final.pth")["model"] for name in ("whole", "killed")))
    print(
        f"{number} kills, {in_writes} of them aimed at a write, {unfinished} left something half-written: in the end "
        f"{'the same weights' if same else 'OTHER WEIGHTS'}, and {len(left)} files are left half-written"
    )
    return same and not left


def write_dataset(folder: Path) -> None:
    sys.path.insert(0, str(ROOT))
    from tests.data.folders import coco_content, write_coco_folder  # noqa: PLC0415

    write_coco_folder(folder, coco_content(images=9))


def start(folder: Path, name: str, *, workers: int) -> "subprocess.Popen[bytes]":
    """Begin the training, or go on with it."""
    options = {
        **{"OUTPUT_DIR": folder / name, "SEED": 1, "DATALOADER.NUM_WORKERS": workers, "TEST.EVAL_PERIOD": 100},
        **{"SOLVER.MAX_ITER": 400, "SOLVER.STEPS": "()", "SOLVER.CHECKPOINT_PERIOD": 2, "SOLVER.EMA.ENABLED": True},
        "SOLVER.REFERENCE_NUM_IMAGES": 0,
    }
    command = [sys.executable, TRAIN_NET, "--resume", "--config-file", SMALL, "--dataset", folder / "data"]
    words = [*command, *(word for pair in options.items() for word in pair)]
    with open(folder / f"{name}.log", "ab") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            list(map(str, words)), stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env=environment
        )


def ended(training: "subprocess.Popen[bytes]") -> None:
    if training.wait():
        raise SystemExit(f"A training has ended with exit code {training.returncode}; --work keeps its log.")


def wait_for_write(training: "subprocess.Popen[bytes]", output: Path) -> bool:
    """Wait until a file is being written; whether one is."""
    until = time.monotonic() + 10
    while training.poll() is None and time.monotonic() < until:
        if any(name.endswith(UNFINISHED[1:]) for name in os.listdir(output)):
            return True
    return False


def is_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --- A long training.


class Watch(HookBase):
    """Memory and time, after each hundredth of a training."""

    def before_train(self) -> None:
        self.seconds: list[float] = []
        self.megabytes: list[float] = []
        self._since = time.perf_counter()

    def after_step(self) -> None:
        every = max(1, self.trainer.max_iter // 100)
        if (self.trainer.iter + 1) % every:
            return
        now = time.perf_counter()
        self.seconds.append((now - self._since) / every)
        self.megabytes.append(resident_megabytes())
        self._since = now


def resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def long(folder: Path, iterations: int) -> bool:
    """Whether memory and time per iteration stay what they are."""
    from lite_detr_d2.data.digits import make_digits_dataset  # noqa: PLC0415
    from lite_detr_d2.engine import Trainer, argument_parser, setup  # noqa: PLC0415

    make_digits_dataset(folder / "digits")
    words = ["--config-file", str(DEMO), "--dataset", str(folder / "digits"), "OUTPUT_DIR", str(folder / "output")]
    settings = {"SOLVER.MAX_ITER": iterations, "TEST.EVAL_PERIOD": 0, "SOLVER.CHECKPOINT_PERIOD": iterations // 10}
    words += [str(word) for pair in settings.items() for word in pair]
    trainer, watch = Trainer(setup(argument_parser("").parse_args(words))), Watch()
    trainer.register_hooks([watch])
    trainer.resume_or_load(resume=False)
    trainer.train()
    flat = True
    for what, values in (("seconds per iteration", watch.seconds), ("MB resident", watch.megabytes)):
        quarter = len(values) // 4
        second, last = median(values[quarter : 2 * quarter]), median(values[-quarter:])
        print(f"{what}: {second:.4g} in the second quarter, {last:.4g} in the last ({last / second:.3f})")
        flat = flat and last <= FLAT * second
    return flat


if __name__ == "__main__":
    sys.exit(main())
