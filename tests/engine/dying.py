"""A training of which DYING says how it ends, in its last iteration: a script that tests start."""

import argparse
import multiprocessing
import os
import signal

from detectron2.engine import HookBase
from detectron2.utils import comm

from lite_detr_d2.engine import Trainer, argument_parser, launch_checked, one_line_errors, setup
from lite_detr_d2.errors import InputError

END = 3


class Dying(HookBase):
    def before_step(self) -> None:
        if self.trainer.iter == END:
            end(os.environ["DYING"])


def end(how: str) -> None:
    is_first_start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    in_one = comm.get_rank() == 1
    if in_one and (how == "killed" or (how == "killed once" and is_first_start)):
        os.kill(os.getpid(), signal.SIGKILL)
    if in_one and how == "loader":
        multiprocessing.active_children()[0].kill()
    if how == "all" or (how == "one" and in_one):
        raise InputError("mend it")
    if how == "bug":
        raise ZeroDivisionError("a bug")


def main(args: argparse.Namespace) -> None:
    trainer = Trainer(setup(args))
    trainer.register_hooks([Dying()])
    trainer.resume_or_load(resume=args.resume)
    trainer.train()


if __name__ == "__main__":
    with one_line_errors():
        launch_checked(main, argument_parser("").parse_args())
