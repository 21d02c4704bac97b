"""From what a training left, or a config and weights, to a detector that predicts. No dataset is needed."""

import argparse
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model

from ..checkpoint import StateDict, is_intact
from ..config import add_lite_detr_config, class_names_of, merge_text, validate_config, with_random_weights
from ..detector import DetrDetector
from ..engine import SafeCheckpointer, is_newer, model_in_words, on_available_device, read_config, tagged_checkpoint
from ..errors import InputError
from ..metadata import lend_class_names
from ..wording import in_short, shown
from .checks import check_device, check_path
from .formats import FORMATS, Format
from .manifest import Manifest, manifest_path

logger = logging.getLogger(__name__)

PathLike = str | os.PathLike[str]

_VERSION = re.compile(r"\d+\.\d+")

_FINAL = "model_final.pth"
_NAMES_SHOWN = 10
_HAS_ARGUMENT = {"MODEL.WEIGHTS": "weights", "MODEL.DEVICE": "device"}


@dataclass(frozen=True)
class TrainedModel:
    """A detector, ready to predict.

    Attributes:
        cfg: its config, with ``MODEL.DEVICE`` and ``MODEL.WEIGHTS`` those in use, and ``OUTPUT_DIR`` the folder that
            its training wrote to, or else that of the weights; frozen.
        detector: in evaluation mode, on its device.
        class_names: by class; "0", "1", ... where they are not known.
    """

    cfg: CfgNode
    detector: DetrDetector
    class_names: list[str]


def load_trained(
    run: PathLike | None = None,
    *,
    config_file: PathLike | None = None,
    weights: PathLike | None = None,
    device: str | torch.device | None = None,
    opts: Sequence[object] = (),
    trust_pickle: bool = False,
) -> TrainedModel:
    """Load a detector.

    Args:
        run: the ``OUTPUT_DIR`` of a training, of which ``model_final.pth`` is taken, or else the last checkpoint.
        config_file: instead of ``run``, with ``weights``: a config of this package.
        weights: with ``config_file`` a checkpoint, ours or a published one: a file, or an address that detectron2
            knows; with ``run`` another one of its checkpoints, such as ``model_best.pth``.
        device: such as "cuda:1"; None for CUDA where there is some, else the CPU.
        opts: with ``config_file``, overrides of it: KEY, VALUE, KEY, VALUE, ...
        trust_pickle: let weights of a ``.pkl`` or ``.pyth`` file hold, and run, anything.

    Raises:
        InputError: they are not there, are damaged or do not fit each other, or there is no such device.
    """
    check_sources(run=run, config_file=config_file, weights=weights, device=device)
    is_given = tuple(source is not None for source in (run, config_file, weights))
    if is_given not in ((True, False, False), (True, False, True), (False, True, True)):
        raise InputError(
            "Which detector? Give a run, the OUTPUT_DIR of a training, and weights if they are not its last; or a "
            "config file and weights."
        )
    _check_overrides(opts, config_file)
    config = os.fspath(config_file) if config_file is not None else str(config_of_run(Path(run or "")))
    cfg = read_config(argparse.Namespace(config_file=config, opts=list(opts)))
    cfg.MODEL.DEVICE = _available(device)
    return build_trained(cfg, config, run=run, weights=weights, trust_pickle=trust_pickle)


def check_sources(*, device: object, **paths: object) -> None:
    """See that the arguments of :func:`load_trained` are of the right types; None is.

    Raises:
        InputError: one is not.
    """
    for name, path in paths.items():
        if path is not None:
            check_path(name, path)
    if device is not None:
        check_device("device", device)


def _check_overrides(opts: Sequence[object], config_file: PathLike | None) -> None:
    if opts and config_file is None:
        raise InputError("opts are overrides of a config file: a run has its own config.")
    for key in opts[::2]:
        if key in _HAS_ARGUMENT:
            raise InputError(f"opts has {key}, for which there is an argument of its own: {_HAS_ARGUMENT[str(key)]}.")


def build_trained(
    cfg: CfgNode,
    source: PathLike,
    *,
    run: PathLike | None = None,
    weights: PathLike | None = None,
    output_dir: str | None = None,
    keep_rows: bool = False,
    trust_pickle: bool = False,
) -> TrainedModel:
    """Build the detector of a config, and load its weights.

    Args:
        cfg: not frozen, with ``MODEL.DEVICE``.
        source: the file that the config is of, which messages name.
        run: as of :func:`load_trained`; or else
        weights: likewise.
        output_dir: of the training, where its dataset is; None for ``run``, or the folder of the weights.
        keep_rows: whether the rows of the weights are in the order of the config's classes, whatever the checkpoint
            calls its own, as those of a run are.
        trust_pickle: likewise.

    Raises:
        InputError: the config is not valid, the device not there, or the weights do not fit.
    """
    cfg = on_available_device(cfg)
    try:
        validate_config(cfg)
    except InputError as error:
        raise InputError(f"Config {shown(source)}: {error}") from error
    model = build_model(with_random_weights(cfg))  # they are loaded below
    # Rows of a run's own checkpoints are in the order of its classes; those of others go by their names.
    is_own = keep_rows or (run is not None and (weights is None or _is_in(weights, run)))
    checkpointer = _Weights(model, cfg, is_own=is_own, save_dir="" if run is None else os.fspath(run))
    checkpointer.trust_pickle = trust_pickle
    cfg.MODEL.WEIGHTS = os.fspath(weights) if weights is not None else _checkpoint_of_run(checkpointer)
    logger.info(
        "The detector is of %s, and its weights of %s: %s",
        *(shown(source), shown(cfg.MODEL.WEIGHTS), model_in_words(cfg)),
    )
    of_weights = os.fspath(run) if run is not None else os.path.dirname(cfg.MODEL.WEIGHTS)
    cfg.OUTPUT_DIR = of_weights if output_dir is None else output_dir
    loaded = checkpointer.load(cfg.MODEL.WEIGHTS)
    names = checkpointer.names_of_classes(loaded.get("class_names"))
    if names is None:
        names = [str(number) for number in range(model.num_classes)]
        logger.warning("The names of the classes are not known: they are called by their numbers.")
    else:
        cfg.MODEL.LITE_DETR.CLASS_NAMES = names
        lend_class_names(names, [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST])
    cfg.freeze()
    return TrainedModel(cfg, model.eval(), list(names))


def _is_in(file: PathLike, folder: PathLike) -> bool:
    """Whether a folder has a file, itself and not in one of its own."""
    return os.path.isfile(file) and os.path.dirname(os.path.realpath(file)) == os.path.realpath(folder)


class _Weights(SafeCheckpointer):
    """Loads weights to predict with, whose classes are their own where the config does not name any."""

    def __init__(self, model: DetrDetector, cfg: CfgNode, *, is_own: bool, save_dir: str) -> None:
        """Make one; ``is_own`` says that the checkpoint is of the training that wrote the config."""
        super().__init__(model, save_dir, save_to_disk=False)
        self._configured = list(class_names_of(cfg))
        # The rows of a run's own checkpoint are in the order of its classes, whatever they have been renamed to.
        self.class_names = None if is_own else self._configured or None
        self._adopts = not is_own and not self._configured
        self._registered = _registered_names(cfg)

    def _with_model_classes(self, checkpoint: Any) -> StateDict:
        given = checkpoint.get("class_names") or ()
        if self._adopts:
            named = [name for name in given if name is not None]
            self.class_names = named if len(named) == self.model.num_classes else self._registered
        elif given and len(given) != self.model.num_classes:  # was put there, and is not of the run's training
            self.class_names = self._configured or None
        return super()._with_model_classes(checkpoint)

    def names_of_classes(self, given: Sequence[str | None] | None) -> list[str] | None:
        """The names to predict, once weights are loaded that have the names ``given``; None if nothing knows them."""
        own = None
        if given is not None and len(given) == self.model.num_classes:
            own = [str(number) if name is None else name for number, name in enumerate(given)]
        if self._configured and self.class_names is None and own not in (None, self._configured):
            logger.warning(
                "The config calls the classes %s, and the checkpoint %s: they go by the former names.",
                *(in_short(self._configured, _NAMES_SHOWN), in_short(own or [], _NAMES_SHOWN)),
            )
        return self._configured or self.class_names or own or self._registered


def _available(device: str | torch.device | None) -> str:
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if str(device).startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"The device is {str(device)!r}, and there is no CUDA device here: take 'cpu', or none.")
    return str(device)


def is_exported(file: Path) -> bool:
    """Whether a file was exported, by its name or by the JSON beside it."""
    return manifest_path(file).is_file() or file.suffix in {each.suffix for each in FORMATS.values()}


def config_of_exported(manifest: Manifest, file: Path) -> CfgNode:
    """The config of an exported file's detector, on the CPU; neither checked nor frozen.

    Raises:
        InputError: it is not one of this version.
    """
    cfg = get_cfg()
    add_lite_detr_config(cfg)
    try:
        merge_text(
            cfg, manifest.config, f"{shown(file)}: the config in its JSON is not one of this version of lite_detr_d2"
        )
    except InputError as error:
        raise InputError(f"{error} Export the model again.") from error.__cause__
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = manifest.resize.min_size, manifest.resize.max_size
    cfg.MODEL.DEVICE = "cpu"
    return cfg


def format_of_exported(manifest: Manifest, file: Path) -> Format:
    """The format of an exported file.

    Raises:
        InputError: there is no such format, or the manifest does not say what it requires.
    """
    if manifest.format not in FORMATS:
        raise InputError(f"{shown(file)} is of the format {manifest.format!r}: expected one of {', '.join(FORMATS)}.")
    format = FORMATS[manifest.format]
    unsaid = [name for name in format.requires if not _is_said(name, manifest)]
    if unsaid:
        raise InputError(
            f"{shown(manifest_path(file))} cannot be used: its requires has no usable {', '.join(unsaid)}, which the "
            f"format {format.name} needs. Restore it, or export the model again."
        )
    return format


def _is_said(name: str, manifest: Manifest) -> bool:
    """Whether ``requires`` has a value of that name that its format can go by."""
    value = manifest.requires.get(name)
    if not isinstance(value, str):
        return False
    if name == "library":  # is loaded, and so has to be one of the files that are compared with their hashes
        return value in manifest.files
    return name != "torch" or _VERSION.match(value) is not None


def files_of_run(run: PathLike) -> list[Path]:
    """What a training left that prediction, evaluation and resuming need."""
    return [Path(run, "config.yaml"), Path(run, "last_checkpoint"), *sorted(Path(run).glob("model_*.pth"))]


def config_of_run(run: Path) -> Path:
    """The config of a training.

    Args:
        run: its ``OUTPUT_DIR``.

    Raises:
        InputError: it is none.
    """
    if run.is_file() and is_exported(run):
        raise InputError(f"{shown(run)} is an exported file: name the OUTPUT_DIR of a training.")
    if run.is_file():
        folder = f", {shown(run.parent)}" if (run.parent / "config.yaml").is_file() else ""
        raise InputError(
            f"{shown(run)} is a file, not the OUTPUT_DIR of a training: give that folder alone{folder}; or a config "
            "file, and a checkpoint as its weights."
        )
    if not run.is_dir():
        raise InputError(f"{shown(run)}: there is no such run. Name the OUTPUT_DIR of a training.")
    config = run / "config.yaml"
    if not config.is_file():
        raise InputError(f"{shown(run)} has no config.yaml, and is not the OUTPUT_DIR of a training: name one.")
    return config


def _checkpoint_of_run(checkpointer: SafeCheckpointer) -> str:
    final = os.path.join(checkpointer.save_dir, _FINAL)
    if is_intact(final):
        last, _ = tagged_checkpoint(checkpointer.save_dir)
        if last and is_newer(last, final):
            logger.warning("%s is older than %s, of a training that went on.", shown(final), shown(last))
        return final
    last = checkpointer.get_checkpoint_file()
    if last and os.path.isfile(final):
        logger.warning("%s is damaged: the weights are of %s.", shown(final), shown(last))
    if not last:
        run = shown(checkpointer.save_dir)
        raise InputError(f"{run} has neither {_FINAL} nor a last checkpoint: train, or name weights and a config.")
    return last


def _registered_names(cfg: CfgNode) -> list[str] | None:
    """The names that a registered dataset of the config has for as many classes."""
    for dataset in cfg.DATASETS.TRAIN:
        names = MetadataCatalog.get(dataset).get("thing_classes") if dataset in DatasetCatalog else None
        if names is not None and len(names) == cfg.MODEL.LITE_DETR.NUM_CLASSES:
            return list(names)
    return None
