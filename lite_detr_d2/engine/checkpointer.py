"""A checkpointer that never leaves a half-written file, and never goes on with the weights of another model."""

import logging
import os
import re
import zipfile
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import Tensor

from ..checkpoint import unreadable_reason
from ..errors import InputError
from ..files import write_atomically

logger = logging.getLogger(__name__)

_KEYS_SHOWN = 5
_MATCHING = "matching_heuristics=True"
# What another number of classes or queries changes, or denoising that is turned on or off: training learns it anew.
_RELEARNT = re.compile(r"(.*\.)?class_embed\..*|denoising\.label_embed\..*|query_selection\.content\.weight")


class SafeCheckpointer(DetectionCheckpointer):
    """detectron2's checkpointer, with these differences.

    - A checkpoint is written to a temporary file, synced and renamed: a crash leaves the previous one.
    - Resuming passes over a damaged last checkpoint to the newest intact one, and says so.
    - ``.pth`` files are read with ``weights_only``: they cannot run code. (Model-zoo files, ``.pkl``, still can.)
    - Weights that do not fit are an error. To evaluate or resume, the tensors of the file must be those of the model;
      evaluation leaves denoising out. To start training from, the file must have more than half of the backbone, and
      all of the rest and nothing else, except for what depends on the number of classes or queries. Of files with
      ``matching_heuristics``, as backbones pre-trained on ImageNet have, only the backbone counts.
    """

    # Of the load that is going on.
    _address = ""
    _must_be_complete = True

    def save(self, name: str, **extra: Any) -> None:
        if not self.save_dir or not self.save_to_disk:
            return
        state = {"model": self.model.state_dict(), **extra}
        state.update((key, checkpointable.state_dict()) for key, checkpointable in self.checkpointables.items())
        path = os.path.join(self.save_dir, f"{name}.pth")
        logger.info("Saving checkpoint to %s", path)
        write_atomically(path, lambda file: torch.save(state, file))
        self.tag_last_checkpoint(os.path.basename(path))

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        tag = os.path.join(self.save_dir, "last_checkpoint")
        write_atomically(tag, lambda file: file.write(last_filename_basename.encode()))

    def get_checkpoint_file(self) -> str:
        """Return the last checkpoint, or if it is damaged the newest intact one of its folder; "" if there is none.

        Raises:
            InputError: there is a last checkpoint, and none is intact.
        """
        last: str = super().get_checkpoint_file()
        # The directory of a torch file (a zip archive) is at its end: a truncated one has none.
        if not last or zipfile.is_zipfile(last):
            return last
        intact: list[str] = [file for file in self.get_all_checkpoint_files() if zipfile.is_zipfile(file)]
        if not intact:
            raise InputError(f"Cannot resume: {last} is damaged or missing, and {self.save_dir} has no intact one.")
        newest = max(intact, key=os.path.getmtime)
        logger.warning("The last checkpoint, %s, is damaged or missing; going back to %s", last, newest)
        return newest

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
            raise InputError(f"MODEL.WEIGHTS is {path}: only '?{_MATCHING}' may follow the file, not '?{query}'.")
        self._address = urlparse(path)._replace(query="").geturl()
        if path and "://" not in path and not os.path.isfile(self._address):
            raise InputError(f"MODEL.WEIGHTS: there is no file {self._address}.")
        self._must_be_complete = checkpointables is None
        try:
            extra: dict[str, Any] = super().load(path, checkpointables)
        except OSError as error:
            raise InputError(
                f"MODEL.WEIGHTS: cannot get {path} ({error}). Fetch the file, and give its path."
            ) from error
        finally:
            self._parsed_url_during_load = None  # detectron2 leaves it set when a load fails
        return extra

    def _load_file(self, filename: str) -> dict[str, Any]:
        try:
            checkpoint: dict[str, Any] = super()._load_file(filename)
        except Exception as error:  # a damaged or foreign file fails in any way
            raise InputError(
                f"MODEL.WEIGHTS: {filename} cannot be read: it {unreadable_reason(error)}. "
                "projects/LiteDETR/convert_checkpoint.py reads published checkpoints."
            ) from error
        state = checkpoint["model"]
        named = isinstance(state, Mapping) and all(isinstance(name, str) for name in state)
        if not named or not all(isinstance(value, Tensor | np.ndarray) for value in state.values()):
            raise InputError(f"MODEL.WEIGHTS: {filename} is no checkpoint: it holds no tensors by name.")
        return checkpoint

    def _torch_load(self, f: str) -> Any:
        return torch.load(f, map_location="cpu", weights_only=True)

    def _load_model(self, checkpoint: Any) -> Any:
        only_backbone = checkpoint.get("matching_heuristics", False)
        incompatible = super()._load_model(checkpoint)
        misfits = {key: "is not in the model" for key in incompatible.unexpected_keys}
        misfits |= {key: "is missing" for key in incompatible.missing_keys}
        misfits |= {key: f"is {theirs}, not {ours}" for key, theirs, ours in incompatible.incorrect_shapes}
        if self._must_be_complete:
            unused = () if self.checkpointables else incompatible.unexpected_keys
            wrong = {key for key in misfits if not (key in unused and key.startswith("denoising."))}
            cure = (
                "Give the config that it was trained with, with its MODEL.LITE_DETR.NUM_CLASSES; with --resume, the "
                "OUTPUT_DIR of that training."
            )
        else:
            backbone = {key for key in self.model.state_dict() if key.startswith("backbone.")}
            wrong = {
                key for key in misfits if not (only_backbone or key.startswith("backbone.") or _RELEARNT.match(key))
            }
            if 2 * len(backbone & misfits.keys()) > len(backbone):
                wrong |= backbone & misfits.keys()
            cure = (
                f"Give MODEL.WEIGHTS that fit the config; '?{_MATCHING}' after the name of a file with "
                "only a backbone; or '' to start from scratch."
            )
        if not wrong:
            return incompatible
        listed = [f"{key} {misfits[key]}" for key in sorted(wrong)[:_KEYS_SHOWN]]
        listed += ["..."] if len(wrong) > _KEYS_SHOWN else []
        raise InputError(
            f"{self._address} is a checkpoint of another architecture: {len(wrong)} tensors do not fit "
            f"({', '.join(listed)}). {cure}"
        )
