"""Train or evaluate a detector of lite_detr_d2.

Options come before KEY VALUE pairs. Examples:
    train:              train_net.py --config-file configs/dino/lite_dino_h3l1_a2b3_r50_12ep.yaml --num-gpus 8
    on a laptop:        train_net.py --config-file configs/dino/lite_dino_tiny.yaml --dataset DIR --epochs 20
    on your own data:   train_net.py --config-file FILE --dataset DIR SOLVER.IMS_PER_BATCH 4 SOLVER.REFERENCE_BATCH 16
                        OUTPUT_DIR output/mine
    from a detector:    the same with MODEL.WEIGHTS path/to/checkpoint.pth
    go on:              the same command with --resume
    once more:          the same command with --overwrite, or with another OUTPUT_DIR
    on a cluster:       the same command with --submit slurm_partition=gpu,timeout_min=1440,gpus_per_node=8
    evaluate:           the same command with --eval-only, and MODEL.WEIGHTS output/mine/model_final.pth at its end
    a quick try:        the same command with SOLVER.MAX_ITER 50
"""

import argparse
import sys
import time

from detectron2.config import CfgNode

from lite_detr_d2.config import with_random_weights
from lite_detr_d2.engine import (
    SafeCheckpointer,
    Trainer,
    argument_parser,
    classes_for_checkpoints,
    delete_overwritten,
    launch_checked,
    log_model,
    log_start,
    one_line_errors,
    setup,
    submit,
)
from lite_detr_d2.errors import InputError
from lite_detr_d2.evaluation.ending import log_end


def main(args: argparse.Namespace) -> None:
    with one_line_errors():
        cfg = setup(args)
        if args.eval_only:
            evaluate(cfg, resume=args.resume, trust_pickle=args.trust_pickle)
            return
        trainer = Trainer(cfg, trust_pickle=args.trust_pickle, resume=args.resume)
        trainer.resume_or_load(resume=args.resume)
        if args.overwrite:
            delete_overwritten(cfg.OUTPUT_DIR)
        log_start(trainer)
        began = time.perf_counter()
        trainer.train()
        log_end(trainer, began, args.modules)


def evaluate(cfg: CfgNode, *, resume: bool, trust_pickle: bool) -> None:
    model = Trainer.build_model(with_random_weights(cfg))  # they are loaded below
    log_model(cfg)
    classes = classes_for_checkpoints(cfg, "TEST")
    checkpointer = SafeCheckpointer(model, cfg.OUTPUT_DIR, **classes, trust_pickle=trust_pickle)
    weights = checkpointer.get_checkpoint_file() if resume else cfg.MODEL.WEIGHTS
    if not weights:
        raise InputError("--eval-only needs a checkpoint: set MODEL.WEIGHTS, or --resume takes the last in OUTPUT_DIR.")
    checkpointer.load(weights)
    Trainer.test(cfg, model)


if __name__ == "__main__":
    with one_line_errors():
        arguments = argument_parser(__doc__).parse_args()
        if arguments.submit is None:
            launch_checked(main, arguments)
        else:
            print(submit(arguments, __file__, sys.argv[1:]))
