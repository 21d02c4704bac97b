"""Checkpoint files: read without running code in them, and written whole."""

import argparse
import importlib
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard

import torch
from torch import Tensor

from ..errors import InputError
from ..files import write_atomically
from ..wording import in_short
from .origins import origin_of, origin_of_object
from .packages import PACKAGE, file_of_package
from .pickles import read_pickle, read_pycls
from .seal import (
    UNSEALED,
    DamagedError,
    is_torch_archive,
    save_sealed,
    seal_safetensors,
    verify,
    verify_safetensors,
)

logger = logging.getLogger(__name__)

PICKLES = (".pkl", ".pyth")
SAFETENSORS = ".safetensors"
_MODULE = "module."  # DistributedDataParallel's prefix
# What a checkpoint holds besides its tensors that a safetensors file keeps, as JSON in its metadata.
_METADATA = ("class_names", "matching_heuristics")


def check_there(key: str, address: str) -> None:
    """See that weights that a key of the config names are a file, here or in a package, if they are not elsewhere.

    Raises:
        InputError: there is none.
    """
    if address.startswith(PACKAGE):
        try:
            file_of_package(address)
        except InputError as error:
            raise InputError(f"{key}: {error}") from None
    if "://" in address or Path(address).is_file():
        return
    if Path(address).is_dir():
        raise InputError(f"{key}: {address} is a folder: name a file in it, such as its model_final.pth.")
    raise InputError(f"{key}: there is no file {address}.")


def read_checkpoint(path: str | Path, *, trust_pickle: bool = False) -> dict[str, Any]:
    """Read a checkpoint, without running any code in it, and compare it with its checksums.

    Files of this package have one of their whole content, and those of ``torch.save`` one of each record. Others have
    none, which the log says.

    Args:
        path: a ``.safetensors`` file; one of ``torch.save`` with a bare state dict or ``{"model": state dict, ...}``,
            where an ``argparse.Namespace`` beside the tensors is allowed; or a ``.pkl`` or ``.pyth`` file as
            detectron2 reads them, of arrays and tensors.
        trust_pickle: let a ``.pkl`` or ``.pyth`` file hold, and run, anything.

    Returns:
        ``{"model": state dict, ...}`` with what else the file holds, on the CPU.

    Raises:
        InputError: naming the file, when it is not there, damaged, not a checkpoint, or holds objects other than
            tensors.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such checkpoint.")
    try:
        content, is_checked = _read(path, trust_pickle)
    except InputError:
        raise
    except Exception as error:  # each library raises a different type for each way in which a file can be bad
        raise InputError(f"{path} cannot be read: it {_unreadable_reason(error, path)}.") from error
    if not is_checked:
        logger.info("%s has no checksum: whether it is damaged cannot be seen.", path)
    is_bare = isinstance(content, Mapping) and "model" not in content
    checkpoint = {"model": content} if is_bare or not isinstance(content, Mapping) else dict(content)
    state = checkpoint["model"]
    if not _is_state_dict(state):
        raise InputError(f'{path} holds neither a state dict nor {{"model": state dict}}{_keys_of(content)}.')
    if all(name.startswith(_MODULE) for name in state):
        checkpoint["model"] = {name.removeprefix(_MODULE): tensor for name, tensor in state.items()}
    return checkpoint


def write_checkpoint(path: str | Path, state: Mapping[str, Tensor], **extra: Any) -> None:
    """Write a checkpoint that ``MODEL.WEIGHTS`` can name.

    Args:
        path: where to; a name that ends in ``.safetensors`` makes a file of that format.
        state: our names -> tensors.
        extra: what else to keep, plain values; of it, safetensors keeps ``class_names`` and ``matching_heuristics``.

    Raises:
        InputError: the format needs a package that is not installed.
    """
    if not str(path).endswith(SAFETENSORS):
        content = {"model": dict(state), "__author__": "lite_detr_d2", **extra}
        write_atomically(str(path), lambda file: save_sealed(content, file))
        return
    library = _library("safetensors.torch", path)
    metadata = {key: json.dumps(extra[key]) for key in _METADATA if key in extra}
    # Copies, because the format has no tensors that share memory.
    tensors = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}
    data = library.save(tensors, metadata={"format": "pt", **metadata, **UNSEALED})
    write_atomically(str(path), lambda file: file.write(seal_safetensors(data)))


def _read(path: str | Path, trust_pickle: bool) -> tuple[Any, bool]:
    """What a file holds, and whether it has checksums, which then fit."""
    if str(path).endswith(SAFETENSORS):
        is_checked = verify_safetensors(path)
        return _read_safetensors(path), is_checked
    if str(path).endswith(".pkl") and not is_torch_archive(path):
        return read_pickle(path, trusted=trust_pickle), False
    is_checked = verify(path)
    if str(path).endswith(".pyth"):
        return read_pycls(path, trusted=trust_pickle), is_checked
    return _read_torch(path, trusted=trust_pickle and str(path).endswith(PICKLES)), is_checked


def _unreadable_reason(error: Exception, path: str | Path) -> str:
    """What "it", a file that cannot be read, does wrong; torch's own advice is to run the file's code."""
    if isinstance(error, DamagedError):
        return f"is damaged: {error}"
    unsupported = re.search(r"GLOBAL (\S+)", str(error))
    if unsupported is None:
        return "is damaged"
    text = f"holds {unsupported[1]}, not tensors and plain values alone; save just its tensors, by their names"
    if str(path).endswith(PICKLES):
        text += ". Only if you trust whoever made it: --trust-pickle (trust_pickle=True) runs whatever it says"
    origin = origin_of_object(unsupported[1])
    return f"{text}. {origin.removesuffix('.')}" if origin else text


def _is_state_dict(content: object) -> TypeGuard[Mapping[str, Tensor]]:
    return (
        isinstance(content, Mapping)
        and len(content) > 0
        and all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items())
    )


def _keys_of(content: object) -> str:
    keys = [key for key in content if isinstance(key, str)] if isinstance(content, Mapping) else []
    if not keys:
        return ""
    states = [state for state in content.values() if _is_state_dict(state)] if isinstance(content, Mapping) else []
    origin = next(filter(None, map(origin_of, states)), "")
    cure = origin.removesuffix(".") or "If one of them is the state dict to use, save it as a file of its own"
    return f", but {in_short(keys)}. {cure}"


def _read_torch(path: str | Path, *, trusted: bool) -> Any:
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, map_location="cpu", weights_only=not trusted)


def _read_safetensors(path: str | Path) -> dict[str, Any]:
    with _library("safetensors", path).safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        extra = {key: json.loads(metadata[key]) for key in _METADATA if key in metadata}
        return {"model": {name: file.get_tensor(name) for name in file.keys()}, **extra}  # noqa: SIM118  (no mapping)


def _library(name: str, path: str | Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"{path}: {SAFETENSORS} files need a further package: pip install safetensors.") from error
