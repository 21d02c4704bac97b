"""A checkpointer that never leaves a half-written file, and never goes on with the weights of another model."""

import logging
import os
import re
from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from typing import Any
from urllib.parse import urlparse

import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from ..checkpoint import (
    COUNTER,
    StateDict,
    check_there,
    class_names_of,
    convert,
    count_classes,
    detect,
    differences,
    encoder_told,
    is_class_tensor,
    modules_of,
    origin_of,
    published_class_names,
    read_checkpoint,
    resemblance,
    save_sealed,
    warn_of_conventions,
    warn_of_encoder,
)
from ..errors import InputError
from ..files import write_atomically
from ..wording import counted, in_short
from .ema import EMA
from .last_checkpoint import TAG, find_last_checkpoint, tagged_checkpoint
from .transfer import Classes, InitReport, class_names_by_place, match_classes, names_in_short

logger = logging.getLogger(__name__)

# The share of a backbone's tensors: ImageNet's Swin-T lacks the norms of the outputs, 6 of 185; R-50 half of R-101.
_MISFITS_OF_ANOTHER_BACKBONE = 0.1
_MATCHING = "matching_heuristics=True"
_WEIGHTS = "MODEL.WEIGHTS"
_INIT = "MODEL.LITE_DETR.INIT"
# What another number of classes or queries changes, or denoising that is turned on or off: training learns it anew.
_RELEARNT = re.compile(r"(.*\.)?class_embed\..*|denoising\.label_embed\..*|query_selection\.(content|position)\.weight")


class _Purpose(Enum):
    """What a checkpoint is loaded for."""

    TRAIN = "start training from the weights alone"
    RESUME = "go on with a training"
    EVALUATE = "evaluate"


_ARCHITECTURE_CURES = {
    _Purpose.TRAIN: f"Give {_WEIGHTS} that fit the config; '?{_MATCHING}' after the name of a file with only a "
    f"backbone; {_INIT} to take what fits; or '' to start from scratch.",
    _Purpose.RESUME: "Give the config that it was trained with, or the OUTPUT_DIR of a training with this one.",
    _Purpose.EVALUATE: "Give the config that it was trained with, or set these keys (KEY VALUE at the end, or after "
    "--opts); with --resume, the OUTPUT_DIR of that training.",
}
_CLASS_CURES = {
    _Purpose.RESUME: "Go on with the dataset that it was trained on; or train anew from it, without --resume, as "
    f"{_WEIGHTS}.",
    _Purpose.EVALUATE: "Train from it, which learns the heads anew, or tell which row is for which class.",
}


class SafeCheckpointer(DetectionCheckpointer):
    """detectron2's checkpointer, with these differences.

    - A checkpoint is written to a temporary file, synced and renamed: a crash leaves the previous one.
    - It ends in a checksum of its whole content, which every load compares: a damaged file is an error.
    - Weights that are not finite are not saved.
    - Resuming passes over a damaged last checkpoint to the newest intact one, and says so.
    - Files are read without running code in them; ``.pkl`` and ``.pyth`` files that hold more than arrays and tensors
      need ``trust_pickle``.
    - Published checkpoints are converted, see :mod:`lite_detr_d2.checkpoint`.
    - Weights that do not fit are an error. To evaluate or resume, the tensors of the file must be those of the model;
      evaluation leaves denoising out. To start training from, the file must have nine tenths of the backbone, and
      all of the rest and nothing else, except for what depends on the number of classes or queries. Of files with
      ``matching_heuristics``, as backbones pre-trained on ImageNet have, and of published backbones, only the backbone
      counts.
    - Except to resume, rows of class heads go by the names of the classes, where both the checkpoint's and the model's
      are known, or as ``class_rows`` says. Training learns a class that the checkpoint does not have anew; to evaluate,
      that is an error.
    """

    # Of the load that is going on.
    _key = _WEIGHTS
    _address = ""
    _purpose = _Purpose.EVALUATE
    _class_cure = ""

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        class_names: Sequence[str] | None = None,
        class_ids: Sequence[int] | None = None,
        class_rows: str = "names",
        trust_pickle: bool = False,
        **others: Any,
    ) -> None:
        """Make a checkpointer.

        Args:
            model: what to load and save.
            save_dir: the folder for checkpoints.
            class_names: the model's classes, which its checkpoints keep as ``class_names``; None if unknown.
            class_ids: the dataset's category ids of these classes, in their order; None if unknown.
            class_rows: ``MODEL.LITE_DETR.CLASS_ROWS``: "names" or "ids".
            trust_pickle: let a ``.pkl`` or ``.pyth`` file hold, and run, anything.
            others: as for detectron2's checkpointer.
        """
        super().__init__(model, save_dir, **others)
        self.class_names = None if class_names is None else list(class_names)
        self.class_ids = None if class_ids is None else list(class_ids)
        self.class_rows = class_rows
        self.trust_pickle = trust_pickle

    def save(self, name: str, *, is_last: bool = True, **extra: Any) -> None:
        """Write ``name.pth``, and unless it is not the last one name it in ``last_checkpoint``.

        Raises:
            FloatingPointError: a weight is not finite; nothing is written, on any process.
            InputError: the file cannot be written.
        """
        state = {"model": self.model.state_dict(), **extra}
        check_finite(state["model"], name)
        if not self.save_dir or not self.save_to_disk:
            return
        if self.class_names is not None:
            state["class_names"] = self.class_names
        state.update((key, checkpointable.state_dict()) for key, checkpointable in self.checkpointables.items())
        path = os.path.join(self.save_dir, f"{name}.pth")
        logger.info("Saving checkpoint to %s", path)
        write_atomically(path, lambda file: save_sealed(state, file))
        if is_last:
            self.tag_last_checkpoint(os.path.basename(path))

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        tag = os.path.join(self.save_dir, TAG)
        write_atomically(tag, lambda file: file.write(last_filename_basename.encode()))

    def has_checkpoint(self) -> bool:
        return bool(self.get_checkpoint_file())

    def get_checkpoint_file(self) -> str:
        """Return the checkpoint to go on from, as :func:`find_last_checkpoint` does, and name it if nothing does.

        Raises:
            InputError: there are checkpoints, and none is intact.
        """
        if not self.save_dir:
            return ""
        last = find_last_checkpoint(self.save_dir, self.checkpointables.keys() - {EMA})
        if last and self.save_to_disk and not tagged_checkpoint(self.save_dir)[0]:
            self.tag_last_checkpoint(os.path.basename(last))
        return last

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        last = self.get_checkpoint_file() if resume else ""
        return self.load(last) if last else self.load(path, checkpointables=[])

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load a checkpoint.

        Args:
            path: a file, or an address that detectron2's path manager knows; "" loads nothing. With
                ``?matching_heuristics=True`` at its end, names of tensors may differ by a prefix.
            checkpointables: what to load besides the model: None, to resume, for all there is; an empty list to start
                from the weights alone, which then need not be complete.

        Raises:
            InputError: there is no such file, it cannot be read, or it does not fit the model.
        """
        query = urlparse(path).query
        if query not in ("", _MATCHING):
            raise InputError(f"{_WEIGHTS} is {path}: only '?{_MATCHING}' may follow the file, not '?{query}'.")
        self._key, self._address, self._class_cure = _WEIGHTS, urlparse(path)._replace(query="").geturl(), ""
        if path:
            self._check_file()
        if checkpointables is not None:
            self._purpose = _Purpose.TRAIN
        else:
            self._purpose = _Purpose.RESUME if self.checkpointables else _Purpose.EVALUATE
        try:
            extra: dict[str, Any] = super().load(path, checkpointables)
        except OSError as error:
            raise self._unavailable(error) from error
        finally:
            self._parsed_url_during_load = None  # detectron2 leaves it set when a load fails
        return extra

    def initialize(self, path: str, backbone: str = "") -> InitReport:
        """Start training from what fits of a checkpoint, whatever detector or encoder it is of, and log what does.

        Tensors of the same name and shape are taken, and rows of class heads by the names of the classes.

        Args:
            path: a file, or an address that detectron2's path manager knows.
            backbone: another, to ``load`` first if the backbone of ``path`` does not fit; "" for none.

        Returns:
            What became of every tensor.

        Raises:
            InputError: there is no such file, it cannot be read, or nothing of it but a backbone fits.
        """
        self._key, self._address, self._purpose = _INIT, path, _Purpose.TRAIN
        self._check_file()
        logger.info("Starting from what fits of %s", path)
        try:
            checkpoint = self._load_file(self.path_manager.get_local_path(path))
        except OSError as error:
            raise self._unavailable(error) from error
        state = self._with_model_classes(checkpoint)
        report = InitReport.compare(state, self.model.state_dict())
        # Some biases have the same shape in every detector.
        if not any(state[name].dim() > 1 and not name.startswith("backbone.") for name in report.taken):
            raise InputError(
                f"{_INIT}: nothing of {path} but a backbone, or nothing at all, fits the model. Name a backbone in "
                f"{_WEIGHTS}; else compare MODEL.LITE_DETR.HIDDEN_DIM and the number of levels. {origin_of(state)}"
                f"\n{report.summary()}"
            )
        taken = report.taken
        if self._is_another_backbone({*report.new, *report.unused, *report.reshaped}):
            if backbone:
                logger.info("%s has another backbone: the model's comes from %s", path, backbone)
                self.load(backbone, checkpointables=[])
                taken = [name for name in taken if not name.startswith("backbone.")]
            else:
                logger.warning(
                    "%s: %s has another backbone, and most of the model's keeps what it starts from: random weights, "
                    "or timm's with MODEL.TIMM.PRETRAINED. %s names others.",
                    *(_INIT, path, _WEIGHTS),
                )
        self.model.load_state_dict({name: state[name] for name in taken}, strict=False)
        logger.info("%s", report.summary())
        return report

    def _is_another_backbone(self, misfits: Collection[str]) -> bool:
        """Whether too many of a backbone's tensors are among ``misfits``."""
        expected = [name for name in self.model.state_dict() if name.startswith("backbone.")]
        wrong = [name for name in misfits if name.startswith("backbone.") and not name.endswith(COUNTER)]
        return len(wrong) > _MISFITS_OF_ANOTHER_BACKBONE * len(expected)

    def _check_file(self) -> None:
        check_there(self._key, self._address)

    def _unavailable(self, error: OSError) -> InputError:
        return InputError(f"{self._key}: cannot get {self._address} ({error}). Fetch the file, and give its path.")

    def _load_file(self, filename: str) -> dict[str, Any]:
        try:
            return self._converted(read_checkpoint(filename, trust_pickle=self.trust_pickle))
        except InputError as error:
            raise InputError(f"{self._key}: {error}") from error

    def _converted(self, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """The checkpoint with our names: as it is if it is of no published kind, and else without its training."""
        url = self._parsed_url_during_load
        if url is not None and url.query == _MATCHING:
            checkpoint["matching_heuristics"] = True
        names = class_names_of(self._address, checkpoint)
        published = detect(checkpoint["model"])
        if published is None:
            return checkpoint
        state, report = convert(published, checkpoint["model"], is_whole=self._key != _INIT)
        prefix = "backbone." if report.only_backbone else ""
        model = [name for name in self.model.state_dict() if name.startswith(prefix)]
        report.missing = [name for name in model if name not in state and not name.endswith(COUNTER)]
        logger.info("Converted %s: %s", self._address, report.summary(model))
        warn_of_conventions(published, self.model)
        warn_of_encoder(encoder_told(checkpoint.get("args")), self.model)
        heuristics = report.only_backbone or checkpoint.get("matching_heuristics", False)
        if names is None and self.class_rows != "ids":
            names = published_class_names(state, by_id=published.has_rows_of_ids)
        elif names is None and not published.has_rows_of_ids and count_classes(state) is not None:
            names = class_names_by_place(state, Classes(self.class_names, self.class_ids))
        return {"model": state, "matching_heuristics": heuristics, "class_names": names}

    def _with_model_classes(self, checkpoint: Mapping[str, Any]) -> StateDict:
        """The tensors, with rows of class heads by the names of the classes where they are known."""
        given, state = checkpoint.get("class_names"), checkpoint["model"]
        selection = getattr(self.model, "query_selection", None)
        class_agnostic = getattr(selection, "class_agnostic", None)  # learned queries have no such head
        wanted = Classes(self.class_names, self.class_ids, self.class_rows, class_agnostic)
        try:
            matched = match_classes(state, given, self.model.state_dict(), wanted)
        except InputError as error:
            raise InputError(f"{self._address}: {error}") from error
        if matched.new and self._purpose is _Purpose.EVALUATE:
            raise InputError(
                f"{self._address} does not know the classes {names_in_short(matched.new)}, and cannot find them. It "
                f"knows {names_in_short(filter(None, given or ()))}. Give its own config; evaluate on a dataset of "
                "these classes; or train."
            )
        if matched.message:
            level = logging.WARNING if matched.cure else logging.INFO
            logger.log(level, "%s: %s", self._address, f"{matched.message}. {matched.cure}".rstrip(". ") + ".")
        self._class_cure = matched.cure
        return matched.state

    def _load_model(self, checkpoint: Any) -> Any:
        given = checkpoint.get("class_names")
        if self._purpose is not _Purpose.RESUME:
            checkpoint["model"] = self._with_model_classes(checkpoint)
        elif given is not None and self.class_names is not None and list(given) != self.class_names:
            logger.warning(
                "%s was trained on the classes %s, and the dataset now has %s in their places. If these are not new "
                "names of the same classes, stop, and train anew from it: without --resume, as %s.",
                *(self._address, names_in_short(given), names_in_short(self.class_names), _WEIGHTS),
            )
        only_backbone = checkpoint.get("matching_heuristics", False)
        state = dict(checkpoint["model"])  # detectron2 takes out of it what does not fit
        try:
            incompatible = super()._load_model(checkpoint)
        except InputError as error:  # of the detector: not one tensor is its own
            raise self._misfit(state, {key: "is not in the model" for key in sorted(state)}) from error
        misfits = {key: "is not in the model" for key in incompatible.unexpected_keys}
        misfits |= {key: "is missing" for key in incompatible.missing_keys}
        misfits |= {key: f"is {theirs}, not {ours}" for key, theirs, ours in incompatible.incorrect_shapes}
        # A backbone of which more is frozen has fewer.
        misfits = {key: misfit for key, misfit in misfits.items() if not key.endswith(COUNTER)}
        if self._purpose is _Purpose.TRAIN:
            backbone = {key for key in misfits if key.startswith("backbone.")}
            wrong = {key for key in misfits.keys() - backbone if not (only_backbone or _RELEARNT.match(key))}
            if self._is_another_backbone(backbone):
                wrong |= backbone
        else:
            is_evaluation = self._purpose is _Purpose.EVALUATE
            wrong = {key for key in misfits if not (is_evaluation and key.startswith("denoising."))}
        if wrong:
            # What may differ is taken for the model's.
            ours, ignored = self.model.state_dict(), misfits.keys() - wrong
            state = {key: tensor for key, tensor in state.items() if key not in ignored}
            state |= {key: ours[key] for key in ours.keys() & ignored}
            raise self._misfit(state, {key: misfits[key] for key in sorted(wrong)})
        return incompatible

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        """Say, in a line where detectron2 has one for each tensor, how much of the model is loaded and what is not."""
        model = [name for name in self.model.state_dict() if not name.endswith(COUNTER)]
        absent = {*incompatible.missing_keys, *(key for key, *_ in incompatible.incorrect_shapes)}.intersection(model)
        unused = [key for key in incompatible.unexpected_keys if not key.endswith(COUNTER)]
        told = f"{len(model) - len(absent)} of the model's {len(model)} tensors are loaded"
        if absent:
            told += f", and not {modules_of([name for name in model if name in absent], model)}"
        if unused:
            told += f"; the file has others, too: {modules_of(unused, [*model, *unused])}"
        logger.info("%s: %s", self._address, told)

    def _misfit(self, state: StateDict, wrong: dict[str, str]) -> InputError:
        """What is ``wrong`` (tensor -> how it does not fit) with the tensors of a file, and what to do."""
        told = in_short([f"{key} {text}" for key, text in wrong.items()])
        tensors = f"{counted(len(wrong), 'tensor does', 'tensors do')} not fit ({told})"
        model = self.model.state_dict()
        found, expected = count_classes(state), count_classes(model)
        if self._purpose is not _Purpose.TRAIN and found != expected and all(map(is_class_tensor, wrong)):
            return InputError(
                f"{self._address} is of other classes: {tensors}. It has {found}, and the dataset has {expected} "
                f"(MODEL.LITE_DETR.NUM_CLASSES). {_CLASS_CURES[self._purpose]} {self._class_cure}".rstrip()
            )
        cure = _ARCHITECTURE_CURES[self._purpose]
        if not state.keys() & model.keys():
            cure = f"{resemblance(state)} {cure}".lstrip()
        differing = "; ".join(differences(state, model)) or tensors
        return InputError(
            f"{self._address} is a checkpoint of another architecture: {differing}. {origin_of(state) or cure}"
        )


def check_finite(state: StateDict, name: str) -> None:
    """Keep weights that are lost from taking the place of those that are not.

    Args:
        state: a model's tensors.
        name: what they are to be saved as.

    Raises:
        FloatingPointError: a number is NaN or infinite.
    """
    floating = {key: tensor for key, tensor in state.items() if tensor.is_floating_point()}
    if not floating or bool(torch.stack([tensor.isfinite().all() for tensor in floating.values()]).all()):
        return
    wrong = [key for key, tensor in floating.items() if not bool(tensor.isfinite().all())]
    raise FloatingPointError(
        f"{len(wrong)} of {len(floating)} tensors of the model are not finite ({in_short(wrong)}): {name}.pth is not "
        "written, and checkpoints that are there stay, from which --resume goes on. Lower SOLVER.BASE_LR, warm up "
        "longer (SOLVER.WARMUP_ITERS), or turn off SOLVER.AMP.ENABLED."
    )
