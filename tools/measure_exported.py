"""Compare exported files of one detector: time, size, AP.

    python tools/measure_exported.py mine.xml mine_bfloat16.xml mine_int8.xml

They are of the same sizes. Their inputs are of the images that the detector was evaluated on, by which AP goes, too.
Times are of one thread: the files take turns, and the smallest of each counts; other work on the machine disturbs them.
Each is also told as how many times as fast as the first one.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch

import lite_detr_d2
from lite_detr_d2.deploy.manifest import Manifest
from lite_detr_d2.deploy.precision import average_precision, find_annotated
from lite_detr_d2.deploy.probes import evaluation_batches, find_images, read_images

NUM_RUNS = 40


def smallest_times(runs: list[Callable[[], object]]) -> list[float]:
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(NUM_RUNS):
        for own, run in zip(times, runs, strict=True):
            start = time.perf_counter()
            run()
            own.append(1000 * (time.perf_counter() - start))
    return list(map(min, times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    args = parser.parse_args()
    torch.set_num_threads(1)
    manifests, detectors = list(map(Manifest.read, args.files)), list(map(lite_detr_d2.load, args.files))
    bounds = manifests[0].bounds
    if any(manifest.bounds != bounds for manifest in manifests):
        parser.error("the files take different sizes: export them with the same --size, --dynamic and --batch")
    cfg, names = detectors[0].cfg, detectors[0].class_names
    (batch,) = evaluation_batches(read_images(find_images(cfg, None), cfg, 1), cfg, bounds)
    times = smallest_times(
        [lambda detector=detector: detector.model(batch.images, batch.sizes) for detector in detectors]
    )
    annotated = find_annotated(cfg, len(names))
    for file, manifest, detector, milliseconds in zip(args.files, manifests, detectors, times, strict=True):
        precision = average_precision(detector, annotated, bounds.batch.smallest)
        size = sum(file.with_name(name).stat().st_size for name in manifest.files) / 1e6
        print(
            f"{file.name}: {milliseconds:.1f} ms, {times[0] / milliseconds:.2f} times as fast, {size:.1f} MB, "
            f"AP {precision:.2f} on {len(annotated.images)} images"
        )


if __name__ == "__main__":
    main()
