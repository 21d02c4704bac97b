"""What a training has come to: how well each class is found, pictures, where the time went, and what comes next."""

import json
import logging
import random
import shlex
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from detectron2.utils import comm

from ..deploy.run import TrainedModel
from ..engine import Trainer, class_names
from ..errors import InputError
from ..visualization import draw_curves
from ..wording import shown
from .dataset import EvaluationSet, own_dataset
from .per_class import class_table
from .report import Report, draw_images, report_on

PREDICTIONS, CURVES = "predictions.png", "curves.png"

_WORST_DRAWN = _OTHERS_DRAWN = 6

logger = logging.getLogger(__name__)


def log_end(trainer: Trainer, began: float, modules: Sequence[str] = ()) -> None:
    """Say what a training has come to, and draw it in its ``OUTPUT_DIR``. What cannot be drawn or scored is said.

    Args:
        trainer: after its training.
        began: when that was, by ``time.perf_counter``.
        modules: that its config needs imported, as ``--import`` names them.
    """
    if not comm.is_main_process():
        return
    output = Path(trainer.cfg.OUTPUT_DIR)
    lines, best = [_time(trainer, time.perf_counter() - began)], None
    logger.info("Drawing %s and %s", CURVES, PREDICTIONS)
    for part in (_curves, _predictions):
        try:
            found, best = part(trainer, output)
        except (InputError, OSError) as error:
            logger.warning("%s", error)
        else:
            lines += found
    run = " ".join([shlex.quote(shown(output)), *(f"--import {module}" for module in modules)])
    threshold = "" if best is None else f" --threshold {best:.2g}"
    lines += [
        f"to predict:  python projects/LiteDETR/predict.py {run} --input IMAGES --output FOUND{threshold}",
        f"its errors:  python projects/LiteDETR/evaluate.py {run}",
    ]
    logger.info("%s", "\n".join(["The training is done:", *(f"  {line}" for line in lines)]))


def _time(trainer: Trainer, seconds: float) -> str:
    histories, done = trainer.storage.histories(), trainer.iter - trainer.start_iter

    def total(name: str) -> float:
        return float(histories[name].global_avg()) * done if name in histories else 0.0

    steps, data = total("time"), total("data_time")
    parts = f"{_duration(steps)} in steps, of which {_duration(data)} waiting for data"
    return f"time: {_duration(seconds)}; {parts}; the rest in evaluations and checkpoints"


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _curves(trainer: Trainer, output: Path) -> tuple[list[str], None]:
    draw_curves({output.name: output / "metrics.json"}, output / CURVES)
    return [f"curves: {shown(output / CURVES)}"], None


def _predictions(trainer: Trainer, output: Path) -> tuple[list[str], float | None]:
    """The classes, and the worst images beside some of the others, of the last evaluation; and the best threshold."""
    file, datasets = output / "inference" / "coco_instances_results.json", trainer.cfg.DATASETS.TEST
    if len(datasets) > 1:
        return [
            f"predictions: of {len(datasets)} datasets none are drawn; evaluate.py --dataset DIR does, of one"
        ], None
    if len(datasets) != 1 or not file.is_file():
        return [], None
    cfg = trainer.cfg
    names = class_names(datasets[0]) or [str(number) for number in range(cfg.MODEL.LITE_DETR.NUM_CLASSES)]
    dataset = own_dataset(TrainedModel(cfg, trainer.checkpointer.model, names))
    records: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    report = report_on(dataset, records)
    lines, best = class_table(report.classes).split("\n"), report.best.score
    if best is not None:
        lines.append(f"of all classes: F1 is {report.best.f1:.1f} on average from a score of {best:.2g} on")
    draw_images(report, dataset, records, _chosen(report, dataset), output / PREDICTIONS)
    return [*lines, f"predictions: {shown(output / PREDICTIONS)}, the worst images first, and then others"], best


def _chosen(report: Report, dataset: EvaluationSet) -> list[Any]:
    """The images of the most errors, and some of the others."""
    worst = [image.image_id for image in report.confusion.worst(_WORST_DRAWN)]
    others = [image["image_id"] for image in dataset.images if image["image_id"] not in worst]
    return worst + random.Random(0).sample(others, min(_OTHERS_DRAWN, len(others)))
