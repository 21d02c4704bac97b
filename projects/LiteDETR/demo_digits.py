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

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils.analysis import FlopCountAnalysis
from fvcore.nn import flop_count_table

from lite_detr_d2.data.digits import make_digits_dataset
from lite_detr_d2.engine import Trainer, argument_parser, log_start, one_line_errors, setup
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
    print(
        "A small Lite-DINO learns to find handwritten digits on photographs: 10 to 30 minutes on two CPU cores.\n"
        f"1. Making the images, in {dataset} (half a minute)",
        flush=True,
    )
    make_digits_dataset(dataset)
    print("2. Training", flush=True)
    # The demo of before is replaced.
    command = ["--overwrite", "--config-file", str(CONFIG), "--dataset", str(dataset)]
    cfg = setup(argument_parser("").parse_args([*command, "OUTPUT_DIR", given.output, *given.opts]))
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    log_start(trainer)
    trainer.register_hooks([EarlyProgress()])
    began = time.perf_counter()
    trainer.train()
    logger.info("3. Drawing what it finds")
    log_end(trainer, began)
    report(cfg, trainer.model.eval())


class EarlyProgress(HookBase):
    """Says how long the training takes, soon after its beginning: detectron2's lines begin after 20 iterations."""

    AFTER = (2, 10)

    def after_step(self) -> None:
        iterations, now = self.trainer.iter + 1, time.perf_counter()
        if iterations == 1:
            self._first_ended = now  # the first one is no measure
        elif iterations in self.AFTER:
            seconds = (now - self._first_ended) / (iterations - 1) * (self.trainer.max_iter - iterations)
            logger.info("Iteration %d of %d, about %.0f minutes to go", iterations, self.trainer.max_iter, seconds / 60)


@torch.no_grad()
def report(cfg: CfgNode, model: torch.nn.Module) -> None:
    """Draw how the loss fell, count the model's operations, and sum up its evaluation."""
    output = Path(cfg.OUTPUT_DIR)
    draw_loss_curve(output / "metrics.json", output / "loss_curve.png")
    batch = next(iter(Trainer.build_test_loader(cfg, cfg.DATASETS.TEST[0])))
    flops = flop_count_table(FlopCountAnalysis(model, batch), max_depth=2)
    (output / "flops.txt").write_text(f"{flops}\n", encoding="utf-8")
    logger.info("One multiply-add counts as one operation:\n%s", flops)
    metrics = json.loads((output / "eval_metrics.json").read_text(encoding="utf-8"))["bbox"]
    measured = [key for key in ("AP", "AP50", "APs", "APm", "APl") if metrics[key] is not None]
    logger.info("%s", ", ".join(f"{key} {metrics[key]:.1f}" for key in measured))
    logger.info("See %s and %s", output / "predictions.png", output / "loss_curve.png")


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])
