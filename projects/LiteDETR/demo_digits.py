"""Train a small Lite-DINO on handwritten digits, on whatever machine this is, and show what came of it.

The dataset, model_final.pth, eval_metrics.json, predictions.png, curves.png, loss_curve.png and flops.txt go to the
folder that --output names. KEY VALUE pairs override the config, as in train_net.py:

    demo_digits.py --output /tmp/demo SOLVER.MAX_ITER 100
"""

import argparse
import json
import logging
import sys
import time
from pathlib import Path

from detectron2.config import CfgNode

from lite_detr_d2.analysis import describe
from lite_detr_d2.data.digits import make_digits_dataset
from lite_detr_d2.engine import Trainer, argument_parser, log_start, one_line_errors, read_config, setup
from lite_detr_d2.evaluation.ending import log_end
from lite_detr_d2.visualization import draw_loss_curve

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "demo" / "lite_dino_digits.yaml"

logger = logging.getLogger("lite_detr_d2.demo")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", metavar="DIR", default="output/demo", help="where to write everything")
    parser.add_argument("opts", metavar="KEY VALUE", nargs=argparse.REMAINDER, help="overrides of the config")
    given = parser.parse_args(arguments)
    dataset = Path(given.output) / "digits"
    # The demo of before is replaced.
    command = ["--overwrite", "--config-file", str(CONFIG), "--dataset", str(dataset)]
    args = argument_parser("").parse_args([*command, "OUTPUT_DIR", given.output, *given.opts])
    read_config(args)  # what is wrong with it is said before the images are made
    print(
        "A small Lite-DINO learns to find handwritten digits on photographs: 10 to 30 minutes on two CPU cores.\n"
        f"1. Making the images, in {dataset} (half a minute)",
        flush=True,
    )
    make_digits_dataset(dataset)
    print("2. Training", flush=True)
    cfg = setup(args)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    log_start(trainer)
    began = time.perf_counter()
    trainer.train()
    logger.info("3. Drawing what it finds")
    log_end(trainer, began)
    report(cfg)


def report(cfg: CfgNode) -> None:
    """Draw how the loss fell, count the model's operations, and sum up its evaluation."""
    output = Path(cfg.OUTPUT_DIR)
    draw_loss_curve(output / "metrics.json", output / "loss_curve.png")
    batch = next(iter(Trainer.build_test_loader(cfg, cfg.DATASETS.TEST[0])))
    height, width = batch[0]["image"].shape[-2:]
    flops = describe(cfg, (height, width))
    (output / "flops.txt").write_text(f"{flops}\n", encoding="utf-8")
    logger.info("One multiply-add counts as one operation:\n%s", flops)
    metrics = json.loads((output / "eval_metrics.json").read_text(encoding="utf-8"))["bbox"]
    measured = [key for key in ("AP", "AP50", "APs", "APm", "APl") if metrics[key] is not None]
    logger.info("%s", ", ".join(f"{key} {metrics[key]:.1f}" for key in measured))
    logger.info("See %s and %s", output / "predictions.png", output / "loss_curve.png")


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])
