"""From a config, or what a training left, to the images that are trained on: for what looks at these alone."""

import argparse
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from ..checkpoint import skimmed
from ..data import TrainingSizes, find_prepared, find_source, is_name_of, register_prepared, register_source
from ..errors import InputError
from ..wording import in_short, shown
from .configs import check_config, check_named, read_config, use_dataset
from .datasets import check_datasets
from .last_checkpoint import is_checkpoint_name


def setup_data(args: argparse.Namespace) -> CfgNode:
    """Make the config of a training as far as its data goes. Nothing is written.

    Args:
        args: ``config_file``, ``dataset``, ``on_bad`` and ``opts``, as of :func:`argument_parser`; and ``run``, the
            ``OUTPUT_DIR`` of the training that the config is of, whose dataset is taken without ``dataset``; or None.

    Returns:
        The config, valid and frozen, whose ``DATASETS.TRAIN`` are registered. Images are loaded in this process.

    Raises:
        InputError: the config or the dataset cannot be used.
    """
    cfg = read_config(args)
    if args.dataset:
        sizes = TrainingSizes.from_config(cfg)
        folder = register_source(lambda space: find_source(args.dataset, space), on_bad=args.on_bad, sizes=sizes)
        use_dataset(cfg, folder, folder.val, args.opts)
        cfg.MODEL.LITE_DETR.CLASS_NAMES = []
    elif args.on_bad != "error":
        raise InputError(f"--on-bad {args.on_bad} needs --dataset.")
    cfg.DATALOADER.NUM_WORKERS = 0
    check_config(cfg, args.config_file)
    check_named(cfg, "TRAIN")
    if args.run and not args.dataset:
        _register_own(cfg, Path(args.run))
    check_datasets(cfg, "TRAIN")
    cfg.freeze()
    return cfg


def _register_own(cfg: CfgNode, run: Path) -> None:
    """Register what a training was trained on, of which it left what ``--dataset`` named; others are there, or not."""
    prepared = find_prepared((run / "dataset").resolve())
    if prepared is not None:
        registered = register_prepared(prepared).train
        if len(cfg.DATASETS.TRAIN) == 1 and is_name_of(cfg.DATASETS.TRAIN[0], prepared, "train"):
            cfg.DATASETS.TRAIN = (registered,)
    missing = [name for name in cfg.DATASETS.TRAIN if name not in DatasetCatalog]
    if missing:
        raise InputError(
            f"What {shown(run)} was trained on is not in {shown(run / 'dataset')}, and DATASETS.TRAIN "
            f"({in_short(missing)}) is not registered: name it, --dataset PATH, or what registers it, --import MODULE."
        )


def seed_of_run(run: Path) -> int | None:
    """The seed of all that a training draws, which its checkpoints keep; None if none of them tells."""
    for path in sorted(run.iterdir()):
        trainer = skimmed(path).get("trainer") if is_checkpoint_name(path.name) else None
        seed = trainer.get("seed") if isinstance(trainer, dict) else None
        if isinstance(seed, int):
            return seed
    return None
