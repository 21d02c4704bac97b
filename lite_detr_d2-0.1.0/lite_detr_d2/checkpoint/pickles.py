"""Pickled checkpoints, as detectron2's and pycls' model zoos have them, read without running what they name.

A pickle is a program that calls whatever it names. Here it can name nothing but what follows: containers, NumPy's
arrays and scalars of numbers, and torch's tensors. Of these it gets stand-ins, which check what an array is made of and
have no other use to it.
"""

import io
import math
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import InputError

_NUMBERS = re.compile(r"[<>=|]?(b1|[iu][1248]|f[248]|c(8|16))")
_ORDERS = ("<", ">", "=", "|")


def read_pickle(path: str | Path, *, trusted: bool = False) -> dict[str, Any]:
    """Read a pickled checkpoint.

    Args:
        path: a file with ``{"model": {name: array}, ...}``, or with the arrays alone or as ``"blobs"``, which are
            Caffe2's.
        trusted: unpickle as Python does, which runs whatever the file says.

    Returns:
        ``{"model": {name: tensor}, ...}``, beside which are ``__author__`` and ``matching_heuristics`` as detectron2
        has them, and unless it is ``trusted`` only plain values.

    Raises:
        InputError: it holds no tensors by name.
        Exception: of any kind: it is damaged, or names something else; then ``GLOBAL`` is in the message.
    """
    with open(path, "rb") as file:
        content = pickle.load(file, encoding="latin1") if trusted else _Unpickler(file, encoding="latin1").load()
    if not isinstance(content, dict):
        raise _no_tensors(path)
    if "model" not in content:
        blobs = content.get("blobs", content)
        if not isinstance(blobs, dict):
            raise _no_tensors(path)
        state = {name: value for name, value in dict.items(blobs) if not str(name).endswith("_momentum")}
        content = {"model": state, "__author__": "Caffe2", "matching_heuristics": True}
    rest = {key: value for key, value in dict.items(content) if key != "model" and (trusted or _is_plain(value))}
    return {**rest, "model": _tensors(path, content["model"])}


def read_pycls(path: str | Path, *, trusted: bool = False) -> dict[str, Any]:
    """Read a checkpoint of pycls, a file of ``torch.save``; otherwise as :func:`read_pickle`."""
    content = torch.load(path, map_location="cpu", weights_only=not trusted)
    if not isinstance(content, dict) or "model_state" not in content:
        raise _no_tensors(path)
    state = _tensors(path, content["model_state"])
    state = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    return {"model": state, "__author__": "pycls", "matching_heuristics": True}


def _no_tensors(path: str | Path) -> InputError:
    return InputError(f"{path} is no checkpoint: it holds no tensors by name.")


def _tensors(path: str | Path, state: object) -> dict[str, Tensor]:
    if not isinstance(state, dict):
        raise _no_tensors(path)
    named = {name: _made(value) for name, value in dict.items(state)}
    if not named or not all(isinstance(name, str) for name in named):
        raise _no_tensors(path)
    if not all(isinstance(value, Tensor | np.ndarray) for value in named.values()):
        raise _no_tensors(path)
    return {name: torch.as_tensor(value) for name, value in named.items()}


def _made(value: Any) -> Any:
    value = value.value() if isinstance(value, _Held) else value
    if isinstance(value, np.ndarray | np.generic):  # a copy of the machine's byte order, which can be written to
        return np.array(value, value.dtype.newbyteorder("="))
    return value


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(item is None or isinstance(item, str | int | float) for item in value)
    return value is None or isinstance(value, str | int | float)


class _Unpickler(pickle.Unpickler):
    """Knows ``_KNOWN``, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _KNOWN[module, name]
        except KeyError:
            _refuse(f"{module}.{name}")


def _refuse(what: str) -> NoReturn:
    raise pickle.UnpicklingError(f"GLOBAL {what}")


class _Callable:
    """A function that a pickle may call, and can do nothing else with."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, _: object) -> None:
        _refuse("state-of-a-function")


class _Held:
    """What a pickle makes, out of its reach."""

    __slots__ = ("_made",)

    def __init__(self, made: Any = None) -> None:
        self._made = made

    def __setstate__(self, _: object) -> None:
        _refuse("state-of-a-tensor")

    def value(self) -> Any:
        return self._made


class _Dtype(_Held):
    """Stands for a dtype of numbers."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        _, order, *_ = state
        if order not in _ORDERS or any(part is not None for part in state[2:5]):
            _refuse("numpy.dtype")
        self._made = self._made.newbyteorder(order)


class _Array(_Held):
    """Stands for an array."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        shape, dtype, is_fortran, data = state[-4:]
        self.fill(data, dtype, shape, "F" if is_fortran else "C")

    def fill(self, data: Any, dtype: Any, shape: Any, order: Any) -> "_Array":
        if not isinstance(dtype, _Dtype):
            _refuse("numpy.dtype")
        if isinstance(data, str):  # Python 2 knew no bytes
            data = data.encode("latin1")
        if not isinstance(data, bytes | bytearray):
            _refuse("numpy.ndarray-of-objects")
        numbers: npt.NDArray[Any] = np.frombuffer(data, dtype.value())
        self._made = numbers.reshape(shape, order=order)
        return self


def _dtype(code: Any, *_: Any) -> _Dtype:
    if not isinstance(code, str) or not _NUMBERS.fullmatch(code):
        _refuse(f"numpy.dtype({code!r})".replace(" ", ""))
    return _Dtype(np.dtype(code))


def _new_array(kind: Any, *_: Any) -> _Array:
    if kind is not _NDARRAY:
        _refuse("numpy.ndarray-of-another-class")
    return _Array()


def _scalar(dtype: Any, data: Any = b"") -> _Array:
    return _Array().fill(data, dtype, (), "C")


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    return _Array().fill(data, dtype, shape, order)


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """How pickles that Python 2 can read spell bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        _refuse("_codecs.encode")
    return text.encode("latin1")


def _no_bytes(*arguments: Any) -> bytes:
    if arguments:
        _refuse("builtins.bytes")
    return b""


def _storage(data: Any) -> _Held:
    """A tensor's numbers, which are a file of ``torch.save`` in the pickle."""
    return _Held(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _Held:
    dtype, numbers = storage.value().dtype, storage.value()._untyped_storage
    if not (len(size) == len(stride) and all(type(n) is int and n >= 0 for n in (offset, *size, *stride))):
        _refuse("torch.Tensor")
    last = offset + sum((extent - 1) * step for extent, step in zip(size, stride, strict=True))
    if math.prod(size) and last >= numbers.nbytes() // dtype.itemsize:
        _refuse("torch.Tensor")
    return _Held(torch.empty(0, dtype=dtype).set_(numbers, offset, size, stride).clone())


def _parameter(tensor: Any, *_: Any) -> _Held:
    return _Held(tensor.value())


def _known() -> Mapping[tuple[str, str], _Callable]:
    known = {
        ("collections", "OrderedDict"): _Callable(OrderedDict),
        ("numpy", "ndarray"): _NDARRAY,
        ("numpy", "dtype"): _Callable(_dtype),
        ("_codecs", "encode"): _Callable(_encode),
        ("torch._utils", "_rebuild_tensor_v2"): _Callable(_tensor),
        ("torch._utils", "_rebuild_parameter"): _Callable(_parameter),
        ("torch.storage", "_load_from_bytes"): _Callable(_storage),
    }
    for core in ("numpy.core", "numpy._core"):
        known[f"{core}.multiarray", "_reconstruct"] = _Callable(_new_array)
        known[f"{core}.multiarray", "scalar"] = _Callable(_scalar)
        known[f"{core}.numeric", "_frombuffer"] = _Callable(_from_buffer)
    for builtins in ("__builtin__", "builtins"):
        known[builtins, "set"] = _Callable(set)
        known[builtins, "frozenset"] = _Callable(frozenset)
        known[builtins, "bytes"] = _Callable(_no_bytes)
    return known


_NDARRAY = _Callable(lambda *_: _refuse("numpy.ndarray"))  # only told, never called
_KNOWN = _known()
