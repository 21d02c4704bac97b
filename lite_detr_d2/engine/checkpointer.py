"""A checkpointer that never leaves a half-written file, and never goes on with the weights of another model."""

import logging
import os
import pickle
import zipfile
from collections.abc import Callable
from typing import IO, Any
from urllib.parse import urlparse

import torch
from detectron2.checkpoint import DetectionCheckpointer

from ..errors import InputError

logger = logging.getLogger(__name__)

_KEYS_SHOWN = 5


class SafeCheckpointer(DetectionCheckpointer):
    """detectron2's checkpointer, with these differences.

    - A checkpoint is written to a temporary file, synced and renamed: a crash leaves the previous one.
    - Resuming passes over a damaged last checkpoint to the newest intact one, and says so.
    - ``.pth`` files are read with ``weights_only``: they cannot run code. (Model-zoo files, ``.pkl``, still can.)
    - Weights that do not fit are an error: to evaluate or resume, a single tensor of the model that is not in the file;
      to start training from, more than half of them, counted apart for the backbone and for the rest. Of files with
      ``matching_heuristics``, as backbones pre-trained on ImageNet have, only the backbone is counted.
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
        _write_atomically(path, lambda file: torch.save(state, file))
        self.tag_last_checkpoint(os.path.basename(path))

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        tag = os.path.join(self.save_dir, "last_checkpoint")
        _write_atomically(tag, lambda file: file.write(last_filename_basename.encode()))

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

    def _torch_load(self, f: str) -> Any:
        try:
            return torch.load(f, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise InputError(
                f"Checkpoint {f} cannot be read ({reason}). It is damaged, or holds more than tensors and plain "
                "values; projects/LiteDETR/convert_checkpoint.py reads published ones."
            ) from error

    def _load_model(self, checkpoint: Any) -> Any:
        only_backbone = checkpoint.get("matching_heuristics", False)
        incompatible = super()._load_model(checkpoint)
        wrong_shapes = {key: (theirs, ours) for key, theirs, ours in incompatible.incorrect_shapes}
        absent = {*incompatible.missing_keys, *wrong_shapes}
        keys = set(self.model.state_dict())
        backbone = {key for key in keys if key.startswith("backbone.")}
        parts = [backbone] if only_backbone else [backbone, keys - backbone]
        if self._must_be_complete and absent:
            cure = (
                "Give the config that it was trained with, with its MODEL.LITE_DETR.NUM_CLASSES; with --resume, the "
                "OUTPUT_DIR of that training."
            )
        elif any(2 * len(part & absent) > len(part) for part in parts):
            cure = (
                "Give MODEL.WEIGHTS that fit the config; '?matching_heuristics=True' after the name of a file with "
                "only a backbone; or '' to start from scratch."
            )
        else:
            return incompatible
        listed = [_describe(key, wrong_shapes) for key in sorted(absent)[:_KEYS_SHOWN]]
        listed += ["..."] if len(absent) > _KEYS_SHOWN else []
        raise InputError(
            f"{self._address} is a checkpoint of another model: {len(absent)} of the {len(keys)} tensors are not in it "
            f"({', '.join(listed)}). {cure}"
        )


def _describe(key: str, wrong_shapes: dict[str, tuple[Any, Any]]) -> str:
    if key not in wrong_shapes:
        return f"{key} is missing"
    theirs, ours = wrong_shapes[key]
    return f"{key} is {tuple(theirs)}, not {tuple(ours)}"


def _write_atomically(path: str, write: Callable[[IO[bytes]], object]) -> None:
    unfinished = f"{path}.unfinished"
    with open(unfinished, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)
