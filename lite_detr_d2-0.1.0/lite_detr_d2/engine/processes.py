"""A training in one process or in several, which ``--num-gpus`` starts here or torchrun has started.

Either way the processes meet in a store that outlives each of them. Of an error that several have, the first to enter
it there says it; that others have ended is what an error in the store, or a process killed, looks like from the rest,
and is said only if nothing else was.
"""

import argparse
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from urllib.parse import urlsplit
from uuid import uuid4

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import distributed
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous
from torch.multiprocessing.spawn import start_processes

from ..errors import InputError
from .configs import read_config
from .folder_lock import only_training_in, refuse_beside_training
from .lost import is_connection_lost
from .orphans import end_with_parent
from .output_folder import check_output_folder
from .setup import argument_parser, one_line_errors, output_folder

Main = Callable[[argparse.Namespace], None]

# How long processes wait for one that does not answer: the first prepares and evaluates datasets while the others wait.
TIMEOUT = timedelta(minutes=30)
# Seconds that the others have to see for themselves that a process has ended, and then to obey SIGTERM.
GRACE, MERCY = 15.0, 5.0
# The exit code of a process that ends because others have.
_LEFT_ALONE = 71
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Place:
    """That of a process among those of a training, and of its machine."""

    rank: int
    world_size: int
    local_rank: int
    local_size: int


def launch_checked(main: Main, args: argparse.Namespace) -> None:
    """Run ``main(args)`` in as many processes as ``args`` asks for, or in those that torchrun has started.

    In several, it is on the CPU with gloo if ``MODEL.DEVICE`` is cpu, and else with nccl on a GPU for each. A training
    has its OUTPUT_DIR for itself as long as it runs. When a process fails, all end within ``GRACE`` and ``MERCY``, and
    the program with its exit code: it has said why, or was killed, and then that is said here.

    Args:
        main: what to run, importable by its name.
        args: as :func:`argument_parser` parses them.

    Raises:
        InputError: the config cannot be read; the options contradict each other, or the machine has not that many GPUs
            or cores; or another process trains in OUTPUT_DIR.
    """
    place = _place_by_torchrun(args)
    if place is None and args.num_gpus * args.num_machines == 1:
        _run(main, args)
    elif place is None:
        _launch(main, args)
    else:
        shared, _, _ = next(rendezvous("env://", timeout=TIMEOUT))
        store = _part_of_this_start(shared, place)
        with _told_once(store):
            _begin_or_go_on(args, shared)
            if place.world_size == 1:
                _run(main, args)
            else:
                _run_in_group(main, args, place, store)


def _place_by_torchrun(args: argparse.Namespace) -> Place | None:
    """The place that torchrun has given this process; None if it was not started by it."""
    environment = os.environ
    if "LOCAL_RANK" not in environment:
        if int(environment.get("WORLD_SIZE", "1")) > 1 and "RANK" in environment and args.num_machines == 1:
            raise InputError(
                "The environment has RANK and WORLD_SIZE, but not LOCAL_RANK: start the processes with torchrun, or "
                "with --num-gpus, --num-machines and --machine-rank, or unset RANK and WORLD_SIZE."
            )
        return None
    missing = [name for name in _TORCHRUN if name not in environment]
    if missing:
        raise InputError(
            f"The environment has LOCAL_RANK, but not {', '.join(missing)}: set all of {', '.join(_TORCHRUN)}, as "
            "torchrun does, or unset LOCAL_RANK."
        )
    given = {"--num-gpus": args.num_gpus, "--num-machines": args.num_machines}
    for option, value in given.items():
        if value != 1:
            raise InputError(f"{option} {value} under torchrun, which starts the processes itself: leave it out.")
    numbers = [
        int(environment[name]) if environment[name].isdecimal() else -1 for name in (*_TORCHRUN[:4], "MASTER_PORT")
    ]
    if min(numbers) < 0 or not numbers[-1]:
        raise InputError(
            f"The environment has {', '.join(f'{name}={environment[name]}' for name in _TORCHRUN)}: expected numbers, "
            "and a port that is not 0 (torchrun --standalone finds one)."
        )
    place = Place(*numbers[:4])
    if place.world_size % place.local_size:
        raise InputError(
            f"torchrun has {place.world_size} processes, {place.local_size} of them on this machine: every machine "
            "needs the same number."
        )
    return place


def _part_of_this_start(store: Store, place: Place) -> Store:
    """The part of torchrun's store that these processes have to themselves: those that it started before left theirs.

    Its name is process 0's, and only a process that lives answers a question that was not there before.
    """
    if place.rank:
        question = uuid4().hex
        store.set(f"question {place.rank}", question)
        name = store.get(f"answer {question}").decode()  # waits for it
        store.add(f"heard {name}", 1)
        return PrefixStore(name, store)
    name, deadline = uuid4().hex, time.monotonic() + TIMEOUT.total_seconds()
    while store.add(f"heard {name}", 0) < place.world_size - 1:
        for key in (f"question {rank}" for rank in range(1, place.world_size)):
            if store.check([key]):
                store.set(f"answer {store.get(key).decode()}", name)
        if time.monotonic() > deadline:
            raise InputError(f"Of {place.world_size} processes, not all have come within {TIMEOUT}.")
        time.sleep(0.05)
    return PrefixStore(name, store)


def _begin_or_go_on(args: argparse.Namespace, store: Store) -> None:
    """A training that torchrun starts again, since a process has failed, goes on; unless it was refused OUTPUT_DIR.

    Raises:
        InputError: it is refused: what is in OUTPUT_DIR is of another training.
    """
    refused = "lite_detr_d2 refused"
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) == 0 or store.check([refused]):
        try:
            check_output_folder(read_config(args).OUTPUT_DIR, args)
        except InputError:
            store.set(refused, "")
            raise
    elif not args.eval_only:
        args.resume, args.overwrite = True, False


def _check_devices(cfg: CfgNode, place: Place, asked: str) -> str:
    """Return what processes compute on, "cuda" or "cpu", if each of this machine can have a GPU or a core."""
    device = torch.device(cfg.MODEL.DEVICE)
    if device.type != "cpu" and torch.cuda.is_available():
        found = torch.cuda.device_count()
        if device.index is not None:
            raise InputError(
                f"MODEL.DEVICE is {cfg.MODEL.DEVICE!r}, for {place.world_size} processes: each needs a GPU of its own. "
                f"Set it to {device.type}; CUDA_VISIBLE_DEVICES chooses among the GPUs."
            )
        if place.local_size > found:
            raise InputError(f"{asked}, and this machine has {found} GPUs. Ask for at most that many.")
        return "cuda"
    cores = len(os.sched_getaffinity(0))
    if place.local_size > cores:
        raise InputError(f"{asked} on the CPU, and this machine has {cores} CPU cores. Ask for at most that many.")
    return "cpu"


def _launch(main: Main, args: argparse.Namespace) -> None:
    """Start the processes of this machine, and end as they do."""
    cfg, asked = read_config(args), f"--num-gpus {args.num_gpus}"
    world_size = args.num_gpus * args.num_machines
    if args.num_gpus < 1 or not 0 <= args.machine_rank < args.num_machines:
        raise InputError(
            f"{asked}, --num-machines {args.num_machines}, --machine-rank {args.machine_rank}: expected at least one "
            "process, and a rank from 0 to the number of machines less one."
        )
    if torch.device(cfg.MODEL.DEVICE).type != "cpu" and not torch.cuda.is_available():
        raise InputError(
            f"{asked}, and this machine has 0. Leave the option out to train on the CPU in one process; add "
            f"MODEL.DEVICE cpu at the end to train on it in {world_size}."
        )
    _check_devices(cfg, Place(0, world_size, 0, args.num_gpus), asked)
    host, port, store = _open_store(args)
    first = args.machine_rank * args.num_gpus
    places = [Place(first + number, world_size, number, args.num_gpus) for number in range(args.num_gpus)]
    context = start_processes(
        _process, args=(main, args, places, host, port), nprocs=args.num_gpus, join=False, start_method="spawn"
    )
    with _signals_passed_on(context.processes) as passed_on:
        killed = _wait(context.processes)
    codes = [process.exitcode for process in context.processes]
    del store  # of which the processes had a share until now
    if passed_on and any(codes):
        sys.exit(max((code for code in codes if code > 0 and code != _LEFT_ALONE), default=128 + passed_on[0]))
    if killed:
        sys.exit(f"error: {_obituary(killed, places)}")
    said = [code for code in codes if code > 0 and code != _LEFT_ALONE]
    if said:
        sys.exit(said[0])
    if any(codes):
        sys.exit(
            "error: The connection to the processes on other machines was lost: see what they say. --resume goes on "
            "from the last checkpoint."
        )


def _open_store(args: argparse.Namespace) -> tuple[str, int, TCPStore | None]:
    """Where the processes of all machines meet: its host, its port, and if it is this process itself."""
    if args.num_machines == 1 and args.dist_url in ("auto", argument_parser("").get_default("dist_url")):
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # at a port that is free
        return "127.0.0.1", store.port, store
    url = urlsplit(args.dist_url)
    try:
        host, port = url.hostname, url.port
    except ValueError:
        host, port = None, None
    if url.scheme != "tcp" or not host or not port:
        raise InputError(
            f"--dist-url is {args.dist_url!r}: expected tcp://HOST:PORT, a free port of the machine of --machine-rank "
            "0 that all machines reach."
        )
    if args.num_machines > 1 and args.dist_url == argument_parser("").get_default("dist_url"):
        raise InputError(
            f"--num-machines {args.num_machines} needs --dist-url tcp://HOST:PORT, a free port of the machine of "
            "--machine-rank 0 that all machines reach."
        )
    if args.machine_rank:
        return host, port, None
    try:
        return host, port, TCPStore(host, port, is_master=True, wait_for_workers=False)
    except RuntimeError as error:
        raise InputError(f"--dist-url is {args.dist_url!r}, which cannot be opened here: {error}.") from error


def _process(number: int, main: Main, args: argparse.Namespace, places: Sequence[Place], host: str, port: int) -> None:
    """What each process that :func:`_launch` starts does."""
    # Of a terminal's signals, it gets those alone that are passed on.
    os.setpgrp()
    end_with_parent()
    place = places[number]
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // place.local_size))
    store = TCPStore(host, port, place.world_size, is_master=False, timeout=TIMEOUT)
    with _told_once(store, launcher_tells=True):
        _run_in_group(main, args, place, store)


def _run_in_group(main: Main, args: argparse.Namespace, place: Place, store: Store) -> None:
    device = _check_devices(read_config(args), place, f"{place.local_size} processes")
    if device == "cuda":
        torch.cuda.set_device(place.local_rank)
    distributed.init_process_group(
        "nccl" if device == "cuda" else "gloo",
        store=store,
        rank=place.rank,
        world_size=place.world_size,
        timeout=TIMEOUT,
    )
    comm.create_local_process_group(place.local_size)
    _run(main, args)
    comm.synchronize()  # none is to find another gone while it still has something to say
    # detectron2 keeps it beyond the end of its threads, which aborts the process.
    comm._get_global_gloo_group.cache_clear()
    distributed.destroy_process_group()


def _run(main: Main, args: argparse.Namespace) -> None:
    """Run it with OUTPUT_DIR to itself, or to evaluate where nothing else trains."""
    folder = read_config(args).OUTPUT_DIR
    with output_folder(folder) if comm.is_main_process() else nullcontext():
        pass
    if args.eval_only and comm.is_main_process():
        refuse_beside_training(folder)
    takes_lock = comm.is_main_process() and not args.eval_only
    with only_training_in(folder) if takes_lock else nullcontext():
        comm.synchronize()  # until then, the others must not write there
        main(args)


@contextmanager
def _told_once(store: Store, launcher_tells: bool = False) -> Iterator[None]:
    """End the process when it fails, and say why unless another process has said the same.

    That the others are gone is said by the first to see it, unless one of them has said why; or, if
    ``launcher_tells``, by the process that has started them, to which the exit code tells it.
    """
    try:
        with one_line_errors():
            yield
    except SystemExit as stop:
        if not isinstance(stop.code, str):
            raise
        if is_connection_lost(stop.__context__):
            if launcher_tells:
                sys.exit(_LEFT_ALONE)
            if _count(store, "said", 0) or _count(store, "alone", 1) > 1:
                sys.exit(1)
        elif not _is_first_to_say(store, stop.code):
            sys.exit(1)
        raise
    except Exception as error:
        if _is_first_to_say(store, repr(error)):
            traceback.print_exc()
        sys.exit(1)


def _is_first_to_say(store: Store, message: str) -> bool:
    _count(store, "said", 1)
    return _count(store, f"said {message}", 1) <= 1


def _count(store: Store, key: str, more: int) -> int:
    """Add to a number that all processes share; 0 if the process that kept it has ended."""
    try:
        return int(store.add(f"lite_detr_d2 {key}", more))
    except RuntimeError:
        return 0


@contextmanager
def _signals_passed_on(processes: Sequence[BaseProcess]) -> Iterator[list[int]]:
    """Send the processes what this one is sent to end it, and does not ignore; give the signals that were."""
    passed_on: list[int] = []

    def pass_on(number: int, _: object) -> None:
        passed_on.append(number)
        for process in processes:
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, number)

    heeded = [number for number in _PASSED_ON if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, pass_on) for number in heeded}
    try:
        yield passed_on
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(processes: Sequence[BaseProcess]) -> dict[int, int]:
    """Wait until all have ended, or one has failed, after which the others have to.

    Returns:
        The signals that some died of, not by our doing, by their number.
    """
    running = list(processes)
    while running and not any(process.exitcode for process in processes):
        wait([process.sentinel for process in running])
        running = [process for process in running if process.is_alive()]
    _join(running, GRACE)
    codes = {number: process.exitcode or 0 for number, process in enumerate(processes)}
    killed = {number: -code for number, code in codes.items() if code < 0}
    for process in processes:
        if process.is_alive():
            process.terminate()
    _join(processes, MERCY)
    for process in processes:
        if process.is_alive():
            process.kill()
        process.join()
    return killed


def _join(processes: Sequence[BaseProcess], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))


def _obituary(killed: dict[int, int], places: Sequence[Place]) -> str:
    number, by = next(iter(killed.items()))
    name = signal.Signals(by).name
    memory = (
        " If nobody did that, the machine ran out of memory: lower SOLVER.IMS_PER_BATCH, INPUT.MAX_SIZE_TRAIN or "
        "DATALOADER.NUM_WORKERS, or start fewer processes."
    )
    place = places[number]
    return (
        f"Process {place.rank} of {place.world_size} was killed ({name}), and the others have ended with it."
        f"{memory if by == signal.SIGKILL else ''} --resume goes on from the last checkpoint."
    )
