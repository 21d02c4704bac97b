"""Checkpoint files: read without running code in them, and written whole."""

import argparse
import importlib
import json
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

SAFETENSORS = ".safetensors"
_MODULE = "module."  # DistributedDataParallel's prefix
# What a checkpoint holds besides its tensors that a safetensors file keeps, as JSON in its metadata.
_METADATA = ("class_names", "matching_heuristics")


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint, without running any code in it.

    Args:
        path: a ``.safetensors`` file, or one of ``torch.save`` with a bare state dict or ``{"model": state dict,
            ...}``; an ``argparse.Namespace`` beside the tensors is allowed.

    Returns:
        ``{"model": state dict, ...}`` with what else the file holds, on the CPU.

    Raises:
        InputError: naming the file, when it is not there, not a checkpoint, or holds objects other than tensors.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such checkpoint.")
    try:
        content = _read_safetensors(path) if str(path).endswith(SAFETENSORS) else _read_torch(path)
    except InputError:
        raise
    except Exception as error:  # either library raises a different type for each way in which a file can be bad
        raise InputError(f"{path} cannot be read: it {unreadable_reason(error)}.") from error
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
        write_atomically(str(path), lambda file: torch.save(content, file))
        return
    library = _library("safetensors.torch", path)
    metadata = {key: json.dumps(extra[key]) for key in _METADATA if key in extra}
    # Copies, because the format has no tensors that share memory.
    tensors = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}
    write_atomically(str(path), lambda file: file.write(library.save(tensors, metadata={"format": "pt", **metadata})))


def unreadable_reason(error: Exception) -> str:
    """What "it", a file that cannot be read, does wrong; torch's own advice is to run the file's code."""
    unsupported = re.search(r"GLOBAL (\S+)", str(error))
    if unsupported is None:
        return "is damaged"
    text = f"holds {unsupported[1]}, not tensors and plain values alone; save just its tensors, by their names"
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


def _read_torch(path: str | Path) -> Any:
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, map_location="cpu", weights_only=True)


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
