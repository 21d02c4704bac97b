"""From a command line to a config: what the entry points share."""

import argparse
import errno
import importlib
import io
import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, default_setup
from detectron2.utils import comm

from ..config import warn_of_idle_keys
from ..data import ON_BAD, CocoFolder, Source, TrainingSizes, find_source, register_source, source_of_files
from ..errors import InputError
from ..files import write_atomically
from ..quiet import quiet
from .configs import check_config, check_named, merged_config, read_config, use_dataset
from .console import open_log
from .datasets import check_datasets, class_names
from .lost import ignore_lost_processes, what_was_lost
from .memory import OUT_OF_MEMORY, is_out_of_memory
from .options import add_import, add_trust_pickle, import_modules
from .output_folder import check_output_folder, check_weights, found_of_training, make_room, remove_unfinished
from .schedule import fit_schedule, scale_rates
from .trainer import on_available_device

logger = logging.getLogger(__name__)

# Of the numbers that --epochs takes; beyond are slips of the keyboard.
MOST_EPOCHS = 1_000_000
_CLASS_NAMES = "MODEL.LITE_DETR.CLASS_NAMES"
# Errors whose message says all there is to say; the second is of losses and matching costs.
_EXPECTED_ERRORS = (InputError, FloatingPointError)
# The disk is full, or has become read-only.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def argument_parser(description: str) -> argparse.ArgumentParser:
    """Return detectron2's usual arguments, and those of where the data is and how long to train."""
    parser: argparse.ArgumentParser = default_argument_parser(epilog=description)
    data = parser.add_argument_group(
        "data",
        "Where it lies, in whatever format; see docs/datasets.md. It sets DATASETS.TRAIN, DATASETS.TEST, "
        "MODEL.LITE_DETR.NUM_CLASSES and INPUT.MAX_VALUE, and fits the schedule to the number of images unless "
        "SOLVER.REFERENCE_NUM_IMAGES is 0. What is in order goes to OUTPUT_DIR/dataset; your files are only read.",
    )
    data.add_argument(
        "--dataset", metavar="PATH", help="a folder in COCO, YOLO or Pascal VOC format, a .zip of one, or a COCO file"
    )
    data.add_argument("--train-json", metavar="FILE", help="instead of --dataset: COCO's annotations to train on")
    data.add_argument(
        "--val-json",
        metavar="FILE",
        help="and those to evaluate on; without, the former are split. With --eval-only, it may stand alone",
    )
    data.add_argument("--images", metavar="DIR", help="and the folder that both files' images are in")
    data.add_argument(
        "--on-bad",
        choices=ON_BAD,
        default="error",
        help="what becomes of images and boxes that cannot be used: stop and list them all (default), or drop them",
    )
    data.add_argument(
        "--split",
        choices=("val", "test"),
        default="val",
        help="with --eval-only: evaluate on the test half of a dataset that has one besides that for validation",
    )
    parser.add_argument(
        "--epochs",
        metavar="N",
        type=float,
        help="with --dataset: train until each image was seen N times, which may be a fraction. It sets "
        "SOLVER.MAX_ITER, and in the config file's ratio to it SOLVER.STEPS, SOLVER.WARMUP_ITERS, "
        "SOLVER.CHECKPOINT_PERIOD and TEST.EVAL_PERIOD.",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="start anew in an OUTPUT_DIR that has a training in it: its checkpoints are deleted, its records moved to "
        "OUTPUT_DIR/overwritten_N",
    )
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="show on the console, too, what is in OUTPUT_DIR/log.txt: environment, config, model, and all losses",
    )
    parser.add_argument(
        "--submit",
        metavar="KEY=VALUE,...",
        help="train in a job of a cluster, by submitit: its parameters, such as slurm_partition=gpu,timeout_min=1440,"
        "gpus_per_node=8. When its time is up it saves, is queued again, and goes on; see docs/reliability.md",
    )
    add_import(parser)
    add_trust_pickle(parser)
    return parser


def setup(args: argparse.Namespace) -> CfgNode:
    """Make the config of one process, and set up its logging and random seeds.

    Args:
        args: as :func:`argument_parser` parses them. ``KEY VALUE`` overrides win over ``--dataset`` and ``--epochs``,
            and these over the config file.

    Returns:
        The config, valid and frozen.

    Raises:
        InputError: the config, the dataset or the number of epochs cannot be used.
    """
    if args.epochs is not None and not 0 < args.epochs <= MOST_EPOCHS:
        raise InputError(f"--epochs is {args.epochs:g}: expected a number above 0, and at most {MOST_EPOCHS}.")
    import_modules(args.modules)
    cfg = read_config(args)
    check_output_folder(cfg.OUTPUT_DIR, args)
    check_weights(cfg, args)
    _open_log(cfg.OUTPUT_DIR, verbose=args.verbose)
    remove_unfinished(cfg.OUTPUT_DIR, args)  # before anything is written: it may be what fills the disk
    folder = _register_data(args, Path(cfg.OUTPUT_DIR, "dataset"), TrainingSizes.from_config(cfg))
    if folder:
        use_dataset(cfg, folder, folder.test if args.split == "test" else folder.val, args.opts)
    is_renamed, configured = _CLASS_NAMES in args.opts[::2], list(cfg.MODEL.LITE_DETR.CLASS_NAMES)
    if not is_renamed:
        cfg.MODEL.LITE_DETR.CLASS_NAMES = []  # those of a config file may be of another dataset
    check_config(cfg, args.config_file)
    warn_of_idle_keys(cfg, trains=not args.eval_only)
    halves = ("TEST",) if args.eval_only else ("TRAIN", "TEST")
    check_named(cfg, halves[0])
    if not args.eval_only:
        _fit_to_sizes(cfg, args, folder.num_images if folder else {})
        scale_rates(cfg)
    check_datasets(cfg, *halves)
    if not is_renamed:
        cfg.MODEL.LITE_DETR.CLASS_NAMES = list(class_names(cfg.DATASETS[halves[0]][0]) or configured)
    limit_workers(cfg)
    cfg = on_available_device(cfg)
    cfg.freeze()
    make_room(cfg, args)
    with quiet("torch.utils.cpp_extension"):
        # detectron2's account of the environment imports it, which remarks on a CUDA toolkit where there is no GPU.
        importlib.import_module("torch.utils.cpp_extension")
    with _config_of_training(cfg) if args.eval_only else nullcontext():
        default_setup(cfg, args)
    return cfg


@contextmanager
def _config_of_training(cfg: CfgNode) -> Iterator[None]:
    """Let an evaluation leave the config of a training as it is: its checkpoints are of these classes and options."""
    path = Path(cfg.OUTPUT_DIR, "config.yaml")
    # What was copied from another folder, or renamed, may be a checkpoint alone.
    is_of_training = found_of_training(cfg.OUTPUT_DIR) or any(path.parent.glob("*.pth"))
    content = path.read_bytes() if comm.is_main_process() and path.is_file() and is_of_training else None
    try:
        yield  # detectron2 writes the file anew, in place
    finally:
        if content is not None:
            write_atomically(str(path), lambda file: file.write(content))


def _register_data(args: argparse.Namespace, folder: Path, sizes: TrainingSizes) -> CocoFolder | None:
    """Register what ``--dataset``, or ``--train-json`` and its companions, name; None without any."""
    files = {"--train-json": args.train_json, "--val-json": args.val_json, "--images": args.images}
    given = [option for option, value in files.items() if value]
    if args.dataset and given:
        raise InputError(f"--dataset {args.dataset} and {given[0]}: give one of the two.")
    if given and not args.train_json and not (args.eval_only and args.val_json):
        raise InputError(f"{given[0]} needs --train-json; to evaluate only, --eval-only and --val-json.")
    if args.split == "test" and not args.eval_only:
        raise InputError("--split test is kept for the end: it needs --eval-only.")
    if not (args.dataset or given):
        for option, value, default in (("--on-bad", args.on_bad, "error"), ("--split", args.split, "val")):
            if value != default:
                raise InputError(f"{option} {value} needs --dataset.")
        return None

    def find(workspace: Path) -> Source:
        if args.dataset:
            return find_source(args.dataset, workspace)
        return source_of_files(train_json=args.train_json, val_json=args.val_json, images=args.images)

    # Weights that are resumed or evaluated were trained on the split that is there.
    registered = register_source(
        find,
        split_folder=folder,
        keep_split=args.resume or args.eval_only,
        on_bad=args.on_bad,
        training=not args.eval_only,
        sizes=sizes,
    )
    if args.split == "test" and not registered.test:
        named = args.dataset or args.train_json or args.val_json
        raise InputError(f"--split test: {named} has no test half beside {registered.val!r}.")
    return registered


def _fit_to_sizes(cfg: CfgNode, args: argparse.Namespace, num_images: Mapping[str, int]) -> None:
    """Fit the schedule to the training sets, if ``num_images`` has their sizes: an override may name other sets."""
    if set(cfg.DATASETS.TRAIN) <= num_images.keys():
        recipe = merged_config(argparse.Namespace(config_file=args.config_file, opts=[]))
        fit_schedule(cfg, recipe, args.opts, sum(num_images[name] for name in cfg.DATASETS.TRAIN), args.epochs)
    elif args.epochs is not None:
        raise InputError(
            f"--epochs {args.epochs:g} needs --dataset: how many images DATASETS.TRAIN {cfg.DATASETS.TRAIN} has is not "
            "known before training. Give SOLVER.MAX_ITER, in iterations, instead."
        )


def limit_workers(cfg: CfgNode) -> None:
    """Lower the number of data-loading processes to that of the cores, of which more would only take turns.

    ``cfg``, which is not frozen, gets it.
    """
    asked, cores = cfg.DATALOADER.NUM_WORKERS, max(1, len(os.sched_getaffinity(0)) // comm.get_local_size())
    if asked > cores:
        logger.info(
            "DATALOADER.NUM_WORKERS becomes %d instead of %d, the number of CPU cores at hand%s.",
            *(cores, asked, " for each process" if comm.get_local_size() > 1 else ""),
        )
        cfg.DATALOADER.NUM_WORKERS = cores


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the program when the user has to mend something: its message on standard error, and no traceback."""
    # detectron2's training loop logs every error with its traceback before it passes it on.
    loop = logging.getLogger("detectron2.engine.train_loop")
    loop.addFilter(_without_expected_traceback)
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        if what_was_lost(error):
            ignore_lost_processes()
        message = _message_to_user(error)
        if not message:
            raise
        sys.exit(f"error: {message}")
    finally:
        loop.removeFilter(_without_expected_traceback)


@contextmanager
def output_folder(folder: str) -> Iterator[None]:
    """Make ``OUTPUT_DIR``, for files to be opened in.

    Raises:
        InputError: it cannot be made, or they cannot be opened.
    """
    try:
        folder.encode()  # as tensorboard does
        os.makedirs(folder, exist_ok=True)
        yield
    except UnicodeEncodeError as error:
        raise InputError(
            f"OUTPUT_DIR is {folder!r}, which has characters that the locale's encoding does not. Set the environment "
            "variable PYTHONUTF8=1, or choose another."
        ) from error
    except OSError as error:
        raise InputError(f"OUTPUT_DIR is {folder!r}, and cannot be made a folder: {error.strerror}.") from error


def _open_log(folder: str, *, verbose: bool) -> None:
    """Log to ``log.txt`` in a folder, which is made, and to standard output, whatever characters names have."""
    with output_folder(folder):
        opened = open_log(folder, verbose=verbose)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    for stream in (getattr(handler, "stream", None) for handler in opened):
        if isinstance(stream, io.TextIOWrapper) and os.path.isfile(getattr(stream, "name", "")) and not stream.closed:
            # detectron2's loggers share it
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def _without_expected_traceback(record: logging.LogRecord) -> bool:
    message = _message_to_user(record.exc_info[1]) if record.exc_info else ""
    if message:
        record.msg, record.exc_info = f"{record.msg} {message}", None
    return True


def _message_to_user(error: BaseException | None) -> str:
    """Return what an error says that a user can mend; "" of any other."""
    if isinstance(error, _EXPECTED_ERRORS):
        return _text(error)
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        # A training that ends writes once more, and fails once more: what came first knows the file.
        first = _message_to_user(error.__context__)
        return first or f"{error.filename or 'A file'} cannot be written: {error.strerror}."
    if is_out_of_memory(error):
        return OUT_OF_MEMORY
    return what_was_lost(error)


def _text(error: BaseException) -> str:
    """Return the message; without the traceback that a data-loading process puts around it."""
    # str() of a KeyError is the repr of its message.
    message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return message.rpartition(f"{type(error).__name__}: ")[2].strip() or type(error).__name__
