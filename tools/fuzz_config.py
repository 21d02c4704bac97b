"""Set every key of a config to what it should not be, and damage config files: one line says so, or it is meant.

    python tools/fuzz_config.py [--values 1] [--files 3000] [--seed 0]

Each value of each key is either refused in one line that names the key, or accepted. What is accepted is of the key's
own type, finite, and used: the model is made, with its optimizer and schedule, or images are loaded. Damaged files are
read or refused in one line, and nothing that they ask for runs. The exit code is 1 if that was not so.
"""

import argparse
import copy
import logging
import math
import random
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler
from detectron2.structures import BoxMode
from PIL import Image

from lite_detr_d2 import add_lite_detr_config
from lite_detr_d2.config import merge_file, merge_overrides, validate_config
from lite_detr_d2.config.schema import SCHEMA, leaves
from lite_detr_d2.data import DetrDatasetMapper
from lite_detr_d2.engine import Trainer, build_optimizer, on_available_device
from lite_detr_d2.errors import InputError

CONFIGS = Path(__file__).parents[1] / "configs"
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, 2, 7, -1, 2**31, 10**20, 10**400),
    *(0.0, 0.5, 1.0, 2.0, -0.5, -1.0, 1e-30, 1e30, 1e300, math.inf, -math.inf, math.nan),
    *("", "word", "1", "None", "nul\0", "[1, 2", "(" * 300, "{[]: 1}", "9" * 5000, "\ud800"),
    *([], (), [None], [True], [0], [1], [-1], [1, 2], [2, 1], [0.5, 0.5], [math.nan], [10**20], ["word"], ["", ""]),
    *([[]], [[1, 2], [3]], [1] * 4, [8, 8, 8], ["res5"], [["bbox", "AP", 1.0, 0.5]], {}, {"A": 1}),
)
# Where they may be so; of all other keys, no value that is so may be accepted.
MAY_BE_NULL = {"MODEL.RESNETS.NORM", "SOLVER.WEIGHT_DECAY_NORM", "SOLVER.WEIGHT_DECAY_BIAS"}
MAY_BE_NEGATIVE = {"SEED", "MODEL.PIXEL_MEAN"}
MAY_BE_INFINITE = {"SOLVER.CLIP_GRADIENTS.NORM_TYPE"}
NARROW = [
    *("MODEL.DEVICE", "cpu", "MODEL.LITE_DETR.HIDDEN_DIM", 64, "MODEL.LITE_DETR.NUM_QUERIES", 20),
    *("MODEL.LITE_DETR.ENCODER.DIM_FEEDFORWARD", 64, "MODEL.LITE_DETR.DECODER.DIM_FEEDFORWARD", 64),
    *("MODEL.LITE_DETR.DECODER.NUM_LAYERS", 2, "MODEL.RESNETS.STEM_OUT_CHANNELS", 8),
    *("MODEL.RESNETS.RES2_OUT_CHANNELS", 8, "DATASETS.TRAIN", ("fuzzed",), "DATASETS.TEST", ()),
    *("DATALOADER.NUM_WORKERS", 0, "SOLVER.IMS_PER_BATCH", 2),
]
# What makes a key have an effect: the first that it starts with.
COMBINATIONS = {
    "MODEL.SWIN.": [
        *("MODEL.BACKBONE.NAME", "build_swin_backbone", "MODEL.LITE_DETR.IN_FEATURES", ["p1", "p2", "p3"]),
        *("MODEL.SWIN.EMBED_DIM", 24, "MODEL.SWIN.DEPTHS", [1, 1, 1, 1]),
    ],
    "MODEL.RESNETS.": ["MODEL.BACKBONE.NAME", "build_resnet_backbone", "MODEL.RESNETS.WIDTH_PER_GROUP", 8],
    "MODEL.LITE_DETR.ONE_TO_MANY.": ["MODEL.META_ARCHITECTURE", "HDETR"],
    "MODEL.LITE_DETR.ENCODER.NUM_LAYERS": ["MODEL.LITE_DETR.ENCODER.NAME", "DeformableEncoder"],
    "MODEL.LITE_DETR.ENCODER.RHO": ["MODEL.LITE_DETR.ENCODER.NAME", "SparseEncoder"],
    "MODEL.LITE_DETR.ENCODER.AUXILIARY_LOSS": ["MODEL.LITE_DETR.ENCODER.NAME", "SparseEncoder"],
    "MODEL.LITE_DETR.CLASS_SPECIFIC_PROPOSALS": ["MODEL.META_ARCHITECTURE", "DeformableDETR"],
    "MODEL.LITE_DETR.CONTENT_FROM_MEMORY": [
        *("MODEL.META_ARCHITECTURE", "DeformableDETR", "MODEL.LITE_DETR.MIXED_SELECTION", False)
    ],
    "INPUT.CROP.": ["INPUT.CROP.ENABLED", True],
    "SOLVER.CLIP_GRADIENTS.": ["SOLVER.CLIP_GRADIENTS.ENABLED", True],
}
SCHEDULERS = ("WarmupMultiStepLR", "WarmupCosineLR")
CROPS = {"absolute": [32, 40], "absolute_range": [32, 40], "relative": [0.5, 0.5], "relative_range": [0.5, 0.5]}
RUN = b"!!python/object/apply:os.mkdir [%s]"


class Fuzzer:
    """Runs cases in a folder that has images."""

    def __init__(self, folder: Path, use: float = 1.0) -> None:
        """``use``: the share of the accepted values that are used, too."""
        self.folder, self.use, self.counts = folder, use, Counter[str]()
        self.failures: list[str] = []
        self._defaults = get_cfg()
        add_lite_detr_config(self._defaults)
        self._base = self._defaults.clone()
        merge_file(self._base, str(CONFIGS / "dino" / "lite_dino_tiny.yaml"))
        merge_overrides(self._base, NARROW)

    def values(self, rng: random.Random, rounds: int, keys: list[str]) -> None:
        """Try all values, and ``rounds`` times what is near the default, of each key."""
        for key in keys:
            cases = [*VALUES, *(_near(dict(leaves(self._defaults))[key], rng) for _ in range(5 * rounds))]
            for value in cases:
                cfg = self._combination(key, rng)
                for way in (merge_overrides, _assign):
                    self._run(f"{key} {str(value)[:60]!r} by {way.__name__}", cfg.clone(), key, value, way, rng)

    def files(self, rng: random.Random, count: int) -> None:
        """Try damaged files."""
        seeds = [path.read_bytes() for path in sorted(CONFIGS.rglob("*.yaml"))]
        seeds = [seed for seed in seeds if b"_BASE_" not in seed] + [self._base.dump().encode()]
        marker = self.folder / "ran"
        (self.folder / "base.yaml").write_bytes(seeds[0])
        for number in range(count):
            content = rng.choice((seeds[-1], rng.choice(seeds)))  # the last is a whole config
            for _ in range(rng.choice((1, 1, 2, 3))):
                content = rng.choice(MUTATIONS)(content, rng, str(marker).encode())
            file = self.folder / f"{rng.choice(('config', 'base'))}.yaml"
            file.write_bytes(content)
            self.counts["files"] += 1
            try:
                cfg = self._base.clone()
                merge_file(cfg, str(file))
                validate_config(cfg)
                self.counts["files read"] += 1
            except InputError as error:
                self._check_message(f"file {number}", str(error), "")
                self.counts["files refused"] += 1
            except Exception:
                self._fail(f"file {number}: {content!r}", "traceback")
            if marker.exists():
                marker.rmdir()
                self._fail(f"file {number} ran what it asked for: {content!r}", "code run")

    def _run(
        self,
        case: str,
        cfg: CfgNode,
        key: str,
        value: Any,
        way: Callable[[CfgNode, list[Any]], None],
        rng: random.Random,
    ) -> None:
        self.counts["values"] += 1
        try:
            way(cfg, [key, copy.deepcopy(value)])
            validate_config(cfg)
        except InputError as error:
            self._check_message(case, str(error), key)
            self.counts["values refused"] += 1
            return
        except Exception:
            self._fail(case, "traceback")
            return
        self.counts["values accepted"] += 1
        found = dict(leaves(cfg)).get(key)
        if not _is_meant(key, found, dict(leaves(self._defaults))[key]):
            self._fail(f"{case}: {found!r}", "wrongly accepted")
        if rng.random() < self.use:
            try:
                self._use(cfg, key)
                self.counts["values used"] += 1
            except InputError as error:
                self._check_message(case, str(error), key)
                self.counts["values refused in use"] += 1
            except Exception:
                self._fail(f"{case}, in use", "traceback")

    def _combination(self, key: str, rng: random.Random) -> CfgNode:
        """The base, in a combination in which the key has an effect; with a random schedule, optimizer and crop."""
        cfg = self._base.clone()
        crop, scheduler = rng.choice(sorted(CROPS)), rng.choice(SCHEDULERS)
        merge_overrides(cfg, ["INPUT.CROP.TYPE", crop, "INPUT.CROP.SIZE", CROPS[crop]])
        merge_overrides(cfg, ["SOLVER.LR_SCHEDULER_NAME", scheduler, "SOLVER.OPTIMIZER", rng.choice(("ADAMW", "SGD"))])
        for start, overrides in COMBINATIONS.items():
            if key.startswith(start):
                merge_overrides(cfg, copy.deepcopy(overrides))
        return cfg

    def _use(self, cfg: CfgNode, key: str) -> None:
        """Make what the key is for, and let it do something."""
        section = key.split(".", maxsplit=1)[0]
        if key == "MODEL.DEVICE":
            on_available_device(cfg)
        elif section in ("SOLVER", "TEST", "SEED", "VERSION"):
            module = torch.nn.ModuleDict({"backbone": torch.nn.Linear(2, 2), "head": torch.nn.BatchNorm1d(2)})
            module["head"](module["backbone"](torch.ones(2, 2))).sum().backward()
            optimizer = build_optimizer(cfg, module)
            scheduler = build_lr_scheduler(cfg, optimizer)
            optimizer.step()
            end = cfg.SOLVER.MAX_ITER
            for iteration in {0, end // 3, end // 2, cfg.SOLVER.WARMUP_ITERS, end - 1, end}:
                scheduler.last_epoch = min(iteration, end)
                rates = scheduler.get_lr()
                assert all(math.isfinite(rate) and rate >= 0 for rate in rates), f"learning rates {rates}"
        elif section in ("INPUT", "DATALOADER", "DATASETS"):
            cfg.DATASETS.TRAIN = ("fuzzed",)
            if section == "DATALOADER" and cfg.DATALOADER.NUM_WORKERS < 3:
                next(iter(Trainer.build_train_loader(cfg)))
            for is_train in (True, False):
                mapper = DetrDatasetMapper(cfg, is_train)
                for record in DatasetCatalog.get("fuzzed")[:3]:
                    assert min(mapper(record)["image"].shape) > 0
        elif section == "MODEL" and key not in ("MODEL.WEIGHTS", "MODEL.LITE_DETR.INIT"):
            self._train_and_detect(cfg)

    def _train_and_detect(self, cfg: CfgNode) -> None:
        model = build_model(cfg).train()
        record = DatasetCatalog.get("fuzzed")[0]
        inputs = [DetrDatasetMapper(cfg, True)(record)]
        inputs[0]["instances"].gt_classes.clamp_(max=cfg.MODEL.LITE_DETR.NUM_CLASSES - 1)
        losses = model(inputs)
        total = sum(losses.values())
        total.backward()
        assert bool(torch.isfinite(total)), f"losses {losses}"
        with torch.no_grad():
            model.eval()(inputs)

    def _check_message(self, case: str, message: str, key: str) -> None:
        if "\n" in message or len(message) > 10_000:
            self._fail(f"{case}: {message!r}", "message not in one line")
        # Relations name one of the keys that do not go together.
        if key and key.split(".", maxsplit=1)[0] not in message:
            self._fail(f"{case}: {message!r}", "key not named")

    def _fail(self, case: str, kind: str) -> None:
        self.counts[kind] += 1
        error = traceback.format_exc() if sys.exc_info()[0] is not None else ""
        self.failures.append(f"{kind}: {case}\n{error}")


def _assign(cfg: CfgNode, pair: list[Any]) -> None:
    """Set a key as a user's Python code does, past detectron2's own check of types."""
    *above, name = pair[0].split(".")
    for part in above:
        cfg = cfg[part]
    dict.__setitem__(cfg, name, pair[1])


def _near(value: Any, rng: random.Random) -> Any:
    """A value somewhat like another."""
    near: list[Any] = [value]
    if isinstance(value, bool):
        near = [not value, int(value), str(value)]
    elif isinstance(value, int):
        near = [value + 1, value - 1, value * 3, -value, float(value), str(value), [value]]
    elif isinstance(value, float):
        near = [value * rng.uniform(0.5, 2), -value, value + 1, int(value), [value]]
    elif isinstance(value, str):
        place = rng.randrange(len(value) + 1)
        near = [value.lower(), value[:place] + value[place + 1 :], value[:place] + "x" + value[place:]]
    elif value:
        items, place = list(value), rng.randrange(len(value))
        changed = [*items[:place], _near(items[place], rng), *items[place + 1 :]]
        near = [items[:-1], items * 2, items[::-1], changed, tuple(changed), items[0]]
    return rng.choice(near)


def _is_meant(key: str, value: Any, default: Any) -> bool:
    """Whether an accepted value is plausible, by no more than the default's type and the lists above."""
    if value is None:
        return key in MAY_BE_NULL
    if isinstance(value, (list, tuple)):
        items = value if default else ()  # of what is in an empty list, the default does not tell
        return isinstance(default, (list, tuple)) and all(_is_meant(key, item, default[0]) for item in items)
    if isinstance(value, (bool, str)) or isinstance(default, bool):
        return default is None or type(value) is type(default)
    if isinstance(value, float) and not math.isfinite(value):
        return key in MAY_BE_INFINITE and bool(value > 0)
    is_whole = isinstance(value, int) or not isinstance(default, int)
    return is_whole and isinstance(default, (int, float, type(None))) and (value >= 0 or key in MAY_BE_NEGATIVE)


def _flip(content: bytes, rng: random.Random, _: bytes) -> bytes:
    changed = bytearray(content)
    for _unused in range(rng.choice((1, 1, 4, 30))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _insert(content: bytes, rng: random.Random, marker: bytes) -> bytes:
    pieces = (
        *(b"\0", b"\xff\xfe", b"\t", b": ", b"- ", b"? ", b"&a *a", b"*b", b"<<: *a\n", b"[" * 3000, b"{a: " * 3000),
        *(
            b"!!python/tuple [1]",
            RUN % marker,
            b"!!binary aGk=",
            b"!!set {a}",
            b"!!int x",
            b"!!timestamp x",
            b"%YAML 9\n",
        ),
        *(
            b"_BASE_: config.yaml\n",
            b"_BASE_: base.yaml\n",
            b"_BASE_: [base.yaml, config.yaml]\n",
            b"_BASE_: nowhere\n",
        ),
        *(
            b"_BASE_: 3\n",
            b"_BASE_: [[base.yaml]]\n",
            b"_BASE_:\n",
            b"---\n",
            b"...\n",
            b"\xc3\xa9",
            b"9" * 5000,
            b"1e400",
        ),
        *(b"\nVERSION: 1\n", b"\nMODEL: 1\n", b"\n1: 2\n", b"\nnull: 2\n", b"\n? [a]\n: 1\n", b"\nSEED: 2020-13-45\n"),
        *(b"\na: &a [&b {x: *a}]\n", b"\nSEED: &a [*a]\n", b"\nSEED: 1:99\n", b"\nSEED: 0b_\n", b"\nSEED: =\n"),
    )
    lines = content.splitlines(keepends=True)
    place = rng.randrange(len(lines) + 1) if rng.random() < 0.5 else None
    piece = rng.choice(pieces)
    if place is not None:
        return b"".join((*lines[:place], piece, *lines[place:]))
    at = rng.randrange(len(content) + 1)
    return content[:at] + piece + content[at:]


def _value(content: bytes, rng: random.Random, marker: bytes) -> bytes:
    """Put something in place of a value."""
    lines = content.splitlines(keepends=True)
    places = [index for index, line in enumerate(lines) if b": " in line]
    if not places:
        return content
    place = rng.choice(places)
    name = lines[place].split(b": ")[0]
    value = rng.choice(
        (RUN % marker, b"", b"{}", b"[]", b"x", b"-1", b".nan", b"!!python/name:os.getcwd", b"[[1]]", b"'('")
    )
    return b"".join((*lines[:place], name + b": " + value + b"\n", *lines[place + 1 :]))


def _cut(content: bytes, rng: random.Random, _: bytes) -> bytes:
    first, last = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    return rng.choice(
        (content[:first], content[first:], content[:first] + content[last:], content[:last] + content[first:])
    )


def _shuffle(content: bytes, rng: random.Random, _: bytes) -> bytes:
    lines = content.splitlines(keepends=True)
    place, other = (rng.randrange(len(lines)) if lines else 0 for _ in range(2))
    if lines:
        lines[place], lines[other] = lines[other], lines[place]
        if rng.random() < 0.5:
            lines.insert(place, lines[other])
    return b"".join(lines)


MUTATIONS = (_flip, _insert, _value, _cut, _shuffle)


def register_images(folder: Path) -> None:
    """Register four images with a box each as "fuzzed"."""
    records = []
    for number, (width, height) in enumerate(((64, 48), (48, 64), (90, 50), (3, 40))):
        file = folder / f"{number}.png"
        Image.fromarray(np.full((height, width, 3), 40 * number, dtype=np.uint8)).save(file)
        box = {"bbox": [0, 0, width, height], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, "iscrowd": 0}
        size = {"width": width, "height": height}
        records.append({"file_name": str(file), "image_id": number, "annotations": [box], **size})
    DatasetCatalog.register("fuzzed", lambda: records)
    MetadataCatalog.get("fuzzed").set(thing_classes=["thing"])


def unregister_images() -> None:
    """Take them away again."""
    DatasetCatalog.remove("fuzzed")
    MetadataCatalog.remove("fuzzed")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--values", type=int, default=1, help="rounds of values near each key's default")
    parser.add_argument("--files", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--use", type=float, default=0.2, help="the share of accepted values that are used, too")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        register_images(Path(folder))
        fuzzer = Fuzzer(Path(folder), args.use)
        fuzzer.values(random.Random(args.seed), args.values, list(SCHEMA))
        fuzzer.files(random.Random(args.seed), args.files)
    for failure in fuzzer.failures[:50]:
        print(failure)
    print(", ".join(f"{count} {name}" for name, count in fuzzer.counts.items()), f"{len(fuzzer.failures)} failures")
    return 1 if fuzzer.failures else 0


if __name__ == "__main__":
    sys.exit(main())
