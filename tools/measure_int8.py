"""Quantise an exported OpenVINO file to int8, and print what that gains and costs: time, size, AP.

    python tools/measure_int8.py mine.xml --calibration DIR --images DIR --annotations val.json --output mine_int8.xml

nncf calibrates on images of the folder --calibration. AP is that of the images of --annotations, which lie in the
folder --images. Times are of one thread: the two files take turns, and the smallest of each counts.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nncf
import openvino
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import lite_detr_d2
from lite_detr_d2.deploy.bounds import Bounds
from lite_detr_d2.deploy.formats import FORMATS
from lite_detr_d2.deploy.manifest import Manifest
from lite_detr_d2.deploy.predictor import Predictor
from lite_detr_d2.deploy.probes import find_images

NUM_CALIBRATION = 128
NUM_RUNS = 40


def prepared(detector: Predictor, bounds: Bounds, files: list[Path]) -> list[dict[str, Any]]:
    """The inputs that a runtime gets of images: the detector's runtime writes them down."""
    inputs: list[dict[str, Any]] = []

    def record(images: Any, sizes: Any) -> Any:
        inputs.append({"images": images, "sizes": sizes})
        return detector.model(images, sizes)

    Predictor(detector.cfg, detector.class_names, record, bounds=bounds)(list(map(str, files)))
    return inputs


def average_precision(detector: Predictor, images: Path, annotations: Path) -> float:
    truth = COCO(str(annotations))
    categories = sorted(truth.cats)
    results = []
    for image_id, record in truth.imgs.items():
        found = detector(str(images / record["file_name"]))["instances"]
        boxes = found.pred_boxes.tensor
        boxes[:, 2:] -= boxes[:, :2]
        results += [
            {"image_id": image_id, "category_id": categories[label], "bbox": box, "score": score}
            for box, score, label in zip(
                boxes.tolist(), found.scores.tolist(), found.pred_classes.tolist(), strict=True
            )
        ]
    evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return 100 * float(evaluation.stats[0])


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
    parser.add_argument("file", type=Path)
    for name in ("--calibration", "--images", "--annotations", "--output"):
        parser.add_argument(name, type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    exact = lite_detr_d2.load(args.file)
    manifest = Manifest.read(args.file)
    inputs = prepared(exact, manifest.bounds, find_images(exact.cfg, args.calibration)[:NUM_CALIBRATION])
    # Attention keeps its precision where the type of the model says that there is some: else AP falls.
    quantised = nncf.quantize(
        openvino.Core().read_model(args.file),
        nncf.Dataset(inputs),
        subset_size=len(inputs),
        model_type=nncf.ModelType.TRANSFORMER,
    )
    openvino.save_model(quantised, args.output, compress_to_fp16=False)
    runtime = FORMATS["openvino"].load(args.output, manifest.requires)
    both = [exact, Predictor(exact.cfg, exact.class_names, runtime, bounds=manifest.bounds)]
    times = smallest_times([lambda detector=detector: detector.model(**inputs[0]) for detector in both])
    for detector, path, milliseconds in zip(both, (args.file, args.output), times, strict=True):
        precision = average_precision(detector, args.images, args.annotations)
        size = path.with_suffix(".bin").stat().st_size / 1e6
        print(f"{path.name}: {milliseconds:.1f} ms, {size:.1f} MB, AP {precision:.2f}")
    print(f"{times[0] / times[1]:.2f} times as fast")


if __name__ == "__main__":
    main()
