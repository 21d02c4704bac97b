"""A training as a job of a cluster, by submitit: it saves before its time is up, is queued again, and goes on."""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..extras import import_extra
from ..wording import one_line, shown
from .configs import read_config
from .folder_lock import refuse_beside_training
from .output_folder import check_output_folder

OPTION = "--submit"
# A job is queued again so many times when its time is up, which submitit counts.
_MOST_TIMEOUTS = 100
_EXPECTED = "expected KEY=VALUE,KEY=VALUE with submitit's parameters, such as slurm_partition=gpu,timeout_min=1440"
# submitit has no exceptions of its own for what it is given.
_REFUSALS = (AssertionError, NameError, RuntimeError, TypeError, ValueError)
_NODES = "nodes", "tasks_per_node"
# How a training ends that is asked to stop: it is done; it has saved; it, or one of its processes, had not yet begun.
_STOPPED = (os.EX_OK, os.EX_TEMPFAIL, -signal.SIGUSR1, 128 + signal.SIGUSR1)


def submit(args: argparse.Namespace, program: str, arguments: Sequence[str]) -> str:
    """Hand a training to a cluster, as a job with the same command line, and ``--resume``.

    Its logs and what submitit needs are in ``OUTPUT_DIR/jobs``. On the signal of submitit's, which comes before its
    time is up or when it has to give way, the training saves, and the job is queued again, to go on.

    Args:
        args: as :func:`argument_parser` parses them; ``args.submit`` has submitit's parameters. ``cluster`` may be
            "slurm" or "local"; without it, it is Slurm where there is some.
        program: the file that is run.
        arguments: its command line.

    Returns:
        What to tell the user: the job, and where its logs are.

    Raises:
        InputError: submitit is not installed or takes no such parameters; or the training could not begin, of what can
            be known before.
    """
    parameters = _parsed(args.submit)
    cluster = parameters.pop("cluster", None)
    if args.eval_only:
        raise InputError(f"{OPTION} is for trainings: leave it or --eval-only out.")
    if args.overwrite:
        raise InputError(
            f"{OPTION} and --overwrite: a cluster may start a job several times, which would overwrite what it has "
            "done. Name another OUTPUT_DIR."
        )
    folder = read_config(args).OUTPUT_DIR
    check_output_folder(folder, args)
    refuse_beside_training(folder)
    submitit = import_extra("submitit", extra="submit")
    jobs = Path(folder, "jobs").absolute()
    try:
        executor = submitit.AutoExecutor(jobs, cluster=cluster, slurm_max_num_timeout=_MOST_TIMEOUTS)
        executor.update_parameters(name=jobs.parent.name, stderr_to_stdout=True, **parameters)
        job = executor.submit(Job([sys.executable, os.path.abspath(program), *_for_job(arguments)]))
    except OSError as error:
        raise InputError(f"{shown(jobs)} cannot be used: {error.strerror or error}.") from error
    except _REFUSALS as error:
        raise InputError(f"{OPTION} {args.submit}: submitit says: {one_line(error)}") from error
    return f"Submitted job {job.job_id}, which logs to {shown(job.paths.stdout)}"


class Job:
    """What submitit runs: the training in a process of its own, in a group of its own.

    A cluster's signals come to all of the job's group; the training is to get those alone that are meant for it.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        self._training = 0

    def __call__(self) -> None:
        """Train.

        Raises:
            RuntimeError: the training has failed.
        """
        # submitit calls checkpoint() in a handler, which waits for the same process: both only look, and none reaps.
        training = subprocess.Popen(self._command, start_new_session=True)
        self._training = training.pid
        try:
            while not os.waitid(os.P_PID, self._training, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                time.sleep(0.2)
        finally:
            training.terminate()
        if training.wait():
            raise RuntimeError(f"The training has ended with exit code {training.returncode}: see what it said above.")

    def checkpoint(self) -> Any:
        """Let the training stop; return what goes on with it, or None if it has failed."""
        if self._training:
            os.kill(self._training, signal.SIGUSR1)
            ended = os.waitid(os.P_PID, self._training, os.WEXITED | os.WNOWAIT)
            assert ended is not None
            if (ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status) not in _STOPPED:
                return None
        submitit = import_extra("submitit", extra="submit")
        return submitit.helpers.DelayedSubmission(Job(self._command))


def _for_job(arguments: Sequence[str]) -> list[str]:
    """The command line of a job, which may be started several times: it goes on wherever it finds itself."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(OPTION)
    parser.add_argument("--resume", action="store_true")
    found, rest = parser.parse_known_args(arguments)
    if found.submit is None:
        raise InputError(f"{OPTION} has to be given in full.")
    return ["--resume", *rest]


def _parsed(text: str) -> dict[str, Any]:
    """The parameters that ``--submit`` gives: whole numbers, numbers, and texts."""
    pairs = [pair.split("=", 1) for pair in text.split(",")]
    if any(len(pair) != 2 or not all(pair) for pair in pairs):
        raise InputError(f"{OPTION} is {text!r}: {_EXPECTED}.")
    parameters = {key: _value(value) for key, value in pairs}
    if parameters.get("cluster") not in (None, "slurm", "local"):
        raise InputError(f"{OPTION} has cluster={parameters['cluster']}: expected slurm or local.")
    if "timeout_min" not in parameters:
        raise InputError(f"{OPTION} has no timeout_min, the minutes until the job is stopped and queued again.")
    several = [key for key in _NODES if parameters.get(key, 1) != 1]
    if several:
        raise InputError(
            f"{OPTION} has {several[0]}={parameters[several[0]]}: a job is one task on one machine, in which "
            "--num-gpus starts the processes. For several machines, write a job script that starts torchrun on each."
        )
    return parameters


def _value(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
